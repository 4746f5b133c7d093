package mischief

import (
	"context"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/fault/faultgrpc"
	sidecastv1 "github.com/sidecast/sidecast/sdk/proto/sidecast/v1"
)

// App answers every call with its own body, as the plan lets it, and counts how many it works on at once. A path below
// /well/ is never harmed. It
// knows no GET, with which a sidecar asks about subscriptions.
type App struct {
	Plan *Plan
	// Work is how long a call takes beside all harm.
	Work time.Duration

	now, most atomic.Int64
}

// Most is the largest number of calls that were worked on at once.
func (a *App) Most() int { return int(a.most.Load()) }

func (a *App) enter() {
	n := a.now.Add(1)
	for most := a.most.Load(); n > most && !a.most.CompareAndSwap(most, n); most = a.most.Load() {
	}
	time.Sleep(a.Work)
}

func (a *App) leave() { a.now.Add(-1) }

// ServeHTTP is the app over HTTP/1.1. An error of the plan answers with its kind's status, a cut connection with none.
func (a *App) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodGet {
		http.NotFound(w, r)
		return
	}
	a.enter()
	defer a.leave()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the caller is gone
	}
	var h Harm
	if !strings.HasPrefix(r.URL.Path, "/well/") {
		h = a.Plan.Next()
	}
	switch h.Kind {
	case Delay:
		select {
		case <-time.After(h.For):
		case <-r.Context().Done():
			return
		}
	case Error:
		err := fault.New("serve", h.Reason, "an error made on purpose")
		http.Error(w, err.Error(), fault.KindOf(err).HTTP())
		return
	case Hang:
		<-r.Context().Done()
		return
	case Panic, Cut: // a handler that panics is a connection cut, in net/http as elsewhere
		panic(http.ErrAbortHandler)
	case Slow:
		flush := http.NewResponseController(w)
		for i := range body {
			time.Sleep(h.For)
			if _, err := w.Write(body[i : i+1]); err != nil || flush.Flush() != nil {
				return
			}
		}
		return
	}
	_, _ = w.Write(body) // a caller that is gone needs no answer
}

// GRPC returns a server of sidecast.v1.AppCallback that does the same. Connections are shared by calls, so a cut one is
// the status UNAVAILABLE, and a slow answer a late one.
func (a *App) GRPC() *grpc.Server {
	s := grpc.NewServer()
	sidecastv1.RegisterAppCallbackServer(s, &callback{app: a})
	return s
}

type callback struct {
	sidecastv1.UnimplementedAppCallbackServer
	app *App
}

func (c *callback) OnInvoke(ctx context.Context, req *sidecastv1.OnInvokeRequest) (resp *sidecastv1.OnInvokeResponse, err error) {
	c.app.enter()
	defer c.app.leave()
	defer func() {
		if cause := recover(); cause != nil {
			err = status.Errorf(codes.Internal, "the handler panicked: %v", cause)
		}
	}()
	var plan *Plan
	if !strings.HasPrefix(req.GetRequest().GetMethod(), "well/") {
		plan = c.app.Plan
	}
	err = plan.Meet(ctx, req.GetRequest().GetMethod(), func() error {
		resp = &sidecastv1.OnInvokeResponse{Response: &sidecastv1.InvokeResponse{Data: req.GetRequest().GetData()}}
		return nil
	})
	if err != nil {
		return nil, faultgrpc.Err(err)
	}
	return resp, nil
}
