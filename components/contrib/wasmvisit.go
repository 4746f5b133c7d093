//go:build all_components

package contrib

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"time"

	handlerapi "github.com/http-wasm/http-wasm-host-go/api/handler"
	wazeroapi "github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"
)

// visit is a request at a guest. All of it runs in the request's goroutine.
type visit struct {
	g *guests
	w http.ResponseWriter

	entered  bool  // the guest was called
	inside   bool  // a call of it has not returned
	err      error // how a call of it has ended that did not return
	begun    bool  // of the answer something is on its way
	passed   bool  // what follows has answered
	panicked any   // what follows has panicked with
}

// failed says that the guest is of no use any more.
func (v *visit) failed() bool { return !v.entered || v.inside || v.err != nil }

// serve passes r through a guest. The guest's time runs while it works; a client that goes away does not end it, because an
// end is that of the guest.
func (v *visit) serve(h *herd, next http.Handler, r *http.Request) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.Context()))
	defer cancel()
	defer context.AfterFunc(v.g.life.ctx, cancel)()
	limit := time.AfterFunc(v.g.limit, cancel)
	defer limit.Stop()
	body := &taken{inner: r.Body}
	if body.inner == nil {
		body.inner = http.NoBody
	}
	following := http.HandlerFunc(func(w http.ResponseWriter, inner *http.Request) {
		limit.Stop()
		defer limit.Reset(v.g.limit)
		defer func() {
			if v.panicked = recover(); v.panicked != nil {
				panic(v.panicked) // the library makes an error of it, which the guest is told
			}
		}()
		if whole := body.whole(); inner.Body == body {
			inner.Body = whole
		} else {
			body.again = whole // the library may have wrapped it: more than once where the guest was made for this request
		}
		next.ServeHTTP(w, inner.WithContext(r.Context()))
		v.passed = true
	})
	inner := r.WithContext(context.WithValue(ctx, visitKey{}, v))
	inner.Body = body
	v.run(h.NewHandler(ctx, following), inner)
	if v.failed() {
		v.fail()
	}
	if v.panicked != nil {
		panic(v.panicked)
	}
}

// run contains the panic with which the library tells that a guest failed after what follows had answered.
func (v *visit) run(guest http.Handler, r *http.Request) {
	defer func() {
		if p := recover(); p != nil && !v.failed() {
			panic(p)
		}
	}()
	guest.ServeHTTP(&guestAnswer{v.w, v}, r)
}

// fail answers for a guest that failed, unless what follows has: that stands. Half an answer of the guest itself must not
// look like a whole one.
func (v *visit) fail() {
	v.g.log.Warn("a WebAssembly module failed", "error", v.err)
	switch {
	case !v.begun:
		refuseGuest(v.w)
	case v.err != nil && !v.passed && v.panicked == nil:
		panic(http.ErrAbortHandler)
	}
}

type visitKey struct{}

// guestAnswer is the answer as a guest and what follows write it. What the library writes for a guest that failed is
// the trace of its stack, which is nobody's business.
type guestAnswer struct {
	http.ResponseWriter
	v *visit
}

func (a *guestAnswer) silent() bool { return !a.v.entered || a.v.err != nil }

func (a *guestAnswer) WriteHeader(status int) {
	if !a.silent() {
		a.v.begun = true
		a.ResponseWriter.WriteHeader(status)
	}
}

func (a *guestAnswer) Write(p []byte) (int, error) {
	if a.silent() {
		return len(p), nil
	}
	a.v.begun = true
	return a.ResponseWriter.Write(p)
}

// Flush implements http.Flusher.
func (a *guestAnswer) Flush() {
	if !a.silent() {
		a.v.begun = true
		_ = http.NewResponseController(a.ResponseWriter).Flush() // one that cannot holds nothing back
	}
}

// Unwrap is for http.ResponseController.
func (a *guestAnswer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// taken is the body of a request as a guest reads it. It remembers what was read, because the library, which promises to a
// guest that asks for it that what follows gets the body too, remembers but what came together with its end.
type taken struct {
	inner io.ReadCloser
	read  bytes.Buffer
	ended error
	again io.Reader // what follows reads, from the beginning
}

func (t *taken) Read(p []byte) (int, error) {
	if t.again != nil {
		return t.again.Read(p)
	}
	if t.ended != nil {
		return 0, t.ended
	}
	n, err := t.inner.Read(p)
	t.read.Write(p[:n])
	if t.ended = err; n > 0 {
		err = nil
	}
	return n, err
}

// Close leaves the body open for what follows: its owner closes it.
func (t *taken) Close() error { return nil }

// whole is the body for what follows: as it came, if the guest has not read of it.
func (t *taken) whole() io.ReadCloser {
	if t.read.Len() == 0 {
		return t.inner
	}
	return struct {
		io.Reader
		io.Closer
	}{io.MultiReader(&t.read, t.inner), t.inner}
}

// watched is a context for compiling: what is compiled tells the visits of it when guests are called and return.
func watched(ctx context.Context) context.Context {
	return experimental.WithFunctionListenerFactory(ctx, experimental.FunctionListenerFactoryFunc(func(f wazeroapi.FunctionDefinition) experimental.FunctionListener {
		for _, name := range f.ExportNames() {
			if _, _, imported := f.Import(); !imported && (name == handlerapi.FuncHandleRequest || name == handlerapi.FuncHandleResponse) {
				return watcher{}
			}
		}
		return nil
	}))
}

type watcher struct{}

func (watcher) Before(ctx context.Context, _ wazeroapi.Module, _ wazeroapi.FunctionDefinition, _ []uint64, _ experimental.StackIterator) {
	if v, ok := ctx.Value(visitKey{}).(*visit); ok {
		v.entered, v.inside = true, true
	}
}

func (watcher) After(ctx context.Context, _ wazeroapi.Module, _ wazeroapi.FunctionDefinition, _ []uint64) {
	if v, ok := ctx.Value(visitKey{}).(*visit); ok {
		v.inside = false
	}
}

func (watcher) Abort(ctx context.Context, _ wazeroapi.Module, _ wazeroapi.FunctionDefinition, err error) {
	if v, ok := ctx.Value(visitKey{}).(*visit); ok {
		v.err = err
	}
}
