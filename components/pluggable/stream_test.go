//go:build unix

package pluggable

import (
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"testing/synctest"
)

// endless is a stream of messages of one size, until the other side has said goodbye or ctx ends.
type endless struct {
	ctx  context.Context
	size int
	mu   sync.Mutex
	sent []int
	bye  chan struct{}
}

func (e *endless) Recv() (*int, error) {
	select {
	case <-e.bye:
		return nil, io.EOF
	case <-e.ctx.Done():
		return nil, e.ctx.Err()
	default:
		return &e.size, nil
	}
}

func (e *endless) Send(n *int) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.sent = append(e.sent, *n)
	return nil
}

func (e *endless) CloseSend() error { close(e.bye); return nil }

// TestMessagesAtWorkAreBounded: neither many small messages nor large ones fill memory, and each is answered before the stream ends.
func TestMessagesAtWorkAreBounded(t *testing.T) {
	for size, most := range map[int]int{1: roomy / smallest, 10 << 20: roomy / (10 << 20), roomy * 2: 1} {
		synctest.Test(t, func(t *testing.T) {
			streaming, cancel := context.WithCancel(t.Context())
			e := &endless{ctx: streaming, size: size, bye: make(chan struct{})}
			taken, release := 0, make(chan struct{})
			f := &flow[int, int]{stream: e, cancel: cancel, room: newRoom(), size: func(n *int) int { return *n }, take: func(n *int) (func() *int, func()) {
				taken++
				return func() *int { <-release; return n }, func() {}
			}}
			ctx, stop := context.WithCancel(t.Context())
			var busy sync.WaitGroup
			ended := make(chan error, 1)
			go func() { ended <- f.run(ctx, &busy) }()
			synctest.Wait()
			if taken != most {
				t.Errorf("of messages of %d bytes %d are at work, want %d", size, taken, most)
			}
			stop()
			synctest.Wait()
			close(release)
			if err := <-ended; err != nil {
				t.Error(err)
			}
			if len(e.sent) != most || taken != most {
				t.Errorf("%d were taken and %d answered", taken, len(e.sent))
			}
		})
	}
}

func TestAStreamThatBreaksIsTold(t *testing.T) {
	broken, cancel := context.WithCancel(t.Context())
	cancel()
	f := &flow[int, int]{stream: &endless{ctx: broken}, cancel: cancel, room: newRoom()}
	var busy sync.WaitGroup
	if err := f.run(t.Context(), &busy); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
