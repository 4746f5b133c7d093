package actors

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"pgregory.net/rapid"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/resiliency"
)

// bomb makes the next message that match accepts blow up.
type bomb struct {
	armed atomic.Bool
	match func(message any) bool
}

func (b *bomb) trap(_ string, message any) {
	if b.match(message) && b.armed.CompareAndSwap(true, false) {
		panic("boom")
	}
}

func enters(m any) bool   { _, ok := m.(resiliency.Enter); return ok }
func outcomes(m any) bool { _, ok := m.(*resiliency.Outcome); return ok }
func starts(m any) bool   { _, ok := m.(actor.Started); return ok }
func decides(m any) bool  { d, ok := m.([]resiliency.Decision); return ok && len(d) > 0 }

// TestRestart: a lane that panics answers those who wait, refuses those who come, keeps the slots of those who run, and
// comes back.
func TestRestart(t *testing.T) {
	bubble(t, Options{RestartAfter: time.Second}, func(t *testing.T, s *System) {
		b := bomb{match: enters}
		s.trap = b.trap
		l := s.Lane("l", resiliency.Policy{Name: "p", MaxInFlight: 1, MaxQueue: 1})
		release := hold(t, l)
		waiting := make(chan error, 1)
		go func() { waiting <- l.Do(t.Context(), plain, works) }()
		synctest.Wait()

		begun := time.Now()
		b.armed.Store(true)
		f := wantReason(t, l.Do(t.Context(), plain, works), fault.LaneRestarted)
		if f.Meta["lane"] != "l" || !fault.NotSent(f) || f.Kind != fault.Unavailable {
			t.Errorf("the call that met the panic: %#v", f)
		}
		wantReason(t, <-waiting, fault.LaneRestarted)
		wantReason(t, l.Do(t.Context(), plain, works), fault.LaneRestarted)
		if took := time.Since(begun); took != 0 {
			t.Errorf("answered after %v", took)
		}
		synctest.Wait()
		if n := s.Tree(t.Context()).Children[0]; n.State != "restarting" || n.Restarts != 1 {
			t.Errorf("tree shows %+v", n)
		}

		time.Sleep(2 * time.Second)
		synctest.Wait()
		if s := l.Status(t.Context()); s.InFlight != 1 || s.Queued != 0 || s.Admitted != 1 {
			t.Errorf("after the restart %+v", s)
		}
		go func() { waiting <- l.Do(t.Context(), plain, works) }()
		synctest.Wait()
		wantReason(t, l.Do(t.Context(), plain, works), fault.QueueFull)
		release()
		if err := <-waiting; err != nil {
			t.Error(err)
		}
		if n := s.Tree(t.Context()).Children[0]; n.State != "running" || n.Lane.InFlight != 0 {
			t.Errorf("tree shows %+v", n)
		}
	})
}

// TestRestartDuringOutcome: what an attempt did is told even when the lane fails on it, and its slot is free.
func TestRestartDuringOutcome(t *testing.T) {
	for name, match := range map[string]func(any) bool{"before": outcomes, "after": decides} {
		t.Run(name, func(t *testing.T) {
			bubble(t, Options{}, func(t *testing.T, s *System) {
				b := bomb{match: match}
				s.trap = b.trap
				l := s.Lane("l", resiliency.Policy{MaxInFlight: 1, Retry: resiliency.Retry{Max: 3}})
				calls := 0
				err := l.Do(t.Context(), idempotent, func(context.Context, Grant) error {
					calls++
					b.armed.Store(true)
					return fault.New("attempt", fault.InstanceLost, "gone")
				})
				f := wantReason(t, err, fault.InstanceLost)
				if calls != 1 || fault.NotSent(f) {
					t.Errorf("%d calls, answered %v", calls, f)
				}
				time.Sleep(time.Minute)
				synctest.Wait()
				if err := l.Do(t.Context(), plain, func(context.Context, Grant) error { b.armed.Store(true); return nil }); err != nil {
					t.Errorf("a success that the lane failed on: %v", err)
				}
				time.Sleep(time.Minute)
				synctest.Wait()
				if err := l.Do(t.Context(), plain, works); err != nil {
					t.Errorf("the slot is lost: %v", err)
				}
			})
		})
	}
}

// TestRestartBacksOff: a lane that fails as it starts is tried again later each time, and from the beginning once it ran.
func TestRestartBacksOff(t *testing.T) {
	bubble(t, Options{RestartAfter: time.Second, RestartAtMost: 8 * time.Second}, func(t *testing.T, s *System) {
		b := bomb{match: func(m any) bool { return starts(m) || enters(m) }}
		s.trap = b.trap
		l := s.Lane("l", resiliency.Policy{})
		b.armed.Store(true)
		_ = l.Do(t.Context(), plain, works)
		synctest.Wait()
		for _, wait := range []float64{1, 2, 4, 8, 8} {
			failed, restarts := time.Now(), l.restarts.Load()
			b.armed.Store(true)
			for b.armed.Load() {
				time.Sleep(10 * time.Millisecond)
			}
			synctest.Wait()
			if took := time.Since(failed).Seconds(); took < wait*0.75 || took > wait*1.25 || l.restarts.Load() != restarts+1 {
				t.Errorf("restarted after %vs, want about %v", took, wait)
			}
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if err := l.Do(t.Context(), plain, works); err != nil {
			t.Fatal(err)
		}
		b.armed.Store(true)
		_ = l.Do(t.Context(), plain, works)
		time.Sleep(1500 * time.Millisecond)
		synctest.Wait()
		if err := l.Do(t.Context(), plain, works); err != nil {
			t.Errorf("the wait did not start over: %v", err)
		}
	})
}

func TestRestartKeepsWhatItWasTold(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, s *System) {
		b := bomb{match: enters}
		s.trap = b.trap
		l := s.BalancedLane("l", resiliency.Policy{})
		l.SetEndpoints([]resiliency.Endpoint{{ID: "a"}})
		b.armed.Store(true)
		wantReason(t, l.Do(t.Context(), plain, works), fault.LaneRestarted)
		l.SetPolicy(resiliency.Policy{Name: "new", MaxInFlight: 7})
		drained := make(chan error, 1)
		time.Sleep(time.Second)
		synctest.Wait()
		if s := l.Status(t.Context()); s.Policy != "new" || s.InFlightLimit != 7 || s.Endpoints != 1 {
			t.Errorf("status %+v", s)
		}
		b.armed.Store(true)
		wantReason(t, l.Do(t.Context(), plain, works), fault.LaneRestarted)
		go func() { drained <- l.Drain(t.Context()) }()
		if err := <-drained; err != nil {
			t.Error(err)
		}
		wantReason(t, l.Do(t.Context(), plain, works), fault.LaneDraining)
	})
}

// TestOtherLanesDoNotNotice: while one lane is down its neighbour works.
func TestOtherLanesDoNotNotice(t *testing.T) {
	bubble(t, Options{RestartAfter: time.Hour}, func(t *testing.T, s *System) {
		s.trap = func(lane string, m any) {
			if lane == "sick" && enters(m) {
				panic("boom")
			}
		}
		sick, well := s.Lane("sick", resiliency.Policy{}), s.Lane("well", resiliency.Policy{})
		wantReason(t, sick.Do(t.Context(), plain, works), fault.LaneRestarted)
		if err := well.Do(t.Context(), plain, works); err != nil {
			t.Error(err)
		}
		time.Sleep(3 * time.Hour)
		synctest.Wait()
	})
}

// TestNoReplyIsLost: under panics in the lane and in attempts, callers who leave or wait too long, policies and endpoints
// that change, operators who hold the lane or its breaker, every call is answered, the semaphore holds, and afterwards
// every slot is free.
func TestNoReplyIsLost(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		limit := rapid.IntRange(1, 4).Draw(rt, "limit")
		c := chaos{
			limit:   int64(limit),
			panics:  rapid.SampledFrom([]float64{0, 0.02, 0.2}).Draw(rt, "panics"),
			cancels: rapid.SampledFrom([]float64{0, 0.3}).Draw(rt, "cancels"),
			fails:   rapid.SampledFrom([]float64{0, 0.3}).Draw(rt, "fails"),
			random:  rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 0)),
		}
		policy := resiliency.Policy{
			MaxInFlight: limit,
			MaxQueue:    rapid.IntRange(0, 8).Draw(rt, "queue"),
			Retry:       resiliency.Retry{Max: rapid.IntRange(-1, 2).Draw(rt, "retries"), Initial: 100 * time.Microsecond, Jitter: 0.5},
			CallTimeout: 200 * time.Millisecond,
			Adaptive:    resiliency.Adaptive{Algorithm: rapid.SampledFrom([]resiliency.AdaptiveAlgorithm{"", "gradient", "vegas"}).Draw(rt, "adaptive")},
			Protection:  resiliency.Protection{QueueDelay: rapid.SampledFrom([]time.Duration{0, 20 * time.Microsecond}).Draw(rt, "queue delay")},
			Limits:      []resiliency.RateLimit{{Name: "rate", Limit: rapid.SampledFrom([]int{1 << 20, 3}).Draw(rt, "rate"), Per: time.Millisecond, MaxWait: time.Millisecond}},
			Breaker:     resiliency.Breaker{Failures: rapid.SampledFrom([]int{0, 2}).Draw(rt, "breaker"), OpenFor: 100 * time.Microsecond},
			Queue: resiliency.Queue{
				Full:    rapid.SampledFrom([]resiliency.OnFull{resiliency.Refuse, resiliency.WaitAnyway, resiliency.ShedOldest}).Draw(rt, "full"),
				MaxWait: rapid.SampledFrom([]time.Duration{0, 20 * time.Microsecond, 20 * time.Millisecond}).Draw(rt, "max wait"),
				Target:  rapid.SampledFrom([]time.Duration{0, 10 * time.Microsecond}).Draw(rt, "target"),
			},
		}
		s := NewSystem(Options{RestartAfter: 100 * time.Microsecond, RestartAtMost: time.Millisecond})
		s.trap = c.trap
		c.lane = s.BalancedLane("l", policy)
		c.run(rt, policy)
		c.quiet.Store(true)
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		for c.lane.Do(ctx, plain, works) != nil {
			if ctx.Err() != nil {
				rt.Fatal("the lane did not come back")
			}
		}
		if err := s.Close(ctx); err != nil {
			rt.Fatalf("slots were lost: %v", err)
		}
		if c.broken.Load() != "" {
			rt.Fatal(c.broken.Load())
		}
	})
}

type chaos struct {
	lane                   *Lane
	limit, running         int64
	panics, cancels, fails float64
	quiet                  atomic.Bool
	broken                 message

	mu     sync.Mutex
	random *rand.Rand
}

type message struct{ atomic.Value }

func (m *message) Load() string { s, _ := m.Value.Load().(string); return s }

func (c *chaos) chance(p float64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.random.Float64() < p
}

func (c *chaos) trap(string, any) {
	if !c.quiet.Load() && c.chance(c.panics) {
		panic("chaos")
	}
}

func (c *chaos) run(t *rapid.T, policy resiliency.Policy) {
	c.lane.SetEndpoints([]resiliency.Endpoint{{ID: "a"}, {ID: "b"}})
	var group sync.WaitGroup
	for range 12 {
		group.Go(func() {
			for range 25 {
				c.call()
			}
		})
	}
	group.Go(func() {
		for i := range 20 {
			policy.Name = string(rune('a' + i))
			c.lane.SetPolicy(policy)
			c.lane.SetEndpoints([]resiliency.Endpoint{{ID: policy.Name, Room: i % 3}, {ID: "b", Room: i % 2}})
			c.lane.SetAdmission([]resiliency.Admission{resiliency.Held, resiliency.TurnedAway, resiliency.Admitting}[i%3])
			c.lane.ForceBreaker([]resiliency.Forced{resiliency.ForcedOpen, resiliency.NotForced, resiliency.ForcedClosed}[i%3])
			c.lane.Status(context.Background())
		}
		c.lane.SetAdmission(resiliency.Admitting)
		c.lane.ForceBreaker(resiliency.NotForced)
	})
	answered := make(chan struct{})
	go func() { group.Wait(); close(answered) }()
	select {
	case <-answered:
	case <-time.After(20 * time.Second):
		t.Fatal("a call was not answered")
	}
}

func (c *chaos) call() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if c.chance(c.cancels) {
		time.AfterFunc(50*time.Microsecond, cancel)
	}
	worked := false
	err := c.lane.Do(ctx, idempotent, func(context.Context, Grant) error {
		if n := atomic.AddInt64(&c.running, 1); n > c.limit {
			c.broken.Store("the semaphore was exceeded")
		}
		defer atomic.AddInt64(&c.running, -1)
		switch {
		case c.chance(c.fails):
			return fault.New("attempt", fault.InstanceLost, "chaos")
		case c.chance(c.fails / 4):
			panic("chaos in an attempt")
		}
		worked = true
		return nil
	})
	if worked != (err == nil) {
		c.broken.Store("an answer is not that of the attempt")
	}
	if err != nil && fault.NotSent(err) && fault.KindOf(err) == fault.Internal {
		c.broken.Store(err.Error())
	}
}
