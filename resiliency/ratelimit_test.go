package resiliency

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sidecast/sidecast/fault"
)

var limitKeys = map[string]policyKey{
	"limits": func(t *testing.T, p *Policy, v string) {
		for one := range strings.SplitSeq(v, "+") {
			p.Limits = append(p.Limits, limitOf(t, one))
		}
	},
}

// limitOf reads `name:10/1s`, followed by any of `,algorithm` `,burst:n` `,wait:d` `,by:caller` `,by:operation` `,header:h`
// `,keys:n` `,global` and `,answer:status`.
func limitOf(t testing.TB, text string) RateLimit {
	name, rest, _ := strings.Cut(text, ":")
	words := strings.Split(rest, ",")
	calls, per, _ := strings.Cut(words[0], "/")
	r := RateLimit{Name: name, Limit: number(t, calls), Per: duration(t, per)}
	for _, w := range words[1:] {
		switch key, v, _ := strings.Cut(w, ":"); key {
		case "burst":
			r.Burst = number(t, v)
		case "wait":
			r.MaxWait = duration(t, v)
		case "by":
			r.By = RateKey(v)
		case "header":
			r.By, r.Header = ByHeader, v
		case "keys":
			r.MaxKeys = number(t, v)
		case "global":
			r.Global = true
		case "answer":
			r.Answer = &Fallback{Status: number(t, v)}
		default:
			r.Algorithm = RateAlgorithm(w)
		}
	}
	return r
}

// shareOf reads `limit 0.5` or `limit 0.5 local`.
func shareOf(t *testing.T, words []string) SetShare {
	var share float64
	if _, err := fmt.Sscan(words[1], &share); err != nil {
		t.Fatal(err)
	}
	return SetShare{Limit: words[0], Share: share, Local: len(words) > 2}
}

// limitedBy gives a call what limits are kept for.
func limitedBy(call *Call, args map[string]string) {
	call.Caller = args["caller"]
	if op, ok := args["op"]; ok {
		call.Op = op
	}
	if tenant, ok := args["tenant"]; ok {
		call.Header = header{"x-tenant": tenant}
	}
}

func limitsOf(s Status) []string {
	var lines []string
	for _, l := range s.Limits {
		line, err := json.Marshal(l)
		if err != nil {
			panic(err)
		}
		lines = append(lines, string(line))
	}
	return lines
}

func TestValidateLimits(t *testing.T) {
	good := []RateLimit{
		{Name: "a", Limit: 10, Per: time.Second, Burst: 5, MaxWait: time.Second, Global: true, Answer: &Fallback{Status: 429}},
		{Name: "b", Algorithm: LeakyBucket, Limit: 1, Per: time.Hour, By: ByCaller, MaxKeys: 3},
		{Name: "c", Algorithm: SlidingLog, Limit: 9_000, Per: time.Second, By: ByHeader, Header: "X-Tenant"},
	}
	if err := (Policy{Limits: good}).Validate(); err != nil {
		t.Fatal(err)
	}
	ok := func(change func(r *RateLimit)) []RateLimit {
		r := RateLimit{Name: "x", Limit: 10, Per: time.Second}
		change(&r)
		return []RateLimit{r}
	}
	for want, limits := range map[string][]RateLimit{
		"has no name":          ok(func(r *RateLimit) { r.Name = "" }),
		"are named":            append(ok(func(*RateLimit) {}), ok(func(*RateLimit) {})...),
		"more than 32":         make([]RateLimit, 33),
		"no algorithm":         ok(func(r *RateLimit) { r.Algorithm = "gcra" }),
		"the limit 0":          ok(func(r *RateLimit) { r.Limit = 0 }),
		"the time 0s":          ok(func(r *RateLimit) { r.Per = 0 }),
		"a second":             ok(func(r *RateLimit) { r.Per = time.Microsecond }),
		"the burst -1":         ok(func(r *RateLimit) { r.Burst = -1 }),
		"a burst is for":       ok(func(r *RateLimit) { r.Algorithm, r.Burst = FixedWindow, 1 }),
		"longest wait":         ok(func(r *RateLimit) { r.MaxWait = -1 }),
		"no key":               ok(func(r *RateLimit) { r.By = "zone" }),
		"if and only if":       ok(func(r *RateLimit) { r.By = ByHeader }),
		"header is named if":   ok(func(r *RateLimit) { r.Header = "h" }),
		"-1 keys":              ok(func(r *RateLimit) { r.By, r.MaxKeys = ByCaller, -1 }),
		"without keys":         ok(func(r *RateLimit) { r.MaxKeys = 1 }),
		"keeps a time":         ok(func(r *RateLimit) { r.Algorithm, r.Limit = SlidingLog, 100_001 }),
		"those that wait":      ok(func(r *RateLimit) { r.Algorithm, r.Limit, r.MaxWait = SlidingLog, 10_000, time.Minute }),
		"the logs of all":      ok(func(r *RateLimit) { r.Algorithm, r.Limit, r.By = SlidingLog, 10_000, ByCaller }),
		`answer of rate limit`: ok(func(r *RateLimit) { r.Answer = &Fallback{} }),
	} {
		err := Policy{Limits: limits}.Validate()
		if fault.KindOf(err) != fault.Invalid || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", limits[0], err, want)
		}
	}
}

// TestImpossibleLimits: a machine that is given what Validate refuses still decides.
func TestImpossibleLimits(t *testing.T) {
	for _, r := range []RateLimit{
		{}, {Limit: -1, Per: -1, Burst: -1, MaxWait: -1, MaxKeys: -1, By: ByCaller}, {Limit: 1 << 60, Per: 1, Burst: 1 << 60},
		{Limit: 1 << 60, Per: 1 << 62, MaxWait: 1 << 62}, {Algorithm: "?", By: "?", Limit: 1, Per: 1},
	} {
		for _, algorithm := range []RateAlgorithm{r.Algorithm, LeakyBucket, FixedWindow, SlidingLog, SlidingCounter} {
			r.Algorithm, r.Name, r.Global = algorithm, "x", true
			m := New("l", Policy{Limits: []RateLimit{r}})
			for i := range 5 {
				turn := new(Turn)
				turn.Begin(Call{Op: "op"}, nil)
				if got := m.Step(epoch.Add(time.Duration(i)), Enter{turn}); len(got) != 1 {
					t.Errorf("%+v: %d decisions", r, len(got))
				}
				m.Step(epoch, SetShare{Limit: "x", Share: float64(i) / 4})
				m.Status(epoch)
			}
		}
	}
}

// TestRefusalTellsNoSecret: a refusal says what the limit is and never the header's value.
func TestRefusalTellsNoSecret(t *testing.T) {
	m := New("l", Policy{Limits: []RateLimit{limitOf(t, "tenants:1/1m,header:x-tenant")}})
	var last Decision
	for range 2 {
		turn := new(Turn)
		turn.Begin(Call{Op: "op", Header: header{"x-tenant": "s3cr3t"}}, nil)
		last = m.Step(epoch, Enter{turn})[0]
	}
	f := last.Err.(*fault.Error)
	if f.Reason != fault.RateLimited || f.Kind != fault.Exhausted || f.RetryAfter != time.Minute || f.Meta["limit"] != "tenants" {
		t.Errorf("refused with %#v", f)
	}
	if strings.Contains(fmt.Sprintf("%v %v", f, f.Meta), "s3cr3t") || !strings.Contains(f.Error(), "x-tenant") {
		t.Errorf("the refusal is %v", f)
	}
}

// Callers choose paths and header values of many KiB: a limit keeps up to 65536 keys, and none that long.
func TestLongKeysAreCondensed(t *testing.T) {
	r := RateLimit{By: ByOperation}
	of := func(op string) string { return r.key(&Call{Op: op}) }
	long := strings.Repeat("x", 16<<10)
	if short := long[:maxKeptKey]; of(short) != short {
		t.Errorf("got %q", of(short))
	}
	a, b := of(long+"a"), of(long+"b")
	if len(a) > 2*maxKeptKey || a == b || a != of(long+"a") {
		t.Errorf("got %q and %q", a, b)
	}
	if of(a) == a {
		t.Error("a call that spells a condensed key has another's limit")
	}
}

func BenchmarkTake(b *testing.B) {
	for _, text := range []string{
		"x:1000000/1s", "x:1000000/1s,leaky-bucket,burst:1000", "x:1000000/1s,fixed-window", "x:100000/1s,sliding-log",
		"x:1000000/1s,sliding-counter", "x:1000000/1s,by:caller",
	} {
		b.Run(text, func(b *testing.B) {
			var l limiter
			now := time.Now()
			l.setRules(now, settledLimits([]RateLimit{limitOf(b, text)}))
			turn := new(Turn)
			turn.Begin(Call{Op: "op", Caller: "caller"}, nil)
			b.ReportAllocs()
			for b.Loop() {
				now = now.Add(11 * time.Microsecond)
				if _, refused := l.take(now, turn); refused != nil {
					b.Fatal("refused")
				}
			}
		})
	}
}
