package governance

import (
	"strings"
	"time"

	"github.com/sidecast/sidecast/resiliency"
)

// settings are what documents say about one target. Parts that are nil say nothing: there the target's default holds.
type settings struct {
	name        string // of the policy, "" when no document says anything
	timeouts    *timeouts
	retries     *retries
	breaker     *resiliency.Breaker
	limits      []resiliency.RateLimit
	concurrency *concurrency
	protection  *resiliency.Protection
	hedge       *resiliency.Hedge
	fallback    *resiliency.Fallback
	mode        resiliency.FailureMode
}

type timeouts struct {
	call, attempt time.Duration
	adaptive      resiliency.AdaptiveTimeout
}

type retries struct {
	resiliency.Retry
	within time.Duration // bounds the whole call where no timeout does; 0 = not
}

type concurrency struct {
	inFlight, queue *int
	rules           *resiliency.Queue
	adaptive        *resiliency.Adaptive
}

// over lays the settings over the default of a target: what they say replaces it, part by part.
//
// A default bound of the whole call would cut the retries of who configured some. So where retries are set and timeouts
// are not, it bounds each attempt instead.
func (s *settings) over(p resiliency.Policy) resiliency.Policy {
	if s == nil || s.empty() {
		return p
	}
	p.Name = s.name
	if r := s.retries; r != nil {
		p.Retry = r.Retry
		if p.AttemptTimeout == 0 {
			p.AttemptTimeout = p.CallTimeout
		}
		p.CallTimeout = 0
	}
	if t := s.timeouts; t != nil {
		p.CallTimeout, p.AttemptTimeout, p.AdaptiveTimeout = t.call, t.attempt, t.adaptive
	}
	if r := s.retries; r != nil && r.within > 0 && p.CallTimeout == 0 {
		p.CallTimeout = max(r.within, p.AttemptTimeout)
	}
	if s.breaker != nil {
		p.Breaker = *s.breaker
	}
	if s.limits != nil {
		p.Limits = s.limits
	}
	s.concurrency.over(&p)
	if s.protection != nil {
		p.Protection = *s.protection
	}
	if s.hedge != nil {
		p.Hedge = *s.hedge
	}
	if s.fallback != nil {
		p.Fallback = s.fallback
	}
	if s.mode != "" {
		p.Mode = s.mode
	}
	return p
}

// attempted has the settings of an operation that say how calls are attempted say all of it: what they leave out is the target's. It
// returns what the target's own lane need not do then.
func (s *settings) attempted(target *settings) resiliency.Decided {
	own := s.retries != nil || tries(s.mode)
	if !own && s.timeouts == nil && s.hedge == nil {
		return resiliency.Decided{}
	}
	if s.timeouts == nil {
		s.timeouts = target.timeouts
	}
	if s.hedge == nil {
		s.hedge = target.hedge
	}
	// Where retries go to other instances, they stay with the lane that chooses them.
	elsewhere := target.mode == resiliency.Failover || target.retries != nil && target.retries.Elsewhere
	if !own && !elsewhere {
		s.retries, own = target.retries, target.retries != nil || tries(target.mode)
		switch {
		case s.mode != "":
		case target.mode == resiliency.Failback: // whether there is a fallback is for each to say
			s.mode = resiliency.Failfast
		case tries(target.mode):
			s.mode = target.mode
		}
	}
	return resiliency.Decided{Timeout: s.timeouts != nil, Retry: own, Hedge: s.hedge != nil}
}

// tries says that a failure mode says whether there are more attempts than one.
func tries(mode resiliency.FailureMode) bool {
	return mode == resiliency.Failfast || mode == resiliency.Failback || mode == resiliency.Failcache
}

// empty says that nothing is set.
func (s *settings) empty() bool {
	return s.timeouts == nil && s.retries == nil && s.breaker == nil && s.limits == nil && s.concurrency == nil &&
		s.protection == nil && s.hedge == nil && s.fallback == nil && s.mode == ""
}

// counts says whether it matters which calls are counted together.
func (s *settings) counts() bool {
	return s != nil && (s.limits != nil || s.breaker != nil || s.concurrency.bounds())
}

// bounds says whether it is known how many calls may be in flight.
func (c *concurrency) bounds() bool { return c != nil && c.inFlight != nil }

func (c *concurrency) over(p *resiliency.Policy) {
	if c == nil {
		return
	}
	if c.inFlight != nil {
		p.MaxInFlight = *c.inFlight
		if p.MaxInFlight == 0 && c.adaptive == nil {
			p.MaxQueue = 0 // nobody waits where there is no limit
		}
	}
	if c.queue != nil {
		p.MaxQueue = *c.queue
	}
	if c.rules != nil {
		p.Queue = *c.rules
	}
	if c.adaptive != nil {
		p.Adaptive = *c.adaptive
	}
}

// stream is the policy of what travels in pieces: how long it lasts says nothing about its next, and pieces cannot be sent
// twice at once. Which timeouts hold, and what can be sent again, is for each call to say. Of fallbacks an answer that is
// written down stays: a call in pieces of HTTP that nothing was answered yet can have it.
func stream(p resiliency.Policy) resiliency.Policy {
	p.AdaptiveTimeout, p.Hedge = resiliency.AdaptiveTimeout{}, resiliency.Hedge{}
	if p.Fallback == nil || p.Fallback.Status != 0 {
		return p
	}
	p.Fallback = nil
	if p.Mode == resiliency.Failsafe {
		p.Mode = resiliency.ModeNone
	}
	return p
}

// pattern says which operations of a target a rule is for.
type pattern struct {
	text string
	verb string // of HTTP, upper case; "" is any
	path string // without a leading slash, where * stands for any text
}

// parsePattern reads `/foo`, `/orders/*`, `GET:/foo` and `GET /foo`.
func parsePattern(text string) pattern {
	p := pattern{text: text, path: strings.TrimSpace(text)}
	if at := strings.IndexAny(p.path, ": "); at > 0 && isVerb(p.path[:at]) {
		p.verb, p.path = p.path[:at], strings.TrimSpace(p.path[at+1:])
	}
	p.path = strings.TrimPrefix(p.path, "/")
	return p
}

func isVerb(s string) bool {
	return len(s) >= 3 && !strings.ContainsFunc(s, func(r rune) bool { return r < 'A' || r > 'Z' })
}

// matches tells whether the rule is for an operation. Verb is "" for what has none.
func (p pattern) matches(verb, operation string) bool {
	if p.verb != "" && p.verb != verb {
		return false
	}
	operation = strings.TrimPrefix(operation, "/")
	before, rest, wild := strings.Cut(p.path, "*")
	if !wild {
		return p.path == operation
	}
	if !strings.HasPrefix(operation, before) {
		return false
	}
	operation = operation[len(before):]
	for {
		part, after, more := strings.Cut(rest, "*")
		if !more {
			return strings.HasSuffix(operation, part)
		}
		at := strings.Index(operation, part)
		if at < 0 {
			return false
		}
		operation, rest = operation[at+len(part):], after
	}
}

// compare puts the more specific of two patterns first: one without a star, then the longer one, then one with a verb.
func (p pattern) compare(q pattern) int {
	rank := func(p pattern) int {
		n := 2 * len(strings.ReplaceAll(p.path, "*", ""))
		if !strings.Contains(p.path, "*") {
			n += 1 << 20
		}
		if p.verb != "" {
			n++
		}
		return n
	}
	if a, b := rank(p), rank(q); a != b {
		return b - a
	}
	return strings.Compare(p.text, q.text)
}
