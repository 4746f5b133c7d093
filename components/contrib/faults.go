package contrib

import (
	"context"
	"errors"
	"io"
	"net"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/fault"
)

// failure turns an error of the library into a fault. ctx is the caller's.
func failure(ctx context.Context, op string, err error) error {
	var known *fault.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &known):
		return err
	case ctx.Err() != nil, atDeadline(ctx, err):
		return fault.FromContext(op, ctx, "the backend")
	}
	return fault.E(op, fault.None, reasonOf(err), err)
}

// atDeadline says whether err is that of a socket whose deadline is the context's: it may come a moment before the
// context's own, which is then waited for.
func atDeadline(ctx context.Context, err error) bool {
	var timeout interface{ Timeout() bool }
	if err == nil {
		return false
	}
	late := errors.As(err, &timeout) && timeout.Timeout() || strings.HasSuffix(err.Error(), "i/o timeout") // of one that is not wrapped
	deadline, limited := ctx.Deadline()
	if !late || !limited || time.Until(deadline) > 5*time.Millisecond {
		return false
	}
	<-ctx.Done()
	return true
}

// badOpen is the error of a component that does not open: its server, or what the manifest says, is to blame. The library
// names a setting in its message, if at all: the place is that of the longest name that it holds.
func badOpen(ctx context.Context, op string, s components.Settings, err error) error {
	var known *fault.Error
	if errors.As(err, &known) {
		return err
	}
	if ctx.Err() != nil || reasonOf(err) != fault.BackendFailed || answered(err) {
		return failure(ctx, op, err)
	}
	text, key := strings.ReplaceAll(strings.ToLower(err.Error()), " ", ""), "" // it may say "connection string"
	for name := range s.Values {
		if s.Given(name) && len(name) > len(key) && strings.Contains(text, strings.ToLower(name)) {
			key = name
		}
	}
	return s.Invalid(key, err)
}

// answered says whether err is what a server said.
func answered(err error) bool {
	var sql interface{ SQLState() string }
	var redis interface{ RedisError() }
	return errors.As(err, &sql) || errors.As(err, &redis) || mysqlNumber(err) != 0 || slices.ContainsFunc(refusals, func(s string) bool {
		return strings.Contains(err.Error(), s)
	})
}

// refusals are the words of servers that do not let the component in, in errors that the library does not wrap.
var refusals = []string{"NOAUTH", "WRONGPASS", "NOPERM", "ACCESS_REFUSED", "Authorization Violation", "replication is not supported"}

// reasonOf is what kind of trouble err is: BACKEND_FAILED when it is none of those that have a name.
func reasonOf(err error) fault.Reason {
	var sql interface{ SQLState() string }
	if errors.As(err, &sql) {
		return sqlReason(sql.SQLState())
	}
	var network net.Error
	var bad *url.Error
	switch {
	case errors.As(err, &bad) && bad.Op == "parse": // it calls itself a net.Error
		return fault.BackendFailed
	case errors.As(err, &network), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed),
		errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE),
		errors.Is(err, context.DeadlineExceeded):
		return fault.BackendDown
	}
	text := err.Error()
	for _, full := range []string{"OOM command not allowed", "database or disk is full"} {
		if strings.Contains(text, full) {
			return fault.StoreFull
		}
	}
	for _, down := range unreachable {
		if strings.Contains(text, down) {
			return fault.BackendDown
		}
	}
	return fault.BackendFailed
}

// unreachable are the words of errors that the library does not wrap.
var unreachable = []string{
	"connection refused", "connection reset", "no such host", "i/o timeout", "broken pipe", "network is unreachable", "EOF",
	"connection pool timeout", "client is closed", "channel/connection is not open", "channel not initialized",
	"nats: no servers available", "nats: connection closed", "nats: timeout", "did not receive confirmation",
	"LOADING ", "MASTERDOWN ", "CLUSTERDOWN ", "TRYAGAIN ", "READONLY ", "SQLITE_BUSY", "database is locked",
}

// sqlReason reads a SQLSTATE: classes 08, 57 and 53 of the PostgreSQL manual, appendix A.
func sqlReason(state string) fault.Reason {
	switch {
	case state == "53100" || state == "53200": // disk full, out of memory
		return fault.StoreFull
	case strings.HasPrefix(state, "08"), strings.HasPrefix(state, "57P"), strings.HasPrefix(state, "53"), strings.HasPrefix(state, "40"):
		return fault.BackendDown
	}
	return fault.BackendFailed
}
