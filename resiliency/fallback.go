package resiliency

import (
	"errors"
	"time"

	"github.com/sidecast/sidecast/fault"
)

// Defaults of a Fallback with LastGood.
const (
	DefaultMaxAge     = time.Minute
	DefaultMaxEntries = 256
)

// overLimit is part of the error of a call that a rate limit of this lane refused. It does not travel: the refusal of
// another sidecar's lane has none.
type overLimit struct {
	text   string
	answer *Fallback
}

func (o overLimit) Error() string { return o.text }

// FallbackFor is what answers in place of err, which a lane under p gave up with; nil when the caller gets err itself.
// A caller who went away is not answered.
func (p *Policy) FallbackFor(err error) *Fallback {
	if fault.KindOf(err) == fault.Canceled {
		return nil
	}
	var limit overLimit
	if len(p.Limits) > 0 && errors.As(err, &limit) && limit.answer != nil {
		return limit.answer
	}
	if p.Fallback == nil || p.Mode == Failback || !p.Fallback.answers(err) {
		return nil
	}
	return p.Fallback
}

// Keeps is the fallback that wants good answers to reads kept, be it that of a rate limit; nil when none does.
func (p *Policy) Keeps() *Fallback {
	if p.Fallback != nil && p.Fallback.LastGood {
		return p.Fallback
	}
	for i := range p.Limits {
		if answer := p.Limits[i].Answer; answer != nil && answer.LastGood {
			return answer
		}
	}
	return nil
}

// answers reports whether err is one that f is for: without On a refusal of the lane or a failure of the target, and not
// what the target answers to a caller who is wrong.
func (f *Fallback) answers(err error) bool {
	if meant, speaks := f.On.speaks(err); speaks {
		return meant
	}
	return !f.On.given() && effectOf(err) != good
}

func (f *Fallback) validate(of string, check checker) {
	if f == nil {
		return
	}
	kinds := 0
	for _, set := range []bool{f.Status != 0, f.App != "", f.LastGood} {
		if set {
			kinds++
		}
	}
	check(kinds == 1, "%s needs exactly one of a status, an app and the last good answer", of)
	check(f.Status == 0 || f.Status >= 100 && f.Status <= 599, "%s has the status %d, which is not within 100 and 599", of, f.Status)
	check(f.Status != 0 || len(f.Header) == 0 && len(f.Body) == 0, "%s has headers or a body but no status", of)
	check(f.MaxAge >= 0, "%s has the max age %v, which is negative", of, f.MaxAge)
	check(f.MaxEntries >= 0, "%s has max entries %d, which is negative", of, f.MaxEntries)
	check(f.LastGood || f.MaxAge == 0 && f.MaxEntries == 0, "%s bounds the last good answers but does not keep them", of)
	f.On.validate(of, check)
}
