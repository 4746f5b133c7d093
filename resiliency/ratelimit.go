package resiliency

import (
	"math"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// limiter is the rate limits of one lane. A call takes from all of them or from none.
type limiter struct {
	limits []*limit
	zero   time.Time // the first moment seen; meters count from it, so that setting the clock does not disturb them
}

// instant is one moment as meters need it.
type instant struct {
	time time.Time
	mono int64 // nanoseconds since the limiter's zero
}

// wall is what a fixed window is aligned to, in Unix nanoseconds.
func (i instant) wall() int64 { return i.time.UnixNano() }

func (l *limiter) at(now time.Time) instant {
	if l.zero.IsZero() {
		l.zero = now
	}
	return instant{now, int64(now.Sub(l.zero))}
}

// take passes t through all limits or none. It returns how long t must wait until it conforms to them, or the limit that
// refuses it and when trying again may help. A limit counts a call at the moment the call conforms to it.
func (l *limiter) take(now time.Time, t *Turn) (wait time.Duration, refused *RateLimit) {
	if len(l.limits) == 0 {
		return 0, nil
	}
	at := l.at(now)
	var refuses *limit
	for _, one := range l.limits {
		one.offered++
		w := one.look(at, &t.Call)
		if w > one.patience(now, t) && (refuses == nil || w > refuses.wait) {
			refuses = one
		}
		wait = max(wait, w)
	}
	if refuses != nil {
		refuses.refused++
		if wait == never {
			wait = refuses.rule.Per
		}
		return wait, &refuses.rule
	}
	for _, one := range l.limits {
		one.take(at)
	}
	return wait, nil
}

// never is the wait at a limit of which this sidecar has no share.
const never = time.Duration(math.MaxInt64)

// limit is one rate limit: its rule, this sidecar's share of it, and a meter for each of its keys.
type limit struct {
	rule RateLimit
	pace pace // what the meters go by: the rule times the share in use

	told  float64 // this sidecar's share of a global limit; 1 until it is told
	local bool    // that share is a guess: the fabric is away
	inUse float64
	// raised is a larger share that a window limit takes into use at raisedAt; 0 = none.
	raised   float64
	raisedAt int64

	lane meter                         // of ByLane
	keys *simplelru.LRU[string, meter] // of the others

	// What look found, for take.
	found meter // nil when the key is new
	key   string
	wait  time.Duration

	offered uint64 // calls since Demands last asked
	refused uint64
}

func newLimit(rule RateLimit) *limit {
	l := &limit{rule: rule, told: 1, inUse: 1}
	l.pace = rule.paced(1)
	if rule.By == ByLane {
		l.lane = rule.meter(&l.pace)
		return l
	}
	l.keys, _ = simplelru.NewLRU[string, meter](rule.MaxKeys, nil) // it fails only for sizes below 1
	return l
}

// patience is how long t may wait until it conforms. It must have some time left then.
func (l *limit) patience(now time.Time, t *Turn) time.Duration {
	most := l.rule.MaxWait
	switch {
	case most == 0 || t.hedge:
		return 0
	case !t.deadline.IsZero():
		return max(min(most, t.deadline.Sub(now)-1), 0)
	}
	return most
}

// look returns how long the call must wait until it conforms. It changes nothing that a refused call should not: a new
// key takes the place of another only when a call with it passes.
func (l *limit) look(at instant, c *Call) time.Duration {
	l.raise(at)
	if l.pace.calls == 0 {
		l.wait = never
		return never
	}
	l.found = l.lane
	if l.keys != nil {
		l.key = l.rule.key(c)
		l.found, _ = l.keys.Get(l.key)
	}
	l.wait = 0
	if l.found != nil {
		l.wait = l.found.wait(&l.pace, at)
	}
	return l.wait
}

// take counts the call that look looked at.
func (l *limit) take(at instant) {
	if l.found == nil {
		l.found = l.rule.meter(&l.pace)
		l.keys.Add(l.key, l.found)
	}
	l.found.take(&l.pace, at, l.wait)
}

// setRules replaces the rules. A limit that goes on measuring the same keys in the same way keeps what it has measured: a
// new rate gives nobody a fresh burst. Any other change begins anew.
func (l *limiter) setRules(now time.Time, rules []RateLimit) {
	old := l.limits
	l.limits = nil
	for _, rule := range rules {
		one := find(old, rule.Name)
		switch {
		case one == nil:
			one = newLimit(rule)
		case one.rule.measuresAs(rule):
			one.setRule(l.at(now), rule)
		default:
			fresh := newLimit(rule)
			fresh.offered, fresh.refused = one.offered, one.refused
			if rule.Global {
				fresh.told, fresh.local = one.told, one.local
				fresh.use(l.at(now), one.told)
			}
			one = fresh
		}
		l.limits = append(l.limits, one)
	}
}

func find(limits []*limit, name string) *limit {
	for _, one := range limits {
		if one.rule.Name == name {
			return one
		}
	}
	return nil
}

func (l *limit) setRule(at instant, rule RateLimit) {
	was := l.rule
	l.rule = rule
	if !rule.Global {
		l.told, l.local, l.inUse, l.raised = 1, false, 1, 0
	}
	if l.keys != nil && was.MaxKeys != rule.MaxKeys {
		l.keys.Resize(rule.MaxKeys)
	}
	l.use(at, l.inUse)
}

// setShare takes in what part of a global limit is this sidecar's.
func (l *limiter) setShare(now time.Time, s SetShare) {
	if one := find(l.limits, s.Limit); one != nil && one.rule.Global {
		one.setShare(l.at(now), min(max(s.Share, 0), 1), s.Local)
	}
}

// setShare takes a smaller share into use at once. A larger one waits, where calls are counted in windows, until those
// that its last owner admitted are out of the window: so no call is counted by neither of the two.
func (l *limit) setShare(at instant, share float64, local bool) {
	l.told, l.local = share, local
	switch {
	case share <= l.inUse || l.rule.isBucket():
		l.raised = 0
		if share != l.inUse {
			l.use(at, share)
		}
	case l.raised > 0:
		l.raised = min(l.raised, share)
	default:
		l.raised, l.raisedAt = share, at.mono+l.rule.turnover(at)
	}
}

// raise takes a larger share into use when its time has come.
func (l *limit) raise(at instant) {
	if l.raised > 0 && at.mono >= l.raisedAt {
		l.use(at, l.raised)
	}
}

// use takes a share into use, in the meters that exist as in those to come.
func (l *limit) use(at instant, share float64) {
	if l.raised > 0 && share >= l.raised {
		l.raised = 0
	}
	was := l.pace
	l.inUse = share
	l.pace = l.rule.paced(share)
	if l.pace == was {
		return
	}
	if l.lane != nil {
		l.lane.retune(&was, &l.pace, at)
		return
	}
	for _, m := range l.keys.Values() {
		m.retune(&was, &l.pace, at)
	}
}
