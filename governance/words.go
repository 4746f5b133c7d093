package governance

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sidecast/sidecast/resiliency"
)

// Words says in a sentence what a policy does to the calls that it guards.
func Words(p resiliency.Policy) string {
	w := &words{}
	w.timeouts(&p)
	for i := range p.Limits {
		w.limit(&p.Limits[i], p.Fallback)
	}
	w.concurrency(&p)
	w.protection(p.Protection)
	w.breaker(p.Breaker)
	w.retry(&p)
	if h := p.Hedge; h.After > 0 {
		w.say("an idempotent attempt that takes longer than %s gets %s beside it, and the first answer wins", h.After, count(max(h.Max, 1), "more attempt"))
	}
	w.fallback(p.Fallback, p.Mode)
	if w.parts == nil {
		return "nothing is limited and nothing is tried again"
	}
	return strings.Join(w.parts, "; ")
}

type words struct{ parts []string }

func (w *words) say(format string, args ...any) {
	w.parts = append(w.parts, fmt.Sprintf(format, args...))
}

func (w *words) timeouts(p *resiliency.Policy) {
	if p.CallTimeout > 0 {
		w.say("give up after %s", p.CallTimeout)
	}
	if p.AttemptTimeout > 0 {
		w.say("each attempt may take %s", p.AttemptTimeout)
	}
	if a := p.AdaptiveTimeout; a.Quantile > 0 {
		multiplier := a.Multiplier
		if multiplier == 0 {
			multiplier = 1.5
		}
		seen := "and once %d were seen, %s times their p%s"
		if p.AttemptTimeout == 0 {
			seen = "once %d attempts were seen, each may take %s times their p%s"
		}
		w.say(seen, orInt(a.MinCalls, 100), number(multiplier), number(a.Quantile*100))
	}
}

func (w *words) retry(p *resiliency.Policy) {
	r := p.Retry
	switch p.Mode {
	case resiliency.Failfast, resiliency.Failback:
		w.say("tries once (%s)", p.Mode)
		return
	case resiliency.Failover:
		w.say("tries up to %s at once (failover) %s", count(orInt(r.Max, 2), "other instance"), after(r))
		return
	case resiliency.Failcache:
		r.Backoff, r.Max, r.Initial = resiliency.Constant, orInt(r.Max, 3), orDuration(r.Initial, time.Second)
	}
	if r.Max == 0 {
		return
	}
	text := "up to " + plural(r.Max, "retry", "retries")
	if r.Max < 0 {
		text = "retries until the time is up"
	}
	if r.Elsewhere {
		text += ", at once, each on another instance"
	} else {
		text += ", " + waits(r)
	}
	text += " " + after(r)
	if b := r.Budget; b.Share > 0 || b.PerSecond > 0 {
		text += fmt.Sprintf(", as long as retries are less than %s of traffic", percent(b.Share))
		if b.PerSecond > 0 {
			text += fmt.Sprintf(" and %s a second", number(b.PerSecond))
		}
	}
	w.say("%s", text)
}

// waits says how far apart retries are.
func waits(r resiliency.Retry) string {
	first, longest := orDuration(r.Initial, 50*time.Millisecond), orDuration(r.MaxInterval, 5*time.Second)
	switch {
	case first <= time.Microsecond:
		return "at once"
	case r.Backoff == resiliency.Constant && r.Jitter == 0:
		return first.String() + " apart"
	case r.Backoff == resiliency.Constant:
		return fmt.Sprintf("%s ± %s apart", first, percent(r.Jitter))
	case r.Backoff == resiliency.FullJitter:
		return fmt.Sprintf("anything up to %s, growing to %s, apart", first, longest)
	case r.Backoff == resiliency.Decorrelated:
		return fmt.Sprintf("anything from %s to three times the wait before, at most %s, apart", first, longest)
	}
	text := fmt.Sprintf("%s apart and growing to %s", first, longest)
	if r.Jitter > 0 {
		text += fmt.Sprintf(", ± %s", percent(r.Jitter))
	}
	return text
}

// after says which failures are followed by a retry.
func after(r resiliency.Retry) string {
	on := r.On
	if slices.Equal(on.Kinds, anyKind()) || slices.Equal(on.Kinds, anyButConflict()) {
		but := ""
		if len(on.Kinds) < len(anyKind()) {
			but = " but conflicts"
		}
		on.Kinds = nil
		if matched := matchWords(on); matched != "" {
			return "after " + matched + " and every failure that is no answer" + but + idempotence(r)
		}
		return "after every failure" + but + idempotence(r)
	}
	if p := passing(); slices.Equal(on.Kinds, p.Kinds) && slices.Equal(on.Reasons, p.Reasons) {
		return "after failures that may pass, internal ones among them" + idempotence(r)
	}
	if matched := matchWords(on); matched != "" {
		return "after " + matched + idempotence(r)
	}
	return "after failures that may pass" + idempotence(r)
}

func idempotence(r resiliency.Retry) string {
	if r.NonIdempotent {
		return ""
	}
	return ", of calls that were not sent or may be repeated"
}

func matchWords(m resiliency.Match) string {
	var parts []string
	ranges := func(what string, all []resiliency.Range) {
		if len(all) == 0 {
			return
		}
		var texts []string
		for _, r := range all {
			texts = append(texts, r.String())
		}
		parts = append(parts, what+" "+strings.Join(texts, ", "))
	}
	ranges("status", m.Statuses)
	ranges("gRPC code", m.Codes)
	for _, k := range m.Kinds {
		parts = append(parts, k.String())
	}
	for _, r := range m.Reasons {
		parts = append(parts, string(r))
	}
	return strings.Join(parts, " or ")
}

func (w *words) breaker(b resiliency.Breaker) {
	var when []string
	if b.Failures > 0 {
		when = append(when, plural(b.Failures, "failure", "failures in a row"))
	}
	if b.Ratio > 0 {
		when = append(when, percent(b.Ratio)+" failures "+window(b))
	}
	if b.SlowRatio > 0 {
		when = append(when, fmt.Sprintf("%s calls of %s or longer %s", percent(b.SlowRatio), b.SlowAfter, window(b)))
	}
	if b.Trip != nil {
		when = append(when, b.Trip.Text)
	}
	if when == nil {
		return
	}
	text := fmt.Sprintf("opens for %s after %s, then lets %s decide",
		orDuration(b.OpenFor, 5*time.Second), strings.Join(when, " or "), count(max(b.Probes, 1), "probe"))
	if b.Interval > 0 {
		text += fmt.Sprintf(" (counts are cleared each %s)", b.Interval)
	}
	if b.RampStep > 0 {
		text += fmt.Sprintf(" and comes back by %s each %s", percent(b.RampStep), b.RampEvery)
	}
	if b.OpenShare > 0 {
		text += fmt.Sprintf("; %s of the calls pass meanwhile", percent(b.OpenShare))
	}
	w.say("%s", text)
}

func window(b resiliency.Breaker) string {
	least := orInt(b.MinCalls, 10)
	if b.WindowCalls > 0 {
		return fmt.Sprintf("among the last %d calls, of %d or more", b.WindowCalls, least)
	}
	return fmt.Sprintf("within %s, of %s or more", orDuration(b.WindowTime, 10*time.Second), count(least, "call"))
}

var algorithms = map[resiliency.RateAlgorithm]string{
	resiliency.TokenBucket: "", resiliency.LeakyBucket: ", evenly spaced", resiliency.FixedWindow: ", by the clock",
	resiliency.SlidingLog: ", in any such time", resiliency.SlidingCounter: ", in any such time by estimate",
}

func (w *words) limit(l *resiliency.RateLimit, fallback *resiliency.Fallback) {
	text := fmt.Sprintf("admit %s per %s%s", count(l.Limit, "call"), l.Per, algorithms[l.Algorithm])
	switch l.By {
	case resiliency.ByHeader:
		text += " and value of " + l.Header
	case resiliency.ByLane:
	default:
		text += " and " + string(l.By)
	}
	if l.Burst > 1 {
		text += fmt.Sprintf(", %d at once", l.Burst)
	}
	if l.Global {
		text += ", all sidecars together"
	}
	if l.MaxWait > 0 {
		text += fmt.Sprintf("; others wait up to %s", l.MaxWait)
	}
	if l.Answer != nil && l.Answer != fallback {
		text += "; others " + answerWords(l.Answer)
	}
	w.say("%s", text)
}

func (w *words) concurrency(p *resiliency.Policy) {
	if p.MaxInFlight > 0 {
		text := fmt.Sprintf("at most %d run at once", p.MaxInFlight)
		if p.MaxQueue > 0 {
			text += fmt.Sprintf(" and %d wait", p.MaxQueue)
			if p.Queue.MaxWait > 0 {
				text += fmt.Sprintf(" up to %s", p.Queue.MaxWait)
			}
		}
		w.say("%s, others %s", text, map[resiliency.OnFull]string{
			resiliency.Refuse: "are refused", resiliency.WaitAnyway: "wait too", resiliency.ShedOldest: "take the place of who waits longest",
			resiliency.ShedLowest: "take the place of the lowest priority",
		}[p.Queue.Full])
	}
	if a := p.Adaptive; a.Algorithm != "" {
		w.say("the limit of calls at once follows latency (%s) from %d to %d", a.Algorithm, orInt(a.Min, 4), orInt(a.Max, orInt(p.MaxInFlight, 1000)))
	}
	if p.Queue.PriorityHeader != "" {
		w.say("%s says who is served first", p.Queue.PriorityHeader)
	}
	if p.Queue.Target > 0 {
		w.say("while waits stay over %s the newest are served first", p.Queue.Target)
	}
}

func (w *words) protection(p resiliency.Protection) {
	var when []string
	if p.CPU > 0 {
		when = append(when, "CPU is over "+percent(p.CPU))
	}
	if p.Memory > 0 {
		when = append(when, "memory is over "+percent(p.Memory))
	}
	if p.QueueDelay > 0 {
		when = append(when, "calls have waited over "+p.QueueDelay.String())
	}
	if when != nil {
		w.say("calls of low priority are shed while %s", strings.Join(when, " or "))
	}
}

func (w *words) fallback(f *resiliency.Fallback, mode resiliency.FailureMode) {
	if f == nil || mode == resiliency.Failback {
		return
	}
	what := "a failure"
	if matched := matchWords(f.On); matched != "" {
		what = matched
	}
	w.say("%s is %s", what, strings.TrimPrefix(answerWords(f), "are "))
}

// answerWords says what calls become that a fallback answers.
func answerWords(f *resiliency.Fallback) string {
	switch {
	case f.App != "":
		return "are taken to app " + f.App
	case f.LastGood:
		return fmt.Sprintf("are answered with the last good answer of the last %s", orDuration(f.MaxAge, time.Minute))
	}
	text := fmt.Sprintf("are answered with status %d", f.Status)
	if len(f.Body) > 0 {
		text += fmt.Sprintf(" and %d bytes", len(f.Body))
	}
	return text
}

func percent(share float64) string { return number(share*100) + "%" }

func number(x float64) string { return strconv.FormatFloat(x, 'g', 6, 64) }

func count(n int, what string) string { return plural(n, what, what+"s") }

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

func orInt(n, otherwise int) int {
	if n == 0 {
		return otherwise
	}
	return n
}

func orDuration(d, otherwise time.Duration) time.Duration {
	if d == 0 {
		return otherwise
	}
	return d
}
