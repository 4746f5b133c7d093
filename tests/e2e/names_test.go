package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sidecast/sidecast/fault"
	sidecast "github.com/sidecast/sidecast/sdk/go"
	"github.com/sidecast/sidecast/tests/machine"
)

// odd are names that nobody expects, and that somebody uses.
var odd = []string{
	"a b", "a.b", "a*b", "a>b", ">", "*", "..", "../../etc/passwd", "/", "//", "a//b", "a|b", "a||b", "ключ", "鍵", "🔑", "a%2Fb", "%", "a?b=c", "a#b",
	"sc.default.call", "$JS.API.>", "-", "_", "\t", "line\nbreak", "quote\"s", "null\x00byte", "a:b", "a\\b", strings.Repeat("long", 60),
}

// Whatever a key is, two different keys are two items, and a key that is refused is refused as invalid.
func TestOddKeys(t *testing.T) {
	t.Parallel()
	s := machine.New(t).Sidecar("odd")
	c := s.Client()
	ctx, cancel := context.WithTimeout(t.Context(), machine.Patience)
	defer cancel()
	stored := map[string]string{}
	for i, key := range odd {
		_, err := c.State("").Set(ctx, key, []byte(strconv.Itoa(i)))
		switch {
		case err == nil:
			stored[key] = strconv.Itoa(i)
		case fault.KindOf(err) != fault.Invalid:
			t.Errorf("set %q: %v", key, err)
		}
	}
	for key, value := range stored {
		item, found, err := c.State("").Get(ctx, key)
		if err != nil || !found || string(item.Value) != value || item.Key != key {
			t.Errorf("get %q: %q %q %v %v, want %q", key, item.Key, item.Value, found, err, value)
		}
	}
	listed := 0
	for item, err := range c.State("").List(ctx, "", sidecast.PageSize(3)) {
		if err != nil {
			t.Fatal(err)
		}
		if stored[item.Key] != string(item.Value) {
			t.Errorf("the list has %q: %q", item.Key, item.Value)
		}
		listed++
	}
	if listed != len(stored) {
		t.Errorf("the list has %d items, %d were stored", listed, len(stored))
	}
	if len(stored) < 20 {
		t.Errorf("only %d of %d odd keys are taken", len(stored), len(odd))
	}
}

func TestOddTopicsAndLocks(t *testing.T) {
	t.Parallel()
	s := machine.New(t).Sidecar("odd")
	c := s.Client()
	ctx, cancel := context.WithTimeout(t.Context(), machine.Patience)
	defer cancel()
	got := make(chan string, len(odd))
	var handlers []sidecast.Handler
	want := map[string]bool{}
	for _, topic := range odd {
		if _, err := c.Publish(ctx, topic, []byte(topic)); err == nil {
			want[topic] = true
			handlers = append(handlers, sidecast.OnEvent(topic, func(_ context.Context, e *sidecast.Event) error {
				if string(e.Data) != e.Topic {
					t.Errorf("topic %q delivers an event of %q", e.Topic, e.Data)
				}
				got <- e.Topic
				return nil
			}))
		} else if fault.KindOf(err) != fault.Invalid {
			t.Errorf("publish to %q: %v", topic, err)
		}
		lease, err := c.Lock("").Acquire(ctx, topic)
		if err == nil {
			err = c.Lock("").Release(ctx, lease)
		}
		if err != nil && fault.KindOf(err) != fault.Invalid {
			t.Errorf("lock %q: %v", topic, err)
		}
	}
	s.Serve(handlers...)
	for seen := map[string]bool{}; len(seen) < len(want); {
		select {
		case topic := <-got:
			seen[topic] = true
		case <-ctx.Done():
			for topic := range want {
				if !seen[topic] {
					t.Errorf("nothing comes of topic %q", topic)
				}
			}
			return
		}
	}
}

// Methods and header fields reach an app as they were said, or are refused; an HTTP app cannot be made to see another
// request than the one that was made.
func TestOddMethodsAndHeaders(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Injected") != "" || r.Host == "evil" {
			t.Errorf("a header was injected: %v", r.Header)
		}
		fmt.Fprintf(w, "%s %s %s", r.Method, r.URL.Path, r.Header.Get("X-Odd"))
	}))
	defer app.Close()
	_, port, _ := net.SplitHostPort(app.Listener.Addr().String())
	web, stream := m.Sidecar("web", "--app-port", port), m.Sidecar("stream")
	var handlers []sidecast.Handler
	for _, method := range odd {
		handlers = append(handlers, sidecast.Handle(method, func(_ context.Context, r *sidecast.Request) ([]byte, error) {
			return []byte(r.Method), nil
		}))
	}
	stream.Serve(handlers...)
	c := m.Sidecar("caller").Client()
	ctx, cancel := context.WithTimeout(t.Context(), machine.Patience)
	defer cancel()
	machine.Until(t, "both apps answer", func() error {
		_, err := c.Invoke(ctx, "web", "x", nil)
		if err == nil {
			_, err = c.Invoke(ctx, "stream", "-", nil)
		}
		return err
	})
	for _, method := range odd {
		answer, err := c.Invoke(ctx, "stream", method, nil)
		switch {
		case err != nil && fault.KindOf(err) != fault.Invalid:
			t.Errorf("stream app, method %q: %v", method, err)
		case err == nil && string(answer.Data) != method && "/"+string(answer.Data) != method:
			t.Errorf("stream app, method %q arrived as %q", method, answer.Data)
		}
		if answer, err := c.Invoke(ctx, "web", method, nil); err != nil {
			if kind := fault.KindOf(err); kind != fault.Invalid {
				t.Errorf("web app, method %q: %v", method, err)
			}
		} else if !strings.HasPrefix(string(answer.Data), "POST /") {
			t.Errorf("web app, method %q: %d %q", method, answer.Status, answer.Data)
		}
	}
	for _, value := range []string{"plain", "ünï", "two\r\nInjected: yes", "nul\x00", strings.Repeat("x", 32<<10)} {
		_, err := c.Invoke(ctx, "web", "x", nil, sidecast.Metadata("x-odd", value))
		if kind := fault.KindOf(err); kind != fault.None && kind != fault.Invalid {
			t.Errorf("header %.20q: %v", value, err)
		}
	}
	for _, key := range []string{"x odd", "x\r\ninjected", "host", "content-length", "transfer-encoding", "connection", "", "ключ"} {
		_, err := c.Invoke(ctx, "web", "x", []byte("body"), sidecast.Metadata(key, "evil"))
		if kind := fault.KindOf(err); kind != fault.None && kind != fault.Invalid {
			t.Errorf("header key %q: %v", key, err)
		}
	}
	for _, verb := range []string{"GET", "get", "BREW", "", "G ET", "POST / HTTP/1.1\r\nInjected: yes"} {
		_, err := c.Invoke(ctx, "web", "x", nil, sidecast.Verb(verb))
		if kind := fault.KindOf(err); kind != fault.None && kind != fault.Invalid {
			t.Errorf("verb %q: %v", verb, err)
		}
	}
	_ = web
}

// Bytes that are no protocol, on each port of a sidecar.
func TestNoiseOnThePorts(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	s := m.Sidecar("noisy")
	for _, address := range []string{s.GRPC, s.Admin} {
		for _, noise := range []string{"", "\x00\x01\x02", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff", strings.Repeat("A", 1<<20)} {
			conn, err := net.DialTimeout("tcp", address, time.Second)
			if err != nil {
				t.Fatal(err)
			}
			_ = conn.SetDeadline(time.Now().Add(500 * time.Millisecond))
			_, _ = io.WriteString(conn, noise)
			_, _ = io.Copy(io.Discard, io.LimitReader(conn, 1<<10))
			_ = conn.Close()
		}
	}
	m.Must("state", "set", "still", "here")
	if code, _, err := s.HTTP("/healthz"); err != nil || code != http.StatusOK {
		t.Errorf("%d %v", code, err)
	}
}
