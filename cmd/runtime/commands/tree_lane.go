package commands

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"strings"
	"time"

	"github.com/dustin/go-humanize"

	sidecastv1 "github.com/sidecast/sidecast/sdk/proto/sidecast/v1"
)

// lane is what a lane is doing: [██░░░░░░] 2/8 in flight · 0/64 waiting · breaker closed · 1,204 admitted, 3 retried.
func (d drawing) lane(l *sidecastv1.LaneStatus) string {
	if l == nil {
		return ""
	}
	parts := []string{
		"  " + bar(l.InFlight, l.InFlightLimit) + " " + of(l.InFlight, l.InFlightLimit) + " in flight",
		of(l.Queued, l.QueueLimit) + " waiting",
	}
	switch {
	case l.Endpoints == 1:
		parts = append(parts, "1 endpoint")
	case l.Endpoints > 1:
		parts = append(parts, fmt.Sprintf("%d endpoints", l.Endpoints))
	}
	if l.Breaker != "" {
		parts = append(parts, d.breaker(l))
	}
	var sums []string
	for _, sum := range []struct {
		n    uint64
		what string
	}{
		{l.Admitted, "admitted"}, {l.Retried, "retried"}, {l.Hedged, "hedged"}, {l.Failed, "failed"}, {l.Refused, "refused"},
		{l.Fallbacks, "answered by a fallback"},
	} {
		if sum.n > 0 || sum.what == "admitted" {
			sums = append(sums, count(sum.n)+" "+sum.what)
		}
	}
	parts = append(parts, strings.Join(sums, ", "))
	if l.Policy != "" {
		parts = append(parts, d.paint(faint, "policy "+l.Policy))
	}
	return strings.Join(parts, " · ")
}

func count(n uint64) string { return humanize.Comma(int64(min(n, 1<<62))) }

func (d drawing) breaker(l *sidecastv1.LaneStatus) string {
	color := red
	if l.Breaker == "closed" {
		color = green
	}
	text := d.paint(color, "breaker "+l.Breaker)
	switch opens := l.BreakerOpensIn.AsDuration(); {
	case l.BreakerForced:
		return text + d.paint(yellow, ", forced")
	case opens > 0:
		text += ", probes in " + opens.Round(100*time.Millisecond).String()
	case l.Breaker == "ramping":
		text += fmt.Sprintf(", %.0f %% pass", 100*l.BreakerShare)
	}
	if color == red && l.BreakerReason != "" {
		text += " (" + preview([]byte(l.BreakerReason)) + ")"
	}
	return text
}

// details are the lines below a lane: what calls were refused for, its rate limits, and what an operator has told it.
func (d drawing) details(l *sidecastv1.LaneStatus) []string {
	var lines []string
	if refusals := refusals(l); refusals != "" {
		lines = append(lines, "refused for "+refusals)
	}
	if bounds := bounds(l); bounds != "" {
		lines = append(lines, bounds)
	}
	for _, limit := range l.GetLimits() {
		lines = append(lines, "limit "+rateLimit(limit))
	}
	if told := told(l); told != "" {
		lines = append(lines, d.paint(yellow, "operator: "+told))
	}
	return lines
}

// refusals are the reasons that calls were refused for, the most frequent first: QUEUE_FULL 9, RATE_LIMITED 2.
func refusals(l *sidecastv1.LaneStatus) string {
	times := l.GetRefusedFor()
	reasons := slices.SortedFunc(maps.Keys(times), func(a, b string) int {
		return cmp.Or(cmp.Compare(times[b], times[a]), cmp.Compare(a, b))
	})
	for i, reason := range reasons {
		reasons[i] = reason + " " + count(times[reason])
	}
	return strings.Join(reasons, ", ")
}

// bounds is what moves with the target and the machine: attempts take at most 80ms · at rest 12ms · shedding 20 %.
func bounds(l *sidecastv1.LaneStatus) string {
	var parts []string
	if timeout := ttl(l.GetAttemptTimeout()); timeout != "" {
		parts = append(parts, "attempts take at most "+timeout)
	}
	if rest := ttl(l.GetRestLatency()); rest != "" {
		parts = append(parts, "at rest "+rest)
	}
	if l.GetShedding() > 0 {
		sheds := fmt.Sprintf("sheds %.0f %% of the calls", 100*l.Shedding)
		if l.Cpu > 0 || l.Memory > 0 { // or it is the queue's delay, which nobody has to measure
			sheds += fmt.Sprintf(": CPU %.0f %%, memory %.0f %%", 100*l.Cpu, 100*l.Memory)
		}
		parts = append(parts, sheds)
	}
	return strings.Join(parts, " · ")
}

// rateLimit is a rate limit and what it does: each 10/1s token-bucket by caller · 17 keys · 3 refused.
func rateLimit(r *sidecastv1.RateLimitStatus) string {
	text := r.Name + " " + r.Rate + " " + r.Algorithm
	if r.By != "lane" {
		text += fmt.Sprintf(" by %s · %d known", r.By, r.Keys)
	}
	if r.Remaining != nil {
		text += fmt.Sprintf(" · %d would pass now", *r.Remaining)
	}
	if r.Share != nil {
		text += fmt.Sprintf(" · %.0f %% of it here, %s", 100**r.Share, r.State)
	}
	if r.Refused > 0 {
		text += " · " + count(r.Refused) + " refused"
	}
	return text
}

// told is what an operator has told the lane: paused; overridden: in flight 8→2.
func told(l *sidecastv1.LaneStatus) string {
	var parts []string
	if l.GetAdmission() != "" {
		parts = append(parts, l.Admission)
	}
	if l.GetBreakerForced() {
		parts = append(parts, "breaker forced "+l.Breaker)
	}
	var changes []string
	for _, c := range l.GetOverridden() {
		changes = append(changes, c.What+" "+c.From+"→"+c.To)
	}
	if len(changes) > 0 {
		parts = append(parts, "overridden: "+strings.Join(changes, ", "))
	}
	return strings.Join(parts, "; ")
}

// bar shows how full a lane is; one without a limit has an empty one while it is idle.
func bar(n, limit int32) string {
	const cells = 8
	full := 0
	switch {
	case n <= 0:
	case limit <= 0:
		full = 1
	default:
		full = min(cells, max(1, int(int64(n)*cells/int64(limit))))
	}
	return "[" + strings.Repeat("█", full) + strings.Repeat("░", cells-full) + "]"
}

func of(n, limit int32) string {
	if limit <= 0 {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%d/%d", n, limit)
}

// laneView is a lane's numbers in JSON.
type laneView struct {
	Policy         string            `json:"policy,omitempty"`
	InFlight       int32             `json:"inFlight"`
	InFlightLimit  int32             `json:"inFlightLimit"`
	Queued         int32             `json:"queued"`
	QueueLimit     int32             `json:"queueLimit"`
	Admitted       uint64            `json:"admitted"`
	Refused        uint64            `json:"refused"`
	RefusedFor     map[string]uint64 `json:"refusedFor,omitempty"`
	Failed         uint64            `json:"failed"`
	Retried        uint64            `json:"retried"`
	Hedged         uint64            `json:"hedged,omitempty"`
	Fallbacks      uint64            `json:"fallbacks,omitempty"`
	AttemptTimeout string            `json:"attemptTimeout,omitempty"`
	RestLatency    string            `json:"restLatency,omitempty"`
	Shedding       float64           `json:"shedding,omitempty"`
	CPU            float64           `json:"cpu,omitempty"`
	Memory         float64           `json:"memory,omitempty"`
	Breaker        string            `json:"breaker,omitempty"`
	BreakerReason  string            `json:"breakerReason,omitempty"`
	BreakerOpensIn string            `json:"breakerOpensIn,omitempty"`
	BreakerForced  bool              `json:"breakerForced,omitempty"`
	BreakerShare   float64           `json:"breakerShare,omitempty"`
	Limits         []limitView       `json:"limits,omitempty"`
	Admission      string            `json:"admission,omitempty"`
	Overridden     []changeView      `json:"overridden,omitempty"`
	Endpoints      int32             `json:"endpoints"`
}

// limitView is a rate limit in JSON.
type limitView struct {
	Name      string   `json:"name"`
	Algorithm string   `json:"algorithm"`
	Rate      string   `json:"rate"`
	By        string   `json:"by"`
	Keys      int32    `json:"keys,omitempty"`
	Remaining *int32   `json:"remaining,omitempty"`
	Share     *float64 `json:"share,omitempty"`
	State     string   `json:"state,omitempty"`
	Refused   uint64   `json:"refused"`
}

// changeView is a value that an operator has changed, in JSON.
type changeView struct {
	What string `json:"what"`
	From string `json:"from"`
	To   string `json:"to"`
}

func viewLane(l *sidecastv1.LaneStatus) *laneView {
	view := &laneView{
		Policy: l.Policy, InFlight: l.InFlight, InFlightLimit: l.InFlightLimit, Queued: l.Queued, QueueLimit: l.QueueLimit,
		Admitted: l.Admitted, Refused: l.Refused, RefusedFor: l.RefusedFor, Failed: l.Failed, Retried: l.Retried, Hedged: l.Hedged,
		Fallbacks: l.Fallbacks, AttemptTimeout: ttl(l.AttemptTimeout),
		RestLatency: ttl(l.RestLatency), Shedding: l.Shedding, CPU: l.Cpu, Memory: l.Memory, Breaker: l.Breaker, BreakerReason: l.BreakerReason,
		BreakerOpensIn: ttl(l.BreakerOpensIn), BreakerForced: l.BreakerForced, BreakerShare: l.BreakerShare,
		Admission: l.Admission, Overridden: viewChanges(l.Overridden), Endpoints: l.Endpoints,
	}
	for _, r := range l.Limits {
		view.Limits = append(view.Limits, limitView{r.Name, r.Algorithm, r.Rate, r.By, r.Keys, r.Remaining, r.Share, r.State, r.Refused})
	}
	return view
}

func viewChanges(changes []*sidecastv1.LaneChange) []changeView {
	var views []changeView
	for _, c := range changes {
		views = append(views, changeView{c.What, c.From, c.To})
	}
	return views
}
