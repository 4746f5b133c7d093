package resiliency

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Override is what an operator has changed of a policy at run time. It wins over whatever policy it is laid on, also the
// next one that a configuration brings, until the operator takes it back. The zero Override changes nothing.
type Override struct {
	// MaxInFlight and MaxQueue take the place of the policy's; nil = as the policy says.
	MaxInFlight, MaxQueue *int
	// Rates takes the place of what rate limits admit, by RateLimit.Name. A policy without such a limit is left alone.
	Rates map[string]Rate
}

// Rate is so many calls in so much time.
type Rate struct {
	Limit int
	Per   time.Duration
}

// ParseRate reads a rate as people write it: calls, a slash and a duration (`10/1s`, `600/1m`); a unit alone means one of
// it (`10/s`).
func ParseRate(text string) (Rate, error) {
	calls, per, ok := strings.Cut(text, "/")
	limit, err := strconv.Atoi(calls)
	if !ok || err != nil || limit < 1 {
		return Rate{}, fmt.Errorf("%q is no rate: write calls/time with at least one call, such as 10/1s or 600/m", text)
	}
	if per != "" && !strings.ContainsAny(per[:1], "0123456789.+-") {
		per = "1" + per
	}
	span, err := time.ParseDuration(per)
	if err != nil || span <= 0 {
		return Rate{}, fmt.Errorf("%q is no rate: %q is not a positive time such as 1s, 500ms or 1m", text, per)
	}
	return Rate{limit, span}, nil
}

// String is the rate as ParseRate reads it.
func (r Rate) String() string { return fmt.Sprintf("%d/%s", r.Limit, brief(r.Per)) }

// brief is d without the zeros that Duration.String ends with: 1m, not 1m0s.
func brief(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// Over is p with what the override says.
func (o Override) Over(p Policy) Policy {
	if o.MaxInFlight != nil {
		p.MaxInFlight = *o.MaxInFlight
	}
	if o.MaxQueue != nil {
		p.MaxQueue = *o.MaxQueue
	}
	if len(o.Rates) > 0 {
		p.Limits = slices.Clone(p.Limits) // the policy's owner keeps its own
		for i := range p.Limits {
			if rate, ok := o.Rates[p.Limits[i].Name]; ok {
				p.Limits[i].Limit, p.Limits[i].Per = rate.Limit, rate.Per
			}
		}
	}
	return p
}

// With is o changed by what next says; what next leaves out stays.
func (o Override) With(next Override) Override {
	if next.MaxInFlight != nil {
		o.MaxInFlight = next.MaxInFlight
	}
	if next.MaxQueue != nil {
		o.MaxQueue = next.MaxQueue
	}
	if len(next.Rates) > 0 {
		rates := maps.Clone(next.Rates)
		for name, rate := range o.Rates {
			if _, ok := rates[name]; !ok {
				rates[name] = rate
			}
		}
		o.Rates = rates
	}
	return o
}

// Change is one value that an override sets.
type Change struct {
	// What is `in flight`, `queue` or `rate NAME`.
	What string `json:"what"`
	// From is what it was, To what it is now.
	From string `json:"from"`
	To   string `json:"to"`
}

// Changes are the values of p that the override replaces, in a fixed order. A rate whose limit p does not have is not
// among them.
func (o Override) Changes(p Policy) []Change {
	var all []Change
	if o.MaxInFlight != nil {
		all = append(all, Change{"in flight", strconv.Itoa(p.MaxInFlight), strconv.Itoa(*o.MaxInFlight)})
	}
	if o.MaxQueue != nil {
		all = append(all, Change{"queue", strconv.Itoa(p.MaxQueue), strconv.Itoa(*o.MaxQueue)})
	}
	for i := range p.Limits {
		l := &p.Limits[i]
		if rate, ok := o.Rates[l.Name]; ok {
			all = append(all, Change{"rate " + l.Name, Rate{l.Limit, l.Per}.String(), rate.String()})
		}
	}
	return all
}
