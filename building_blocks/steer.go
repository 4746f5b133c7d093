package blocks

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/sidecast/sidecast/actors"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/manifest"
	"github.com/sidecast/sidecast/resiliency"
)

// Order is what an operator tells a lane. Exactly one of Breaker, Admission, Limits and Reset is set.
type Order struct {
	// Lane is its name, as in the tree: `app/pricing`.
	Lane string `json:"lane"`
	// Breaker is `open`, `closed` or `auto`, which lets it follow its policy again.
	Breaker string `json:"breaker,omitempty"`
	// Admission is `paused` (calls wait until their deadlines), `drained` (they are refused with fault.LaneDraining) or
	// `admitting`.
	Admission string `json:"admission,omitempty"`
	// Limits change values of the policy.
	Limits *Limits `json:"limits,omitempty"`
	// Reset takes back all that operators have told the lane.
	Reset bool `json:"reset,omitempty"`
}

// Limits change values of a lane's policy; what is nil or not named stays.
type Limits struct {
	// InFlight is the most calls in flight, 0 for no limit; Queue the most that wait.
	InFlight *int `json:"inFlight,omitempty"`
	Queue    *int `json:"queue,omitempty"`
	// Rates holds by the name of a rate limit what it admits now: `10/1s`.
	Rates map[string]string `json:"rates,omitempty"`
}

// Operator is who gives an order, as far as a door knows.
type Operator struct {
	// Door the order came through: `grpc` or `admin`.
	Door string
	// Peer is the address that it came from.
	Peer string
	// Token says that it brought the API token.
	Token bool
}

// The words that orders are made of.
var (
	breakerWords = map[string]resiliency.Forced{
		"open": resiliency.ForcedOpen, "closed": resiliency.ForcedClosed, "auto": resiliency.NotForced,
	}
	admissionWords = map[string]resiliency.Admission{
		"admitting": resiliency.Admitting, "paused": resiliency.Held, "drained": resiliency.TurnedAway,
	}
)

// Steer obeys an order: all of it, or nothing when the error is not nil. It returns what each value was and is now, and
// writes a line marked `audit` about each to the log. What a lane was told holds through changes of its policy and through
// restarts of the lane, until it is told otherwise or the sidecar ends.
//
// Its errors are of reason fault.LaneNotFound and fault.BadRequest.
func (r *Runtime) Steer(who Operator, o Order) ([]actors.Change, error) {
	obey, err := o.plan()
	if err != nil {
		return nil, err
	}
	lane, err := r.findLane(o.Lane)
	if err != nil {
		return nil, err
	}
	changes, err := obey(lane)
	if err != nil {
		return nil, err
	}
	for _, c := range changes {
		r.deps.Log.Info("lane steered", "audit", true, "lane", o.Lane, "what", c.What, "from", c.From, "to", c.To,
			"door", who.Door, "peer", who.Peer, "subject", who.subject())
	}
	return changes, nil
}

func (w Operator) subject() string {
	if w.Token {
		return "api-token"
	}
	return "anonymous"
}

// plan reads the order. Nothing is done before all of it is understood.
func (o Order) plan() (func(*actors.Lane) ([]actors.Change, error), error) {
	op := "steer lane " + o.Lane
	given := 0
	for _, is := range []bool{o.Breaker != "", o.Admission != "", o.Limits != nil, o.Reset} {
		if is {
			given++
		}
	}
	switch {
	case o.Lane == "":
		return nil, fault.New("steer lane", fault.BadRequest, "lane is empty: name the lane, as `sidecast lane list` shows it")
	case given != 1:
		return nil, fault.New(op, fault.BadRequest, "an order has exactly one of breaker, admission, limits and reset; this one has %d", given)
	case o.Breaker != "":
		to, err := word(op, "breaker", o.Breaker, breakerWords)
		return func(l *actors.Lane) ([]actors.Change, error) {
			return []actors.Change{forceBreaker(l, to)}, nil
		}, err
	case o.Admission != "":
		to, err := word(op, "admission", o.Admission, admissionWords)
		return func(l *actors.Lane) ([]actors.Change, error) {
			return []actors.Change{setAdmission(l, to)}, nil
		}, err
	case o.Reset:
		return reset, nil
	}
	override, err := o.Limits.override(op)
	return func(l *actors.Lane) ([]actors.Change, error) { return l.Override(override) }, err
}

// word is what text means; others are an error that names those that are known.
func word[T any](op, what, text string, known map[string]T) (T, error) {
	value, ok := known[text]
	if ok {
		return value, nil
	}
	names := slices.Sorted(maps.Keys(known))
	hint := ""
	if near := manifest.Nearest(text, names); near != "" {
		hint = fmt.Sprintf("; did you mean %q?", near)
	}
	return value, fault.New(op, fault.BadRequest, "%s %q: must be one of %s%s", what, text, strings.Join(names, ", "), hint)
}

func (l *Limits) override(op string) (o resiliency.Override, err error) {
	if l.InFlight == nil && l.Queue == nil && len(l.Rates) == 0 {
		return o, fault.New(op, fault.BadRequest, "limits is empty: give at least one of inFlight, queue and rates")
	}
	o.MaxInFlight, o.MaxQueue = l.InFlight, l.Queue
	for name, text := range l.Rates {
		rate, err := resiliency.ParseRate(text)
		if err != nil {
			return o, fault.New(op, fault.BadRequest, "rate %s: %w", name, err)
		}
		if o.Rates == nil {
			o.Rates = make(map[string]resiliency.Rate, len(l.Rates))
		}
		o.Rates[name] = rate
	}
	return o, nil
}

func forceBreaker(l *actors.Lane, to resiliency.Forced) actors.Change {
	return actors.Change{What: "breaker", From: string(l.ForceBreaker(to)), To: string(to)}
}

func setAdmission(l *actors.Lane, to resiliency.Admission) actors.Change {
	name := func(a resiliency.Admission) string { return cmp.Or(string(a), "admitting") }
	return actors.Change{What: "admission", From: name(l.SetAdmission(to)), To: name(to)}
}

// reset takes back what there is to take back.
func reset(l *actors.Lane) ([]actors.Change, error) {
	changes := l.Reset()
	for _, c := range []actors.Change{forceBreaker(l, resiliency.NotForced), setAdmission(l, resiliency.Admitting)} {
		if c.From != c.To {
			changes = append(changes, c)
		}
	}
	return changes, nil
}

// findLane returns the lane of that name, or an error with the name that was probably meant.
func (r *Runtime) findLane(name string) (*actors.Lane, error) {
	if lane, ok := r.deps.System.Find(name); ok {
		return lane, nil
	}
	known := r.deps.System.LaneNames()
	text := fmt.Sprintf("there is no lane %q", name)
	near := manifest.Nearest(name, known)
	for _, k := range known {
		if strings.HasSuffix(k, "/"+name) { // its block was left out
			near = k
			break
		}
	}
	if near != "" {
		text += fmt.Sprintf("; did you mean %s?", near)
	}
	return nil, fault.New("steer lane", fault.LaneNotFound, "%s", text)
}
