package quota

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/sidecast/sidecast/fabric"
	"github.com/sidecast/sidecast/resiliency"
)

// node is a sidecar of a simulated namespace: a machine with one global limit, and a ledger that tells it its share.
type node struct {
	name    string
	ledger  *ledger
	machine *resiliency.Machine
	phase   time.Duration // of its ticks
	rate    int           // calls offered a second
	cut     bool          // from the fabric
	share   float64
	local   bool
	heard   int
}

// namespace is all nodes, in a time of their own.
type namespace struct {
	nodes    []*node
	now      time.Time
	limit    resiliency.RateLimit
	admitted map[string]int // since it was last cleared
}

var dawn = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func (s *namespace) join(name string, rate int, phase time.Duration) *node {
	n := &node{
		name: name, rate: rate, phase: phase, share: 1 / float64(len(s.nodes)+1),
		ledger:  newLedger(fabric.Target{App: "app", Instance: name}, s.now),
		machine: resiliency.New("app", resiliency.Policy{Limits: []resiliency.RateLimit{s.limit}}),
	}
	n.machine.Step(s.now, resiliency.SetShare{Limit: s.limit.Name, Share: n.share})
	s.nodes = append(s.nodes, n)
	return n
}

const step = time.Millisecond

// run lets time pass: each node offers its calls, and ticks once a second at its phase. Messages arrive at once.
func (s *namespace) run(d time.Duration) {
	for end := s.now.Add(d); s.now.Before(end); s.now = s.now.Add(step) {
		since := s.now.Sub(dawn)
		for _, n := range s.nodes {
			before, after := since*time.Duration(n.rate)/time.Second, (since+step)*time.Duration(n.rate)/time.Second
			for range after - before {
				s.offer(n)
			}
			if since%interval == n.phase {
				s.tick(n)
			}
		}
	}
}

func (s *namespace) offer(n *node) {
	turn := new(resiliency.Turn)
	turn.Begin(resiliency.Call{Op: "op"}, nil)
	if n.machine.Step(s.now, resiliency.Enter{Turn: turn})[0].Verb == resiliency.Go {
		s.admitted[n.name]++
		n.machine.Step(s.now, &resiliency.Outcome{Turn: turn})
	}
}

func (s *namespace) tick(n *node) {
	var offers []offer
	for _, d := range n.machine.Demands() {
		offers = append(offers, offer{id: "id", calls: d.Calls, per: d.Per, whole: d.Whole, offered: d.Offered, first: n.share})
	}
	for _, payload := range n.ledger.tick(s.now, interval, offers) {
		for _, other := range s.nodes {
			if !n.cut && !other.cut {
				other.ledger.hear(s.now, n.ledger.self, payload)
				other.heard++
			}
		}
	}
	n.ledger.judge(s.now, !n.cut)
	p := n.ledger.portions(s.now)["id"]
	n.share, n.local = p.share, p.local
	n.machine.Step(s.now, resiliency.SetShare{Limit: s.limit.Name, Share: p.share, Local: p.local})
}

func (s *namespace) total() (sum int) {
	for _, n := range s.admitted {
		sum += n
	}
	return sum
}

func newNamespace(algorithm resiliency.RateAlgorithm) *namespace {
	s := &namespace{now: dawn, admitted: map[string]int{}, limit: resiliency.RateLimit{
		Name: "api", Algorithm: algorithm, Limit: 40, Per: time.Second, Global: true,
	}}
	if algorithm == resiliency.LeakyBucket {
		s.limit.Burst = 10 // or calls that come evenly, but at another rate, find every second gap closed
	}
	return s
}

func eachAlgorithm(t *testing.T, test func(t *testing.T, s *namespace)) {
	for _, a := range []resiliency.RateAlgorithm{
		resiliency.TokenBucket, resiliency.LeakyBucket, resiliency.FixedWindow, resiliency.SlidingLog, resiliency.SlidingCounter,
	} {
		t.Run("by "+string(a), func(t *testing.T) { test(t, newNamespace(a)) })
	}
}

// TestMembersShareALimit: three members of unequal demand, all of them together more than the limit, admit no more than
// it once they know each other, and nearly all of it; the modest one gets what it needs.
func TestMembersShareALimit(t *testing.T) {
	eachAlgorithm(t, func(t *testing.T, s *namespace) {
		s.join("a", 4, 100*time.Millisecond)
		s.join("b", 24, 400*time.Millisecond)
		s.join("c", 500, 700*time.Millisecond)
		s.run(10 * time.Second)
		clear(s.admitted)
		s.run(20 * time.Second)
		if total := s.total(); total > 800+5 || total < 720 {
			t.Errorf("%d calls in 20 s of 40 a second: %v", total, s.admitted)
		}
		if s.admitted["a"] < 76 || s.admitted["b"] < 300 || s.admitted["c"] < 300 {
			t.Errorf("not fair: %v", s.admitted)
		}
	})
}

// TestALoneBusyMemberGetsNearlyAll: what the idle ones do not need is not kept for them, and they begin at once.
func TestALoneBusyMemberGetsNearlyAll(t *testing.T) {
	eachAlgorithm(t, func(t *testing.T, s *namespace) {
		s.join("a", 0, 100*time.Millisecond)
		b := s.join("b", 0, 400*time.Millisecond)
		c := s.join("c", 500, 700*time.Millisecond)
		s.run(8 * time.Second)
		clear(s.admitted)
		s.run(10 * time.Second)
		if n := s.admitted["c"]; n < 340 || n > 400 {
			t.Errorf("the only busy one has %d calls of 400", n)
		}
		clear(s.admitted)
		b.rate, c.rate = 20, 0
		s.run(100 * time.Millisecond)
		if s.admitted["b"] == 0 {
			t.Error("an idle member cannot begin at once")
		}
		s.run(8 * time.Second)
		clear(s.admitted)
		s.run(5 * time.Second)
		if n := s.admitted["b"]; n < 95 {
			t.Errorf("it has %d of the 100 calls that it wants", n)
		}
	})
}

// TestWhatWasAskedForIsSoonForgotten: one that was offered many times the limit holds no more of it back, once it has stopped, than
// one that was offered just the limit.
func TestWhatWasAskedForIsSoonForgotten(t *testing.T) {
	eachAlgorithm(t, func(t *testing.T, s *namespace) {
		a := s.join("a", 1000, 100*time.Millisecond)
		s.join("b", 1000, 400*time.Millisecond)
		s.run(8 * time.Second)
		a.rate = 0
		s.run(4 * time.Second)
		clear(s.admitted)
		s.run(5 * time.Second)
		if n := s.admitted["b"]; n < 140 {
			t.Errorf("the one that goes on has %d calls of 200", n)
		}
	})
}

// TestSharesMoveWithoutExcess: however demand moves, while membership stands shares sum to no more than 1, but for the
// time that a message takes.
func TestSharesMoveWithoutExcess(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newNamespace(resiliency.TokenBucket)
		for i := range rapid.IntRange(2, 5).Draw(t, "members") {
			phase := time.Duration(rapid.IntRange(0, 999).Draw(t, "phase")) * time.Millisecond
			s.join(fmt.Sprint(i), rapid.IntRange(0, 50).Draw(t, "rate"), phase)
		}
		s.run(6 * time.Second)
		for range rapid.IntRange(1, 4).Draw(t, "changes") {
			for _, n := range s.nodes {
				n.rate = rapid.SampledFrom([]int{0, 5, 50, 300}).Draw(t, "rate")
			}
			for range 12 {
				s.run(250 * time.Millisecond)
				sum := 0.0
				for _, n := range s.nodes {
					sum += n.share
				}
				if sum > 1.05 {
					t.Fatalf("shares sum to %v", sum)
				}
			}
		}
	})
}

// TestNewcomer: it takes one part in as many as there are; after three seconds the excess is over.
func TestNewcomer(t *testing.T) {
	eachAlgorithm(t, func(t *testing.T, s *namespace) {
		s.join("a", 500, 100*time.Millisecond)
		s.join("b", 500, 400*time.Millisecond)
		s.run(6 * time.Second)
		clear(s.admitted)
		s.join("c", 500, 900*time.Millisecond)
		s.run(3 * time.Second)
		if total := s.total(); total > 120+14+2*14+5 { // its burst, and its share for two seconds
			t.Errorf("%d calls while it came: %v", total, s.admitted)
		}
		clear(s.admitted)
		s.run(10 * time.Second)
		if total := s.total(); total > 400+5 || total < 360 || s.admitted["c"] < 115 {
			t.Errorf("%d calls afterwards: %v", total, s.admitted)
		}
	})
}

// TestMembersThatGo: one that says so, and one that falls silent, leave their part to the others.
func TestMembersThatGo(t *testing.T) {
	s := newNamespace(resiliency.TokenBucket)
	a := s.join("a", 500, 100*time.Millisecond)
	b := s.join("b", 500, 400*time.Millisecond)
	c := s.join("c", 500, 700*time.Millisecond)
	s.run(6 * time.Second)
	s.nodes = []*node{a, b}
	for _, n := range s.nodes {
		n.ledger.hear(s.now, c.ledger.self, []byte(`{"left":true}`))
	}
	s.run(3 * time.Second)
	if math.Abs(a.share-.5) > 1e-9 || math.Abs(b.share-.5) > 1e-9 {
		t.Errorf("after one left the others have %v and %v", a.share, b.share)
	}
	s.nodes = []*node{a}
	s.run(2 * time.Second)
	if a.share > .5+1e-9 {
		t.Errorf("a short silence gave %v", a.share)
	}
	s.run(4 * time.Second)
	if a.share != 1 {
		t.Errorf("the last one has %v", a.share)
	}
}

// TestLossOfTheFabric: who is cut off keeps an equal part of those it knew, and says so; when the fabric is back nobody
// takes the silence for absence, and all share again.
func TestLossOfTheFabric(t *testing.T) {
	eachAlgorithm(t, func(t *testing.T, s *namespace) {
		for i, name := range []string{"a", "b", "c", "d"} {
			s.join(name, 5+500*(i%2), time.Duration(100+200*i)*time.Millisecond)
		}
		s.run(6 * time.Second)
		for _, n := range s.nodes {
			n.cut = true
		}
		s.run(2 * time.Second)
		clear(s.admitted)
		s.run(20 * time.Second)
		for _, n := range s.nodes {
			if n.share != .25 || !n.local {
				t.Errorf("%s has %v, local=%v", n.name, n.share, n.local)
			}
			if got := n.machine.Status(s.now).Limits[0]; got.State != "local share (fabric lost)" || got.Share != .25 {
				t.Errorf("its status is %+v", got)
			}
		}
		if total := s.total(); total > 600+5 || s.admitted["b"] < 180 {
			t.Errorf("%d calls in 20 s without a fabric: %v", total, s.admitted)
		}
		for _, n := range s.nodes {
			n.cut = false
		}
		clear(s.admitted)
		s.run(10 * time.Second)
		if total := s.total(); total > 400+30 {
			t.Errorf("%d calls in the 10 s after it was back: %v", total, s.admitted)
		}
		for _, n := range s.nodes {
			if n.local || n.rate > 100 && n.share < .3 {
				t.Errorf("%s has %v, local=%v, after the fabric was back", n.name, n.share, n.local)
			}
		}
	})
}

// TestUnheardIsLost: a sidecar whose messages the server refuses does not hear itself, and so does not go by the others.
func TestUnheardIsLost(t *testing.T) {
	l := newLedger(fabric.Target{App: "app", Instance: "mute"}, dawn)
	var changes []string
	for i := range 8 {
		now := dawn.Add(time.Duration(i) * interval)
		l.tick(now, interval, []offer{{id: "id", calls: 10, per: time.Second, offered: 5, first: .5}})
		l.hear(now, fabric.Target{App: "app", Instance: "other"}, []byte(`{"demand":{"id":3}}`))
		if l.judge(now, true) {
			changes = append(changes, fmt.Sprint(i, l.local))
		}
	}
	if got := strings.Join(changes, " "); got != "4true" && got != "4 true" {
		t.Errorf("it changed its mind at %q", got)
	}
}

// TestLedgerIsBounded: what others say costs no more memory than the limits that this sidecar has.
func TestLedgerIsBounded(t *testing.T) {
	l := newLedger(fabric.Target{App: "app", Instance: "i"}, dawn)
	offers := []offer{{id: "mine", calls: 10, per: time.Second}}
	l.tick(dawn, interval, offers)
	from := fabric.Target{App: "app", Instance: "other"}
	for _, bad := range []string{"", "null", "[]", `{"demand":{"mine":"x"}}`, `{"demand":{"mine":1}}` + strings.Repeat(" ", maxMessage)} {
		l.hear(dawn, from, []byte(bad))
	}
	l.hear(dawn, from, []byte(`{"demand":{"foreign":1}}`))
	if len(l.accounts) != 1 || len(l.accounts["mine"].facts) != 0 {
		t.Errorf("it keeps %+v", l.accounts)
	}
	l.hear(dawn, from, []byte(`{"demand":{"mine":-1}}`))
	l.hear(dawn, fabric.Target{App: "greedy"}, []byte(`{"demand":{"mine":1e300}}`))
	l.hear(dawn, l.self, []byte(`{"demand":{"mine":1}}`))
	if share := l.portions(dawn.Add(interval))["mine"].share; math.IsNaN(share) || share < 0 || share > 1 {
		t.Errorf("the share is %v", share)
	}
	for i := range maxMembers + 5 {
		l.hear(dawn, fabric.Target{App: "app", Instance: fmt.Sprint(i)}, []byte(`{"demand":{"mine":1}}`))
	}
	if n := len(l.accounts["mine"].facts); n > maxMembers {
		t.Errorf("it keeps %d members", n)
	}
	var many []offer
	for i := range 2*inMessage + 1 {
		many = append(many, offer{id: fmt.Sprint(i), calls: 1, per: time.Second})
	}
	if n := len(l.tick(dawn, interval, many)); n != 3 {
		t.Errorf("%d limits are told in %d messages", len(many), n)
	}
	if l.accounts["mine"] != nil {
		t.Error("a limit that no lane has is kept")
	}
}

func FuzzHear(f *testing.F) {
	f.Add([]byte(`{"demand":{"mine":1.5},"left":false}`))
	f.Add([]byte(`{"left":true}`))
	f.Fuzz(func(t *testing.T, payload []byte) {
		l := newLedger(fabric.Target{App: "app", Instance: "i"}, dawn)
		l.tick(dawn, interval, []offer{{id: "mine", calls: 10, per: time.Second, first: 1}})
		l.hear(dawn, l.self, payload)
		l.hear(dawn, fabric.Target{App: "other"}, payload)
		for range 3 {
			if share := l.portions(dawn.Add(interval))["mine"].share; math.IsNaN(share) || share < 0 || share > 1 {
				t.Errorf("the share is %v", share)
			}
		}
	})
}
