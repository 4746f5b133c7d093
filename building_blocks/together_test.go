package blocks

import (
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/sidecast/sidecast/actors"
	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/resiliency"
)

// crowd are a caller's sidecar and an app that answers whole calls, and streams whose answers go on until they are let go.
type crowd struct {
	t     *testing.T
	shop  *Blocks
	web   *Blocks
	letGo chan struct{} // a token ends a stream
	heads chan struct{} // a token for each answer of a stream that has begun
}

func newCrowd(t *testing.T) *crowd {
	c := &crowd{t: t, letGo: make(chan struct{}), heads: make(chan struct{}, 16)}
	dir := t.TempDir()
	app := &streamApp{stream: func(ctx context.Context, req *call.Request, stream call.ServerStream) error {
		if err := stream.Answer(ctx, &call.Response{Status: 200}); err != nil {
			return err
		}
		if req.Method == "short" {
			return nil
		}
		if err := stream.Send(ctx, []byte("one")); err != nil {
			return err
		}
		select {
		case <-c.letGo:
			return nil
		case <-ctx.Done():
			return fault.FromContext("serve", ctx, "the test")
		}
	}}
	app.invoke = func(_ context.Context, req *call.Request) (*call.Response, error) {
		if req.Method == "bad" {
			return nil, fault.New("serve", fault.InstanceLost, "it broke")
		}
		return &call.Response{Status: 200}, nil
	}
	c.web = sidecarOf(t, dir, "web", "web-1", app, 0, nil, nil)
	c.shop = sidecar(t, dir, "shop", &testApp{invoke: echo}, 0)
	eventually(t, "shop sees web", func() bool { return c.shop.Invocation.target("web") != nil })
	return c
}

func (c *crowd) call(method string) error {
	_, err := c.shop.Invocation.Invoke(c.t.Context(), &call.Request{App: "web", Method: method, Verb: "GET"})
	return err
}

// stream makes one that is over when the app says so; or at once, for the method short.
func (c *crowd) stream(method string) error {
	first := true
	return c.shop.Invocation.Relay(c.t.Context(), &call.Request{App: "web", Method: method, Verb: "GET"}, Exchange{
		Next:   func() ([]byte, error) { return nil, io.EOF },
		Header: func(*call.Response) error { return nil },
		Chunk: func([]byte) error {
			if first {
				c.heads <- struct{}{}
			}
			first = false
			return nil
		},
	})
}

// begin makes a stream that stays, and waits until its answer has begun.
func (c *crowd) begin(method string) (ended <-chan error) {
	done := make(chan error, 1)
	go func() { done <- c.stream(method) }()
	select {
	case <-c.heads:
	case err := <-done:
		c.t.Fatalf("the stream has ended: %v", err)
	}
	return done
}

func (c *crowd) lanes(of string) (names []string) {
	for _, child := range c.shop.Runtime.Tree(c.t.Context()).Children {
		if strings.HasPrefix(child.Name, of) {
			names = append(names, child.Name)
		}
	}
	return names
}

// What a document lets be in flight, or pass in some time, is calls and streams together.
func TestALimitIsOneForCallsAndStreams(t *testing.T) {
	c := newCrowd(t)
	const policies = `
  policies:
    concurrency: {one: {maxInFlight: 1, maxQueue: 0}}
    rateLimits: {two: {limit: 2, per: 1h}}
    circuitBreakers: {quick: {timeout: 1h, failures: 1}}
    retries: {none: {maxRetries: 0}}
`
	c.shop.SetRules(rules(t, policies+"  targets: {apps: {web: {concurrency: one}}}\n"))
	stays := c.begin("long")
	wantReason(t, c.call("m"), fault.QueueFull)
	wantReason(t, c.stream("short"), fault.QueueFull)
	c.letGo <- struct{}{}
	if err := <-stays; err != nil {
		t.Error(err)
	}
	lane := c.shop.Invocation.target("web").calls.Lane
	eventually(t, "its place is free", func() bool { return lane.Status(t.Context()).InFlight == 0 })
	if err := c.call("m"); err != nil {
		t.Error(err)
	}

	for what, target := range map[string]string{
		"the target": "apps: {web: {rateLimit: two}}", "an operation": "apps: {web: {operations: {short: {rateLimit: two}}}}",
	} {
		c.shop.SetRules(rules(t, policies+"  targets: {"+target+"}\n"))
		if err := c.call("short"); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if err := c.stream("short"); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		wantReason(t, c.call("short"), fault.RateLimited)
		wantReason(t, c.stream("short"), fault.RateLimited)
		c.shop.SetRules(nil)
	}

	c.shop.SetRules(rules(t, policies+"  targets: {apps: {web: {circuitBreaker: quick, retry: none}}}\n"))
	wantReason(t, c.call("bad"), fault.InstanceLost)
	wantReason(t, c.call("m"), fault.BreakerOpen)
	wantReason(t, c.stream("short"), fault.BreakerOpen)
}

// A stream that is the probe of a breaker has said what it waits for when its answer begins, and holds up no call after that.
func TestAStreamThatProbesHoldsUpNobody(t *testing.T) {
	c := newCrowd(t)
	c.shop.SetRules(rules(t, `
  policies:
    circuitBreakers: {quick: {timeout: 1ms, failures: 1}}
    retries: {none: {maxRetries: 0}}
  targets: {apps: {web: {circuitBreaker: quick, retry: none}}}
`))
	lane := c.shop.Invocation.target("web").calls.Lane
	wantReason(t, c.call("bad"), fault.InstanceLost)
	eventually(t, "the breaker waits for a probe", func() bool { return lane.Status(t.Context()).Breaker == "half-open" })
	stays := c.begin("long")
	eventually(t, "the breaker has heard it", func() bool { return lane.Status(t.Context()).Breaker == "closed" })
	if err := c.call("m"); err != nil {
		t.Error(err)
	}
	c.letGo <- struct{}{}
	if err := <-stays; err != nil {
		t.Error(err)
	}
}

// Streams have places of their own where no document counts any, and those that run stay in theirs when one begins to.
func TestStreamsAreApartWhereNothingCounts(t *testing.T) {
	c := newCrowd(t)
	target := c.shop.Invocation.target("web").calls
	stays := c.begin("long")
	calls, streams := target.Lane.Status(t.Context()), target.inPieces().Status(t.Context())
	if target.inPieces() == target.Lane || calls.InFlight != 0 || streams.InFlight != 1 || streams.Policy != streamPolicy.Name || streams.Endpoints != 1 {
		t.Errorf("calls have %+v, streams %+v, in the lanes %v", calls, streams, c.lanes("app/web"))
	}
	limit := rules(t, "  policies: {concurrency: {two: {maxInFlight: 2}}}\n  targets: {apps: {web: {concurrency: two}}}\n")
	c.shop.SetRules(limit)
	other := c.begin("long")
	if in := target.Lane.Status(t.Context()).InFlight; in != 1 || target.inPieces() != target.Lane {
		t.Errorf("%d are in flight beside the one that has begun before", in)
	}
	c.shop.SetRules(nil)
	third := c.begin("long")
	if in := target.inPieces().Status(t.Context()).InFlight; in != 2 || target.inPieces() == target.Lane {
		t.Errorf("%d are in flight apart", in)
	}
	for range 3 {
		c.letGo <- struct{}{}
	}
	for _, ended := range []<-chan error{stays, other, third} {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

// A lane of streams comes to be when there is use for it, and goes with its target.
func TestALaneOfStreamsIsMadeWhenItIsNeeded(t *testing.T) {
	b := sidecar(t, t.TempDir(), "shop", &testApp{invoke: echo}, 0)
	b.SetRules(rules(t, "  policies: {rateLimits: {l: {limit: 1, per: 1h}}}\n  targets: {apps: {'http://one': {rateLimit: l}}}\n"))
	c := &crowd{t: t, shop: b}
	one, two := b.Invocation.target("http://one"), b.Invocation.target("http://two")
	if names := c.lanes("endpoint/http://one"); len(names) != 1 || one.calls.inPieces() != one.calls.Lane {
		t.Errorf("there are %v", names)
	}
	if names := c.lanes("endpoint/http://two"); len(names) != 2 || two.calls.inPieces() == two.calls.Lane {
		t.Errorf("there are %v", names)
	}
	b.SetRules(nil)
	if names := c.lanes("endpoint/http://one"); len(names) != 2 {
		t.Errorf("there are %v", names)
	}
	if err := one.calls.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if names := c.lanes("endpoint/http://one"); len(names) != 0 {
		t.Errorf("there are %v", names)
	}
}

// The app's own side has timeouts for what comes before an answer, too: one that has begun lasts as long as it likes, and is what a
// half-open breaker waits for.
func TestTheAppsLaneLetsStreamsLast(t *testing.T) {
	c := newCrowd(t)
	c.web.SetRules(rules(t, `
  policies:
    timeouts: {short: {attempt: 500ms}}
    circuitBreakers: {quick: {timeout: 1ms, failures: 1}}
  targets: {app: {timeout: short, circuitBreaker: quick, operations: {long: {timeout: short, circuitBreaker: quick}}}}
`))
	lanes := c.web.App.lane
	rule, set := lanes.enter("GET", "long")
	defer set.leave()
	for _, lane := range []*actors.Lane{lanes.Lane, rule.Lane} {
		_ = lane.Do(t.Context(), resiliency.Call{}, func(context.Context, actors.Grant) error {
			return fault.New("x", fault.BackendDown, "down")
		})
		eventually(t, "the breaker waits for a probe", func() bool { return lane.Status(t.Context()).Breaker == "half-open" })
	}
	began := time.Now()
	stays := c.begin("long")
	for _, lane := range []*actors.Lane{lanes.Lane, rule.Lane} {
		eventually(t, "the breaker has heard it", func() bool { return lane.Status(t.Context()).Breaker == "closed" })
	}
	select {
	case err := <-stays:
		t.Fatalf("it is cut off after %v: %v", time.Since(began), err)
	case <-time.After(800 * time.Millisecond): // beyond its timeout
	}
	c.letGo <- struct{}{}
	if err := <-stays; err != nil {
		t.Error(err)
	}
	if s := lanes.Lane.Status(t.Context()); s.TimedOut != 0 || s.Breaker != "closed" {
		t.Errorf("the lane has %+v", s)
	}
}
