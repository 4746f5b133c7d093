// Package appchanneltest is the conformance suite of appchannel: whatever an app is reached over, a Channel must behave
// the same. A test gives the suite a way to open a channel to an App of this package:
//
//	appchanneltest.Run(t, func(t *testing.T, app *appchanneltest.App) appchanneltest.Fixture { … })
package appchanneltest

import (
	"context"
	"errors"
	"io"
	"sync/atomic"

	"github.com/sidecast/sidecast/appchannel"
	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/fault"
)

// Methods of an App. Garbage is up to the transport: an answer that its protocol does not allow.
const (
	Echo    = "echo"    // answers with the body, and with the header fields that start with `x-`
	Fail    = "fail"    // fails with the kind and reason of those header fields
	Panic   = "panic"   // panics
	Hang    = "hang"    // answers when its context has ended
	Garbage = "garbage" // breaks the protocol
)

// Streaming methods of an App.
const (
	StreamEcho  = "stream-echo"  // writes what it reads
	StreamEarly = "stream-early" // writes one chunk and ends without reading
	StreamFail  = "stream-fail"  // reads one chunk, then fails like Fail
	StreamHang  = "stream-hang"  // reads until its caller has gone
)

// App is an app as its own code sees it. A transport decodes, calls one of the methods and encodes.
type App struct {
	// Started gets a value whenever Hang or StreamHang begins, Canceled when its caller has gone.
	Started, Canceled chan struct{}
	subscriptions     atomic.Pointer[[]appchannel.Subscription]
}

func newApp() *App {
	a := &App{Started: make(chan struct{}, 2000), Canceled: make(chan struct{}, 2000)}
	a.subscriptions.Store(&[]appchannel.Subscription{
		{PubSub: "bus", Topic: "orders", Route: "on-orders", DeadLetterTopic: "dead", MaxDeliveries: 3},
		{Topic: "raw", Raw: true},
	})
	return a
}

// Subscriptions are the events that the app wants.
func (a *App) Subscriptions() []appchannel.Subscription { return *a.subscriptions.Load() }

// Subscribe changes them, for an app that starts again.
func (a *App) Subscribe(list ...appchannel.Subscription) { a.subscriptions.Store(&list) }

// Call handles a unary call. The answer tells caller, verb and query in header fields.
func (a *App) Call(ctx context.Context, req *call.Request) (*call.Response, error) {
	switch req.Method {
	case Echo:
		response := &call.Response{Body: req.Body, ContentType: req.ContentType}
		for _, f := range req.Header {
			if len(f.Key) > 2 && f.Key[:2] == "x-" {
				response.Header.Add(f.Key, f.Value)
			}
		}
		response.Header.Add("x-seen", req.Caller+" "+req.Verb+" "+req.Query)
		return response, nil
	case Fail:
		return nil, failure(req.Header)
	case Panic:
		panic("as the suite asked")
	case Hang:
		a.hang(ctx)
		return nil, fault.FromContext(Hang, ctx, "nothing")
	}
	return nil, fault.New(req.Method, fault.HandlerNotFound, "the app has no such handler")
}

func (a *App) hang(ctx context.Context) {
	a.Started <- struct{}{}
	<-ctx.Done()
	a.Canceled <- struct{}{}
}

func failure(header call.Header) error {
	kind, _ := fault.KindNamed(header.Get("x-kind"))
	return fault.E("handler", kind, fault.Reason(header.Get("x-reason")), errors.New("as the suite asked"))
}

// Stream handles a streaming call.
func (a *App) Stream(ctx context.Context, req *call.Request, stream io.ReadWriter) error {
	switch req.Method {
	case StreamEcho:
		_, err := io.Copy(stream, stream)
		return err
	case StreamEarly:
		_, err := stream.Write([]byte("enough"))
		return err
	case StreamFail:
		if _, err := stream.Read(make([]byte, 1)); err != nil {
			return err
		}
		return failure(req.Header)
	case StreamHang:
		a.Started <- struct{}{}
		if _, err := io.Copy(io.Discard, stream); err == nil {
			<-ctx.Done()
		}
		a.Canceled <- struct{}{}
		return fault.New(StreamHang, fault.CallCanceled, "the caller has gone")
	}
	return fault.New(req.Method, fault.HandlerNotFound, "the app has no such handler")
}

// Event handles an event: its payload says what the outcome shall be.
func (a *App) Event(ctx context.Context, event *appchannel.Event) appchannel.Outcome {
	switch string(event.Data) {
	case "retry":
		return appchannel.Outcome{Verdict: appchannel.Retry, Reason: "later"}
	case "drop":
		return appchannel.Outcome{Verdict: appchannel.Drop, Reason: "never"}
	case "hang":
		a.hang(ctx)
	}
	return appchannel.Outcome{Verdict: appchannel.Success}
}
