package fabric_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/fabric"
	"github.com/sidecast/sidecast/fault"
)

// TestOwnCallsAreLikeOthers makes each call to an instance from another one and from itself: handler and caller see the same.
func TestOwnCallsAreLikeOthers(t *testing.T) {
	type outcome struct {
		seen     call.Request
		deadline bool
		value    any
		resp     *call.Response
		err      error
	}
	type key struct{}
	handed := make(chan outcome, 1)
	a, b := pair(t, handler{call: func(ctx context.Context, req *call.Request) (*call.Response, error) {
		seen := outcome{seen: *req, value: ctx.Value(key{})}
		_, seen.deadline = ctx.Deadline()
		seen.seen.Header = nil
		handed <- seen
		req.Header.Set("x", "changed by the handler")
		switch req.Method {
		case "fail":
			return nil, fmt.Errorf("around: %w", fault.New("price", fault.QueueFull, "no more").After(time.Second).With("lane", "l"))
		case "plain":
			return nil, errors.New("plain")
		case "panic":
			panic("the handler's")
		case "nothing":
			return nil, nil
		case "large":
			return &call.Response{Body: make([]byte, 2<<10)}, nil
		}
		return &call.Response{Status: 201, ContentType: "text/plain", Header: call.Header{{Key: "k", Value: "v"}}, Body: req.Body}, nil
	}}, func(c *fabric.Config) { c.MaxBody = 1 << 10 })
	for _, method := range []string{"echo", "fail", "plain", "panic", "nothing", "large"} {
		var got [2]outcome
		for i, from := range []*fabric.Fabric{a, b} {
			ctx := context.WithValue(within(t), key{}, "the caller's own")
			header := call.Header{{Key: "x", Value: "1"}, {Key: "x", Value: "2"}}
			resp, err := from.Call(ctx, b1, &call.Request{
				App: "b", Namespace: "test", Method: method, Verb: "PUT", Query: "q=1", ContentType: "application/json", Idempotent: true,
				Header: header, Trailer: call.Header{{Key: "t", Value: "3"}}, Body: []byte("body"),
			})
			if header[0].Value != "1" {
				t.Errorf("%s: the handler changed its caller's header", method)
			}
			seen := <-handed
			got[i] = seen
			got[i].resp, got[i].err = resp, err
			got[i].seen.Caller = ""
			if caller := [2]string{"a", "b"}[i]; seen.seen.Caller != caller {
				t.Errorf("%s: the caller is %q, want %q", method, seen.seen.Caller, caller)
			}
		}
		var told [2]string
		for i, g := range got {
			told[i] = fmt.Sprintf("%+v deadline %v value %v", g.seen, g.deadline, g.value)
			if g.resp != nil {
				told[i] += fmt.Sprintf("\n  answered %d %q %v %q", g.resp.Status, g.resp.ContentType, g.resp.Header, g.resp.Body)
			}
			if g.err != nil {
				told[i] += fmt.Sprintf("\n  failed with %v %v %v %v", fault.KindOf(g.err), fault.ReasonOf(g.err), fault.RetryAfter(g.err), g.err)
			}
		}
		if told[0] != told[1] {
			t.Errorf("%s:\nfrom another %s\nfrom itself  %s", method, told[0], told[1])
		}
	}
}

// TestOwnCallEnds: an own call ends with its caller, and Leave waits for it and refuses more.
func TestOwnCallEnds(t *testing.T) {
	began := make(chan struct{}, 1)
	_, b := pair(t, handler{call: func(ctx context.Context, _ *call.Request) (*call.Response, error) {
		began <- struct{}{}
		<-ctx.Done()
		return nil, fault.FromContext("work", ctx, "its caller")
	}})
	ctx, cancel := context.WithCancel(within(t))
	ended := make(chan error, 1)
	go func() {
		_, err := b.Call(ctx, b1, &call.Request{Method: "m"})
		ended <- err
	}()
	<-began
	brief, stop := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer stop()
	if err := b.Leave(brief); fault.KindOf(err) != fault.Timeout {
		t.Errorf("Leave with an own call running: %v", err)
	}
	_, err := b.Call(within(t), b1, &call.Request{Method: "m"})
	wantReason(t, err, fault.Shutdown)
	cancel()
	if err := <-ended; fault.KindOf(err) != fault.Canceled {
		t.Errorf("the call of a caller that went away ended with %v", err)
	}
	if err := b.Leave(within(t)); err != nil {
		t.Errorf("Leave: %v", err)
	}
}
