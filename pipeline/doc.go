// Package pipeline passes HTTP requests through middleware in the order in which a Configuration names it: requests to the
// sidecar's own API (Pipeline) and those of the sidecar to its app (Client). The middleware are components, which come and go
// while requests run:
//
//	p := pipeline.New("httpPipeline", source, root, log)
//	p.Set([]pipeline.Handler{{Name: "auth", Type: "middleware.http.bearer"}})
//	p.ServeHTTP(w, r)
//
// A request passes the middleware that it found when it came, to its end; a middleware that was replaced is let go of when
// its last request has ended. One that the source does not have is passed over, as daprd does. One that cannot be had now
// lets no request pass: what would have been checked by it must not come through. A pipeline without middleware costs the
// look that tells so.
package pipeline

import (
	"context"
	"net/http"
)

// Middleware is HTTP middleware. All methods may be called concurrently.
type Middleware interface {
	// Wrap is next behind the middleware. What it counts or keeps between requests is one for all that it wraps.
	Wrap(next http.Handler) http.Handler
	// Close returns when nothing of the middleware is running any more.
	Close(ctx context.Context) error
}

// Handler names a middleware of a pipeline: a component of that name, type and version, of which none means v1.
type Handler struct{ Name, Type, Version string }

// Link is a middleware in use until Release is called, once. One without a Middleware is passed over: the source does not
// have it, or Later is set, and it may have it soon. When Replaced is closed, the source has another in its place, under the
// same name and with the same manifest, and the requests that come from then on pass that one; nil never is. Of changed
// manifests a pipeline is told by Set.
type Link struct {
	Middleware Middleware
	Release    func()
	Later      bool
	Replaced   <-chan struct{}
}

// Source finds middleware, and opens what is not open yet. An error means that it is there and cannot be had now.
type Source func(ctx context.Context, h Handler) (Link, error)
