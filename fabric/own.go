package fabric

import (
	"context"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/fault"
)

// callOwn serves a call to this very instance in the caller's goroutine: no message leaves the process, and an outage of the
// fabric is none here. What caller and handler see is what they would of another instance.
func (f *Fabric) callOwn(ctx context.Context, to Target, req *call.Request) (*call.Response, error) {
	in := &f.inbound
	r := &running{
		// No subject has a space in it, so no peer can name the call.
		in: in, key: "own " + strconv.FormatUint(in.owned.Add(1), 36), caller: f.config.AppID, held: int64(len(req.Body)),
		arrived: time.Now(),
	}
	r.heardAt.Store(math.MaxInt64) // the caller is here: nobody need ask after it
	if err := in.enter(r); err != nil {
		return nil, ownFault(to, req, err)
	}
	defer in.finish(r)
	within, cancel := context.WithCancel(apart{ctx})
	defer cancel()
	own := *req
	var p *ownPassing
	if req.Pieces != nil {
		p = &ownPassing{to: req.Pieces}
		whole, cancelWhole := context.WithCancel(apart{req.Pieces.Context()})
		defer cancelWhole()
		own.Pieces = call.PiecesTo(whole, p)
		r.begin(func() { cancel(); cancelWhole() }, nil)
	} else {
		r.begin(cancel, nil)
	}
	own.App, own.Namespace, own.Caller, own.CallerNamespace = f.config.AppID, "", f.config.AppID, ""
	own.Header, own.Trailer = slices.Clone(req.Header), slices.Clone(req.Trailer)
	resp, err := in.serve(within, &own)
	if err == nil && p != nil && p.begun && !resp.Passed {
		err = errNotPassed(req.Method)
	}
	switch {
	case err == nil && int64(len(resp.Body)) > f.config.MaxBody:
		err = in.answerTooLarge(req.Method, resp)
		fallthrough
	case err != nil:
		return nil, ownFault(to, req, err)
	}
	if err := call.TakeRoom(ctx, int64(len(resp.Body))); err != nil {
		return nil, err
	}
	return resp, nil
}

// isOwn says whether a target is this very instance.
func (f *Fabric) isOwn(to Target) bool {
	return to.Instance == f.config.Instance && to.App == f.config.AppID && f.inbound.serving.Load()
}

// ownFault is err as it would come back from another instance.
func ownFault(to Target, req *call.Request, err error) error {
	value, text := appendFailure(begin(nil, kindFailed), err)
	fr, err := parseFrame(string(value))
	if err != nil {
		return fault.E(opOf(to, req.Method), fault.Internal, fault.Defect, err)
	}
	return fr.failure.fault(text)
}

// apart is a context without its values: what a caller's goroutine carries is nothing to the handler.
type apart struct{ context.Context }

func (apart) Value(any) any { return nil }

// AfterFunc spares package context a goroutine for each context that is made of this one.
func (a apart) AfterFunc(do func()) (stop func() bool) { return context.AfterFunc(a.Context, do) }
