package blocks

import (
	"cmp"
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sidecast/sidecast/access"
	"github.com/sidecast/sidecast/actors"
	"github.com/sidecast/sidecast/appchannel"
	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/call/grpcweb"
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
	case req.Caller == a.self.AppID && req.CallerNamespace == "":
		return nil
	}
	caller := access.Caller{App: req.Caller, Namespace: cmp.Or(req.CallerNamespace, a.self.Namespace), TrustDomain: access.PublicDomain}
	if list != nil && req.CallerNamespace == "" {
		for _, instance := range a.fabric.Instances(req.Caller) {
			if domain := instance.Tags[TrustDomainTag]; domain != "" {
				caller.TrustDomain = domain
			}
		}
	}
	byApp, err := list.Decide(caller, req.Method, req.Verb)
	a.metrics.Dapr().Admitted(caller.App, caller.Namespace, caller.TrustDomain, byApp, err == nil)
	return err
}

func (a *App) start() error { return a.fabric.Serve(a) }

// Channel is how the app is reached.
func (a *App) Channel() appchannel.Channel { return a.channel }

// Room is how many calls one caller can have here at most, for those that work and those that wait, and for as many again as
// work: while an answer travels, its caller counts a call that is over here. 0 is no bound: a queue that sheds has a place for calls that
// come when it is full.
func (a *App) Room() int {
	p := a.lane.Policy()
	if p.MaxInFlight == 0 || p.Queue.Full != resiliency.Refuse {
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
	ctx, span := a.tracer.Serve(ctx, &req.Header, a.self.AppID, req.Method, grpcweb.Is(req.ContentType))
	defer span.End(&err)
	caller := req.Caller
	if err := a.admit(req); err != nil {
		return nil, err
	}
	what := resiliency.Call{
		Op: req.Method, Caller: caller, Idempotent: req.Idempotent, Repeatable: call.Repeatable(req.Verb), Header: &req.Header,
	}
	req = keepingLast(a.lane, req)
	resp, err = pass(ctx, a.lane, req.Verb, what,
		func(ctx context.Context, grant actors.Grant) (*call.Response, error) {
			if err := a.channel.Ready(); err != nil {
				return nil, err
			}
			if err := untaken("serve "+req.Method, req); err != nil {
				return nil, err
			}
			own := attempted(grant, req)
			resp, err := a.channel.Invoke(ctx, own)
			return taken("serve", own, resp, err)
		},
		func(ctx context.Context, lane *actors.Lane, resp *call.Response, err error) (*call.Response, error) {
			return a.fallback.settle(ctx, lane, req, resp, err)
		})
	return answered(resp, err)
}

// ServeStream gives the app a stream that came over the fabric. Timeouts hold until its answer begins.
func (a *App) ServeStream(ctx context.Context, req *call.Request, stream call.ServerStream) (err error) {
	defer a.metrics.Observe(telemetry.Op{Block: "app", Target: a.self.AppID, Name: "stream"}, time.Now(), &err)
	if dapr := a.metrics.Dapr(); dapr != nil && req.Caller != a.self.AppID {
		defer func() { dapr.Served(req.Caller, statusOf(nil, err)) }()
	}
	ctx, span := a.tracer.Serve(ctx, &req.Header, a.self.AppID, req.Method, grpcweb.Is(req.ContentType))
	defer span.End(&err)
	caller := req.Caller
	if err := a.admit(req); err != nil {
		return err
	}
	var begun atomic.Bool // something of an answer may have been sent
	return passAlone(ctx, a.lane, req.Verb, resiliency.Call{Op: req.Method, Caller: caller, Header: &req.Header},
		func(within context.Context, grant actors.Grant) error {
			if err := a.channel.Ready(); err != nil {
				return err
			}
			begun.Store(true)
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			hold := context.AfterFunc(within, cancel)
			defer hold()
			var once sync.Once
			return onlyOnce(a.channel.Stream(ctx, req, &heardStream{ServerStream: stream, began: func(well bool) {
				once.Do(func() {
					if hold() { // or its time was up before
						grant.Answered(time.Now(), well)
					}
				})
			}}))
		},
		func(ctx context.Context, lane *actors.Lane, err error) error {
			answer := writtenAnswer(lane, err)
			if answer == nil || req.Verb == "" || begun.Swap(true) { // without a verb it is no call of HTTP
				return err
			}
			fellBack(ctx, lane, "static")
			if err = stream.Answer(ctx, answer); err == nil && len(answer.Body) > 0 {
				err = stream.Send(ctx, answer.Body)
			}
			return err
		})
}

// heardStream tells when the answer begins, and whether that is well.
type heardStream struct {
	call.ServerStream
	began func(well bool)
}

func (h *heardStream) Answer(ctx context.Context, header *call.Response) error {
	h.began(failedStatus("serve", header) == nil)
	return h.ServerStream.Answer(ctx, header)
}

func (h *heardStream) Send(ctx context.Context, data []byte) error {
	h.began(true)
	return h.ServerStream.Send(ctx, data)
}

// Trailer and SetTrailer are the stream's own, if it has them.
func (h *heardStream) Trailer() call.Header          { return call.TrailerOf(h.ServerStream) }
func (h *heardStream) SetTrailer(fields call.Header) { call.SetTrailer(h.ServerStream, fields) }

// onlyOnce keeps lanes from another attempt at a stream of which the app may have taken something: the rest would be another
// request. Whose call it is can make it again. The failure says what it said.
func onlyOnce(err error) error {
	if err == nil || fault.NotSent(err) {
		return err
	}
	f, ok := err.(*fault.Error)
	if !ok || f.Err == nil {
		return resiliency.Final{Err: err}
	}
	own := *f
	own.Err = resiliency.Final{Err: f.Err}
	return &own
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
	if resp.Status == 0 || 200 <= resp.Status && resp.Status < 400 { // a status of gRPC, or an answer
		return nil
	}
	failure := fault.E(op, fault.KindFromHTTP(resp.Status), fault.AppFailed, errStatus(resp.Status))
	failure.RetryAfter = call.RetryAfter(resp.Header.Get("retry-after"), time.Now())
	return failure
}
