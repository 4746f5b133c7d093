package appchannel_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/sidecast/sidecast/appchannel"
	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/fault"
)

// taker is a Sink that hands each piece to the test.
type taker struct {
	head    *call.Response
	pieces  chan string
	trailer call.Header
}

func (k *taker) Begin(head *call.Response) error { k.head = head; return nil }
func (k *taker) Send(piece []byte) error         { k.pieces <- string(piece); return nil }
func (k *taker) End(trailer call.Header)         { k.trailer = trailer }

const mostHeldBack = 100 << 10

// slowly is an HTTP server that goes on with its answers when the test says so.
func slowly(next <-chan struct{}, gone chan<- struct{}) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		bit := func(text string) {
			_, _ = io.WriteString(w, text)
			_ = http.NewResponseController(w).Flush()
		}
		wait := func() {
			select {
			case <-next:
			case <-r.Context().Done():
				gone <- struct{}{}
				panic(http.ErrAbortHandler)
			}
		}
		switch r.URL.Path {
		case "/small":
			_, _ = io.WriteString(w, "small")
		case "/none":
			w.WriteHeader(http.StatusNoContent)
		case "/chunks": // all at once
			conn, _, err := w.(http.Hijacker).Hijack()
			if err == nil {
				_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: T\r\n\r\n3\r\nabc\r\n3\r\ndef\r\n0\r\nT: 1\r\n\r\n")
				conn.Close()
			}
		case "/failed":
			w.WriteHeader(http.StatusServiceUnavailable)
			bit("a")
			wait()
			bit("b")
		case "/hugely":
			w.WriteHeader(http.StatusInternalServerError)
			bit(strings.Repeat("x", 2*mostHeldBack))
		case "/known":
			w.Header().Set("Content-Length", "3")
			for _, text := range []string{"a", "b", "c"} {
				bit(text)
				wait()
			}
		case "/bits":
			w.Header().Set("Trailer", "T")
			for _, text := range []string{"a", "b", "c"} {
				bit(text)
				wait()
			}
			w.Header().Set("T", "1")
		case "/broken":
			bit("a")
			wait()
			panic(http.ErrAbortHandler)
		case "/silent":
			wait()
		}
	}
}

// asking makes a call under a context of its attempt and one of its own.
type asking func(ctx, whole context.Context, path string) (*taker, *call.Pieces, <-chan result)

// inPieces runs a test with each channel that passes answers on in pieces.
func inPieces(t *testing.T, f func(t *testing.T, ask asking, next, gone chan struct{})) {
	type invoker interface {
		Invoke(context.Context, *call.Request) (*call.Response, error)
	}
	next, gone := make(chan struct{}), make(chan struct{}, 1)
	server := httptest.NewServer(slowly(next, gone))
	defer server.Close()
	endpoint, err := appchannel.OpenEndpoint(appchannel.EndpointConfig{BaseURL: server.URL, MaxBody: mostHeldBack})
	if err != nil {
		t.Fatal(err)
	}
	defer endpoint.CloseIdle()
	address, _ := strings.CutPrefix(server.URL, "http://")
	for name, of := range map[string]invoker{"app": openHTTP(t, appchannel.Callback{Address: address, MaxBody: mostHeldBack}), "endpoint": endpoint} {
		t.Run(name, func(t *testing.T) {
			f(t, func(ctx, whole context.Context, path string) (*taker, *call.Pieces, <-chan result) {
				to := &taker{pieces: make(chan string)}
				verb, method, ok := strings.Cut(path, " ")
				if !ok {
					verb, method = http.MethodGet, path
				}
				pieces, done := call.PiecesTo(whole, to), make(chan result, 1)
				go func() {
					resp, err := of.Invoke(ctx, &call.Request{Method: method, Verb: verb, Pieces: pieces})
					done <- result{resp, err}
				}()
				return to, pieces, done
			}, next, gone)
		})
	}
}

type result struct {
	resp *call.Response
	err  error
}

func TestWhatIsWholeAtOnceOrFailedComesWhole(t *testing.T) {
	inPieces(t, func(t *testing.T, ask asking, next, _ chan struct{}) {
		for path, want := range map[string]struct {
			status        int
			body, trailer string
		}{
			"small": {200, "small", ""}, "none": {204, "", ""}, "HEAD small": {200, "", ""}, "chunks": {200, "abcdef", "1"}, "failed": {503, "ab", ""},
		} {
			_, pieces, done := ask(t.Context(), t.Context(), path)
			if path == "failed" {
				next <- struct{}{}
			}
			got := <-done
			if got.err != nil || got.resp.Passed || got.resp.Status != want.status || string(got.resp.Body) != want.body || got.resp.Trailer.Get("t") != want.trailer || pieces.Taken() {
				t.Errorf("%s: %+v, %v, taken %v", path, got.resp, got.err, pieces.Taken())
			}
		}
	})
}

func TestWhatIsNotWholePassesAsItComes(t *testing.T) {
	inPieces(t, func(t *testing.T, ask asking, next, _ chan struct{}) {
		for path, trailer := range map[string]string{"bits": "1", "known": ""} {
			within, cancel := context.WithCancel(t.Context())
			defer cancel()
			to, _, done := ask(within, t.Context(), path)
			for _, want := range []string{"a", "b", "c"} {
				if got := <-to.pieces; got != want {
					t.Errorf("%s: %q came, want %q", path, got, want)
				}
				cancel() // the time of the attempt is for the head
				next <- struct{}{}
			}
			got := <-done
			if got.err != nil || !got.resp.Passed || to.head.Status != 200 || to.trailer.Get("t") != trailer || got.resp.Body != nil {
				t.Errorf("%s: %+v, %v, head %+v, trailer %v", path, got.resp, got.err, to.head, to.trailer)
			}
		}
		// A failure that is too large to be held back.
		to, _, done := ask(t.Context(), t.Context(), "hugely")
		size := 0
		for size < 2*mostHeldBack {
			size += len(<-to.pieces)
		}
		if got := <-done; got.err != nil || !got.resp.Passed || got.resp.Status != 500 || size != 2*mostHeldBack {
			t.Errorf("%+v, %v after %d bytes", got.resp, got.err, size)
		}
	})
}

func TestAnswersInPiecesEndEarly(t *testing.T) {
	inPieces(t, func(t *testing.T, ask asking, next, gone chan struct{}) {
		// The connection breaks.
		to, _, done := ask(t.Context(), t.Context(), "broken")
		<-to.pieces
		next <- struct{}{}
		if got := <-done; got.resp != nil || fault.KindOf(got.err) != fault.Unavailable || to.trailer != nil {
			t.Errorf("half an answer: %+v, %v", got.resp, got.err)
		}
		// The caller goes away.
		whole, cancel := context.WithCancel(t.Context())
		to, _, done = ask(whole, whole, "bits")
		<-to.pieces
		cancel()
		if got := <-done; fault.ReasonOf(got.err) != fault.CallCanceled {
			t.Errorf("of a caller that went away: %+v, %v", got.resp, got.err)
		}
		<-gone
		// Its time is up before the answer.
		within, stop := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer stop()
		_, pieces, done := ask(within, t.Context(), "silent")
		if got := <-done; fault.KindOf(got.err) != fault.Timeout || pieces.Taken() {
			t.Errorf("an attempt whose time is up: %+v, %v", got.resp, got.err)
		}
		<-gone
	})
}

func TestAnotherAttemptHasAnswered(t *testing.T) {
	inPieces(t, func(t *testing.T, ask asking, next, gone chan struct{}) {
		first, pieces, done := ask(t.Context(), t.Context(), "bits")
		<-first.pieces
		server := httptest.NewServer(slowly(next, gone))
		defer server.Close()
		endpoint, err := appchannel.OpenEndpoint(appchannel.EndpointConfig{BaseURL: server.URL})
		if err != nil {
			t.Fatal(err)
		}
		defer endpoint.CloseIdle()
		resp, err := endpoint.Invoke(t.Context(), &call.Request{Method: "bits", Verb: "GET", Pieces: pieces})
		if resp != nil || fault.ReasonOf(err) != fault.CallCanceled || fault.KindOf(err) != fault.Canceled {
			t.Errorf("the second answer: %+v, %v", resp, err)
		}
		<-gone
		for range 2 {
			next <- struct{}{}
			<-first.pieces
		}
		next <- struct{}{}
		if got := <-done; got.err != nil || !got.resp.Passed {
			t.Errorf("the first answer: %+v, %v", got.resp, got.err)
		}
	})
}
