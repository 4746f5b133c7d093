package compat

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shirou/gopsutil/v4/process"

	sidecast "github.com/sidecast/sidecast/sdk/go"
	"github.com/sidecast/sidecast/tests/machine"
)

// written is an app whose answers come bit by bit: it goes on when it is told to.
type written struct {
	next  chan struct{}
	wrote atomic.Int64
	ended chan error // tells why an answer ended early
}

func newWritten() *written {
	return &written{next: make(chan struct{}), ended: make(chan error, 1)}
}

// step waits for the test, or for the caller's end.
func (a *written) step(r *http.Request) {
	select {
	case <-a.next:
	case <-r.Context().Done():
	}
}

func (a *written) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	flush := func() { _ = http.NewResponseController(w).Flush() }
	switch r.URL.Path {
	case "/events":
		w.Header().Set("Content-Type", "text/event-stream")
		w.Header().Set("Trailer", "Check")
		w.WriteHeader(http.StatusAccepted)
		for i := range 3 {
			fmt.Fprintf(w, "data: %d\n\n", i)
			flush()
			a.step(r)
		}
		w.Header().Set("Check", "whole")
	case "/known":
		w.Header().Set("Content-Length", "27")
		for i := range 3 {
			fmt.Fprintf(w, "data: %d\n\n", i)
			flush()
			a.step(r)
		}
	case "/large":
		size, _ := strconv.Atoi(r.URL.Query().Get("bytes"))
		block := bytes.Repeat([]byte("0123456789abcdef"), 4096)
		for size > 0 {
			n, err := w.Write(block[:min(size, len(block))])
			a.wrote.Add(int64(n))
			if size -= n; err != nil {
				a.ended <- err
				return
			}
		}
	case "/endless":
		for {
			if _, err := io.WriteString(w, "tick\n"); err != nil {
				a.ended <- err
				return
			}
			flush()
			select {
			case <-time.After(time.Millisecond):
			case <-r.Context().Done():
				a.ended <- r.Context().Err()
				return
			}
		}
	case "/failed":
		w.WriteHeader(http.StatusServiceUnavailable)
		flush()
		a.step(r)
		_, _ = io.WriteString(w, "why")
	case "/short":
		_, _ = io.WriteString(w, "all of it")
	default:
		http.NotFound(w, r)
	}
}

// get asks an app for a path and returns what came before the end of its body.
func (d *daprd) get(ctx context.Context, path string) *http.Response {
	d.t.Helper()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+d.http+path, nil)
	if err != nil {
		d.t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { _ = response.Body.Close() })
	return response
}

// What an app has written is with its caller before it writes more, whatever its caller said of it, and whoever called.
func TestAnswersComeAsTheyAreWritten(t *testing.T) {
	m, app := machine.New(t), newWritten()
	own := start(t, m, "server", "--app-port", serve(t, app), "--app-max-concurrency", "1")
	own.await("/v1.0/healthz")
	client := start(t, m, "client")
	for who, d := range map[string]*daprd{"another": client, "the app itself": own} {
		for _, c := range []struct {
			path   string
			status int
			check  string
		}{{"events", 202, "whole"}, {"known", 200, ""}} {
			response := d.get(t.Context(), "/v1.0/invoke/server/method/"+c.path)
			for i := range 3 {
				event := make([]byte, len("data: 0\n\n"))
				if _, err := io.ReadFull(response.Body, event); err != nil || string(event) != fmt.Sprintf("data: %d\n\n", i) {
					t.Fatalf("%s to %s: event %d: %q %v", who, c.path, i, event, err)
				}
				app.next <- struct{}{}
			}
			if rest, err := io.ReadAll(response.Body); len(rest) > 0 || err != nil || response.StatusCode != c.status || response.Trailer.Get("Check") != c.check {
				t.Errorf("%s to %s: %d %q %v %v", who, c.path, response.StatusCode, rest, response.Trailer, err)
			}
		}
		// A failure comes when it is whole.
		go func() { app.next <- struct{}{} }()
		d.expect(503, "why", "GET", "/v1.0/invoke/server/method/failed", "")
		if got := d.do("GET", "/v1.0/invoke/server/method/short", ""); got.body != "all of it" || got.header.Get("Content-Length") != "9" {
			t.Errorf("%s: a short answer came as %v", who, got)
		}
		if got := d.do("HEAD", "/v1.0/invoke/server/method/large?bytes=100000", ""); got.status != 200 || got.body != "" {
			t.Errorf("%s: a HEAD came as %v", who, got)
		}
	}
}

// Answers may be larger than what any sidecar holds in its memory.
func TestLargeAnswersTakeLittleMemory(t *testing.T) {
	m, app := machine.New(t), newWritten()
	server := start(t, m, "server", "--app-port", serve(t, app))
	server.await("/v1.0/healthz")
	client := start(t, m, "client")
	const size = 200 << 20
	response := client.get(t.Context(), "/v1.0/invoke/server/method/large?bytes="+strconv.Itoa(size))
	if n, err := io.Copy(io.Discard, response.Body); n != size || err != nil {
		t.Errorf("%d bytes came: %v", n, err)
	}
	for name, d := range map[string]*daprd{"caller": client, "server": server} {
		p, err := process.NewProcess(int32(d.PID()))
		if err != nil {
			t.Fatal(err)
		}
		if memory, err := p.MemoryInfo(); err != nil || memory.RSS > 160<<20 {
			t.Errorf("the %s's sidecar has %v: %v", name, memory, err)
		}
	}
}

// A caller that reads slowly holds its app back, and one that goes away ends what the app does for it.
func TestCallersThatDoNotReadHoldTheAppBack(t *testing.T) {
	m, app := machine.New(t), newWritten()
	own := start(t, m, "server", "--app-port", serve(t, app))
	own.await("/v1.0/healthz")
	client := start(t, m, "client")
	const size = 1 << 30
	for who, d := range map[string]*daprd{"another": client, "the app itself": own} {
		app.wrote.Store(0)
		ctx, cancel := context.WithCancel(t.Context())
		response := d.get(ctx, "/v1.0/invoke/server/method/large?bytes="+strconv.Itoa(size))
		if _, err := io.ReadFull(response.Body, make([]byte, 1<<20)); err != nil {
			t.Fatal(err)
		}
		before := int64(-1)
		machine.Until(t, "the app stands still", func() error {
			if now := app.wrote.Load(); now != before {
				before = now
				time.Sleep(300 * time.Millisecond)
				return fmt.Errorf("it has written %d bytes", now)
			}
			return nil
		})
		if before > 64<<20 {
			t.Errorf("%s: %d MiB are on their way to a caller that does not read", who, before>>20)
		}
		if _, err := io.ReadFull(response.Body, make([]byte, 64<<20)); err != nil {
			t.Errorf("%s, when it reads on: %v", who, err)
		}
		cancel()
		if err := receive(t, app.ended); err == nil {
			t.Errorf("%s went away, and the app wrote on", who)
		}
		d.expect(200, "all of it", "GET", "/v1.0/invoke/server/method/short", "")
	}
}

// An answer whose end is lost is cut off: nobody takes it for a whole one.
func TestAnswersWhoseEndIsLostAreCutOff(t *testing.T) {
	m, app := machine.New(t), newWritten()
	start(t, m, "host") // of the fabric
	server := start(t, m, "server", "--app-port", serve(t, app))
	server.await("/v1.0/healthz")
	client := start(t, m, "client")
	response := client.get(t.Context(), "/v1.0/invoke/server/method/endless")
	if _, err := io.ReadFull(response.Body, make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	server.Kill()
	if rest, err := io.ReadAll(response.Body); err == nil {
		t.Errorf("after the app's sidecar was killed the answer ends well, with %d bytes more", len(rest))
	}
	if err := receive(t, app.ended); err == nil {
		t.Error("the app wrote on")
	}
}

// Timeouts hold for the head of an answer.
func TestTimeoutsHoldForTheHeadOfAnAnswer(t *testing.T) {
	m, app := machine.New(t), newWritten()
	start(t, m, "slow", "--app-port", serve(t, app)).await("/v1.0/healthz")
	d := startWith(t, m, policies, "guarded")
	response := d.get(t.Context(), "/v1.0/invoke/slow/method/events")
	time.Sleep(300 * time.Millisecond) // more than the policy allows for an answer
	for range 3 {
		app.next <- struct{}{}
	}
	if all, err := io.ReadAll(response.Body); err != nil || strings.Count(string(all), "data: ") != 3 {
		t.Errorf("an answer that began in time came as %q: %v", all, err)
	}
	d.expect(500, `{"errorCode":"ERR_DIRECT_INVOKE","message":"failed to invoke, id: slow, err: …`, "GET", "/v1.0/invoke/slow/method/failed", "")
}

// An app that serves by SDK streams to a caller who wants its answer as it comes.
func TestAppsThatServeBySDKAnswerAsTheyWrite(t *testing.T) {
	m := machine.New(t)
	next := make(chan struct{})
	m.Sidecar("native").Serve(sidecast.HandleStream("events", func(ctx context.Context, _ *sidecast.Request, s *sidecast.Stream) error {
		for i := range 3 {
			if _, err := fmt.Fprintf(s, "data: %d\n\n", i); err != nil {
				return err
			}
			select {
			case <-next:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	}))
	client := start(t, m, "client")
	for _, field := range []string{"Accept: text/event-stream", "Accept: application/json, application/x-ndjson", "Dapr-Stream: true"} {
		name, value, _ := strings.Cut(field, ": ")
		ctx, cancel := context.WithTimeout(t.Context(), machine.Patience)
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+client.http+"/v1.0/invoke/native/method/events", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set(name, value)
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		if response.StatusCode != http.StatusOK {
			text, _ := io.ReadAll(response.Body)
			t.Fatalf("%s: %d %s", field, response.StatusCode, text)
		}
		for i := range 3 {
			event := make([]byte, len("data: 0\n\n"))
			if _, err := io.ReadFull(response.Body, event); err != nil || string(event) != fmt.Sprintf("data: %d\n\n", i) {
				t.Fatalf("%s: event %d: %q %v", field, i, event, err)
			}
			next <- struct{}{}
		}
		if rest, err := io.ReadAll(response.Body); err != nil || len(rest) > 0 {
			t.Errorf("%s: it ends with %q, %v", field, rest, err)
		}
		response.Body.Close()
		cancel()
	}
}
