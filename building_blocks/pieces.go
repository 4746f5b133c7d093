package blocks

import (
	"time"

	"github.com/sidecast/sidecast/actors"
	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/resiliency"
)

// untaken keeps an attempt from beginning at a call that another has answered: a hedge whose time comes while an answer passes.
func untaken(op string, req *call.Request) error {
	if req.Pieces.Taken() {
		return resiliency.Final{Err: fault.E(op, fault.Canceled, fault.CallCanceled, call.ErrTaken)}
	}
	return nil
}

// attempted is req for one attempt: the lanes that it passes through hear when its answer begins.
func attempted(grant actors.Grant, req *call.Request) *call.Request {
	if req.Pieces == nil {
		return req
	}
	own := *req
	own.Pieces = req.Pieces.Attempt(func(head *call.Response, at time.Time) {
		grant.Answered(at, failedStatus("answer", head) == nil)
	})
	return &own
}

// taken is what came of an attempt, for its lane. Of an HTTP answer that counts as a failure both are set. The first attempt of a
// call that answers takes it; nothing follows a failure after that. One whose caller left while the answer passed says nothing of
// the target.
func taken(op string, req *call.Request, resp *call.Response, err error) (*call.Response, error) {
	switch {
	case err != nil && req.Pieces.Left() && fault.KindOf(err) != fault.Canceled:
		resp, err = nil, fault.New(op, fault.CallCanceled, "the caller left while the answer passed: %w", err)
	case err != nil:
		resp = nil
	case resp.Passed:
		err = failedStatus(op, resp)
	default:
		if err = failedStatus(op, resp); err == nil && !req.Pieces.Take() {
			return nil, untaken(op, req)
		}
	}
	if err != nil && req.Pieces.Taken() {
		err = resiliency.Final{Err: err}
	}
	return resp, err
}
