package resiliency

import "time"

// windowBuckets is how finely a window of time slides: it forgets a tenth of itself at a time.
const windowBuckets = 10

// window counts the latest calls: so many of them, or those of so much time. The zero window counts nothing.
type window struct {
	total tally
	calls ring   // of a window of calls
	times slides // of a window of time
}

// tally is what a part of a window holds.
type tally struct{ calls, failed, slow int }

func newWindow(rule Breaker) (w window) {
	switch {
	case rule.Ratio <= 0 && rule.SlowRatio <= 0:
	case rule.WindowCalls > 0:
		w.calls.marks = make([]mark, rule.WindowCalls)
	default:
		w.times.width = max(rule.WindowTime/windowBuckets, 1)
		w.times.buckets = new([windowBuckets]tally)
	}
	return w
}

func (w *window) clear() {
	w.total = tally{}
	w.calls.next = 0
	w.times.begun = time.Time{}
	if w.times.buckets != nil {
		*w.times.buckets = [windowBuckets]tally{}
	}
}

func (w *window) add(now time.Time, failed, slow bool) {
	switch {
	case w.calls.marks != nil:
		w.calls.add(&w.total, failed, slow)
	case w.times.buckets != nil:
		w.times.slide(&w.total, now).count(failed, slow)
		w.total.count(failed, slow)
	}
}

func (t *tally) count(failed, slow bool) {
	t.calls++
	if failed {
		t.failed++
	}
	if slow {
		t.slow++
	}
}

func (t *tally) subtract(o tally) {
	t.calls -= o.calls
	t.failed -= o.failed
	t.slow -= o.slow
}

// ring is a window of calls.
type ring struct {
	marks []mark
	next  int
}

type mark struct{ failed, slow bool }

// add takes the place of the oldest call, once the ring is full.
func (r *ring) add(total *tally, failed, slow bool) {
	if total.calls == len(r.marks) {
		var oldest tally
		oldest.count(r.marks[r.next].failed, r.marks[r.next].slow)
		total.subtract(oldest)
	}
	r.marks[r.next] = mark{failed, slow}
	r.next = (r.next + 1) % len(r.marks)
	total.count(failed, slow)
}

// slides is a window of time: its buckets take turns, each for a tenth of it.
type slides struct {
	buckets *[windowBuckets]tally
	width   time.Duration
	begun   time.Time // of the first bucket
	last    int64     // number of the newest bucket since then
}

// slide forgets what is too old and returns the bucket of now. A clock that steps back stays in the newest one.
func (s *slides) slide(total *tally, now time.Time) *tally {
	if s.begun.IsZero() {
		s.begun, s.last = now, 0
	}
	current := max(int64(now.Sub(s.begun)/s.width), s.last)
	for n := min(current-s.last, windowBuckets); n > 0; n-- {
		bucket := &s.buckets[(current-n+1)%windowBuckets]
		total.subtract(*bucket)
		*bucket = tally{}
	}
	s.last = current
	return &s.buckets[current%windowBuckets]
}
