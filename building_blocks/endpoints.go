package blocks

import (
	"context"
	"crypto/tls"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sidecast/sidecast/actors"
	"github.com/sidecast/sidecast/appchannel"
	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/governance"
	"github.com/sidecast/sidecast/pipeline"
	"github.com/sidecast/sidecast/resiliency"
)

const (
	// endpointAnswer bounds the whole answer of an HTTP server outside, in bytes.
	endpointAnswer = 64 << 20
	// maxURLs is how many URLs have lanes of their own: callers make them up, so that more share one.
	maxURLs = 64
	// endpointClose bounds how long calls to an endpoint that was taken out may still run.
	endpointClose = 30 * time.Second
)

// endpoints are the HTTP servers outside the fabric that apps invoke as they do apps: those of HTTPEndpoint documents by
// name, all others by URL. Each has lanes of its own.
type endpoints struct {
	log        *slog.Logger
	rules      *rulebook
	components *components.Set
	pipeline   *pipeline.Client // may be nil
	meter      appchannel.Meter
	invoke     func(ctx context.Context, req *call.Request) (*call.Response, error) // for fallbacks
	plain      *appchannel.Endpoint                                                 // for URLs
	base       resiliency.Policy                                                    // of calls that no document names

	named   atomic.Pointer[map[string]*target]
	mu      sync.Mutex // of writers of named
	urls    sync.Map   // URL → *target
	count   atomic.Int32
	others  func() *target // of the URLs beyond maxURLs
	closing sync.WaitGroup
}

func newEndpoints(d Deps, rules *rulebook) *endpoints {
	e := &endpoints{log: d.Log, rules: rules, components: d.Components, pipeline: d.Pipeline, meter: d.Metrics.Dapr(), base: d.base(endpointPolicy)}
	e.plain, _ = appchannel.OpenEndpoint(appchannel.EndpointConfig{BaseURL: "http://localhost", MaxBody: endpointAnswer, Pipeline: d.Pipeline, Meter: e.meter}) // of which nothing can be wrong
	e.named.Store(&map[string]*target{})
	e.others = sync.OnceValue(func() *target { return e.target("endpoint/others", "", e.byURL) })
	return e
}

// find is the target that name means, or nil for an app.
func (e *endpoints) find(name string) *target {
	if e == nil {
		return nil
	}
	if t := (*e.named.Load())[name]; t != nil {
		return t
	}
	if strings.HasPrefix(name, "http://") || strings.HasPrefix(name, "https://") {
		return e.url(name)
	}
	return nil
}

// url is the target of a URL: one with lanes of its own while there is room for it.
func (e *endpoints) url(name string) *target {
	if t, ok := e.urls.Load(name); ok {
		return t.(*target)
	}
	if _, err := e.plain.At(name); err != nil || e.count.Load() >= maxURLs {
		return e.others()
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if t, ok := e.urls.Load(name); ok {
		return t.(*target)
	}
	t := e.target("endpoint/"+name, name, e.byURL)
	e.urls.Store(name, t)
	e.count.Add(1)
	return t
}

func (e *endpoints) byURL(_ context.Context, req *call.Request) (*appchannel.Endpoint, error) {
	return e.plain.At(req.App)
}

// target makes one. Rules know it by id, as they know apps.
func (e *endpoints) target(lane, id string, open outside) *target {
	t := &target{outside: open, label: "url"}
	t.calls = e.rules.guard(lane, false, func(r *governance.Rules) governance.Target {
		return r.AppWithPieces(id, e.base, streamPolicy)
	})
	t.fallback.invoke = e.invoke
	return t
}

// set makes manifests the endpoints that there are. Those that stay keep their lanes.
func (e *endpoints) set(manifests []components.EndpointManifest) {
	e.mu.Lock()
	defer e.mu.Unlock()
	old := *e.named.Load()
	next := make(map[string]*target, len(manifests))
	for _, m := range manifests {
		t := old[m.Name]
		if t == nil {
			opened := &endpoint{components: e.components, pipeline: e.pipeline, meter: e.meter}
			t = e.target("endpoint/"+m.Name, m.Name, opened.open)
			t.label, t.document = m.Name, opened
		}
		t.document.change(m)
		next[m.Name] = t
	}
	e.named.Store(&next)
	for name, t := range old {
		if next[name] != nil {
			continue
		}
		e.closing.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), endpointClose)
			defer cancel()
			if err := t.calls.Close(ctx); err != nil {
				e.log.Warn("calls to an endpoint that was taken out were cut off", "endpoint", name, "error", err)
			}
			t.document.closeIdle()
		})
	}
}

func (e *endpoints) names() []string { return slices.Sorted(maps.Keys(*e.named.Load())) }

// close waits for endpoints that were taken out, and closes the connections that no call uses.
func (e *endpoints) close() {
	e.closing.Wait()
	e.plain.CloseIdle()
	for _, t := range *e.named.Load() {
		t.document.closeIdle()
	}
}

// outside gives the HTTP server that a request is for.
type outside func(ctx context.Context, req *call.Request) (*appchannel.Endpoint, error)

// endpoint is a document's server. Its secrets are looked up at the first call, and again until that works.
type endpoint struct {
	components *components.Set
	pipeline   *pipeline.Client
	meter      appchannel.Meter

	mu       sync.Mutex
	manifest components.EndpointManifest
	server   *appchannel.Endpoint // nil until it is opened
	resolved components.Endpoint  // what server was made of
	secrets  uint64               // the version of the secrets in it
}

// change has the next call use m.
func (e *endpoint) change(m components.EndpointManifest) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.server != nil && !e.manifest.Same(m) {
		e.server.CloseIdle()
		e.server = nil
	}
	e.manifest = m
}

func (e *endpoint) closeIdle() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.server != nil {
		e.server.CloseIdle()
	}
}

var renegotiations = map[string]tls.RenegotiationSupport{
	"OnceAsClient": tls.RenegotiateOnceAsClient, "FreelyAsClient": tls.RenegotiateFreelyAsClient,
}

func (e *endpoint) open(ctx context.Context, _ *call.Request) (*appchannel.Endpoint, error) {
	version := e.components.SecretsVersion()
	e.mu.Lock()
	server, manifest, fresh := e.server, e.manifest, e.secrets == version
	e.mu.Unlock()
	if server != nil && fresh {
		return server, nil
	}
	resolved, err := e.components.Endpoint(ctx, manifest)
	if server != nil && e.unchanged(server, version, resolved, err) {
		return server, nil
	}
	if err != nil {
		return nil, fault.E("endpoint "+manifest.Name, fault.KindOf(err), fault.ReasonOf(err), err)
	}
	server, err = appchannel.OpenEndpoint(appchannel.EndpointConfig{
		BaseURL: resolved.BaseURL, Header: resolved.Headers, RootCA: resolved.RootCA, Certificate: resolved.Certificate,
		PrivateKey: resolved.PrivateKey, Renegotiation: renegotiations[resolved.Renegotiation], Follow: true, MaxBody: endpointAnswer, Pipeline: e.pipeline, Meter: e.meter,
	})
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.server != nil && e.secrets == version: // another call was faster
		return e.server, nil
	case e.manifest.Same(manifest):
		if e.server != nil {
			e.server.CloseIdle() // calls that run in it end in it
		}
		e.server, e.resolved, e.secrets = server, resolved, version
	}
	return server, nil
}

// unchanged says whether server goes on being used at a new version of the secrets: what it was made of is the same, or cannot
// be had.
func (e *endpoint) unchanged(server *appchannel.Endpoint, version uint64, resolved components.Endpoint, err error) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err == nil && (e.server != server || !reflect.DeepEqual(e.resolved, resolved)) {
		return false
	}
	if e.server == server {
		e.secrets = version
	}
	return true
}

// call makes one attempt of a whole call to the target.
func (t *target) call(ctx context.Context, v *Invocation, grant actors.Grant, req *call.Request) (*call.Response, error) {
	if t.outside == nil {
		return v.call(ctx, grant, req)
	}
	server, err := t.outside(ctx, req)
	if err != nil {
		return nil, err
	}
	return server.Invoke(ctx, req)
}

// stream makes one attempt of a stream to the target.
func (t *target) stream(ctx context.Context, v *Invocation, grant actors.Grant, req *call.Request) (call.ClientStream, error) {
	if t.outside == nil {
		return v.open(ctx, grant, req)
	}
	server, err := t.outside(ctx, req)
	if err != nil {
		return nil, err
	}
	return server.Stream(ctx, req), nil
}

// endpointPolicy guards calls to an HTTP server outside the fabric, as those to apps are.
var endpointPolicy = func() resiliency.Policy {
	p := targetPolicy
	p.Name = "default-endpoint"
	p.MaxInFlight, p.MaxQueue = 512, 512
	return p
}()
