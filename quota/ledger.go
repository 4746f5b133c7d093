package quota

import (
	"cmp"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/sidecast/sidecast/fabric"
)

const (
	// interval is how often members tell their demand, and patience how long one may be silent.
	interval = time.Second
	patience = 3*interval + interval/2
	// maxMembers bounds what one limit may grow to, maxDemand what one member may claim, in calls a second.
	maxMembers = 16384
	maxDemand  = 1e9
	// headroom is how much more than its demand a member needs, for calls do not come evenly.
	headroom = 1.25
	// inMessage is how many limits one message tells of, maxMessage how many bytes one may have.
	inMessage  = 200
	maxMessage = 256 << 10
)

// message is what a member tells: its demand for each limit, in calls a second, or that it has left.
type message struct {
	Demand map[string]float64 `json:"demand,omitempty"`
	Left   bool               `json:"left,omitempty"`
}

// ledger is what one sidecar knows of all demand, as a pure machine: it reads no clock and sends nothing.
type ledger struct {
	self     fabric.Target
	accounts map[string]*account // by limit, those that this sidecar has
	began    time.Time
	echoed   time.Time // when this sidecar's own message last came back
	local    bool      // there is no news of the others
}

// account is one global limit.
type account struct {
	calls int
	per   time.Duration
	whole bool

	first  float64   // share of a newcomer
	joined time.Time // when this sidecar became one
	demand float64   // its own, smoothed
	facts  map[fabric.Target]fact
	latest [2]float64 // what the splits before gave
	seen   bool       // by the present tick
}

// fact is what a member said, and when.
type fact struct {
	demand float64
	heard  time.Time
}

// offer is what one of this sidecar's limits was offered since the tick before.
type offer struct {
	id      string
	calls   int
	per     time.Duration
	whole   bool
	offered uint64
	first   float64 // share of a newcomer
}

// portion is what the split gives this sidecar.
type portion struct {
	share float64
	local bool
}

func newLedger(self fabric.Target, now time.Time) *ledger {
	return &ledger{self: self, accounts: make(map[string]*account), began: now, echoed: now}
}

// hear notes what a member said, this sidecar among them: so all go by the same facts.
func (l *ledger) hear(now time.Time, from fabric.Target, payload []byte) {
	var m message
	if len(payload) > maxMessage || json.Unmarshal(payload, &m) != nil {
		return
	}
	if from == l.self {
		l.echoed = now
	}
	for id, a := range l.accounts {
		demand, told := m.Demand[id]
		_, known := a.facts[from]
		switch {
		case m.Left:
			delete(a.facts, from)
		case told && (known || len(a.facts) < maxMembers):
			a.facts[from] = fact{min(max(demand, 0), maxDemand), now}
		}
	}
}

// tick takes in what was offered in the time since the tick before, and returns what to tell the others.
func (l *ledger) tick(now time.Time, since time.Duration, offers []offer) [][]byte {
	for _, o := range offers {
		a := l.accounts[o.id]
		if a == nil {
			a = &account{first: o.first, latest: [2]float64{o.first, o.first}, joined: now, facts: make(map[fabric.Target]fact)}
			l.accounts[o.id] = a
		}
		if !a.seen {
			a.demand /= 2
		}
		a.calls, a.per, a.whole, a.seen = o.calls, o.per, o.whole, true
		// Nobody needs more than all there is. What is offered beyond that would count for long after it has ended.
		a.demand += min(float64(o.offered)/max(since, interval/10).Seconds(), float64(o.calls)/o.per.Seconds()) / 2
	}
	ids := slices.Sorted(maps.Keys(l.accounts))
	var payloads [][]byte
	for some := range slices.Chunk(ids, inMessage) {
		m := message{Demand: make(map[string]float64, len(some))}
		for _, id := range some {
			if a := l.accounts[id]; a.seen {
				m.Demand[id], a.seen = a.demand, false
			} else {
				delete(l.accounts, id) // no lane has it any more; the others hear no more of it
			}
		}
		if payload, err := json.Marshal(m); err == nil { // numbers and names cannot fail
			payloads = append(payloads, payload)
		}
	}
	return payloads
}

// judge says whether there is news of the others, and reports a change. It counts as a loss when this sidecar does not
// hear even itself. After one everybody begins as a newcomer does, and nobody's silence counts.
func (l *ledger) judge(now time.Time, connected bool) (changed bool) {
	local := !connected || now.Sub(l.echoed) > patience
	if local == l.local {
		return false
	}
	l.local = local
	if local {
		return true
	}
	for _, a := range l.accounts {
		a.first = a.equal(l.self)
		a.joined, a.latest = now, [2]float64{a.first, a.first}
		for member, f := range a.facts {
			a.facts[member] = fact{f.demand, now}
		}
	}
	return true
}

// portions divides every limit. Without news a sidecar holds on to an equal part among those it knew last.
func (l *ledger) portions(now time.Time) map[string]portion {
	all := make(map[string]portion, len(l.accounts))
	for id, a := range l.accounts {
		if l.local {
			all[id] = portion{a.equal(l.self), true}
			continue
		}
		all[id] = portion{share: a.divide(now, l.self)}
	}
	return all
}

// equal is one of as many parts as there are members, this sidecar among them; a newcomer's share while it has heard
// nobody, not even itself.
func (a *account) equal(self fabric.Target) float64 {
	n := len(a.facts)
	if n == 0 {
		return a.first
	}
	if _, told := a.facts[self]; !told {
		n++
	}
	return 1 / float64(n)
}

// divide splits the limit by what all said. A share grows only when three splits in a row say so: by then those it is
// taken from have given it up, be it that demand moves all the time. A newcomer may not know the others yet, and has no more than its first share for as long.
func (a *account) divide(now time.Time, self fabric.Target) float64 {
	maps.DeleteFunc(a.facts, func(_ fabric.Target, f fact) bool { return now.Sub(f.heard) > patience })
	if _, told := a.facts[self]; !told {
		return min(a.first, a.latest[0])
	}
	members := slices.SortedFunc(maps.Keys(a.facts), func(x, y fabric.Target) int {
		return cmp.Or(strings.Compare(x.App, y.App), strings.Compare(x.Instance, y.Instance))
	})
	needs := make([]float64, len(members))
	for i, member := range members {
		needs[i] = headroom * a.facts[member].demand * a.per.Seconds()
	}
	share := split(a.calls, needs, a.whole)[slices.Index(members, self)]
	told := min(share, a.latest[0], a.latest[1])
	a.latest = [2]float64{share, a.latest[0]}
	if now.Sub(a.joined) < 2*interval {
		told = min(told, a.first)
	}
	return told
}
