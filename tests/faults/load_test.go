package faults

import (
	"context"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sidecast/sidecast/fault"
	sidecast "github.com/sidecast/sidecast/sdk/go"
	"github.com/sidecast/sidecast/tests/machine"
)

// A target that hangs fills its own lane: calls beyond are refused at once, and other targets do not notice.
func TestOneSlowTargetSlowsNoOther(t *testing.T) {
	m := machine.New(t)
	slow, quick, caller := m.Sidecar("slow", "--app-max-concurrency", "10"), m.Sidecar("quick"), m.Sidecar("caller")
	slow.Serve(append(handlers("slow"), sidecast.Concurrency(50))...)
	quick.Serve(handlers("quick")...)
	meet(t, caller, "slow", 1)
	meet(t, caller, "quick", 1)
	c := caller.Client()
	ctx, cancel := context.WithCancel(t.Context())
	var calls sync.WaitGroup
	var refused, others atomic.Int64
	const offered = 3000
	for range offered {
		calls.Go(func() {
			bounded, done := context.WithTimeout(ctx, long)
			defer done()
			switch _, err := c.Invoke(bounded, "slow", "hang", nil); {
			case fault.KindOf(err) == fault.Exhausted && fault.RetryAfter(err) > 0:
				refused.Add(1)
			case fault.KindOf(err) != fault.Canceled:
				others.Add(1)
			}
		})
	}
	running(t, slow, 10)
	machine.Until(t, "what is too much is refused", func() error {
		if n := refused.Load(); n < offered-10-256 {
			return fmt.Errorf("%d are", n)
		}
		return nil
	})
	for range 50 {
		if o := settled(t, "quick", begin(c, "quick", "echo", long)); o.err != nil {
			t.Errorf("another target: %v", o.err)
		}
	}
	if _, err := c.State("").Set(ctx, "k", []byte("v")); err != nil {
		t.Errorf("state: %v", err)
	}
	cancel()
	calls.Wait()
	if n := others.Load(); n > 0 {
		t.Errorf("%d calls ended otherwise", n)
	}
	machine.Until(t, "the lane is free again", func() error { return try(c, "slow", "echo", "x") })
}

// A reader that does not read stops its writer; nothing in between grows.
func TestSlowReaderStopsTheWriter(t *testing.T) {
	m := machine.New(t)
	target, caller := m.Sidecar("target"), m.Sidecar("caller")
	var wrote atomic.Int64
	target.Serve(append(handlers("target"), sidecast.HandleStream("pour", func(_ context.Context, _ *sidecast.Request, s *sidecast.Stream) error {
		block := make([]byte, 64<<10)
		for {
			n, err := s.Write(block)
			wrote.Add(int64(n))
			if err != nil {
				return err
			}
		}
	}))...)
	meet(t, caller, "target", 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stream, err := caller.Client().InvokeStream(ctx, "target", "pour")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(stream, make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	var before int64 = -1
	machine.Until(t, "the writer stands still", func() error {
		now := wrote.Load()
		if now != before {
			before = now
			time.Sleep(500 * time.Millisecond)
			return fmt.Errorf("it has written %d bytes", now)
		}
		return nil
	})
	if before > 32<<20 {
		t.Errorf("%d MiB are on their way to a reader that does not read", before>>20)
	}
	if _, err := io.ReadFull(stream, make([]byte, 64<<20)); err != nil {
		t.Errorf("when it reads on: %v", err)
	}
	cancel()
	machine.Until(t, "calls go on", func() error { return try(caller.Client(), "target", "echo", "x") })
}

// A sidecar that takes connections and says nothing, a client that opens streams and does nothing: both cost little.
func TestManyIdleStreams(t *testing.T) {
	m := machine.New(t)
	s := m.Sidecar("idle")
	c := s.Client()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var watching sync.WaitGroup
	var current atomic.Int64
	for range 500 {
		watching.Go(func() {
			for change, err := range c.State("").Watch(ctx, "k/") {
				if err != nil {
					return
				}
				if change.Current {
					current.Add(1)
				}
			}
		})
	}
	machine.Until(t, "500 watches", func() error {
		if n := current.Load(); n < 500 {
			return fmt.Errorf("%d", n)
		}
		return nil
	})
	for range 20 {
		if _, err := c.State("").Set(ctx, "k/1", []byte("v")); err != nil {
			t.Fatal(err)
		}
	}
	if rss := resident(t, s); rss > 300 {
		t.Errorf("%d MiB", rss)
	}
	cancel()
	watching.Wait()
}
