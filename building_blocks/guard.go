package blocks

import (
	"context"
	"errors"
	"reflect"
	"sync"
	"sync/atomic"

	"github.com/sidecast/sidecast/actors"
	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/governance"
	"github.com/sidecast/sidecast/resiliency"
)

// rulebook gives the lanes of all targets their policies by the rules in force, and new ones when these change.
type rulebook struct {
	system *actors.System

	mu     sync.Mutex
	rules  *governance.Rules
	guards map[*guard]struct{}
}

func newRulebook(system *actors.System, rules *governance.Rules) *rulebook {
	return &rulebook{system: system, rules: rules, guards: make(map[*guard]struct{})}
}

// set puts rules into force, in lanes that exist and in those that come. No call is dropped: those that run or wait go on
// under the new policies.
func (b *rulebook) set(rules *governance.Rules) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.rules = rules
	for g := range b.guards {
		g.follow(g.target(rules))
	}
}

func (b *rulebook) current() *governance.Rules {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.rules
}

// guard makes the guard of a target, whose lane has that name. Target is what rules say of it.
func (b *rulebook) guard(name string, balanced bool, target func(*governance.Rules) governance.Target) *guard {
	b.mu.Lock()
	defer b.mu.Unlock()
	g := &guard{name: name, book: b, target: target, lanes: make(map[string]*ruleLane)}
	now := target(b.rules)
	if balanced {
		g.Lane = b.system.BalancedLane(name, now.Policy)
	} else {
		g.Lane = b.system.Lane(name, now.Policy)
	}
	g.balanced = balanced
	g.operations(now.Operations)
	g.setApart(now.Apart)
	b.guards[g] = struct{}{}
	return g
}

// guard is the way of all calls to one target: its lane and, before it, the lanes of rules for single operations.
type guard struct {
	*actors.Lane
	name   string
	book   *rulebook
	target func(*governance.Rules) governance.Target
	rules  atomic.Pointer[ruleSet] // nil when there are none
	lanes  map[string]*ruleLane    // of rules, by name; the book guards it

	apart     atomic.Pointer[actors.Lane] // of what travels in pieces; nil where that passes Lane
	balanced  bool
	beside    *actors.Lane          // what apart is or was; the book guards it, and endpoints
	endpoints []resiliency.Endpoint // of the lanes
}

// follow takes new policies into use. The book is locked.
func (g *guard) follow(now governance.Target) {
	g.SetPolicy(now.Policy)
	g.operations(now.Operations)
	g.setApart(now.Apart)
}

// setApart gives what travels in pieces a lane of its own, or with nil has it pass that of the other calls. Calls that are on their
// way stay where they are, so a lane that there was is kept. The book is locked.
func (g *guard) setApart(p *resiliency.Policy) {
	switch {
	case p == nil:
		g.apart.Store(nil)
		return
	case g.beside != nil:
		g.beside.SetPolicy(*p)
	case g.balanced:
		g.beside = g.book.system.BalancedLane(g.name+"/streams", *p)
		g.beside.SetEndpoints(g.endpoints)
	default:
		g.beside = g.book.system.Lane(g.name+"/streams", *p)
	}
	g.apart.Store(g.beside)
}

// inPieces is the lane of what travels in pieces.
func (g *guard) inPieces() *actors.Lane {
	if apart := g.apart.Load(); apart != nil {
		return apart
	}
	return g.Lane
}

// SetEndpoints replaces the endpoints that balanced lanes may choose from.
func (g *guard) SetEndpoints(e []resiliency.Endpoint) {
	g.book.mu.Lock()
	defer g.book.mu.Unlock()
	g.endpoints = e
	g.Lane.SetEndpoints(e)
	if g.beside != nil {
		g.beside.SetEndpoints(e)
	}
}

// operations replaces the rules for single operations. A lane whose rule stays keeps what it knows. The book is locked.
func (g *guard) operations(wanted []governance.Operation) {
	old := g.rules.Load()
	if old == nil && len(wanted) == 0 {
		return
	}
	var next *ruleSet
	if len(wanted) > 0 {
		next = &ruleSet{guard: g}
		for _, op := range wanted {
			next.rules = append(next.rules, &rule{operation: op, ruleLane: g.lane(op)})
		}
	}
	g.rules.Store(next)
	if old != nil {
		old.retire()
	}
}

// lane is that of a rule: one that there is already goes on under the new policy. The book is locked.
func (g *guard) lane(op governance.Operation) *ruleLane {
	l := g.lanes[op.Name]
	if l == nil {
		l = &ruleLane{Lane: g.book.system.Lane(resiliency.RuleLane(g.name, op.Name), op.Policy)}
		g.lanes[op.Name] = l
	} else if !reflect.DeepEqual(l.policy, op.Policy) {
		l.SetPolicy(op.Policy)
	}
	l.policy = op.Policy
	l.sets++
	return l
}

// Close ends the lanes of the guard, as Lane.Close does.
func (g *guard) Close(ctx context.Context) error {
	g.book.mu.Lock()
	delete(g.book.guards, g)
	g.operations(nil)
	beside := g.beside
	g.book.mu.Unlock()
	err := g.Lane.Close(ctx)
	if beside != nil {
		err = errors.Join(err, beside.Close(ctx))
	}
	return err
}

// rule guards some operations of a target.
type rule struct {
	operation governance.Operation
	*ruleLane
}

// ruleLane is the lane of a rule and how many sets hold it; the last one closes it. The book guards what it knows of it.
type ruleLane struct {
	*actors.Lane
	policy resiliency.Policy
	sets   int
}

// ruleSet is the rules of a guard between two changes. It is left behind by calls that are still on their way, and its
// lanes, as far as no newer set has them, close when the last of these is through.
type ruleSet struct {
	guard   *guard
	rules   []*rule // the most specific first
	users   atomic.Int64
	retired atomic.Bool
	closed  bool // the book guards it
}

// enter finds the rule for an operation; leave its set when the call is over.
func (g *guard) enter(verb, operation string) (*rule, *ruleSet) {
	for {
		set := g.rules.Load()
		if set == nil {
			return nil, nil
		}
		set.users.Add(1)
		if g.rules.Load() != set { // it was replaced meanwhile, and may be closing
			set.leave()
			continue
		}
		for _, r := range set.rules {
			if r.operation.Matches(verb, operation) {
				return r, set
			}
		}
		set.leave()
		return nil, nil
	}
}

func (s *ruleSet) leave() {
	if s.users.Add(-1) == 0 && s.retired.Load() {
		s.guard.book.mu.Lock()
		defer s.guard.book.mu.Unlock()
		s.close()
	}
}

// retire has the set close when nobody uses it. The book is locked.
func (s *ruleSet) retire() {
	s.retired.Store(true)
	if s.users.Load() == 0 {
		s.close()
	}
}

// close ends the lanes that no other set holds, once. The book is locked.
func (s *ruleSet) close() {
	if s.closed {
		return
	}
	s.closed = true
	for _, r := range s.rules {
		if r.sets--; r.sets == 0 {
			delete(s.guard.lanes, r.operation.Name)
			_ = r.Lane.Close(context.Background()) // nothing runs in it: there is nothing to wait for
		}
	}
}

// repeats says whether a policy has calls in pieces of an operation made again that were sent.
func (g *guard) repeats(verb, operation string) bool {
	in := func(p *resiliency.Policy) bool {
		return p.Retry.NonIdempotent || (p.Retry.ByVerb || p.Retry.Lost) && call.Repeatable(verb)
	}
	if r, set := g.enter(verb, operation); r != nil {
		defer set.leave()
		if in(r.Policy()) || r.operation.Decides.Retry {
			return in(r.Policy())
		}
	}
	return in(g.inPieces().Policy())
}

// keeps says whether a policy has last good answers to an operation take the place of failures or refusals.
func (g *guard) keeps(verb, operation string) bool {
	if g.Policy().Keeps() != nil {
		return true
	}
	r, set := g.enter(verb, operation)
	if r == nil {
		return false
	}
	defer set.leave()
	return r.Policy().Keeps() != nil
}

// Do passes a call through the rule for its operation, if there is one, and the lane.
func (g *guard) Do(ctx context.Context, call resiliency.Call, attempt func(context.Context, actors.Grant) error) error {
	return g.doAs(ctx, call.Op, call, attempt)
}

// doAs is Do for a call whose operation has another name for rules.
func (g *guard) doAs(ctx context.Context, operation string, call resiliency.Call,
	attempt func(context.Context, actors.Grant) error) error {
	r, set := g.enter("", operation)
	if r == nil {
		return g.Lane.Do(ctx, call, attempt)
	}
	defer set.leave()
	var inner innerFailure
	err := r.Do(ctx, call, func(ctx context.Context, outer actors.Grant) error {
		return inner.note(g.Lane.Do(ctx, r.behind(call), func(ctx context.Context, grant actors.Grant) error {
			return attempt(ctx, grant.Behind(outer))
		}))
	})
	return inner.or(err)
}

// pass is Do for attempts that have a value, and calls that may have a verb. What came of it is told to settle, which may answer in
// its place as the policy of a lane says: as that of the rule does, or else that of the target's lane.
func pass[T any](ctx context.Context, g *guard, verb string, call resiliency.Call,
	attempt func(context.Context, actors.Grant) (T, error),
	settle func(context.Context, *actors.Lane, T, error) (T, error)) (T, error) {
	r, set := g.enter(verb, call.Op)
	if r == nil {
		value, err := actors.Do(ctx, g.Lane, call, attempt)
		return settle(ctx, g.Lane, value, err)
	}
	defer set.leave()
	var inner innerFailure
	value, err := actors.Do(ctx, r.Lane, call, func(ctx context.Context, outer actors.Grant) (T, error) {
		value, err := actors.Do(ctx, g.Lane, r.behind(call), func(ctx context.Context, grant actors.Grant) (T, error) {
			return attempt(ctx, grant.Behind(outer))
		})
		return value, inner.note(err)
	})
	failed := inner.or(err)
	value, err = settle(ctx, r.Lane, value, failed)
	if r.settled(failed, err) {
		return value, err
	}
	return settle(ctx, g.Lane, value, err)
}

// passAlone is pass for what travels in pieces: no two attempts at that can run beside each other, whatever policies say of hedges.
func passAlone(ctx context.Context, g *guard, verb string, call resiliency.Call,
	attempt func(context.Context, actors.Grant) error, settle func(context.Context, *actors.Lane, error) error) error {
	lane := g.inPieces()
	r, set := g.enter(verb, call.Op)
	if r == nil {
		return settle(ctx, lane, lane.Do(ctx, call, attempt))
	}
	defer set.leave()
	var inner innerFailure
	failed := inner.or(r.Do(ctx, call, func(ctx context.Context, outer actors.Grant) error {
		return inner.note(lane.Do(ctx, r.behind(call), func(ctx context.Context, grant actors.Grant) error {
			return attempt(ctx, grant.Behind(outer))
		}))
	}))
	err := settle(ctx, r.Lane, failed)
	if r.settled(failed, err) {
		return err
	}
	return settle(ctx, lane, err)
}

// behind is a call as the lane of the target gets it from that of the rule.
func (r *rule) behind(call resiliency.Call) resiliency.Call {
	call.Decided = r.operation.Decides
	return call
}

// settled says that nothing is left for the target's fallback: the rule's has answered in place of what failed, or the caller shall
// have the failure.
func (r *rule) settled(failed, err error) bool {
	return failed != nil && (err == nil || r.Policy().Mode == resiliency.Failback)
}

// innerFailure is how a lane answered that stands behind a rule. It tells its own lane, policy and attempts, which the rule's
// lane would put its own in place of.
type innerFailure struct{ last atomic.Pointer[error] }

func (f *innerFailure) note(err error) error {
	own := err
	if final, ok := err.(resiliency.Final); ok {
		own = final.Err
	}
	f.last.Store(&own)
	return err
}

// or is the lane's own failure where the rule's lane only passed it on, and otherwise err.
func (f *innerFailure) or(err error) error {
	own := f.last.Load()
	var passed *fault.Error
	if err == nil || own == nil || *own == nil || !errors.As(err, &passed) || passed.Meta["attempts"] != "1" {
		return err
	}
	if fault.KindOf(err) == fault.KindOf(*own) && fault.ReasonOf(err) == fault.ReasonOf(*own) {
		return *own
	}
	return err
}
