package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	sidecastv1 "github.com/sidecast/sidecast/sdk/proto/sidecast/v1"
)

// The neighbours: callers of a healthy target, and beside them callers of one that hangs, who try again and again.
const (
	neighbours   = 16
	stuckCallers = 32
	stuckTimeout = 500 * time.Millisecond
	rounds       = 10
	roundFor     = time.Second
)

// isolation is what a hung target does to the callers of another, through the same sidecar. Rounds with and without it take
// turns, so that a noisy machine spoils both alike.
type isolation struct {
	Alone    float64 `json:"alone_per_second"`
	Beside   float64 `json:"beside_per_second"`
	AloneP99 float64 `json:"alone_p99_ms"`
	P99      float64 `json:"beside_p99_ms"`
	Stuck    int     `json:"stuck_calls"` // calls to the hung target meanwhile; all failed
}

func measureIsolation(binary string) (o isolation, err error) {
	s, err := newStage(binary)
	if err != nil {
		return o, err
	}
	defer s.close()
	third, err := startSidecar(binary, s.near.dir, "stuck")
	if err != nil {
		return o, err
	}
	defer third.stop()
	app, _, err := startApp(third)
	if err != nil {
		return o, err
	}
	defer func() {
		_ = app.Process.Kill()
		_ = app.Wait()
	}()
	invoke := s.operations(1 << 10)[1]
	if err := hammer(invoke, neighbours, roundFor, nil); err != nil {
		return o, err
	}
	var alone, beside samples
	for range rounds {
		if err := hammer(invoke, neighbours, roundFor, &alone); err != nil {
			return o, err
		}
		stop := s.besiege(&o)
		err := hammer(invoke, neighbours, roundFor, &beside)
		stop()
		if err != nil {
			return o, err
		}
	}
	if n := alone.failed + beside.failed; n > 0 {
		return o, fmt.Errorf("%d calls to the healthy target failed, the last with: %w %w", n, alone.err, beside.err)
	}
	o.Alone, o.AloneP99 = alone.summary()
	o.Beside, o.P99 = beside.summary()
	o.print()
	return o, nil
}

func (s *samples) summary() (perSecond, p99 float64) {
	slices.Sort(s.ok)
	n := len(s.ok)
	return float64(n) / (rounds * roundFor).Seconds(), millis(s.ok[n*99/100])
}

// besiege has callers ask the hung target until stop: each gives up after a while, or waits as a refusal tells it to, and
// asks again. It returns when they have all asked once.
func (s *stage) besiege(o *isolation) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	client := sidecastv1.NewInvocationClient(s.near.conn)
	var mu sync.Mutex
	var all, asked sync.WaitGroup
	asked.Add(stuckCallers)
	for range stuckCallers {
		all.Go(func() {
			asked.Done()
			for ctx.Err() == nil {
				within, done := context.WithTimeout(ctx, stuckTimeout)
				_, err := client.Invoke(within, &sidecastv1.InvokeRequest{AppId: "stuck", Method: "hang", Idempotent: true})
				done()
				mu.Lock()
				o.Stuck++
				mu.Unlock()
				advice, _ := adviceOf(err)
				select {
				case <-time.After(advice):
				case <-ctx.Done():
				}
			}
		})
	}
	asked.Wait()
	return func() { cancel(); all.Wait() }
}

func (o isolation) print() {
	fmt.Printf("\n%d callers alone %.0f/s, p99 %.2f ms; beside %d callers of a target that hangs (%d calls) %.0f/s (%.1f %%), p99 %.2f ms (× %.2f)\n",
		neighbours, o.Alone, o.AloneP99, stuckCallers, o.Stuck, o.Beside, 100*o.Beside/o.Alone, o.P99, o.P99/o.AloneP99)
}
