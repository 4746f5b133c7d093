package resiliency

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sidecast/sidecast/fault"
)

var update = flag.Bool("update", false, "rewrite the decisions in testdata")

// TestScripts plays every script of testdata: a line is an event, the indented lines below it are what the machine must
// decide. `lane` and `balanced` make a new machine; every other event begins with its time.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := play(t, string(want))
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got != string(want) {
				t.Errorf("%s decided otherwise:\n%s", file, firstDifference(got, string(want)))
			}
		})
	}
}

func firstDifference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range min(len(g), len(w)) {
		if g[i] != w[i] {
			return fmt.Sprintf("line %d\n got %s\nwant %s", i+1, g[i], w[i])
		}
	}
	return fmt.Sprintf("got %d lines, want %d", len(g), len(w))
}

// play returns the script with the decisions that the machine takes now.
func play(t *testing.T, script string) string {
	s := stage{t: t}
	return s.play(script)
}

func (s *stage) play(script string) string {
	var out strings.Builder
	lines := bufio.NewScanner(strings.NewReader(script))
	for lines.Scan() {
		line := lines.Text()
		if strings.HasPrefix(line, "  ") {
			continue
		}
		out.WriteString(line + "\n")
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		for _, answer := range s.event(strings.Fields(line)) {
			out.WriteString("  " + answer + "\n")
		}
	}
	return out.String()
}

// epoch is the 0s of every script.
var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// stage is a machine and the turns that a script names.
type stage struct {
	t       *testing.T
	machine *Machine
	turns   map[string]*Turn
}

func (s *stage) event(words []string) []string {
	switch words[0] {
	case "lane":
		s.machine, s.turns = New("app/orders", policyOf(s.t, words[1:])), map[string]*Turn{}
		return nil
	case "balanced":
		s.machine, s.turns = NewBalanced("app/orders", policyOf(s.t, words[1:])), map[string]*Turn{}
		return nil
	}
	since, err := time.ParseDuration(words[0])
	if err != nil {
		s.t.Fatalf("%v: %v", words, err)
	}
	now := epoch.Add(since)
	switch words[1] {
	case "status":
		status := s.machine.Status(now)
		status.Limits = nil // they have an event of their own
		return []string{told(status)}
	case "limits":
		return limitsOf(s.machine.Status(now))
	case "demands":
		return []string{fmt.Sprintf("%+v", s.machine.Demands())}
	}
	var answers []string
	for _, d := range s.machine.Step(now, s.parse(now, words[1:])) {
		answers = append(answers, describe(now, d))
	}
	return answers
}

// told is a status without what is zero.
func told(s Status) string {
	var words []string
	v := reflect.ValueOf(s)
	for i := range v.NumField() {
		if !v.Field(i).IsZero() {
			words = append(words, fmt.Sprintf("%s:%+v", v.Type().Field(i).Name, v.Field(i)))
		}
	}
	return strings.Join(words, " ")
}

func (s *stage) parse(now time.Time, words []string) Event {
	args := options(words[1:])
	switch words[0] {
	case "enter":
		return Enter{s.begin(words[1], args)}
	case "hedge":
		turn := new(Turn)
		turn.BeginHedge(Call{Op: "invoke " + words[1], Idempotent: true}, words[1], args["avoid"])
		s.turns[words[1]] = turn
		return Enter{turn}
	case "again":
		return Enter{s.turns[words[1]]}
	case "begun":
		return Begun{s.turns[words[1]], duration(s.t, args["took"])}
	case "ok":
		return &Outcome{Turn: s.turns[words[1]], Took: duration(s.t, args["took"])}
	case "fail":
		err := fault.E("attempt", fault.None, fault.Reason(words[2]), errors.New("it failed")).After(duration(s.t, args["after"]))
		if status, ok := args["status"]; ok {
			err.Err = httpStatus(number(s.t, status))
			err.Kind = fault.KindFromHTTP(number(s.t, status))
		}
		for _, key := range []string{"lane", "priority"} {
			if v, ok := args[key]; ok {
				err = err.With(key, v)
			}
		}
		return &Outcome{Turn: s.turns[words[1]], Err: err, Took: duration(s.t, args["took"])}
	case "leave":
		return Leave{s.turns[words[1]]}
	case "policy":
		return SetPolicy{policyOf(s.t, words[1:])}
	case "endpoints":
		return SetEndpoints{endpointsOf(s.t, words[1:])}
	case "overdue":
		return Overdue{s.turns[words[1]]}
	case "share":
		return shareOf(s.t, words[1:])
	case "pressure":
		return Pressure{CPU: decimalOr0(s.t, args["cpu"]), Memory: decimalOr0(s.t, args["memory"])}
	case "drain":
		return Drain{}
	case "force":
		return ForceBreaker{Forced(words[1])}
	case "admission":
		return SetAdmission{map[string]Admission{"admitting": Admitting, "held": Held, "turned-away": TurnedAway}[words[1]]}
	}
	s.t.Fatalf("no such event: %v", words)
	return nil
}

func (s *stage) begin(name string, args map[string]string) *Turn {
	call := Call{Op: "invoke " + name}
	_, call.Idempotent = args["idempotent"]
	_, call.Repeatable = args["repeatable"]
	_, call.InPieces = args["pieces"]
	if d, ok := args["deadline"]; ok {
		call.Deadline = epoch.Add(duration(s.t, d))
	}
	if v, ok := args["priority"]; ok {
		call.Header = header{"x-priority": v}
	}
	limitedBy(&call, args)
	turn := new(Turn)
	turn.Begin(call, name)
	s.turns[name] = turn
	return turn
}

// httpStatus is the answer of an HTTP app that counts as a failure.
type httpStatus int

func (s httpStatus) Error() string   { return fmt.Sprintf("status %d", int(s)) }
func (s httpStatus) HTTPStatus() int { return int(s) }

// header is one of a call in a test.
type header map[string]string

func (h header) Get(key string) string { return h[key] }

func describe(now time.Time, d Decision) string {
	line := fmt.Sprintf("%s %s", d.Turn.Owner, d.Verb)
	switch d.Verb {
	case Go:
		line += fmt.Sprintf(" attempt=%d", d.Attempt)
		if d.Endpoint != "" {
			line += " endpoint=" + d.Endpoint
		}
		if !d.Deadline.IsZero() {
			line += fmt.Sprintf(" for=%v", d.Deadline.Sub(now))
		}
		if d.Hedge != 0 {
			line += fmt.Sprintf(" hedge=%v", d.Hedge)
		}
	case Again:
		line += fmt.Sprintf(" after=%v", d.After)
	case GiveUp:
		if after := fault.RetryAfter(d.Err); after != 0 {
			line += fmt.Sprintf(" retry-after=%v", after)
		}
		line += fmt.Sprintf(" attempts=%s: %v", d.Err.(*fault.Error).Meta["attempts"], d.Err)
	}
	return line
}

func options(words []string) map[string]string {
	args := map[string]string{}
	for _, w := range words {
		if key, value, ok := strings.Cut(w, "="); ok || w == "idempotent" || w == "repeatable" || w == "pieces" {
			args[key] = value
		}
	}
	return args
}

func duration(t testing.TB, s string) time.Duration {
	if s == "" {
		return 0
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func decimalOr0(t *testing.T, s string) float64 {
	if s == "" {
		return 0
	}
	return fraction(t, s)
}

func fraction(t *testing.T, s string) float64 {
	f, err := strconv.ParseFloat(s, 64)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func number(t testing.TB, s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// policyKeys are the words by which scripts write policies. Each policy's test adds its own.
var policyKeys = mergeKeys(coreKeys, breakerKeys, limitKeys, queueKeys, retryKeys, adaptiveKeys, protectionKeys, piecesKeys)

type policyKey = func(t *testing.T, p *Policy, v string)

func mergeKeys(all ...map[string]policyKey) map[string]policyKey {
	merged := map[string]policyKey{}
	for _, keys := range all {
		maps.Copy(merged, keys)
	}
	return merged
}

var coreKeys = map[string]policyKey{
	"call-timeout":    func(t *testing.T, p *Policy, v string) { p.CallTimeout = duration(t, v) },
	"attempt-timeout": func(t *testing.T, p *Policy, v string) { p.AttemptTimeout = duration(t, v) },
	"in-flight":       func(t *testing.T, p *Policy, v string) { p.MaxInFlight = number(t, v) },
	"queue":           func(t *testing.T, p *Policy, v string) { p.MaxQueue = number(t, v) },
}

func policyOf(t *testing.T, words []string) Policy {
	p := Policy{Name: "script", Retry: Retry{Multiplier: 2}}
	for key, v := range options(words) {
		set := policyKeys[key]
		if set == nil {
			t.Fatalf("no such policy: %s", key)
		}
		set(t, &p, v)
	}
	if err := p.Validate(); err != nil {
		t.Fatal(err)
	}
	return p
}

// endpointsOf reads `name` or `name*weight` or `name:load` or `name/room`.
func endpointsOf(t *testing.T, words []string) []Endpoint {
	var list []Endpoint
	for _, w := range words {
		e := Endpoint{}
		id, weight, weighted := strings.Cut(w, "*")
		if weighted {
			e.Weight = number(t, weight)
		}
		id, load, loaded := strings.Cut(id, ":")
		if loaded {
			e.Load = number(t, load)
		}
		id, room, bounded := strings.Cut(id, "/")
		if bounded {
			e.Room = number(t, room)
		}
		e.ID = id
		list = append(list, e)
	}
	return list
}
