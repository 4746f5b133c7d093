//go:build all_components

package contrib

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/dapr/components-contrib/common/wasm"
	contribmetadata "github.com/dapr/components-contrib/metadata"
	wasmapi "github.com/http-wasm/http-wasm-host-go/api"
	"github.com/http-wasm/http-wasm-host-go/handler"
	wasmhttp "github.com/http-wasm/http-wasm-host-go/handler/nethttp"
	"github.com/tetratelabs/wazero"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/pipeline"
)

// wasmMiddleware has its own way to the library that components-contrib uses, whose component waits for ever for a guest that
// loops, goes on with one that has failed, never closes any, and mixes up what two requests print.
var wasmMiddleware = components.Foreign(components.MiddlewareBlock, "http.wasm", "Passes requests through a WebAssembly module of the http-wasm interface.", func() []components.Field {
	return []components.Field{
		field("url", "string", "Where the module is: file://, http:// or https://.", needed),
		field("guestConfig", "string", "What the module is told, as it is."),
		field("strictSandbox", "bool", "Gives the module a clock and random numbers that are made up, and no sleep.", standard("false")),
	}
}, openWASM)

// guestTime is how long a guest may work on a request before what follows it does, and again after that.
const guestTime = 10 * time.Second

func openWASM(ctx context.Context, host components.Host, s components.Settings) (pipeline.Middleware, error) {
	fail := func(err error) (pipeline.Middleware, error) {
		return nil, badOpen(ctx, "middleware.http.wasm: open", s, err)
	}
	loaded, err := wasm.GetInitMetadata(ctx, contribmetadata.Base{Name: host.Component, Properties: s.Values})
	if err != nil {
		return fail(err)
	}
	compiled := wazero.NewCompilationCache()
	g := &guests{log: host.Log, life: newLife(host.Log), compiled: compiled, limit: guestTime, source: loaded.Guest, options: []handler.Option{
		handler.Logger(guestLog{host.Log}), handler.GuestConfig([]byte(s.Values["guestConfig"])),
		handler.ModuleConfig(wasm.NewModuleConfig(loaded).WithStdout(printed{host.Log, "stdout"}).WithStderr(printed{host.Log, "stderr"})),
		handler.Runtime(func(ctx context.Context) (wazero.Runtime, error) {
			return wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfig().WithCompilationCache(compiled).WithCloseOnContextDone(true)), nil
		}),
	}}
	if g.current, err = g.make(ctx); err != nil {
		_ = compiled.Close(context.WithoutCancel(ctx)) // memory alone
		return fail(err)
	}
	return g, nil
}

// guests is middleware of a module. A guest is an instance of it, which works on one request at a time; the library keeps
// them. One that was cut short, or has trapped in the middle of its work, is of no use any more, and the library would give it
// out again: all are let go of then, and new ones made of what was compiled before.
type guests struct {
	log      *slog.Logger
	life     *life
	compiled wazero.CompilationCache
	source   []byte
	options  []handler.Option
	limit    time.Duration

	mu      sync.Mutex
	current *herd // nil after a failure
}

// herd is all guests that the library keeps together.
type herd struct {
	wasmhttp.Middleware
	uses int // requests that run; belongs to the mu of guests
}

var _ pipeline.Middleware = (*guests)(nil)

// make starts the first guest of a new herd.
func (g *guests) make(ctx context.Context) (*herd, error) {
	ctx, cancel := context.WithTimeout(ctx, g.limit)
	defer cancel()
	m, err := wasmhttp.NewMiddleware(watched(ctx), g.source, g.options...)
	if err != nil {
		return nil, err
	}
	return &herd{Middleware: m}, nil
}

// enter finds the herd for a request.
func (g *guests) enter() (*herd, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.current == nil {
		h, err := g.make(g.life.ctx)
		if err != nil {
			return nil, err
		}
		g.current = h
	}
	g.current.uses++
	return g.current, nil
}

// leave ends the part of a request in h, and that of h in what is to come if it failed.
func (g *guests) leave(h *herd, failed bool) {
	g.mu.Lock()
	h.uses--
	if failed && g.current == h {
		g.current = nil
	}
	over := h.uses == 0 && g.current != h
	g.mu.Unlock()
	if over {
		g.end(h)
	}
}

func (g *guests) end(h *herd) {
	if err := h.Close(context.Background()); err != nil { // it waits for nothing
		g.log.Debug("a WebAssembly module did not close cleanly", "error", err)
	}
}

// Wrap implements pipeline.Middleware.
func (g *guests) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, leave, err := g.life.enter(r.Context(), "middleware.http.wasm")
		if err != nil {
			refuseGuest(w)
			return
		}
		defer leave()
		h, err := g.enter()
		if err != nil {
			g.log.Warn("a WebAssembly module could not be started", "error", err)
			refuseGuest(w)
			return
		}
		v := &visit{g: g, w: w}
		defer func() { g.leave(h, v.failed()) }()
		v.serve(h, next, r)
	})
}

// Close implements pipeline.Middleware.
func (g *guests) Close(ctx context.Context) error {
	return g.life.close(ctx, "middleware.http.wasm: close", func() error {
		g.mu.Lock()
		h := g.current
		g.current = nil
		g.mu.Unlock()
		if h != nil {
			g.end(h)
		}
		return g.compiled.Close(context.Background())
	})
}

// refuseGuest answers for a guest that failed: what it may have been there to check must not come through.
func refuseGuest(w http.ResponseWriter) {
	w.Header().Del("Content-Length")
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(http.StatusInternalServerError)
	_, _ = io.WriteString(w, "the WebAssembly module failed") // a client that went away needs no answer
}

// guestLog is what guests log.
type guestLog struct{ log *slog.Logger }

var guestLevels = map[wasmapi.LogLevel]slog.Level{
	wasmapi.LogLevelDebug: slog.LevelDebug, wasmapi.LogLevelInfo: slog.LevelInfo,
	wasmapi.LogLevelWarn: slog.LevelWarn, wasmapi.LogLevelError: slog.LevelError,
}

func (l guestLog) IsEnabled(level wasmapi.LogLevel) bool {
	at, known := guestLevels[level]
	return known && l.log.Enabled(context.Background(), at)
}

func (l guestLog) Log(ctx context.Context, level wasmapi.LogLevel, text string) {
	if at, known := guestLevels[level]; known {
		l.log.Log(ctx, at, text)
	}
}

// printed is what guests print.
type printed struct {
	log  *slog.Logger
	name string
}

func (p printed) Write(text []byte) (int, error) {
	if s := strings.TrimSpace(string(text)); s != "" {
		p.log.Debug(fmt.Sprintf("wasm %s: %s", p.name, s))
	}
	return len(text), nil
}
