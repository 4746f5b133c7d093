package resiliency

import "time"

// budget counts the calls of a lane, and the retries and hedges among its attempts, over the last ten seconds. Its zero
// value has counted nothing.
type budget struct {
	rule  Budget
	slots [budgetSlots]struct{ calls, extra int }
	at    int64 // the second that the newest slot counts
}

const budgetSlots = 10

// call takes in a first attempt.
func (b *budget) call(now time.Time) {
	if b.rule == (Budget{}) {
		return
	}
	b.slots[b.turn(now)].calls++
}

// spend reports whether one more retry or hedge is within the budget, and counts it if it is.
func (b *budget) spend(now time.Time) bool {
	if b.rule == (Budget{}) {
		return true
	}
	slot := b.turn(now)
	calls, extra := 0, 0
	for _, s := range b.slots {
		calls += s.calls
		extra += s.extra
	}
	if float64(extra+1) > b.rule.Share*float64(calls)+b.rule.PerSecond*budgetSlots {
		return false
	}
	b.slots[slot].extra++
	return true
}

// turn forgets what is older than ten seconds and returns the slot of now. Time that steps back counts as the newest.
func (b *budget) turn(now time.Time) int64 {
	second := max(now.Unix(), b.at)
	for at := max(b.at+1, second-budgetSlots+1); at <= second; at++ {
		b.slots[at%budgetSlots] = struct{ calls, extra int }{}
	}
	b.at = second
	return second % budgetSlots
}

func (b Budget) validate(check checker) {
	check(b.Share >= 0 && b.Share <= 1, "retry budget share %v is not within 0 and 1", b.Share)
	check(b.PerSecond >= 0, "retry budget of %v per second is negative", b.PerSecond)
}
