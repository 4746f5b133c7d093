package resiliency

import (
	"cmp"
	"time"
)

// Demand is how many calls a lane's global limit was offered.
type Demand struct {
	// Limit is its RateLimit.Name, Calls how many in Per all sidecars together may admit.
	Limit string
	Calls int
	Per   time.Duration
	// Whole says that only whole calls of a share are of use in one Per: it counts in windows.
	Whole bool
	// Offered is the calls that came, admitted or not, since the last time this was asked.
	Offered uint64
}

// Demands tells the demand of each global limit, and begins to count anew.
func (m *Machine) Demands() []Demand {
	var all []Demand
	for _, l := range m.limiter.limits {
		if l.rule.Global {
			all = append(all, Demand{Limit: l.rule.Name, Calls: l.rule.Limit, Per: l.rule.Per, Whole: !l.rule.isBucket(), Offered: l.offered})
		}
		l.offered = 0
	}
	return all
}

// LimitStatus is what a rate limit is doing.
type LimitStatus struct {
	Name      string        `json:"name"`
	Algorithm RateAlgorithm `json:"algorithm"`
	// Limit calls per so many nanoseconds.
	Limit int           `json:"limit"`
	Per   time.Duration `json:"perNanos"`
	// By is what each has a limit of its own: `lane`, `caller`, `operation` or `header`, which Header names.
	By     RateKey `json:"by"`
	Header string  `json:"header,omitempty"`
	// Keys is how many are kept now.
	Keys int `json:"keys,omitempty"`
	// Remaining is how many calls would pass now; nil for limits with keys.
	Remaining *int `json:"remaining,omitempty"`
	// Scope is `local` or `global`. Of a global limit, Share is the part of this sidecar, and State `shared`, or `local
	// share (fabric lost)` while it is held on to without news of the others.
	Scope string  `json:"scope"`
	Share float64 `json:"share,omitempty"`
	State string  `json:"state,omitempty"`
	// Refused is the calls it has refused.
	Refused uint64 `json:"refused"`
}

// Rate is what the limit admits.
func (s LimitStatus) Rate() Rate { return Rate{s.Limit, s.Per} }

func (l *limiter) status(now time.Time) []LimitStatus {
	var all []LimitStatus
	for _, one := range l.limits {
		all = append(all, one.status(l.at(now)))
	}
	return all
}

func (l *limit) status(at instant) LimitStatus {
	l.raise(at)
	s := LimitStatus{
		Name: l.rule.Name, Algorithm: cmp.Or(l.rule.Algorithm, "token-bucket"), Limit: l.rule.Limit, Per: l.rule.Per,
		By: cmp.Or(l.rule.By, "lane"), Header: l.rule.Header, Scope: "local", Refused: l.refused,
	}
	if l.keys != nil {
		s.Keys = l.keys.Len()
	} else {
		s.Remaining = new(l.remaining(at))
	}
	if l.rule.Global {
		s.Scope, s.Share, s.State = "global", l.told, "shared"
		if l.local {
			s.State = "local share (fabric lost)"
		}
	}
	return s
}

func (l *limit) remaining(at instant) int {
	if l.pace.calls == 0 {
		return 0
	}
	return max(l.lane.remaining(&l.pace, at), 0)
}
