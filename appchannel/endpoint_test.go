package appchannel_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"github.com/sidecast/sidecast/appchannel"
	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/fault"
)

func openEndpoint(t *testing.T, handler http.HandlerFunc) *appchannel.Endpoint {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	e, err := appchannel.OpenEndpoint(appchannel.EndpointConfig{BaseURL: server.URL, MaxBody: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.CloseIdle)
	return e
}

func TestEndpointReadsNoUnboundedAnswer(t *testing.T) {
	e := openEndpoint(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/told" {
			w.Header().Set("Content-Length", "99999999")
		}
		piece := make([]byte, 32<<10)
		for {
			if _, err := w.Write(piece); err != nil {
				return
			}
		}
	})
	for _, method := range []string{"told", "endless"} {
		_, err := e.Invoke(t.Context(), &call.Request{Method: method, Verb: "GET"})
		if fault.ReasonOf(err) != fault.AnswerTooLarge {
			t.Errorf("%s: %v", method, err)
		}
	}
}

// room notes what an answer asks for, and has no more than most.
type room struct{ asked, most int64 }

func (r *room) Take(ctx context.Context, bytes int64) error { return r.Grow(ctx, 0, bytes) }

func (r *room) Grow(_ context.Context, from, to int64) error {
	if from != r.asked {
		return fmt.Errorf("an answer that has room for %d bytes asks for more than %d", r.asked, from)
	}
	if to > r.most {
		return errNoRoom
	}
	r.asked = to
	return nil
}

var errNoRoom = errors.New("no room")

// Room for the whole of an answer is asked for before it is read: at once when its size is told, else as it grows.
func TestEndpointAsksForRoom(t *testing.T) {
	const most = 1 << 20 // of openEndpoint
	e := openEndpoint(t, func(w http.ResponseWriter, r *http.Request) {
		kind, size, _ := strings.Cut(r.URL.Path[1:], "/")
		n, _ := strconv.Atoi(size)
		if kind == "told" {
			w.Header().Set("Content-Length", size)
		} else {
			w.WriteHeader(http.StatusOK)
			_ = http.NewResponseController(w).Flush()
		}
		_, _ = w.Write(bytes.Repeat([]byte("x"), n))
	})
	for _, kind := range []string{"told", "untold"} {
		for _, size := range []int64{0, 1, 32<<10 - 1, 32 << 10, 64 << 10, 500_000, most - 1, most} {
			method := fmt.Sprintf("%s/%d", kind, size)
			r := &room{most: 2 * most}
			answer, err := e.Invoke(call.WithRoom(t.Context(), r), &call.Request{Method: method, Verb: "GET"})
			if err != nil || int64(len(answer.Body)) != size || bytes.Count(answer.Body, []byte("x")) != len(answer.Body) {
				t.Fatalf("%s: got %v", method, err)
			}
			if r.asked < size || kind == "told" && r.asked > size+1 {
				t.Errorf("%s: room for %d bytes was asked for", method, r.asked)
			}
			if size < 500_000 {
				continue
			}
			if _, err := e.Invoke(call.WithRoom(t.Context(), &room{most: size / 2}), &call.Request{Method: method, Verb: "GET"}); !errors.Is(err, errNoRoom) {
				t.Errorf("%s: without room: %v", method, err)
			}
		}
		head, err := e.Invoke(call.WithRoom(t.Context(), &room{most: 64 << 10}), &call.Request{Method: "told/1000000", Verb: "HEAD"})
		if err != nil || len(head.Body) != 0 {
			t.Errorf("HEAD: %v", err)
		}
	}
}

func TestEndpointFaults(t *testing.T) {
	held := make(chan struct{})
	e := openEndpoint(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/broken":
			conn, _, _ := http.NewResponseController(w).Hijack()
			conn.Close()
		case "/garbage":
			conn, _, _ := http.NewResponseController(w).Hijack()
			_, _ = conn.Write([]byte("no HTTP at all\r\n\r\n"))
			conn.Close()
		case "/slow":
			close(held)
			<-r.Context().Done()
		}
	})
	for method, want := range map[string]fault.Reason{"broken": fault.EndpointBroke, "garbage": fault.EndpointBroke} {
		_, err := e.Invoke(t.Context(), &call.Request{Method: method})
		if fault.ReasonOf(err) != want || fault.NotSent(err) {
			t.Errorf("%s: %v", method, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-held; cancel() }()
	if _, err := e.Invoke(ctx, &call.Request{Method: "slow"}); fault.KindOf(err) != fault.Canceled {
		t.Errorf("got %v", err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody, err := e.At("http://" + listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	listener.Close()
	if _, err := nobody.Invoke(t.Context(), &call.Request{Method: "x"}); fault.ReasonOf(err) != fault.EndpointUnreachable || !fault.NotSent(err) {
		t.Errorf("got %v", err)
	}
	for _, base := range []string{"", "ftp://host", "http://", "http://host?x", "http://host#x", "://", "http://[::1"} {
		if _, err := e.At(base); fault.KindOf(err) != fault.Invalid {
			t.Errorf("%q: %v", base, err)
		}
	}
	if _, err := e.Invoke(t.Context(), &call.Request{Method: "x", Verb: "NO VERB"}); fault.KindOf(err) != fault.Invalid {
		t.Errorf("got %v", err)
	}
}

func TestEndpointStream(t *testing.T) {
	e := openEndpoint(t, func(w http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(w)
		_ = control.EnableFullDuplex()
		w.Header().Set("X-Length", r.Header.Get("Transfer-Encoding")+strings.Join(r.TransferEncoding, ","))
		w.WriteHeader(http.StatusAccepted)
		_ = control.Flush()
		if r.URL.Path == "/early" {
			return
		}
		piece := make([]byte, 100)
		for {
			n, err := r.Body.Read(piece)
			_, _ = w.Write(piece[:n])
			_ = control.Flush()
			if err != nil {
				return
			}
		}
	})
	ctx := t.Context()
	s := e.Stream(ctx, &call.Request{Method: "echo"})
	for _, word := range []string{"one", "two"} { // each comes back before the next is sent
		if err := s.Send(ctx, []byte(word)); err != nil {
			t.Fatal(err)
		}
		if head, err := s.Header(ctx); err != nil || head.Status != http.StatusAccepted || head.Header.Get("x-length") != "chunked" {
			t.Fatalf("got %+v %v", head, err)
		}
		if got, err := s.Recv(ctx); err != nil || string(got) != word {
			t.Fatalf("got %q %v", got, err)
		}
	}
	if err := s.CloseSend(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Recv(ctx); !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	s.Close()

	// Without a body the request has none.
	s = e.Stream(ctx, &call.Request{Method: "echo", Verb: "GET"})
	if err := s.CloseSend(ctx); err != nil {
		t.Fatal(err)
	}
	if head, err := s.Header(ctx); err != nil || head.Header.Get("x-length") != "" {
		t.Fatalf("got %+v %v", head, err)
	}
	s.Close()

	// A handler that returns without reading all is no failure of the sender's.
	s = e.Stream(ctx, &call.Request{Method: "early"})
	for {
		if err := s.Send(ctx, make([]byte, 64<<10)); err != nil {
			if !errors.Is(err, io.EOF) && fault.ReasonOf(err) != fault.EndpointBroke {
				t.Errorf("got %v", err)
			}
			break
		}
	}
	s.Close()

	// Closing ends what runs, and what never began.
	s = e.Stream(ctx, &call.Request{Method: "echo"})
	_ = s.Send(ctx, []byte("x"))
	s.Close()
	e.Stream(ctx, &call.Request{Method: "echo"}).Close()
	over, cancel := context.WithCancel(ctx)
	cancel()
	s = e.Stream(ctx, &call.Request{Method: "echo"})
	if _, err := s.Header(over); fault.KindOf(err) != fault.Canceled {
		t.Errorf("got %v", err)
	}
	s.Close()
}
