package blocks

import (
	"context"
	"errors"
	"io"
	"testing"

	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/fault"
)

// scripted is the far end of an attempt: it takes what is sent until more than most bytes came, and then fails.
type scripted struct {
	most   int
	got    []byte
	failed chan struct{}
}

var notBegun = fault.New("call", fault.NoResponders, "nobody there")

func (s *scripted) Send(_ context.Context, data []byte) error {
	s.got = append(s.got, data...)
	if len(s.got) > s.most {
		close(s.failed)
		return notBegun
	}
	return nil
}
func (s *scripted) Header(ctx context.Context) (*call.Response, error) {
	<-s.failed
	return nil, notBegun
}
func (s *scripted) Recv(context.Context) ([]byte, error) { return nil, notBegun }
func (s *scripted) CloseSend(context.Context) error      { return nil }
func (s *scripted) Close()                               {}

func TestStreamIsNotTriedAgainWhenItsBeginningIsGone(t *testing.T) {
	up := &upload{frames: make(chan uploaded, 2)}
	for _, attempt := range []struct {
		chunk, sent int
		again       bool
	}{
		{chunk: maxReplay, sent: maxReplay, again: true},
		{chunk: 1, sent: maxReplay + 1, again: false}, // more than may be kept
	} {
		up.frames <- uploaded{data: make([]byte, attempt.chunk)}
		to := &scripted{most: attempt.sent - 1, failed: make(chan struct{})}
		err := up.attempt(t.Context(), to, Exchange{})
		if len(to.got) != attempt.sent {
			t.Errorf("%d bytes were sent, want %d", len(to.got), attempt.sent)
		}
		if again := fault.NotSent(err); again != attempt.again || fault.KindOf(err) != fault.Unavailable {
			t.Errorf("after %d bytes: may be made again: %v; %v", attempt.sent, again, err)
		}
	}
}

// ended is the far end of a stream whose answer is whole.
type ended struct{ head call.Response }

func (e *ended) Send(context.Context, []byte) error             { return nil }
func (e *ended) Header(context.Context) (*call.Response, error) { return &e.head, nil }
func (e *ended) Recv(context.Context) ([]byte, error)           { return nil, io.EOF }
func (e *ended) CloseSend(context.Context) error                { return nil }
func (e *ended) Close()                                         {}

// The lane hears of a call that failed though its answer came whole, and the caller does not hear of it twice.
func TestLanesHearWhatAnswersSay(t *testing.T) {
	inBody := fault.New("proxy", fault.InstanceLost, "said in the body")
	for name, c := range map[string]struct {
		status int
		body   error
		want   fault.Kind
	}{
		"a success":                {status: 204},
		"an answer with no status": {},
		"a failure of the server":  {status: 503, want: fault.Unavailable},
		"a failure in the body":    {status: 200, body: inBody, want: inBody.Kind},
	} {
		up := &upload{frames: make(chan uploaded, 1)}
		broken := errors.New("the caller's request broke off")
		up.frames <- uploaded{err: broken}
		err := up.attempt(t.Context(), &ended{call.Response{Status: c.status}}, Exchange{
			Header: func(*call.Response) error { return nil }, Failure: func() error { return c.body },
		})
		var told toldFailure
		if fault.KindOf(err) != c.want || errors.As(err, &told) != (c.want != fault.None) || fault.NotSent(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
