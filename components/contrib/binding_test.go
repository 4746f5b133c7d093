//go:build linux

package contrib

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sidecast/sidecast/binding"
	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/tests/servers"
)

// openBinding opens a binding in both directions, as far as it has them, and closes it with the test.
func openBinding(t testing.TB, c components.Component, settings map[string]string) components.Backend {
	t.Helper()
	both := host
	both.Binding = components.Binding{Input: true, Output: true}
	b, err := c.Open(patiently(t), both, settings)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(patiently(t)); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return b
}

// operate does an operation that has to succeed; metadata is key, value and so on.
func operate(t testing.TB, b components.Backend, operation, data string, metadata ...string) *binding.Response {
	t.Helper()
	got, err := b.(binding.Output).Invoke(patiently(t), asked(operation, data, metadata...))
	if err != nil {
		t.Fatalf("%s: %v", operation, err)
	}
	return got
}

func asked(operation, data string, metadata ...string) binding.Request {
	r := binding.Request{Operation: operation, Data: []byte(data), Metadata: map[string]string{}}
	for i := 0; i+1 < len(metadata); i += 2 {
		r.Metadata[metadata[i]] = metadata[i+1]
	}
	return r
}

func TestRedisBinding(t *testing.T) {
	t.Parallel()
	b := openBinding(t, redisBinding, redisSettings(t))
	if got := operate(t, b, "get", "", "key", "k"); len(got.Data) > 0 {
		t.Errorf("a key that is not there holds %q", got.Data)
	}
	operate(t, b, "create", "v", "key", "k")
	if got := operate(t, b, "get", "", "key", "k"); string(got.Data) != "v" {
		t.Errorf("got %q", got.Data)
	}
	operate(t, b, "increment", "", "key", "n")
	operate(t, b, "increment", "", "key", "n")
	if got := operate(t, b, "get", "", "key", "n", "delete", "true"); string(got.Data) != "2" {
		t.Errorf("counted to %q", got.Data)
	}
	operate(t, b, "delete", "", "key", "k")
	_, err := b.(binding.Output).Invoke(t.Context(), asked("get", ""))
	if fault.ReasonOf(err) != fault.BackendFailed || !strings.Contains(err.Error(), "redis binding: missing key in request metadata") {
		t.Errorf("a request without a key gives %v", err)
	}
}

func TestPostgresBinding(t *testing.T) {
	t.Parallel()
	b := openBinding(t, postgresBinding, map[string]string{"connectionString": servers.Postgres(t)})
	operate(t, b, "exec", "", "sql", "DROP TABLE IF EXISTS bound")
	operate(t, b, "exec", "", "sql", "CREATE TABLE bound (id INT, name TEXT)")
	got := operate(t, b, "exec", "", "sql", "INSERT INTO bound VALUES ($1, $2), (2, 'b')", "params", `[1, "a"]`)
	if got.Metadata["rows-affected"] != "2" || got.Metadata["operation"] != "exec" {
		t.Errorf("got %v", got.Metadata)
	}
	if got := operate(t, b, "close", ""); got != nil {
		t.Errorf("close answers %v", got)
	}
	if got := operate(t, b, "query", "", "sql", "SELECT * FROM bound ORDER BY id"); string(got.Data) != `[[1,"a"],[2,"b"]]` {
		t.Errorf("got %s", got.Data)
	}
	if _, err := b.(binding.Output).Invoke(t.Context(), asked("exec", "", "sql", "BROKEN")); fault.KindOf(err) == fault.None {
		t.Error("a wrong statement is no error")
	}
}

func TestMySQLBinding(t *testing.T) {
	t.Parallel()
	b := openBinding(t, mysqlBinding, map[string]string{"url": "root@tcp(" + servers.MySQL(t) + ")/"})
	operate(t, b, "exec", "", "sql", "CREATE OR REPLACE DATABASE bound")
	operate(t, b, "exec", "", "sql", "CREATE TABLE bound.names (id INT, name TEXT)")
	got := operate(t, b, "exec", "", "sql", "INSERT INTO bound.names VALUES (?, ?), (2, 'b')", "params", `[1, "a"]`)
	if got.Metadata["rows-affected"] != "2" || got.Metadata["operation"] != "exec" {
		t.Errorf("got %v", got.Metadata)
	}
	if got := operate(t, b, "close", ""); got != nil {
		t.Errorf("close answers %v", got)
	}
	if got := operate(t, b, "query", "", "sql", "SELECT * FROM bound.names ORDER BY id"); string(got.Data) != `[{"id":1,"name":"a"},{"id":2,"name":"b"}]` {
		t.Errorf("got %s", got.Data)
	}
	if _, err := b.(binding.Output).Invoke(t.Context(), asked("exec", "", "sql", "BROKEN")); fault.KindOf(err) == fault.None {
		t.Error("a wrong statement is no error")
	}
}

func TestHTTPBindingKeepsToItsLimits(t *testing.T) {
	t.Parallel()
	hang := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/large":
			_, _ = io.WriteString(w, strings.Repeat("x", 2000))
		case "/hang":
			select {
			case <-hang:
			case <-r.Context().Done():
			}
		case "/busy":
			w.WriteHeader(http.StatusServiceUnavailable)
		default:
			_, _ = io.WriteString(w, r.Header.Get("X-Token")+" "+r.Header.Get("Content-Type"))
		}
	}))
	defer server.Close()
	defer close(hang)
	b := openBinding(t, httpBinding, map[string]string{
		"url": server.URL, "maxResponseBodySize": "1k", "responseTimeout": "50ms", "securityTokenHeader": "X-Token", "securityToken": "secret",
	})
	for path, want := range map[string]fault.Reason{"/large": fault.AnswerTooLarge, "/hang": fault.BackendDown, "/busy": fault.BackendFailed} {
		_, err := b.(binding.Output).Invoke(patiently(t), asked("get", "", "path", path))
		if fault.ReasonOf(err) != want {
			t.Errorf("%s: %v is not %s", path, err, want)
		}
		if path == "/busy" && fault.KindOf(err) != fault.Unavailable {
			t.Errorf("a 503 is %v", fault.KindOf(err))
		}
	}
	for url, ask := range map[string]binding.Request{"http://127.0.0.1:1/T0K3N": asked("get", ""), server.URL + "/T0K3N": asked("get", "", "path", "a\nb")} {
		_, err := openBinding(t, httpBinding, map[string]string{"url": url}).(binding.Output).Invoke(patiently(t), ask)
		if err == nil || strings.Contains(err.Error(), "T0K3N") {
			t.Errorf("an error must not show the URL: %v", err)
		}
	}
	wide := openBinding(t, httpBinding, map[string]string{"url": server.URL, "securityTokenHeader": "X-Token", "securityToken": "secret"})
	if got := operate(t, wide, "post", "", "Content-Type", "text/plain"); string(got.Data) != "secret text/plain" {
		t.Errorf("got %q", got.Data)
	}
	for key, value := range map[string]string{"MTLSRootCA": "/does/not/exist", "maxResponseBodySize": "much", "responseTimeout": "long"} {
		_, err := httpBinding.Open(t.Context(), host, map[string]string{"url": server.URL, key: value})
		if fault.ReasonOf(err) != fault.BadManifest || !strings.Contains(err.Error(), key) {
			t.Errorf("%s: %v", key, err)
		}
	}
}

// mailbox is a mail server that takes what it is sent.
func mailbox(t *testing.T) (address string, letters <-chan string) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan string, 100)
	var serving sync.WaitGroup
	t.Cleanup(func() { listener.Close(); serving.Wait() })
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { takeMail(conn, got) })
		}
	})
	return listener.Addr().String(), got
}

func takeMail(conn net.Conn, got chan<- string) {
	defer conn.Close()
	var letter strings.Builder
	in := bufio.NewReader(conn)
	fmt.Fprint(conn, "220 here\r\n")
	for inData := false; ; {
		line, err := in.ReadString('\n')
		switch {
		case err != nil:
			return
		case inData && line == ".\r\n":
			inData = false
			got <- letter.String()
			letter.Reset()
		case inData:
			letter.WriteString(line)
			continue
		case strings.HasPrefix(line, "RCPT"):
			letter.WriteString(line)
		case strings.HasPrefix(line, "DATA"):
			inData = true
			fmt.Fprint(conn, "354 go on\r\n")
			continue
		case strings.HasPrefix(line, "QUIT"):
			fmt.Fprint(conn, "221 bye\r\n")
			return
		}
		fmt.Fprint(conn, "250 fine\r\n")
	}
}

// A request does not change what the next one means.
func TestSMTPBinding(t *testing.T) {
	t.Parallel()
	address, letters := mailbox(t)
	at, port, _ := net.SplitHostPort(address)
	b := openBinding(t, smtpBinding, map[string]string{
		"host": at, "port": port, "emailFrom": "a@example.org", "emailTo": "b@example.org", "subject": "first",
	})
	operate(t, b, "create", `"<b>one</b>"`, "emailTo", "c@example.org", "subject", "second", "emailBCC", "hidden@example.org")
	operate(t, b, "create", "two")
	for i, want := range [][]string{{"<c@example.org>", "<hidden@example.org>", "Subject: second", "<b>one</b>"}, {"<b@example.org>", "Subject: first", "two"}} {
		got := <-letters
		for _, part := range want {
			if !strings.Contains(got, part) {
				t.Errorf("letter %d does not hold %q:\n%s", i, part, got)
			}
		}
		if i == 1 && strings.Contains(got, "hidden") {
			t.Errorf("the second letter goes to the receivers of the first:\n%s", got)
		}
	}
}

func TestBindingsOutliveTheirServers(t *testing.T) {
	t.Parallel()
	server := servers.Own(t, servers.OfRedis)
	b := openBinding(t, redisBinding, redisAt(server.Address(), "0"))
	set := func(ctx context.Context) error {
		_, err := b.(binding.Output).Invoke(ctx, asked("create", "v", "key", "k"))
		return err
	}
	eventually(t, "create", set)
	killed(t, server, func() { away(t, "create", attempt(t, set)) })
	eventually(t, "create", set)

	queue := servers.Own(t, servers.OfRabbitMQ)
	r := openBinding(t, rabbitBinding, map[string]string{
		"host": "amqp://guest:guest@" + queue.Address(), "queueName": "q", "durable": "true", "reconnectWaitInSeconds": "0.1s",
	})
	got := make(chan string, 1000)
	reads(t, r, func(e binding.Event) ([]byte, error) { got <- string(e.Data); return nil, nil })
	send := func(data string) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := r.(binding.Output).Invoke(ctx, asked("create", data))
			return err
		}
	}
	eventually(t, "create", send("before"))
	if e := <-got; e != "before" {
		t.Errorf("got %q", e)
	}
	killed(t, queue, func() {
		if err := attempt(t, send("lost")); err != nil && fault.KindOf(err) != fault.Unavailable {
			t.Errorf("create without a server gave %v", err)
		}
	})
	eventually(t, "create", func(ctx context.Context) error { // a connection that is made anew may not know of the queue yet
		if err := send("after")(ctx); err != nil {
			return err
		}
		select {
		case <-got:
			return nil
		case <-time.After(time.Second):
			return errors.New("it does not arrive")
		}
	})
}

// A library that hangs keeps its slots, and the calls that find none cost nothing.
func TestWhatHangsIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, slots, hang := newLife(slog.New(slog.DiscardHandler)), make(chan struct{}, 1), make(chan struct{})
		var began atomic.Int32
		try := func() error {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, err := bounded(ctx, l, slots, func() (struct{}, error) { began.Add(1); <-hang; return struct{}{}, nil })
			return err
		}
		for range 3 {
			if err := try(); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v", err)
			}
		}
		if began.Load() != 1 {
			t.Errorf("%d calls are at work, with room for one", began.Load())
		}
		close(hang)
		if err := try(); err != nil || began.Load() != 2 {
			t.Errorf("%d began, and the last ended with %v", began.Load(), err)
		}
		l.strays.Wait()
	})
}
