package resiliency

import "time"

func (r RateLimit) validate(checker) {}

// limiter is the rate limits of one lane.
type limiter struct{ rules []RateLimit }

func (l *limiter) setRules(rules []RateLimit) { l.rules = rules }

func (l *limiter) setShare(now time.Time, s SetShare) {}

// take passes t through all limits or none. It returns how long t must wait until it conforms, or the limit that refuses
// it and when trying again may help.
func (l *limiter) take(now time.Time, t *Turn) (wait time.Duration, refused *RateLimit) {
	return 0, nil
}
