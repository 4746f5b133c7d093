package bodies

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/fault"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const mega = 1 << 20

// A call whose request comes in pieces takes a place as others do, and gives it back when it ends.
func TestPiecesTakeAPlace(t *testing.T) {
	b := NewBudget(mega)
	over, cancel := context.WithCancel(t.Context())
	cancel()
	var inside []*Share
	for {
		share := b.Open()
		if err := share.Enter(over, "call"); err != nil { // there was no place at once
			if fault.KindOf(err) != fault.Canceled {
				t.Errorf("a call whose caller has gone got %v", err)
			}
			share.Close()
			break
		}
		inside = append(inside, share)
	}
	if len(inside) == 0 {
		t.Fatal("there was no place at all")
	}
	inside[0].Close()
	again := b.Open()
	if err := again.Enter(over, "call"); err != nil {
		t.Errorf("the place did not come free: %v", err)
	}
	again.Close()
	for _, share := range inside {
		share.Close()
	}
}

// Whatever is offered, no more is held than the budget, no more is read than may be, and every call gets its turn or a
// refusal that says when to come back.
func TestOfferedTooMuch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBudget(reading/4, 10*mega)
		var reading, held, most, served, refused atomic.Int64
		var calls sync.WaitGroup
		for range 200 {
			calls.Go(func() {
				share := b.Open()
				defer share.Close()
				err := share.Read(t.Context(), "call", func() (int, error) {
					if n := reading.Add(1); n > 4 {
						t.Errorf("%d are read at once", n)
					}
					time.Sleep(time.Millisecond)
					reading.Add(-1)
					return 3 * mega, nil
				})
				if err != nil {
					if fault.ReasonOf(err) != fault.BodiesFull || fault.KindOf(err) != fault.Exhausted || fault.RetryAfter(err) == 0 {
						t.Errorf("refused with %v", err)
					}
					refused.Add(1)
					return
				}
				now := held.Add(3)
				for seen := most.Load(); now > seen && !most.CompareAndSwap(seen, now); seen = most.Load() {
				}
				time.Sleep(200 * time.Millisecond)
				held.Add(-3)
				served.Add(1)
			})
		}
		calls.Wait()
		if most.Load() != 9 {
			t.Errorf("%d MiB of 10 were held at once", most.Load())
		}
		if served.Load() < 3 || refused.Load() == 0 || served.Load()+refused.Load() != 200 {
			t.Errorf("%d served, %d refused of 200", served.Load(), refused.Load())
		}
	})
}

// Small requests pass while large ones wait for room.
func TestSmallOnesPassLargeOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBudget(reading/2, mega)
		holder := b.Open()
		if err := holder.Read(t.Context(), "large", func() (int, error) { return mega, nil }); err != nil {
			t.Fatal(err)
		}
		var waiting sync.WaitGroup
		for range parking {
			waiting.Go(func() {
				share := b.Open()
				defer share.Close()
				if err := share.Read(t.Context(), "large", func() (int, error) { return mega, nil }); err != nil {
					t.Errorf("one that waits: %v", err)
				}
			})
		}
		synctest.Wait()
		began := time.Now()
		share := b.Open()
		if err := share.Read(t.Context(), "small", func() (int, error) { return large - 1, nil }); err != nil {
			t.Errorf("a small one: %v", err)
		}
		if err := share.Read(t.Context(), "large", func() (int, error) { return large, nil }); fault.ReasonOf(err) != fault.BodiesFull {
			t.Errorf("one more that would have to wait: %v", err)
		}
		if time.Since(began) > 0 { // on the bubble's clock
			t.Error("they were made to wait")
		}
		holder.Close()
		waiting.Wait()
	})
}

// Callers that stop in the middle of their requests do not keep others out.
func TestStalledReaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBudget(reading/4, 10*mega)
		release := make(chan struct{})
		var stalled sync.WaitGroup
		for range 4 {
			stalled.Go(func() {
				share := b.Open()
				defer share.Close()
				err := share.Read(t.Context(), "stalled", func() (int, error) { <-release; return 0, errors.New("cut") })
				if err == nil || fault.ReasonOf(err) == fault.BodiesFull {
					t.Errorf("reading failed with %v", err)
				}
			})
		}
		synctest.Wait()
		var others sync.WaitGroup
		for range 20 {
			others.Go(func() {
				share := b.Open()
				defer share.Close()
				if err := share.Read(t.Context(), "other", func() (int, error) { return 1, nil }); err != nil {
					t.Errorf("kept out: %v", err)
				}
			})
		}
		others.Wait()
		gone, leave := context.WithCancel(t.Context())
		leave()
		share := b.Open()
		if err := share.Read(gone, "gone", func() (int, error) { t.Error("was read"); return 0, nil }); fault.KindOf(err) != fault.Canceled {
			t.Errorf("a caller that has gone: %v", err)
		}
		close(release)
		stalled.Wait()
		if len(b.readers)+len(b.late) > 0 {
			t.Error("a turn was not given back")
		}
	})
}

func TestOneAlwaysFits(t *testing.T) {
	b := newBudget(1, mega)
	for range 3 {
		share := b.Open()
		if err := share.Read(t.Context(), "huge", func() (int, error) { return 5 * mega, nil }); err != nil {
			t.Fatal(err)
		}
		if err := call.TakeRoom(share.Context(t.Context()), 5*mega); err != nil {
			t.Fatal(err)
		}
		share.Close()
	}
}

// Answers wait for each other, not for requests; a further attempt of the same call is refused rather than made to wait
// for what its own call holds; and one that comes when the call has ended holds nothing.
func TestAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBudget(1, 2*mega)
		first, second := b.Open(), b.Open()
		if err := first.Read(t.Context(), "first", func() (int, error) { return 2 * mega, nil }); err != nil {
			t.Fatal(err)
		}
		if err := first.Take(t.Context(), 2*mega); err != nil {
			t.Fatal(err)
		}
		if err := first.Take(t.Context(), 2*mega); fault.KindOf(err) != fault.Exhausted || fault.NotSent(err) {
			t.Errorf("a second answer: %v", err)
		}
		bounded, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := second.Take(bounded, mega); fault.KindOf(err) != fault.Timeout {
			t.Errorf("without room: %v", err)
		}
		if err := second.Take(t.Context(), large-1); err != nil {
			t.Errorf("a small one: %v", err)
		}
		var waiting sync.WaitGroup
		waiting.Go(func() {
			if err := second.Take(t.Context(), mega); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		first.Close()
		waiting.Wait()
		if err := first.Take(t.Context(), mega); fault.KindOf(err) != fault.Canceled {
			t.Errorf("after the end: %v", err)
		}
		second.Close()
		if !b.answers.TryAcquire(2*mega) || !b.requests.TryAcquire(2*mega) {
			t.Error("room was not given back")
		}
	})
}

// Answers whose size nobody told hold no more than the budget either, whatever they grow to: one that finds no room for its rest
// is refused, so that others end, and a single one always fits.
func TestAnswersThatGrow(t *testing.T) {
	const calls, size = 40, 3 * mega
	grow := func(share *Share, ctx context.Context) (held int64, err error) {
		for from, to := int64(0), int64(32<<10); from < size && err == nil; from, to = to, 2*to {
			if err = call.GrowRoom(share.Context(ctx), from, to); err == nil {
				held = to
			}
		}
		return held, err
	}
	synctest.Test(t, func(t *testing.T) {
		b := newBudget(1, 10*mega)
		var now, most int64
		var refused atomic.Int64
		var mu sync.Mutex
		var running sync.WaitGroup
		for range calls {
			running.Go(func() {
				share := b.Open()
				held, err := grow(share, t.Context())
				mu.Lock()
				now += held
				most = max(most, now)
				mu.Unlock()
				if err != nil {
					refused.Add(1)
					if fault.KindOf(err) != fault.Exhausted || fault.NotSent(err) {
						t.Errorf("refused with %v", err)
					}
				}
				time.Sleep(time.Second)
				mu.Lock()
				now -= held
				mu.Unlock()
				share.Close()
			})
		}
		running.Wait()
		if most > 10*mega || refused.Load() == 0 {
			t.Errorf("%d bytes were held of %d, and %d answers were refused", most, 10*mega, refused.Load())
		}
		if !b.answers.TryAcquire(10 * mega) {
			t.Error("room was not given back")
		}
		alone := newBudget(1, mega).Open()
		defer alone.Close()
		if held, err := grow(alone, t.Context()); err != nil || held < size {
			t.Errorf("one that is larger than the budget: %d bytes, %v", held, err)
		}
		waiting := b.Open()
		defer waiting.Close()
		bounded, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if held, err := grow(waiting, bounded); fault.KindOf(err) != fault.Timeout || held >= large {
			t.Errorf("without room: %d bytes, %v", held, err)
		}
		b.answers.Release(10 * mega)
	})
}

// What is kept of requests takes no room from those that have to be read, however much is kept.
func TestKept(t *testing.T) {
	b := newBudget(1, 2*keptPart*mega)
	first, second := b.Open(), b.Open()
	for range 2 {
		if !first.Keep(mega) {
			t.Error("nothing was kept")
		}
	}
	if second.Keep(1) {
		t.Error("more was kept than there is room for")
	}
	if err := second.Read(t.Context(), "read", func() (int, error) { return 2 * keptPart * mega, nil }); err != nil {
		t.Errorf("beside what is kept: %v", err)
	}
	first.Drop()
	if !second.Keep(2 * mega) {
		t.Error("what was dropped gave no room")
	}
	second.Close()
	if second.Keep(1) || !first.Keep(2*mega) {
		t.Error("what has ended keeps")
	}
	first.Close()
	if !b.requests.TryAcquire(2*keptPart*mega) || !b.kept.TryAcquire(2*mega) {
		t.Error("room was not given back")
	}
}

// A stream holds one message at a time, and nothing after its end.
func TestStreamsHoldOneMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBudget(mega, 10*mega)
		one, other := b.Open(), b.Open()
		for range 100 {
			if err := one.Next(t.Context(), "stream", 6*mega); err != nil {
				t.Fatal(err)
			}
		}
		if err := other.Next(t.Context(), "stream", 6*mega); fault.ReasonOf(err) != fault.BodiesFull {
			t.Errorf("got %v", err)
		}
		time.AfterFunc(patience/2, one.Close)
		if err := other.Next(t.Context(), "stream", 6*mega); err != nil {
			t.Errorf("there was room in time: %v", err)
		}
		if err := one.Next(t.Context(), "stream", mega); fault.KindOf(err) != fault.Canceled {
			t.Errorf("got %v", err)
		}
		if err := other.Next(t.Context(), "stream", 1); err != nil || !b.requests.TryAcquire(10*mega) {
			t.Errorf("a small message holds something: %v", err)
		}
		b.requests.Release(10 * mega)
		other.Close()
	})
}

func TestWithoutARoomThereIsNoBound(t *testing.T) {
	if err := call.TakeRoom(t.Context(), 1<<50); err != nil {
		t.Error(err)
	}
}

func BenchmarkShare(b *testing.B) {
	budget := NewBudget(64 << 20)
	ctx := b.Context()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			share := budget.Open()
			_ = share.Read(ctx, "call", func() (int, error) { return 1024, nil })
			_ = share.Context(ctx)
			share.Close()
		}
	})
}
