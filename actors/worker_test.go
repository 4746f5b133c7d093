package actors

import (
	"context"
	"errors"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/resiliency"
)

func TestWorkerRestarts(t *testing.T) {
	for name, end := range map[string]func() error{
		"error": func() error { return errors.New("it failed") },
		"panic": func() error { panic("ouch") },
		"exit":  func() error { runtime.Goexit(); return nil },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, Options{RestartAfter: time.Second, RestartAtMost: 4 * time.Second}, func(t *testing.T, s *System) {
				begun := time.Now()
				var starts []time.Duration
				s.Worker("w", func(context.Context) error {
					if starts = append(starts, time.Since(begun)); len(starts) == 5 {
						return nil
					}
					return end()
				})
				synctest.Wait()
				if n := s.Tree(t.Context()).Children[0]; n.Kind != "worker" || n.State != "restarting" || n.Restarts != 1 {
					t.Errorf("tree shows %+v", n)
				}
				time.Sleep(time.Minute)
				synctest.Wait()
				last := time.Duration(0)
				for i, want := range []float64{0, 1, 2, 4, 4} {
					if got := (starts[i] - last).Seconds(); got < want*0.75 || got > want*1.25 {
						t.Errorf("start %d after %vs, want about %v", i, got, want)
					}
					last = starts[i]
				}
				if n := len(s.Tree(t.Context()).Children); len(starts) != 5 || n != 0 {
					t.Errorf("%d starts, %d in the tree", len(starts), n)
				}
			})
		})
	}
}

func TestWorkerStop(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, s *System) {
		ended := false
		w := s.Worker("w", func(ctx context.Context) error {
			<-ctx.Done()
			time.Sleep(time.Second)
			ended = true
			return ctx.Err()
		})
		synctest.Wait()
		short, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if err := w.Stop(short); fault.KindOf(err) != fault.Timeout {
			t.Errorf("stopped: %v", err)
		}
		if err := w.Stop(t.Context()); err != nil || !ended {
			t.Errorf("%v, ended %v", err, ended)
		}
		if err := w.Stop(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// TestWorkerStopWhileDown: a worker that waits for its restart is stopped at once and never starts again.
func TestWorkerStopWhileDown(t *testing.T) {
	bubble(t, Options{RestartAfter: time.Hour}, func(t *testing.T, s *System) {
		starts := 0
		w := s.Worker("w", func(context.Context) error { starts++; return errors.New("it failed") })
		synctest.Wait()
		begun := time.Now()
		if err := w.Stop(t.Context()); err != nil || time.Since(begun) != 0 {
			t.Errorf("%v after %v", err, time.Since(begun))
		}
		time.Sleep(3 * time.Hour)
		synctest.Wait()
		if starts != 1 {
			t.Errorf("%d starts", starts)
		}
	})
}

func TestCloseStopsWorkers(t *testing.T) {
	s := NewSystem(Options{})
	var running atomic.Int32
	for range 10 {
		s.Worker("w", func(ctx context.Context) error {
			running.Add(1)
			defer running.Add(-1)
			<-ctx.Done()
			return ctx.Err()
		})
	}
	eventually(t, "all run", func() bool { return running.Load() == 10 })
	shut(t, s)
	if n := running.Load(); n != 0 {
		t.Errorf("%d still run", n)
	}
	late := s.Worker("late", func(context.Context) error { t.Error("started after close"); return nil })
	if err := late.Stop(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestTree(t *testing.T) {
	s := open(t, Options{})
	s.Lane("b", resiliency.Policy{Name: "p"})
	s.BalancedLane("a", resiliency.Policy{Breaker: resiliency.Breaker{Failures: 1}}).SetEndpoints([]resiliency.Endpoint{{ID: "i"}})
	s.Worker("w", func(ctx context.Context) error { <-ctx.Done(); return nil })
	root := s.Tree(t.Context())
	if root.Kind != "system" || root.State != "running" || len(root.Children) != 3 {
		t.Fatalf("tree %+v", root)
	}
	a, b, w := root.Children[0], root.Children[1], root.Children[2]
	if a.Name != "a" || a.Lane.Endpoints != 1 || b.Name != "b" || b.Lane.Policy != "p" || a.Lane.Breaker != "closed" || b.Lane.Breaker != "" || w.Name != "w" || w.Lane != nil {
		t.Errorf("children %+v", root.Children)
	}
	if err := s.Lane("b", resiliency.Policy{}).Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := s.Tree(t.Context()).Children[1]; n.State != "draining" {
		t.Errorf("drained lane is %s", n.State)
	}
}
