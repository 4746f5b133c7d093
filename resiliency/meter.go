package resiliency

import (
	"math"
	"slices"
	"time"

	"golang.org/x/time/rate"
)

// meter measures one rate for one key. Calls conform in the order in which they came, so a meter that lets calls wait has
// counted them already.
type meter interface {
	// wait is how many nanoseconds from now one more call must wait until it conforms.
	wait(p *pace, at instant) time.Duration
	// take counts a call that conforms after wait, which is what wait returned at the same instant.
	take(p *pace, at instant, wait time.Duration)
	// remaining is how many calls would conform now.
	remaining(p *pace, at instant) int
	// retune goes on at another pace. Nothing that was counted is forgotten.
	retune(was, is *pace, at instant)
}

// pace is how fast a limit's calls may come, given its share.
type pace struct {
	calls int   // in a window; 0 = none at all
	per   int64 // nanoseconds of a window
	rate  float64
	burst int
	ahead int64 // how far calls may be counted ahead, for they wait
}

// meter returns one for a key that was not seen.
func (r RateLimit) meter(p *pace) meter {
	switch r.Algorithm {
	case LeakyBucket:
		return new(leaky)
	case FixedWindow:
		return new(fixed)
	case SlidingLog:
		return new(sliding)
	case SlidingCounter:
		return new(counter)
	}
	return &bucket{rate.NewLimiter(rate.Limit(p.rate), p.burst)}
}

// bucket is a token bucket.
type bucket struct{ *rate.Limiter }

func (b *bucket) wait(_ *pace, at instant) time.Duration {
	missing := 1 - b.TokensAt(at.time)
	if missing <= 0 {
		return 0
	}
	// Less than a nanosecond is what the limiter's own rounding leaves of a wait that is over.
	wait := missing / float64(b.Limit()) * 1e9
	if wait < 1 {
		return 0
	}
	return time.Duration(min(math.Ceil(wait-.01), math.MaxInt64/2))
}

func (b *bucket) take(_ *pace, at instant, _ time.Duration) { b.ReserveN(at.time, 1) }

func (b *bucket) remaining(_ *pace, at instant) int { return int(b.TokensAt(at.time)) }

func (b *bucket) retune(_, is *pace, at instant) {
	b.SetLimitAt(at.time, rate.Limit(is.rate))
	b.SetBurstAt(at.time, is.burst)
}

// leaky is the generic cell rate algorithm in its virtual scheduling form (ITU-T I.371, annex A): a call conforms when it
// comes no more than the tolerance before its theoretical arrival time.
type leaky struct{ theoretical int64 }

func (p *pace) interval() int64 { return int64(math.Ceil(1e9 / p.rate)) }

func (p *pace) tolerance() int64 {
	return int64(min(float64(p.burst-1)*float64(p.interval()), math.MaxInt64/4))
}

func (l *leaky) wait(p *pace, at instant) time.Duration {
	return time.Duration(max(l.theoretical-p.tolerance()-at.mono, 0))
}

func (l *leaky) take(p *pace, at instant, wait time.Duration) {
	l.theoretical = max(l.theoretical, at.mono+int64(wait)) + p.interval()
}

func (l *leaky) remaining(p *pace, at instant) int { return int(l.left(p, at)) }

// left is the calls that would conform now; less than 0 where some wait.
func (l *leaky) left(p *pace, at instant) float64 {
	return float64(p.burst) - float64(max(l.theoretical-at.mono, 0))/float64(p.interval())
}

// retune keeps what is left as far as the new pace has room for it.
func (l *leaky) retune(was, is *pace, at instant) {
	if was.calls == 0 || is.calls == 0 {
		return
	}
	taken := max(float64(is.burst)-l.left(was, at), 0)
	l.theoretical = at.mono + int64(math.Ceil(taken*float64(is.interval())))
}

// fixed is the number of calls in one window of the clock: the last that calls were counted in, which is ahead of the
// clock where calls wait.
type fixed struct {
	end  int64 // of the window, in Unix nanoseconds
	used int
}

// see moves to the present window. A clock that was set back so far that nobody's waiting explains it begins anew.
func (w *fixed) see(p *pace, wall int64) {
	if wall >= w.end || wall < w.end-2*p.per-p.ahead {
		w.end, w.used = (wall/p.per+1)*p.per, 0
	}
}

func (w *fixed) wait(p *pace, at instant) time.Duration {
	wall := at.wall()
	w.see(p, wall)
	if w.used < p.calls {
		return time.Duration(max(w.end-p.per-wall, 0))
	}
	return time.Duration(w.end - wall)
}

func (w *fixed) take(p *pace, at instant, wait time.Duration) {
	w.see(p, at.wall()+int64(wait))
	w.used++
}

func (w *fixed) remaining(p *pace, at instant) int {
	if w.wait(p, at) > 0 {
		return 0
	}
	return p.calls - w.used
}

func (w *fixed) retune(_, _ *pace, _ instant) {}

// sliding is the times of the calls of the last window, oldest first, as monotonic nanoseconds.
type sliding struct {
	times []int64
	gone  int // of times, have left the window
}

// trim forgets what has left the window.
func (s *sliding) trim(p *pace, now int64) {
	for s.gone < len(s.times) && s.times[s.gone]+p.per <= now {
		s.gone++
	}
	if s.gone > len(s.times)/2 {
		s.times = slices.Delete(s.times, 0, s.gone)
		s.gone = 0
	}
}

func (s *sliding) wait(p *pace, at instant) time.Duration {
	s.trim(p, at.mono)
	moment, n := at.mono, len(s.times)
	if n > s.gone {
		moment = max(moment, s.times[n-1])
	}
	if n-s.gone >= p.calls {
		moment = max(moment, s.times[n-p.calls]+p.per)
	}
	return time.Duration(moment - at.mono)
}

func (s *sliding) take(_ *pace, at instant, wait time.Duration) {
	s.times = append(s.times, at.mono+int64(wait))
}

func (s *sliding) remaining(p *pace, at instant) int {
	s.trim(p, at.mono)
	return p.calls - (len(s.times) - s.gone)
}

func (s *sliding) retune(_, _ *pace, _ instant) {}

// counter is the calls of two windows that follow each other. The older ones count by the share of their window that lies
// within the last Per, as if they had come evenly.
type counter struct {
	begin     int64 // of the younger window
	prev, cur int
	latest    int64 // moment that a call was counted for
}

// see moves to the window of a moment.
func (c *counter) see(p *pace, moment int64) {
	switch n := (moment - c.begin) / p.per; {
	case n <= 0:
		return
	case n == 1:
		c.prev, c.cur = c.cur, 0
		c.begin += p.per
	default:
		c.prev, c.cur = 0, 0
		c.begin += n * p.per
	}
}

func (c *counter) wait(p *pace, at instant) time.Duration {
	from := max(at.mono, c.latest)
	c.see(p, from)
	ahead := *c
	for {
		if moment := max(from, ahead.begin+ahead.roomAfter(p)); moment < ahead.begin+p.per {
			return time.Duration(moment - at.mono)
		}
		ahead.see(p, ahead.begin+p.per)
	}
}

// roomAfter is how far into the window so little of the older one counts that one more call fits; the whole of it when it
// never does.
func (c *counter) roomAfter(p *pace) int64 {
	room := p.calls - c.cur - 1
	switch {
	case room < 0:
		return p.per
	case c.prev <= room:
		return 0
	}
	return int64(math.Ceil(float64(p.per) * (1 - float64(room)/float64(c.prev))))
}

func (c *counter) take(p *pace, at instant, wait time.Duration) {
	c.latest = at.mono + int64(wait)
	c.see(p, c.latest)
	c.cur++
}

func (c *counter) remaining(p *pace, at instant) int {
	c.see(p, max(at.mono, c.latest))
	older := float64(c.prev) * (1 - float64(max(at.mono, c.latest)-c.begin)/float64(p.per))
	return p.calls - c.cur - int(math.Ceil(older))
}

func (c *counter) retune(_, _ *pace, _ instant) {}
