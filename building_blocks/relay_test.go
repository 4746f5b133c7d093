package blocks

import (
	"context"
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
