package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/shirou/gopsutil/v4/process"
)

// operation is something to measure.
type operation struct {
	name  string
	bytes int
	// do is one operation by one of the callers.
	do func(ctx context.Context, caller int) error
	// processes are those whose CPU time counts.
	processes []*process.Process
}

// measure runs op by so many callers for so long.
func measure(op operation, callers int, each time.Duration) (cell, error) {
	if err := hammer(op, callers, each/5, nil); err != nil { // warm connections, pools and code
		return cell{}, err
	}
	var took samples
	before, err := cpu(op.processes)
	if err != nil {
		return cell{}, err
	}
	began := time.Now()
	if err := hammer(op, callers, each, &took); err != nil {
		return cell{}, err
	}
	wall := time.Since(began)
	after, err := cpu(op.processes)
	if err != nil {
		return cell{}, err
	}
	n := len(took.ok)
	if n == 0 {
		return cell{}, fmt.Errorf("%s: all of %d operations failed, the last with: %w", op.name, took.failed, took.err)
	}
	slices.Sort(took.ok)
	return cell{
		Name: op.name, Bytes: op.bytes, Callers: callers, PerSec: float64(n) / wall.Seconds(),
		P50: millis(took.ok[n/2]), P99: millis(took.ok[n*99/100]),
		CPU: (after - before) * 1e6 / float64(n+took.failed), Failed: took.failed,
	}, nil
}

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// samples are the times of the operations that succeeded.
type samples struct {
	mu     sync.Mutex
	ok     []time.Duration
	failed int
	err    error
}

func (s *samples) add(ok []time.Duration, failed int, err error) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ok = append(s.ok, ok...)
	s.failed += failed
	if err != nil {
		s.err = err
	}
}

// hammer has each caller do op again and again.
func hammer(op operation, callers int, each time.Duration, took *samples) error {
	ctx, cancel := context.WithTimeout(context.Background(), each+time.Minute)
	defer cancel()
	end := time.Now().Add(each)
	var all sync.WaitGroup
	for caller := range callers {
		all.Go(func() {
			var ok []time.Duration
			var failed int
			var last error
			for began := time.Now(); began.Before(end); {
				err := op.do(ctx, caller)
				now := time.Now()
				if err != nil {
					failed++
					last = err
				} else {
					ok = append(ok, now.Sub(began))
				}
				began = now
			}
			took.add(ok, failed, last)
		})
	}
	all.Wait()
	return ctx.Err()
}

// cpu is the time in seconds that processes have spent in user and system mode.
func cpu(processes []*process.Process) (float64, error) {
	total := 0.0
	for _, p := range processes {
		times, err := p.Times()
		if err != nil {
			return 0, err
		}
		total += times.User + times.System
	}
	return total, nil
}
