package pipeline

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/sidecast/sidecast/fault"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// shelf is a source of middleware made of functions, which notes how often each is in use.
type shelf struct {
	has   map[string]func(next http.Handler) http.Handler
	fails map[string]error
	later map[string]bool
	used  atomic.Int64

	replaced map[string]chan struct{}
}

type made struct {
	wrap func(http.Handler) http.Handler
}

func (m made) Wrap(next http.Handler) http.Handler { return m.wrap(next) }
func (m made) Close(context.Context) error         { return nil }

func (s *shelf) source(_ context.Context, h Handler) (Link, error) {
	if err := s.fails[h.Name]; err != nil {
		return Link{}, err
	}
	wrap := s.has[h.Name]
	if wrap == nil {
		return Link{Later: s.later[h.Name]}, nil
	}
	s.used.Add(1)
	return Link{Middleware: made{wrap}, Release: func() { s.used.Add(-1) }, Replaced: s.replaced[h.Name]}, nil
}

// says is middleware that adds a word to the header of the request.
func says(word string) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			r.Header.Add("Said", word)
			next.ServeHTTP(w, r)
		})
	}
}

var said = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	fmt.Fprint(w, strings.Join(r.Header["Said"], " "))
})

func ask(t *testing.T, p *Pipeline) (string, error) {
	t.Helper()
	w := httptest.NewRecorder()
	err := p.Serve(w, httptest.NewRequest("GET", "/", nil))
	return w.Body.String(), err
}

func named(names ...string) (all []Handler) {
	for _, name := range names {
		all = append(all, Handler{Name: name})
	}
	return all
}

func TestRequestsPassInOrder(t *testing.T) {
	s := &shelf{has: map[string]func(http.Handler) http.Handler{"a": says("a"), "b": says("b")}, fails: map[string]error{"broken": errors.New("broken")}}
	p := New("test", s.source, said, slog.New(slog.DiscardHandler))
	for _, c := range []struct {
		handlers []Handler
		want     string
	}{{nil, ""}, {named("a", "b"), "a b"}, {named("b", "none", "a"), "b a"}, {nil, ""}} {
		p.Set(c.handlers)
		if got, err := ask(t, p); got != c.want || err != nil || p.Idle() != (c.handlers == nil) {
			t.Errorf("%v: %q %v", c.handlers, got, err)
		}
	}
	p.Set(named("a", "broken"))
	if got, err := ask(t, p); err == nil || got != "" {
		t.Errorf("a request passed a middleware that cannot be had: %q", got)
	}
	delete(s.fails, "broken")
	s.has["broken"] = says("mended")
	if got, err := ask(t, p); err != nil || got != "a mended" {
		t.Errorf("%q %v", got, err)
	}
	p.Set(nil)
	if n := s.used.Load(); n != 0 {
		t.Errorf("%d middleware are in use", n)
	}
}

func TestWhatMayComeLaterIsAskedForAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &shelf{has: map[string]func(http.Handler) http.Handler{}, later: map[string]bool{"a": true}}
		p := New("test", s.source, said, slog.New(slog.DiscardHandler))
		p.Set(named("a"))
		if got, err := ask(t, p); got != "" || err != nil {
			t.Errorf("%q %v", got, err)
		}
		s.has["a"] = says("a")
		time.Sleep(askAgain + time.Millisecond)
		if got, err := ask(t, p); got != "a" || err != nil {
			t.Errorf("%q %v", got, err)
		}
		p.Set(nil)
		if n := s.used.Load(); n != 0 {
			t.Errorf("%d middleware are in use", n)
		}
	})
}

// A middleware that the source has put another in the place of is let go of, and only then.
func TestWhatWasReplacedIsAskedForAgain(t *testing.T) {
	first := make(chan struct{})
	s := &shelf{
		has:      map[string]func(http.Handler) http.Handler{"a": says("a"), "b": says("b")},
		fails:    map[string]error{},
		replaced: map[string]chan struct{}{"b": first},
	}
	p := New("test", s.source, said, slog.New(slog.DiscardHandler))
	p.Set(named("a", "b"))
	expect := func(want string) {
		t.Helper()
		if got, err := ask(t, p); got != want || err != nil {
			t.Errorf("%q %v, not %q", got, err, want)
		}
	}
	expect("a b")
	s.has["b"], s.replaced["b"] = says("another"), make(chan struct{})
	expect("a b")
	close(first)
	expect("a another")
	if n := s.used.Load(); n != 2 {
		t.Errorf("%d middleware are in use, want the two of the pipeline", n)
	}
	s.fails["b"] = errors.New("cannot be had")
	close(s.replaced["b"])
	if got, err := ask(t, p); err == nil {
		t.Errorf("a request has passed without the middleware that is to come: %q", got)
	}
	delete(s.fails, "b")
	s.replaced["b"] = nil
	expect("a another")
	p.Set(nil)
	if n := s.used.Load(); n != 0 {
		t.Errorf("%d middleware are in use", n)
	}
}

// A middleware is in use until its last request has ended, however often the pipeline changes meanwhile.
func TestRequestsKeepTheirMiddleware(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		let := make(chan struct{})
		s := &shelf{has: map[string]func(http.Handler) http.Handler{"a": says("a"), "b": says("b")}}
		p := New("test", s.source, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			<-let
			said(w, r)
		}), slog.New(slog.DiscardHandler))
		p.Set(named("a"))
		got := make(chan string, 1)
		go func() {
			text, _ := ask(t, p)
			got <- text
		}()
		synctest.Wait()
		p.Set(named("b"))
		p.Warm(t.Context())
		p.Set(nil)
		if n := s.used.Load(); n != 1 {
			t.Errorf("%d middleware are in use, want that of the request", n)
		}
		close(let)
		if text := <-got; text != "a" {
			t.Errorf("got %q", text)
		}
		synctest.Wait()
		if n := s.used.Load(); n != 0 {
			t.Errorf("%d middleware are in use", n)
		}
	})
}

func TestPipelinesChangeUnderLoad(t *testing.T) {
	s := &shelf{has: map[string]func(http.Handler) http.Handler{"a": says("a"), "b": says("b")}}
	p := New("test", s.source, said, slog.New(slog.DiscardHandler))
	var callers sync.WaitGroup
	for range 4 {
		callers.Go(func() {
			for range 2000 {
				if got, err := ask(t, p); err != nil || got != "" && got != "a" && got != "a b" {
					t.Errorf("%q %v", got, err)
				}
			}
		})
	}
	for n := range 200 {
		p.Set([][]Handler{nil, named("a"), named("a", "b")}[n%3])
	}
	callers.Wait()
	p.Set(nil)
	if n := s.used.Load(); n != 0 {
		t.Errorf("%d middleware are in use", n)
	}
}

func TestAnIdlePipelineAllocatesNothing(t *testing.T) {
	c := NewClient("test", (&shelf{}).source, slog.New(slog.DiscardHandler))
	response := &http.Response{}
	transport := roundTrip(func(*http.Request) (*http.Response, error) { return response, nil })
	r := httptest.NewRequest("GET", "/", nil)
	if n := testing.AllocsPerRun(100, func() { _, _ = c.RoundTrip(transport, r) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// through sends requests to app through middleware.
func through(t *testing.T, app http.HandlerFunc, wrap func(http.Handler) http.Handler) (*Client, *http.Transport, string) {
	t.Helper()
	server := httptest.NewServer(app)
	t.Cleanup(server.Close)
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	c := NewClient("test", (&shelf{has: map[string]func(http.Handler) http.Handler{"a": wrap}}).source, slog.New(slog.DiscardHandler))
	c.Set(named("a"))
	t.Cleanup(func() {
		c.Set(nil)
		if err := c.Wait(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return c, transport, server.URL
}

func TestClientsCarryEverything(t *testing.T) {
	c, transport, url := through(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Trailer", "After")
		w.Header().Set("X-Said", r.Header.Get("Said"))
		w.WriteHeader(http.StatusTeapot)
		_, _ = w.Write(body)
		w.Header().Set("After", r.Trailer.Get("Late"))
	}, says("a"))
	for _, body := range []string{"", "short", strings.Repeat("long", 1<<19)} {
		r, _ := http.NewRequest("POST", url+"/x%2Fy?z=1", io.MultiReader(strings.NewReader(body)))
		r.Trailer = http.Header{"Late": {"value"}}
		response, err := c.RoundTrip(transport, r)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(response.Body)
		response.Body.Close()
		if err != nil || string(got) != body || response.StatusCode != 418 || response.Header.Get("X-Said") != "a" || response.Trailer.Get("After") != "value" {
			t.Errorf("%d bytes: %d %v %v, %d bytes %v", len(body), response.StatusCode, response.Header, response.Trailer, len(got), err)
		}
		if len(r.Header) != 0 {
			t.Errorf("the request that was given has been changed: %v", r.Header)
		}
	}
}

func TestClientsTellWhatWentWrong(t *testing.T) {
	c, transport, url := through(t, func(http.ResponseWriter, *http.Request) {}, says("a"))
	r, _ := http.NewRequest("GET", "http://127.0.0.1:1/", nil) // nobody listens there
	if _, err := c.RoundTrip(transport, r); err == nil || !strings.Contains(err.Error(), "connect") {
		t.Errorf("got %v", err)
	}
	// An answer that breaks off is not a whole one.
	broken := roundTrip(func(*http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: 200, Body: io.NopCloser(io.MultiReader(strings.NewReader("half"), failing{}))}, nil
	})
	r, _ = http.NewRequest("GET", url, nil)
	response, err := c.RoundTrip(broken, r)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(response.Body)
	response.Body.Close()
	if string(text) != "half" || err == nil || !strings.Contains(err.Error(), "broke off") {
		t.Errorf("%q %v", text, err)
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("broke off") }

func TestPanicsAreAnswered(t *testing.T) {
	for what, wrap := range map[string]func(http.Handler) http.Handler{
		"before": func(http.Handler) http.Handler {
			return http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("before") })
		},
		"after": func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				next.ServeHTTP(w, r)
				panic("after")
			})
		},
	} {
		c, transport, url := through(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("answer")) }, wrap)
		r, _ := http.NewRequest("GET", url, nil)
		response, err := c.RoundTrip(transport, r)
		if err == nil {
			_, err = io.ReadAll(response.Body)
			response.Body.Close()
		}
		if fault.ReasonOf(err) != fault.Panicked {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// A middleware that hangs holds nobody longer than the request's own time.
func TestRequestsEndWithTheirContext(t *testing.T) {
	let := make(chan struct{})
	c, transport, url := through(t, func(http.ResponseWriter, *http.Request) {}, func(http.Handler) http.Handler {
		return http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-let })
	})
	ctx, cancel := context.WithCancel(t.Context())
	body := &closing{Reader: strings.NewReader("x"), closed: make(chan struct{})}
	r, _ := http.NewRequestWithContext(ctx, "POST", url, body)
	time.AfterFunc(10*time.Millisecond, cancel)
	if _, err := c.RoundTrip(transport, r); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	<-body.closed
	ended, stop := context.WithTimeout(t.Context(), time.Millisecond)
	defer stop()
	if err := c.Wait(ended); fault.KindOf(err) != fault.Timeout {
		t.Errorf("nothing is said of the request that hangs: %v", err)
	}
	close(let)
}

type closing struct {
	io.Reader
	once   sync.Once
	closed chan struct{}
}

func (c *closing) Close() error {
	c.once.Do(func() { close(c.closed) })
	return nil
}

func TestBodiesThatWereChangedHaveTheirLength(t *testing.T) {
	for _, c := range []struct {
		was, is string
		length  int64 // as the request says, when it comes
		want    int64
	}{{"short", "longer", 5, 6}, {"", "made up", 0, 7}, {"stream", "changed", -1, -1}} {
		body := io.NopCloser(strings.NewReader(c.was))
		r := &http.Request{Header: http.Header{"Content-Length": {"5"}}, Body: io.NopCloser(strings.NewReader(c.is)), ContentLength: c.length}
		changed, err := Settle(r, body, c.length)
		text, _ := io.ReadAll(r.Body)
		if !changed || err != nil || r.ContentLength != c.want || string(text) != c.is || r.Header.Get("Content-Length") != "" {
			t.Errorf("%q: %v %v %d %q", c.was, changed, err, r.ContentLength, text)
		}
	}
	body := io.NopCloser(strings.NewReader("same"))
	if changed, err := Settle(&http.Request{Body: body, ContentLength: 4}, body, 4); changed || err != nil {
		t.Errorf("%v %v", changed, err)
	}
	if _, err := Settle(&http.Request{Header: http.Header{}, Body: io.NopCloser(endless{}), ContentLength: 1}, body, 1); fault.ReasonOf(err) != fault.BodyTooLarge {
		t.Errorf("a body without an end: %v", err)
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }
