package actors

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/resiliency"
)

// place counts how often it was given back.
type place struct{ left atomic.Int32 }

func (p *place) Leave()                                 { p.left.Add(1) }
func (*place) Take(context.Context, int64) error        { return nil }
func (p *place) isLeft() bool                           { return p.left.Load() > 0 }
func (p *place) of(ctx context.Context) context.Context { return call.WithRoom(ctx, p) }

// TestEntry: a call's place is given back when it is granted and when it has to wait, and stays with one that is refused.
func TestEntry(t *testing.T) {
	l := open(t, Options{}).Lane("l", resiliency.Policy{MaxInFlight: 1, MaxQueue: 1})
	var granted, waiting, refused place
	begun, end, waited := make(chan struct{}), make(chan struct{}), make(chan error, 2)
	go func() {
		waited <- l.Do(granted.of(t.Context()), plain, func(context.Context, Grant) error {
			close(begun)
			<-end
			return nil
		})
	}()
	<-begun
	if !granted.isLeft() {
		t.Error("the call that was granted has its place still")
	}
	go func() { waited <- l.Do(waiting.of(t.Context()), plain, works) }()
	eventually(t, "the one that waits has given its place back", waiting.isLeft)
	wantReason(t, l.Do(refused.of(t.Context()), plain, works), fault.QueueFull)
	if refused.isLeft() {
		t.Error("the call that was refused has no place in which to answer")
	}
	close(end)
	for range 2 {
		if err := <-waited; err != nil {
			t.Error(err)
		}
	}
}
