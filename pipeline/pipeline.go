package pipeline

import (
	"context"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/sidecast/sidecast/fault"
)

// Pipeline passes requests through middleware to a handler.
type Pipeline struct {
	name    string
	source  Source
	root    http.Handler
	log     *slog.Logger
	current atomic.Pointer[chain] // nil without middleware
}

// New makes a pipeline before root that has no middleware yet. Its name is for errors and the log.
func New(name string, source Source, root http.Handler, log *slog.Logger) *Pipeline {
	return &Pipeline{name: name, source: source, root: root, log: log}
}

// Idle says that there is no middleware: who asks may call the root itself. The nil Pipeline is idle.
func (p *Pipeline) Idle() bool { return p == nil || p.current.Load() == nil }

// Set has the requests that come from now on pass these middleware, as the source has them from now on.
func (p *Pipeline) Set(handlers []Handler) {
	var next *chain
	if len(handlers) > 0 {
		next = newChain(handlers)
	}
	if old := p.current.Swap(next); old != nil {
		old.leave()
	}
}

// Warm opens the middleware, so that the first request need not wait for it. It does not tell what cannot be opened: the
// source does, and requests are.
func (p *Pipeline) Warm(ctx context.Context) {
	if c := p.enter(); c != nil {
		defer c.leave()
		_, _ = p.handler(ctx, c)
	}
}

// Serve passes a request through. It fails without an answer when a middleware cannot be had.
func (p *Pipeline) Serve(w http.ResponseWriter, r *http.Request) error {
	c := p.enter()
	if c == nil {
		p.root.ServeHTTP(w, r)
		return nil
	}
	defer c.leave()
	handler, err := p.handler(r.Context(), c)
	if err != nil {
		return err
	}
	handler.ServeHTTP(w, r)
	return nil
}

// askAgain is how long a middleware that the source may have soon is passed over.
const askAgain = time.Second

// enter is the chain for a request, which leaves it at its end; nil without middleware.
func (p *Pipeline) enter() *chain {
	for {
		c := p.current.Load()
		if c == nil {
			return nil
		}
		if at := c.again.Load(); at != 0 && time.Now().UnixNano() > at || c.replaced() {
			if p.current.CompareAndSwap(c, newChain(c.handlers)) {
				c.leave()
			}
			continue
		}
		if c.enter() {
			return c
		}
	}
}

// handler is the root behind the middleware of c. The first request that needs it makes it; one at a time tries.
func (p *Pipeline) handler(ctx context.Context, c *chain) (http.Handler, error) {
	if made := c.made.Load(); made != nil {
		return *made, nil
	}
	select {
	case c.making <- struct{}{}:
		defer func() { <-c.making }()
	case <-ctx.Done():
		return nil, fault.FromContext(p.name, ctx, "its middleware to open")
	}
	if made := c.made.Load(); made != nil {
		return *made, nil
	}
	var links []Link
	handler := p.root
	for i := len(c.handlers) - 1; i >= 0; i-- {
		h := c.handlers[i]
		link, err := p.source(ctx, h)
		if err != nil {
			for _, link := range links {
				link.Release()
			}
			return nil, err
		}
		if link.Middleware == nil {
			if link.Later {
				c.again.Store(time.Now().Add(askAgain).UnixNano())
			}
			continue
		}
		links = append(links, link)
		handler = link.Middleware.Wrap(handler)
	}
	c.links = links
	c.made.Store(&handler)
	return handler, nil
}

// chain is the middleware of a pipeline as long as neither the Configuration nor a component changes.
type chain struct {
	handlers []Handler
	making   chan struct{} // holds the one that makes it
	made     atomic.Pointer[http.Handler]
	links    []Link       // written before made
	again    atomic.Int64 // when to look for those that are passed over, in nanoseconds since 1970; 0 is never
	// uses counts the requests that run, plus one for the pipeline as long as the chain is its own.
	uses atomic.Int64
}

func newChain(handlers []Handler) *chain {
	c := &chain{handlers: handlers, making: make(chan struct{}, 1)}
	c.uses.Store(1)
	return c
}

// replaced says whether the source has another middleware now in the place of one of the chain.
func (c *chain) replaced() bool {
	if c.made.Load() == nil {
		return false
	}
	for i := range c.links {
		select {
		case <-c.links[i].Replaced:
			return true
		default:
		}
	}
	return false
}

// enter counts a request in, unless the chain was let go of.
func (c *chain) enter() bool {
	for {
		n := c.uses.Load()
		if n == 0 {
			return false
		}
		if c.uses.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// leave counts a request out. The last one releases the middleware.
func (c *chain) leave() {
	if c.uses.Add(-1) > 0 {
		return
	}
	for _, link := range c.links {
		link.Release()
	}
}
