package blocks

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/sidecast/sidecast/actors"
	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/fabric"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/governance"
	"github.com/sidecast/sidecast/resiliency"
	"github.com/sidecast/sidecast/telemetry"
)

// Invocation calls other apps, and HTTP servers outside the fabric by the name of their document or by URL. Each target has
// a lane of its own, which chooses the instance and owns timeouts, retries, breaker and queue. A call is made at most once
// unless that lane's policy retries it.
type Invocation struct {
	self    Self
	rules   *rulebook
	fabric  *fabric.Fabric
	metrics *telemetry.Metrics
	tracer  *telemetry.Tracer

	targets sync.Map     // app id → *target; only apps that presence has shown, so callers cannot make it grow
	unknown *actors.Lane // for all the others
	outside *endpoints   // HTTP servers, which are no apps; nil but at home: no namespace has them

	base, streams resiliency.Policy // of calls and streams to an app that no document names

	namespace string     // of the apps; "" is the sidecar's own
	neighbors *neighbors // other namespaces

	mu     sync.Mutex
	absent map[string]time.Time // targets of whose apps there is no instance, since when
}

// forgetAfter is how long the lanes of an app outlive its last instance: one that is started again finds its breaker and
// its counts as they were.
const forgetAfter = 10 * time.Minute

// target is an app that presence has shown, or an HTTP server outside the fabric.
type target struct {
	calls    *guard // and streams
	fallback invokeFallback
	label    string // in metrics

	outside  outside   // nil for apps
	document *endpoint // of an HTTPEndpoint
}

func newInvocation(d Deps, rules *rulebook) *Invocation {
	v := newInvocationIn("", d, rules)
	v.neighbors.join = d.JoinNamespace
	v.neighbors.enter = func(namespace string, f *fabric.Fabric) *Invocation {
		d := d
		d.Fabric, d.Self.Namespace = f, namespace
		return newInvocationIn(namespace, d, rules)
	}
	return v
}

func newInvocationIn(namespace string, d Deps, rules *rulebook) *Invocation {
	lane := "unknown-apps"
	if namespace != "" {
		lane += "/" + namespace
	}
	v := &Invocation{
		self: d.Self, fabric: d.Fabric, metrics: d.Metrics, tracer: d.Tracer, rules: rules, namespace: namespace,
		unknown: d.System.Lane(lane, unknownPolicy), absent: map[string]time.Time{},
		neighbors: newNeighbors(), base: d.base(targetPolicy), streams: d.base(streamPolicy),
	}
	if namespace == "" {
		v.outside = newEndpoints(d, rules)
		v.outside.invoke = v.invokeOnce
	}
	return v
}

// name is an app's for lanes and for rules: with its namespace where that is not the sidecar's own.
func (v *Invocation) name(app string) (lane, rules string) {
	if v.namespace == "" {
		return "app/" + app, app
	}
	return "app/" + v.namespace + "/" + app, app + "." + v.namespace
}

// SetEndpoints makes documents the HTTP servers that apps may invoke by name; they take the place of apps of those names.
func (v *Invocation) SetEndpoints(documents []components.EndpointManifest) { v.outside.set(documents) }

// Endpoints are the names of the HTTP servers that have one.
func (v *Invocation) Endpoints() []string { return v.outside.names() }

// Outside says whether an id means an HTTP server outside the fabric.
func (v *Invocation) Outside(id string) bool { return v.outside.find(id) != nil }

func (v *Invocation) start() {
	v.fabric.OnChange(v.instancesChanged)
	seen := map[string]bool{}
	for _, instance := range v.fabric.Instances("") {
		if !seen[instance.App] {
			seen[instance.App] = true
			v.instancesChanged(instance.App, v.fabric.Instances(instance.App))
		}
	}
}

// instancesChanged tells the lanes of app where it can be reached. Instances whose app takes no calls are left out as long
// as there are others.
func (v *Invocation) instancesChanged(app string, instances []fabric.Instance) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.note(app, len(instances) > 0, time.Now())
	endpoints := make([]resiliency.Endpoint, 0, len(instances))
	for _, ready := range []bool{true, false} {
		if len(endpoints) > 0 {
			break
		}
		for _, i := range instances {
			if i.Ready == ready {
				endpoints = append(endpoints, resiliency.Endpoint{ID: i.ID, Load: i.Load, Room: i.Room, Weight: i.Weight, Zone: i.Zone})
			}
		}
	}
	t := v.app(app)
	if t == nil {
		lane, id := v.name(app)
		t = &target{
			label: id,
			calls: v.rules.guard(lane, true, func(r *governance.Rules) governance.Target {
				return r.AppWithPieces(id, v.base, v.streams)
			}),
		}
		t.fallback.invoke = v.invokeOnce
		v.targets.Store(app, t)
	}
	t.calls.SetEndpoints(endpoints)
}

// note keeps book of the apps that have gone, and lets go of the lanes of those that stay away: apps come and go under ever
// new names where each has one for its branch or its test. Changes are what makes lanes grow, so it is enough to look then.
// v.mu is held.
func (v *Invocation) note(app string, present bool, now time.Time) {
	if _, known := v.absent[app]; present {
		delete(v.absent, app)
	} else if !known {
		v.absent[app] = now
	}
	for app, since := range v.absent {
		if now.Sub(since) < forgetAfter {
			continue
		}
		delete(v.absent, app)
		if t, ok := v.targets.LoadAndDelete(app); ok {
			over, cancel := context.WithCancel(context.Background())
			cancel() // nothing can be running that has an instance to run on: there is nothing to wait for
			t.(*target).close(over)
		}
	}
}

func (v *Invocation) target(id string) *target {
	if t := v.outside.find(id); t != nil {
		return t
	}
	return v.app(id)
}

func (v *Invocation) app(app string) *target {
	if t, ok := v.targets.Load(app); ok {
		return t.(*target)
	}
	return nil
}

// Invoke sends req to an instance of its app and returns the answer. The answer of an HTTP app comes back whatever its
// status is, unless the policy has a fallback for it. It passes to req.Pieces where it is not whole at once: timeouts hold for its
// head, and once it has begun neither an attempt nor a fallback follows. The call keeps its place in its lane until it has ended.
func (v *Invocation) Invoke(ctx context.Context, req *call.Request) (resp *call.Response, err error) {
	ctx, span := v.tracer.Start(ctx, trace.SpanKindClient, &req.Header, "invoke ", req.App, "/", req.Method)
	defer span.End(&err)
	return answered(v.invoke(ctx, req, (*invokeFallback).settle))
}

// invokeOnce is Invoke without a fallback.
func (v *Invocation) invokeOnce(ctx context.Context, req *call.Request) (*call.Response, error) {
	return answered(v.invoke(ctx, req, (*invokeFallback).ignore))
}

// invoke passes req through the lane of its target; settle says what its fallback makes of the outcome. Of an HTTP answer
// that counts as a failure both resp and err are set.
func (v *Invocation) invoke(ctx context.Context, req *call.Request, settle settlement) (resp *call.Response, err error) {
	if other, err := v.elsewhere(ctx, req); err != nil || other != nil {
		if err != nil {
			return nil, err
		}
		defer other.done()
		return other.invocation.invoke(ctx, req, settle)
	}
	if err := v.admit(req); err != nil {
		return nil, err
	}
	began := time.Now()
	what := resiliency.Call{
		Op: req.Method, Caller: v.self.AppID, Idempotent: req.Idempotent, Repeatable: call.Repeatable(req.Verb), Header: &req.Header,
	}
	t := v.target(req.App)
	if t == nil {
		if t, err = v.findTarget(ctx, req, what); err != nil {
			return nil, err
		}
	}
	reached := error(nil) // an app that answers, be it with a failure, was reached
	defer v.metrics.Observe(telemetry.Op{Block: "invocation", Target: t.label, Name: "invoke"}, began, &reached)
	if dapr := v.metrics.Dapr(); dapr != nil && req.App != v.self.AppID {
		defer func() { dapr.Invoked(t.label, false, statusOf(resp, err), began) }()
	}
	req = keepingLast(t.calls, req)
	return pass(ctx, t.calls, req.Verb, what,
		func(ctx context.Context, grant actors.Grant) (*call.Response, error) {
			if err := untaken("invoke "+req.App, req); err != nil {
				return nil, err
			}
			own := attempted(grant, req)
			resp, err := t.call(ctx, v, grant, own)
			return taken("invoke", own, resp, err)
		},
		func(ctx context.Context, lane *actors.Lane, resp *call.Response, err error) (*call.Response, error) {
			_, reached = answered(resp, err)
			return settle(&t.fallback, ctx, lane, req, resp, err)
		})
}

// statusOf is what an app answered: the status of HTTP, or the code of gRPC, which is also that of a call without an answer.
func statusOf(resp *call.Response, err error) int {
	switch {
	case resp != nil:
		return resp.Status
	case err != nil:
		return int(fault.KindOf(err).GRPC())
	}
	return 0
}

// answered takes back the failure that only the lane had to know: an HTTP app's answer is the caller's, whatever its
// status.
func answered(resp *call.Response, err error) (*call.Response, error) {
	var status errStatus
	if errors.As(err, &status) && resp != nil && resp.Status == int(status) {
		return resp, nil
	}
	if err != nil {
		return nil, err
	}
	return resp, nil
}

// stream makes the attempts of a relay. The stream's lane counts it as in flight until the answer has ended.
func (v *Invocation) stream(ctx context.Context, req *call.Request, up *upload, x Exchange) (err error) {
	if other, err := v.elsewhere(ctx, req); err != nil || other != nil {
		if err != nil {
			return err
		}
		defer other.done()
		return other.invocation.stream(ctx, req, up, x)
	}
	if err := v.admit(req); err != nil {
		return err
	}
	ctx, span := v.tracer.Start(ctx, trace.SpanKindClient, &req.Header, "stream ", req.App, "/", req.Method)
	defer span.End(&err)
	what := resiliency.Call{
		Op: req.Method, Caller: v.self.AppID, Idempotent: req.Idempotent, Repeatable: call.Repeatable(req.Verb), InPieces: true, Header: &req.Header,
	}
	t := v.target(req.App)
	if t == nil {
		if t, err = v.findTarget(ctx, req, what); err != nil {
			return err
		}
	}
	defer v.metrics.Observe(telemetry.Op{Block: "invocation", Target: t.label, Name: "stream"}, time.Now(), &err)
	if dapr := v.metrics.Dapr(); dapr != nil && req.App != v.self.AppID {
		defer func(began time.Time) { dapr.Invoked(t.label, true, statusOf(nil, err), began) }(time.Now())
	}
	if up.bound != Lasting && t.calls.repeats(req.Verb, req.Method) {
		up.room, _ = call.RoomOf(ctx).(call.Keeper)
	}
	err = passAlone(ctx, t.calls, req.Verb, what,
		func(within context.Context, grant actors.Grant) error {
			ctx, done := up.hold(ctx, within)
			defer done()
			stream, err := t.stream(ctx, v, grant, req)
			if err != nil {
				return err
			}
			defer stream.Close()
			up.heard = grant.Answered
			return v.last(grant, up.attempt(ctx, stream, x))
		},
		func(ctx context.Context, lane *actors.Lane, err error) error { return up.settle(ctx, lane, x, err) })
	told, status := toldFailure{}, errStatus(0)
	switch {
	case errors.As(err, &told):
		return nil
	case up.held != nil && errors.As(err, &status) && int(status) == up.held.header.Status:
		return up.held.pass(x)
	}
	return err
}

func (v *Invocation) call(ctx context.Context, grant actors.Grant, req *call.Request) (*call.Response, error) {
	resp, err := v.fabric.Call(ctx, fabric.Target{App: req.App, Instance: grant.Endpoint}, req)
	return resp, v.last(grant, err)
}

func (v *Invocation) open(ctx context.Context, grant actors.Grant, req *call.Request) (call.ClientStream, error) {
	stream, err := v.fabric.Stream(ctx, fabric.Target{App: req.App, Instance: grant.Endpoint}, req)
	return stream, v.last(grant, err)
}

// last keeps a lane from a further attempt at a call to this very instance once it is leaving: its caller is told while there is
// somebody to tell it.
func (v *Invocation) last(grant actors.Grant, err error) error {
	if err != nil && grant.Endpoint == v.self.Instance && v.fabric.Leaving() {
		return resiliency.Final{Err: err}
	}
	return err
}

// toldFailure is what an answer says of a call that failed. The caller has had the answer: only the lane has to know.
type toldFailure struct{ error }

func (f toldFailure) Unwrap() error { return f.error }

func (v *Invocation) admit(req *call.Request) error {
	switch {
	case req.App == "":
		return fault.New("invoke", fault.BadRequest, "app_id is empty: name the app to call")
	case len(req.App) > maxName && !strings.Contains(req.App, "://") || len(req.App) > maxPath || len(req.Method) > maxPath:
		return fault.New("invoke", fault.BadRequest, "app_id may have %d bytes and method %d", maxName, maxPath)
	}
	req.Caller = v.self.AppID
	return nil
}

// findTarget waits a little for an app that presence does not know: it may be about to start.
func (v *Invocation) findTarget(ctx context.Context, req *call.Request, what resiliency.Call) (t *target, err error) {
	err = v.unknown.Do(ctx, what, func(context.Context, actors.Grant) error {
		if t = v.target(req.App); t == nil {
			return v.appNotFound(req.App)
		}
		return nil
	})
	return t, err
}

func (v *Invocation) appNotFound(app string) error {
	known := map[string]bool{}
	var names []string
	for _, i := range v.fabric.Instances("") {
		if !known[i.App] && len(names) < 10 {
			known[i.App] = true
			names = append(names, i.App)
		}
	}
	return fault.New("invoke "+app, fault.AppNotFound, "no instance of app %q is in namespace %q; presence knows %q",
		app, v.self.Namespace, names).With("app", app)
}

// errStatus is an HTTP status that counts as a failure.
type errStatus int

// HTTPStatus is what policies match.
func (s errStatus) HTTPStatus() int { return int(s) }

func (s errStatus) Error() string {
	return fmt.Sprintf("the app answered %d %s", int(s), http.StatusText(int(s)))
}
