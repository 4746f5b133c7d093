package actors

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/resiliency"
)

// Change is one value of a lane that an operator has changed.
type Change = resiliency.Change

// steering is what an operator has told a lane, beside what its policy says. It outlives every failure of the actor and
// every change of the policy; it ends with Reset and with the lane.
type steering struct {
	mu         sync.Mutex // held while the lane's policy is made of these two
	configured resiliency.Policy
	override   resiliency.Override
}

// Configured is the policy that the lane was given, without what an operator has changed of it.
func (l *Lane) Configured() resiliency.Policy {
	l.steering.mu.Lock()
	defer l.steering.mu.Unlock()
	return l.steering.configured
}

// Override changes values of the policy for as long as the lane lives or until Reset, whatever policies it is given
// meanwhile. It returns what each was and is now. Nothing is changed when the result cannot be: then the error is of
// reason fault.BadRequest and says why.
func (l *Lane) Override(o resiliency.Override) ([]Change, error) {
	l.steering.mu.Lock()
	defer l.steering.mu.Unlock()
	op := "steer lane " + l.name
	if err := knowsRates(l.steering.configured, o.Rates); err != nil {
		return nil, fault.E(op, fault.None, fault.BadRequest, err)
	}
	next := l.steering.override.With(o)
	policy := next.Over(l.steering.configured)
	if err := policy.Validate(); err != nil {
		return nil, fault.E(op, fault.None, fault.BadRequest, errors.Unwrap(err)) // whose manifest is not to blame
	}
	changed := o.Changes(l.steering.override.Over(l.steering.configured))
	l.steering.override = next
	l.adopt(policy)
	return changed, nil
}

// knowsRates says which of rates the policy has no limit for.
func knowsRates(p resiliency.Policy, rates map[string]resiliency.Rate) error {
	var known []string
	for i := range p.Limits {
		known = append(known, p.Limits[i].Name)
	}
	for name := range rates {
		switch {
		case slices.Contains(known, name):
		case len(known) == 0:
			return fmt.Errorf("policy %s has no rate limit %q, nor any other", p.Name, name)
		default:
			return fmt.Errorf("policy %s has no rate limit %q; it has: %s", p.Name, name, strings.Join(known, ", "))
		}
	}
	return nil
}

// Reset gives the lane the policy that it is configured with again, in full. It returns what each value that an operator
// had changed was and is now. The breaker and the admission stay as they are.
func (l *Lane) Reset() []Change {
	l.steering.mu.Lock()
	defer l.steering.mu.Unlock()
	changed := l.steering.override.Changes(l.steering.configured)
	for i := range changed {
		changed[i].From, changed[i].To = changed[i].To, changed[i].From
	}
	l.steering.override = resiliency.Override{}
	l.adopt(l.steering.configured)
	return changed
}

// show adds to a status what the lane itself knows better than its machine.
func (l *Lane) show(s *LaneStatus) {
	l.steering.mu.Lock()
	defer l.steering.mu.Unlock()
	s.Overridden = l.steering.override.Changes(l.steering.configured)
	s.Admission = *l.admission.Load()
}

// Find returns the lane of that name, if there is one.
func (s *System) Find(name string) (*Lane, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	l := s.lanes[name]
	return l, l != nil
}

// LaneNames are the names of all lanes, in order.
func (s *System) LaneNames() []string {
	lanes, _ := s.snapshot()
	names := make([]string, len(lanes))
	for i, l := range lanes {
		names[i] = l.name
	}
	return names
}
