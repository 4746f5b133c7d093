// Package fault is the one error system of Sidecast: a kind that programs switch on, a stable reason that operators
// search for, and a sentence that says what was tried and what to do.
//
// Every error that leaves a package of the runtime is, or wraps, a *fault.Error. Switch on KindOf, never on text:
//
//	if fault.KindOf(err) == fault.Conflict { … read again, then write … }
//
// Kinds map to gRPC codes and HTTP statuses in one table (kinds.go), reasons to their documentation in another
// (reasons.go). This package imports only the standard library; the gRPC form of an error is in fault/faultgrpc.
package fault

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"
)

// Error is what went wrong, in the four parts a caller may want: where, what kind, why, and the cause.
type Error struct {
	// Op is what was tried and on what: `invoke pricing/price`, `state statestore: set`.
	Op string
	// Kind is what programs switch on.
	Kind Kind
	// Reason is the stable word documented in docs/reference/errors.md.
	Reason Reason
	// Err is the cause, or nil. Its text is part of the message: it must hold no secret.
	Err error
	// RetryAfter is how long a caller should wait before it tries again; zero says nothing.
	RetryAfter time.Duration
	// Meta holds small facts for programs and people: app, lane, policy, attempts. Never a secret.
	Meta map[string]string
}

// E builds an error. The kind of a zero Kind is the reason's own.
func E(op string, kind Kind, reason Reason, err error) *Error {
	if kind == None {
		kind = reason.Kind()
	}
	return &Error{Op: op, Kind: kind, Reason: reason, Err: err}
}

// New builds an error of the reason's own kind whose cause is the formatted text. Wrap a cause with %w.
func New(op string, reason Reason, format string, args ...any) *Error {
	return E(op, reason.Kind(), reason, fmt.Errorf(format, args...))
}

// With returns a copy of e that carries one more fact.
func (e *Error) With(key, value string) *Error {
	c := *e
	c.Meta = maps.Clone(e.Meta)
	if c.Meta == nil {
		c.Meta = make(map[string]string, 1)
	}
	c.Meta[key] = value
	return &c
}

// After returns a copy of e that tells the caller how long to wait before it tries again.
func (e *Error) After(d time.Duration) *Error {
	c := *e
	c.RetryAfter = d
	return &c
}

// Error is `op: cause [REASON]`.
func (e *Error) Error() string {
	text := e.Kind.String()
	if e.Err != nil {
		text = e.Err.Error()
	}
	var b strings.Builder
	b.Grow(len(e.Op) + len(text) + len(e.Reason) + len(":  []"))
	if e.Op != "" {
		b.WriteString(e.Op)
		b.WriteString(": ")
	}
	b.WriteString(text)
	if e.Reason != "" && !strings.Contains(b.String(), string(e.Reason)) {
		b.WriteString(" [")
		b.WriteString(string(e.Reason))
		b.WriteString("]")
	}
	return b.String()
}

// Unwrap gives the cause to errors.Is and errors.As.
func (e *Error) Unwrap() error { return e.Err }

// KindOf tells the kind of err: that of the outermost fault in its chain, Timeout and Canceled for the context errors,
// None for nil and Internal for anything else.
func KindOf(err error) Kind {
	if err == nil {
		return None
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return Timeout
	case errors.Is(err, context.Canceled):
		return Canceled
	}
	return Internal
}

// ReasonOf tells the reason of err, or "" when it is no fault.
func ReasonOf(err error) Reason {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Reason
	}
	return ""
}

// RetryAfter tells how long err asks its caller to wait; zero says nothing.
func RetryAfter(err error) time.Duration {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.RetryAfter
	}
	return 0
}

// NotSent reports whether err says for certain that the work never began, so that trying again cannot do it twice.
func NotSent(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Reason.NotSent()
}

// FromContext turns the end of ctx into a fault: Timeout or Canceled, with op and what it was waiting for.
func FromContext(op string, ctx context.Context, waitingFor string) *Error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return New(op, DeadlineExceeded, "the deadline passed while waiting for %s", waitingFor)
	}
	return New(op, CallCanceled, "the caller went away while waiting for %s", waitingFor)
}
