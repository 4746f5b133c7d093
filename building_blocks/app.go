package blocks

import (
	"context"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/sidecast/sidecast/access"
	"github.com/sidecast/sidecast/actors"
	"github.com/sidecast/sidecast/appchannel"
	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/fabric"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/governance"
	"github.com/sidecast/sidecast/resiliency"
	"github.com/sidecast/sidecast/telemetry"
)

// App is the local app as its sidecar sees it: one lane in front of one channel, for calls and events alike, so that the
// app never works on more than it was said to take.
type App struct {
	self    Self
	channel appchannel.Channel
	fabric  *fabric.Fabric
	lane    *guard
	access  atomic.Pointer[access.List]
	open    bool // to other namespaces
	metrics *telemetry.Metrics
	tracer  *telemetry.Tracer

	fallback invokeFallback
}

var _ fabric.Handler = (*App)(nil)

func newApp(d Deps, rules *rulebook) *App {
	a := &App{
		self:    d.Self,
		channel: d.App,
		fabric:  d.Fabric,
		lane: rules.guard("app", false, func(r *governance.Rules) governance.Target {
			return r.Local(appPolicy(d.AppMaxConcurrency))
		}),
		open:    d.JoinNamespace != nil,
		metrics: d.Metrics,
		tracer:  d.Tracer,
	}
	a.access.Store(d.Access)
	return a
}

// SetAccess has another list decide about the calls that come from now on; nil lets all.
func (a *App) SetAccess(list *access.List) { a.access.Store(list) }

// TrustDomainTag is the tag of an instance that tells its trust domain, where that is not access.PublicDomain.
const TrustDomainTag = "trust-domain"

// admit refuses callers that may not do that, and takes the caller's name apart. An app is never kept from itself. Who calls
// from another namespace counts as of the public trust domain.
func (a *App) admit(req *call.Request) error {
	req.Caller, req.CallerNamespace = splitCaller(req.Caller)
	list := a.access.Load()
	switch {
	case req.CallerNamespace != "" && !a.open:
		return fault.New("invoke "+req.Method, fault.AccessDenied, "the app takes no calls from other namespaces, and this one comes from %s", req.CallerNamespace)
	case list == nil || req.Caller == a.self.AppID && req.CallerNamespace == "":
		return nil
	case req.CallerNamespace != "":
		return list.Check(access.Caller{App: req.Caller, Namespace: req.CallerNamespace, TrustDomain: access.PublicDomain}, req.Method, req.Verb)
	}
	caller := access.Caller{App: req.Caller, Namespace: a.self.Namespace, TrustDomain: access.PublicDomain}
	for _, instance := range a.fabric.Instances(req.Caller) {
		if domain := instance.Tags[TrustDomainTag]; domain != "" {
			caller.TrustDomain = domain
		}
	}
	return list.Check(caller, req.Method, req.Verb)
}

func (a *App) start() error { return a.fabric.Serve(a) }

// Channel is how the app is reached.
func (a *App) Channel() appchannel.Channel { return a.channel }

// Room is how many calls one caller can have here at most, for those that work and those that wait, and for as many again as
// work: while an answer travels, its caller counts a call that is over here. 0 is no bound.
func (a *App) Room() int {
	p := a.lane.Policy()
	if p.MaxInFlight == 0 || p.Queue.Full == resiliency.WaitAnyway {
		return 0
	}
	return 2*p.MaxInFlight + p.MaxQueue
}

// ServeCall gives the app a call that came over the fabric.
func (a *App) ServeCall(ctx context.Context, req *call.Request) (resp *call.Response, err error) {
	defer a.metrics.Observe(telemetry.Op{Block: "app", Target: a.self.AppID, Name: "invoke"}, time.Now(), &err)
	if dapr := a.metrics.Dapr(); dapr != nil && req.Caller != a.self.AppID {
		defer func() { dapr.Served(req.Caller, statusOf(resp, err)) }()
	}
	ctx, span := a.tracer.Start(ctx, trace.SpanKindServer, &req.Header, "serve ", req.Method)
	defer span.End(&err)
	caller := req.Caller
	if err := a.admit(req); err != nil {
		return nil, err
	}
	resp, err = pass(ctx, a.lane, req.Verb, resiliency.Call{Op: req.Method, Caller: caller, Header: &req.Header},
		func(ctx context.Context, _ actors.Grant) (*call.Response, error) {
			if err := a.channel.Ready(); err != nil {
				return nil, err
			}
			resp, err := a.channel.Invoke(ctx, req)
			if err != nil {
				return nil, err
			}
			return resp, failedStatus("serve", resp)
		},
		func(ctx context.Context, lane *actors.Lane, resp *call.Response, err error) (*call.Response, error) {
			return a.fallback.settle(ctx, lane, req, resp, err)
		})
	return answered(resp, err)
}

// ServeStream gives the app a stream that came over the fabric.
func (a *App) ServeStream(ctx context.Context, req *call.Request, stream call.ServerStream) (err error) {
	defer a.metrics.Observe(telemetry.Op{Block: "app", Target: a.self.AppID, Name: "stream"}, time.Now(), &err)
	if dapr := a.metrics.Dapr(); dapr != nil && req.Caller != a.self.AppID {
		defer func() { dapr.Served(req.Caller, statusOf(nil, err)) }()
	}
	ctx, span := a.tracer.Start(ctx, trace.SpanKindServer, &req.Header, "serve ", req.Method)
	defer span.End(&err)
	caller := req.Caller
	if err := a.admit(req); err != nil {
		return err
	}
	return a.lane.doAs(ctx, req.Verb, req.Method, resiliency.Call{Op: req.Method, Caller: caller, Header: &req.Header},
		func(ctx context.Context, _ actors.Grant) error {
			if err := a.channel.Ready(); err != nil {
				return err
			}
			return a.channel.Stream(ctx, req, stream)
		})
}

// deliver gives the app an event.
func (a *App) deliver(ctx context.Context, event *appchannel.Event) (outcome appchannel.Outcome, err error) {
	err = a.lane.Lane.Do(ctx, resiliency.Call{Op: event.Topic, Idempotent: true},
		func(ctx context.Context, _ actors.Grant) error {
			if err := a.channel.Ready(); err != nil {
				return err
			}
			var err error
			outcome, err = a.channel.Deliver(ctx, event)
			return err
		})
	return outcome, err
}

// tell gives the app a message that it answers with no more than a status.
func (a *App) tell(ctx context.Context, req *call.Request) error {
	return a.lane.Lane.Do(ctx, resiliency.Call{Op: req.Method, Idempotent: true}, func(ctx context.Context, _ actors.Grant) error {
		if err := a.channel.Ready(); err != nil {
			return err
		}
		resp, err := a.channel.Invoke(ctx, req)
		if err != nil {
			return err
		}
		return failedStatus("tell", resp)
	})
}

// failedStatus makes a lane see the answer of an HTTP app that failed, and when the app wants to be asked again; the caller
// still gets the answer itself.
func failedStatus(op string, resp *call.Response) error {
	if resp.Status < 400 {
		return nil
	}
	failure := fault.E(op, fault.KindFromHTTP(resp.Status), fault.AppFailed, errStatus(resp.Status))
	failure.RetryAfter = call.RetryAfter(resp.Header.Get("retry-after"), time.Now())
	return failure
}
