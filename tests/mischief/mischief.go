// Package mischief does harm on purpose: to backends by wrapping them, and as an app that misbehaves (see app). What happens
// to which call is said by a plan, by number or by chance:
//
//	plan, err := mischief.Parse("3:panic 5-7:error=STORE_FULL 10%:delay=20ms 1%:hang seed=42")
//	store := mischief.Store(memorystore.New(), plan)
//
// Chance is drawn from the seed alone, so a run can be repeated as far as the order of its calls can.
package mischief

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/sidecast/sidecast/fault"
)

// Kind is a way to misbehave.
type Kind string

// The kinds of harm.
const (
	None  Kind = ""      // the call is served
	Delay Kind = "delay" // it is served after a while
	Error Kind = "error" // it fails with a reason, and nothing was done
	Hang  Kind = "hang"  // nothing happens until the caller gives up
	Panic Kind = "panic" // whoever serves it panics
	Cut   Kind = "cut"   // the work is done, and the connection is lost before the answer
	Slow  Kind = "slow"  // it is served, the answer byte by byte; backends answer late instead
)

// Harm is what happens to one call.
type Harm struct {
	Kind Kind
	// For is how long a Delay lasts, and a Slow answer waits before each byte.
	For time.Duration
	// Reason is what an Error fails with.
	Reason fault.Reason
}

// Plan says what happens to each call. It is safe for concurrent use; the nil Plan harms nothing.
type Plan struct {
	// Seed of what is left to chance.
	Seed uint64

	mu      sync.Mutex
	calls   int
	scripts []script
	chances []chance
	random  *rand.Rand
	met     map[Kind]int
}

type script struct {
	first, last int
	harm        Harm
}

type chance struct {
	share float64
	harm  Harm
}

// Parse reads rules that are parted by spaces. `n:harm` and `n-m:harm` are about the nth call, from 1, and win over chance;
// `p%:harm` happens to so many calls in a hundred; `seed=n` fixes the seed, which is drawn otherwise. A harm is `delay=20ms`,
// `error` or `error=REASON`, `hang`, `panic`, `cut` or `slow=5ms`.
func Parse(rules string) (*Plan, error) {
	p := &Plan{Seed: rand.Uint64(), met: make(map[Kind]int)}
	total := 0.0
	for _, rule := range strings.Fields(rules) {
		if seed, ok := strings.CutPrefix(rule, "seed="); ok {
			n, err := strconv.ParseUint(seed, 10, 64)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", rule, err)
			}
			p.Seed = n
			continue
		}
		when, what, ok := strings.Cut(rule, ":")
		if !ok {
			return nil, fmt.Errorf("%q is neither when:harm nor seed=n", rule)
		}
		harm, err := parseHarm(what)
		if err != nil {
			return nil, err
		}
		if percent, ok := strings.CutSuffix(when, "%"); ok {
			share, err := strconv.ParseFloat(percent, 64)
			if total += share; err != nil || share < 0 || total > 100 {
				return nil, fmt.Errorf("%q: %s is no share of 100 %%, or together they are more", rule, when)
			}
			p.chances = append(p.chances, chance{share / 100, harm})
			continue
		}
		from, to, isRange := strings.Cut(when, "-")
		if !isRange {
			to = from
		}
		first, errFirst := strconv.Atoi(from)
		last, errLast := strconv.Atoi(to)
		if errFirst != nil || errLast != nil || first < 1 || last < first {
			return nil, fmt.Errorf("%q: %s is not the number of a call, nor a range of them", rule, when)
		}
		p.scripts = append(p.scripts, script{first, last, harm})
	}
	p.random = rand.New(rand.NewPCG(p.Seed, 0))
	return p, nil
}

func parseHarm(what string) (h Harm, err error) {
	name, value, given := strings.Cut(what, "=")
	h.Kind = Kind(name)
	switch h.Kind {
	case Delay, Slow:
		h.For, err = time.ParseDuration(value)
	case Error:
		if h.Reason = fault.Reason(value); !given {
			h.Reason = fault.InstanceLost
		}
		if !slices.ContainsFunc(fault.Reasons(), func(e fault.Entry) bool { return e.Reason == h.Reason }) {
			err = fmt.Errorf("no such reason")
		}
	case Hang, Panic, Cut:
		if given {
			err = fmt.Errorf("takes no value")
		}
	default:
		err = fmt.Errorf("no such harm")
	}
	if err != nil {
		return h, fmt.Errorf("%s: %w", what, err)
	}
	return h, nil
}

// Next is what happens to the call that comes now.
func (p *Plan) Next() Harm {
	if p == nil {
		return Harm{}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls++
	h := p.choose()
	p.met[h.Kind]++
	return h
}

func (p *Plan) choose() Harm {
	drawn := p.random.Float64() // by every call, so that a script does not shift what chance does to the others
	for _, s := range p.scripts {
		if s.first <= p.calls && p.calls <= s.last {
			return s.harm
		}
	}
	for _, c := range p.chances {
		if drawn < c.share {
			return c.harm
		}
		drawn -= c.share
	}
	return Harm{}
}

// Met tells how many calls met a kind of harm.
func (p *Plan) Met(k Kind) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.met[k]
}

// Meet does to a call what the plan says, around work. It returns the error of work, or the harm's.
func (p *Plan) Meet(ctx context.Context, op string, work func() error) error {
	h := p.Next()
	switch h.Kind {
	case Delay, Slow:
		select {
		case <-time.After(h.For):
		case <-ctx.Done():
			return fault.FromContext(op, ctx, "a delay made on purpose to end")
		}
	case Error:
		return fault.New(op, h.Reason, "an error made on purpose")
	case Hang:
		<-ctx.Done()
		return fault.FromContext(op, ctx, "a call that hangs on purpose")
	case Panic:
		panic("a panic made on purpose")
	case Cut:
		if err := work(); err != nil {
			return err
		}
		return fault.New(op, fault.InstanceLost, "the answer was lost on purpose")
	}
	return work()
}
