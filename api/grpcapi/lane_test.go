package grpcapi

import (
	"context"
	"maps"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/resiliency"
	sidecastv1 "github.com/sidecast/sidecast/sdk/proto/sidecast/v1"
)

// slowApp answers the method `slow` when it is released, and others at once.
type slowApp struct {
	begun   chan struct{}
	release chan struct{}
}

func (a *slowApp) handle(frame *sidecastv1.ServeResponse, say func(*sidecastv1.ServeRequest)) {
	in := frame.GetInvoke()
	if in == nil {
		return
	}
	answer := func() {
		say(&sidecastv1.ServeRequest{Frame: &sidecastv1.ServeRequest_Answer{Answer: &sidecastv1.CallAnswer{
			CallId: in.GetCallId(), Result: &sidecastv1.CallAnswer_Response{Response: &sidecastv1.InvokeResponse{}},
		}}})
	}
	if in.GetRequest().GetMethod() != "slow" {
		answer()
		return
	}
	a.begun <- struct{}{}
	go func() {
		<-a.release
		answer()
	}()
}

func (s *sidecar) invoke(ctx context.Context, method string) error {
	_, err := sidecastv1.NewInvocationClient(s.conn).Invoke(ctx, &sidecastv1.InvokeRequest{AppId: "shop", Method: method})
	return err
}

func (s *sidecar) steer(order *sidecastv1.SteerLaneRequest) *sidecastv1.SteerLaneResponse {
	s.t.Helper()
	answer, err := sidecastv1.NewRuntimeClient(s.conn).SteerLane(s.t.Context(), order)
	if err != nil {
		s.t.Fatal(err)
	}
	return answer
}

// TestRefusalsReachTheClient: whoever decides, the caller's lane or the target's own, a gRPC client is told the reason, the
// lane and its policy, the attempts made, and when to come again.
func TestRefusalsReachTheClient(t *testing.T) {
	dir := t.TempDir()
	shop := start(t, dir, "shop", "shop-1")
	app := &slowApp{begun: make(chan struct{}, 1), release: make(chan struct{})}
	shop.serve(app.handle)
	intake := start(t, dir, "intake", "intake-1")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := intake.invoke(ctx, "fast"); err != nil { // from here on the lane exists
		t.Fatal(err)
	}
	one := &sidecastv1.LaneLimits{InFlight: new(int32(1)), Queue: new(int32(0))}
	policy := func(p resiliency.Policy) func() {
		return func() {
			lane, _ := intake.system.Find("app/shop")
			lane.SetPolicy(p)
		}
	}
	for _, c := range []struct {
		name    string
		prepare func()
		busy    bool // a slow call is on its way
		method  string
		code    codes.Code
		reason  fault.Reason
		meta    map[string]string
		retry   func(time.Duration) bool // nil: nothing is said
	}{
		{"queue full", func() {
			intake.steer(&sidecastv1.SteerLaneRequest{Lane: "app/shop", Order: &sidecastv1.SteerLaneRequest_Limits{Limits: one}})
		}, true, "fast", codes.ResourceExhausted, fault.QueueFull,
			map[string]string{"lane": "app/shop", "policy": "default-app", "attempts": "0", "kind": "exhausted"}, within30s},
		{"queue of the target full", func() {
			shop.steer(&sidecastv1.SteerLaneRequest{Lane: "app", Order: &sidecastv1.SteerLaneRequest_Limits{Limits: one}})
		}, true, "fast", codes.ResourceExhausted, fault.QueueFull,
			map[string]string{"lane": "app/shop", "policy": "default-app", "attempts": "1", "kind": "exhausted", "endpoint": "shop-1"}, within30s},
		{"breaker open", func() {
			intake.steer(&sidecastv1.SteerLaneRequest{Lane: "app/shop", Order: &sidecastv1.SteerLaneRequest_Breaker{Breaker: "open"}})
		}, false, "fast", codes.Unavailable, fault.BreakerOpen,
			map[string]string{"lane": "app/shop", "policy": "default-app", "attempts": "0", "kind": "tripped"}, within30s},
		{"drained", func() {
			intake.steer(&sidecastv1.SteerLaneRequest{Lane: "app/shop", Order: &sidecastv1.SteerLaneRequest_Admission{Admission: "drained"}})
		}, false, "fast", codes.Unavailable, fault.LaneDraining,
			map[string]string{"lane": "app/shop", "policy": "default-app", "attempts": "0", "kind": "unavailable"}, nil},
		{"attempt timeout", policy(resiliency.Policy{Name: "hasty", AttemptTimeout: 20 * time.Millisecond}), false, "slow",
			codes.DeadlineExceeded, fault.AttemptTimeout,
			map[string]string{"lane": "app/shop", "policy": "hasty", "attempts": "1", "kind": "timeout", "endpoint": "shop-1"}, nil},
		{"rate limited", func() {
			policy(resiliency.Policy{Name: "rare", Limits: []resiliency.RateLimit{{Name: "hourly", Limit: 1, Per: time.Hour}}})()
			if err := intake.invoke(ctx, "fast"); err != nil {
				t.Fatal(err)
			}
		}, false, "fast", codes.ResourceExhausted, fault.RateLimited,
			map[string]string{"lane": "app/shop", "policy": "rare", "attempts": "0", "kind": "exhausted", "limit": "hourly"},
			func(d time.Duration) bool { return d > 30*time.Minute && d <= time.Hour }},
	} {
		t.Run(c.name, func(t *testing.T) {
			done := make(chan error, 1)
			if c.busy {
				go func() { done <- intake.invoke(ctx, "slow") }()
				<-app.begun
			}
			c.prepare()
			err := intake.invoke(ctx, c.method)
			s := status.Convert(err)
			info, retry := details(s)
			if s.Code() != c.code || info.GetReason() != string(c.reason) || info.GetDomain() != fault.Domain || !maps.Equal(info.GetMetadata(), c.meta) {
				t.Errorf("%v: %v %v", err, info.GetReason(), info.GetMetadata())
			}
			if c.retry == nil && retry != nil || c.retry != nil && (retry == nil || !c.retry(retry.RetryDelay.AsDuration())) {
				t.Errorf("retry after %v", retry)
			}
			if c.busy {
				app.release <- struct{}{}
				if err := <-done; err != nil {
					t.Errorf("the call that was there before: %v", err)
				}
			}
			if c.method == "slow" {
				<-app.begun
				app.release <- struct{}{}
			}
			reset := func(s *sidecar, lane string) {
				s.steer(&sidecastv1.SteerLaneRequest{Lane: lane, Order: &sidecastv1.SteerLaneRequest_ResetAll{ResetAll: &sidecastv1.LaneReset{}}})
			}
			reset(shop, "app")
			reset(intake, "app/shop")
		})
	}
}

// within30s is what a lane may ask a caller to wait for room.
func within30s(d time.Duration) bool { return d > 0 && d <= 30*time.Second }

func details(s *status.Status) (info *errdetails.ErrorInfo, retry *errdetails.RetryInfo) {
	for _, d := range s.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			info = d
		case *errdetails.RetryInfo:
			retry = d
		}
	}
	return info, retry
}

// TestSteeringIsShown: the tree shows what an operator told a lane, as it was told.
func TestSteeringIsShown(t *testing.T) {
	s := start(t, t.TempDir(), "shop", "shop-1")
	answer := s.steer(&sidecastv1.SteerLaneRequest{Lane: "app", Order: &sidecastv1.SteerLaneRequest_Limits{Limits: &sidecastv1.LaneLimits{InFlight: new(int32(3))}}})
	if c := answer.GetChanges(); len(c) != 1 || c[0].From != "1024" || c[0].To != "3" {
		t.Errorf("changed %v", c)
	}
	s.steer(&sidecastv1.SteerLaneRequest{Lane: "app", Order: &sidecastv1.SteerLaneRequest_Breaker{Breaker: "open"}})
	s.steer(&sidecastv1.SteerLaneRequest{Lane: "app", Order: &sidecastv1.SteerLaneRequest_Admission{Admission: "paused"}})
	tree, err := sidecastv1.NewRuntimeClient(s.conn).Tree(t.Context(), &sidecastv1.TreeRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range tree.Root.Children {
		if l := n.Lane; n.Name == "app" {
			if l.InFlightLimit != 3 || len(l.Overridden) != 1 || !l.BreakerForced || l.Breaker != "open" || l.Admission != "paused" {
				t.Errorf("it shows %v", l)
			}
		}
	}
	_, err = sidecastv1.NewRuntimeClient(s.conn).SteerLane(t.Context(), &sidecastv1.SteerLaneRequest{Lane: "app"})
	wantReason(t, err, fault.BadRequest)
}
