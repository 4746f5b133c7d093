package resiliency

import (
	"math/bits"
	"slices"
	"time"

	"github.com/sidecast/sidecast/fault"
)

// Endpoint is one instance that a balanced lane may choose.
type Endpoint struct {
	// ID names it in decisions.
	ID string
	// Load is what the instance says it has in flight. It is old news, so only its order of magnitude counts.
	Load int
	// Weight is its share against the others; less than 1 counts as 1.
	Weight int
	// Zone is where it runs. Nothing looks at it yet.
	Zone string
}

// endpoint is what the lane itself knows of an Endpoint.
type endpoint struct {
	Endpoint
	inFlight int
	// avoid is until when others are better: it could not be reached, or refused for lack of room.
	avoid time.Time
	// pass is the virtual time of its next turn among equals: each choice moves it on by 1/Weight, so that they take turns
	// in proportion to their weights (stride scheduling, Waldspurger and Weihl 1995).
	pass float64
}

// avoidFor is how long such an endpoint is passed over while there are others. Presence ejects the
// dead within a few heartbeats; this covers the time until then.
const avoidFor = 2 * time.Second

// balancer chooses the endpoint with the fewest calls of this lane in flight for its weight; equal ones take turns.
type balancer struct {
	endpoints []*endpoint
	// now is the virtual time: who was passed over or is new resumes there, and does not make up for the turns it missed.
	now float64
}

// set replaces the endpoints. What is known of those that stay is kept.
func (b *balancer) set(list []Endpoint) {
	next := balancer{endpoints: make([]*endpoint, 0, len(list)), now: b.now}
	for _, fresh := range list {
		if next.find(fresh.ID) != nil {
			continue
		}
		fresh.Weight = max(fresh.Weight, 1)
		e := b.find(fresh.ID)
		if e == nil {
			e = new(endpoint)
		}
		e.Endpoint = fresh
		next.endpoints = append(next.endpoints, e)
	}
	*b = next
}

func (b *balancer) find(id string) *endpoint {
	for _, e := range b.endpoints {
		if e.ID == id {
			return e
		}
	}
	return nil
}

// choose returns the best endpoint for t, or nil when none is known, and counts the turn against it.
func (b *balancer) choose(now time.Time, t *Turn) *endpoint {
	var best *endpoint
	var bestClass int
	var bestLoad float64
	for _, e := range b.endpoints {
		e.pass = max(e.pass, b.now)
		class, load := e.class(now, t), e.load()
		if best == nil || class < bestClass || class == bestClass &&
			(load < bestLoad || load == bestLoad && e.pass < best.pass) {
			best, bestClass, bestLoad = e, class, load
		}
	}
	if best != nil {
		b.now = best.pass
		best.pass += 1 / float64(best.Weight)
	}
	return best
}

// untried reports whether there is an endpoint that t has not tried. The balancer of a lane without endpoints is nil.
func (b *balancer) untried(t *Turn) bool {
	return b != nil && slices.ContainsFunc(b.endpoints, func(e *endpoint) bool { return !t.hasTried(e.ID) })
}

// class puts endpoints that t has not tried before those that it has, and reachable ones before the others.
func (e *endpoint) class(now time.Time, t *Turn) int {
	class := 0
	if t.hasTried(e.ID) {
		class += 2
	}
	if now.Before(e.avoid) {
		class++
	}
	return class
}

// load is the calls in flight for the weight. The load that the instance reports counts by powers of two from 8 up: a
// figure that is a second old must not send every caller to the same instance.
func (e *endpoint) load() float64 {
	return float64(e.inFlight+bits.Len(uint(max(e.Load, 0))>>3)) / float64(e.Weight)
}

// judge learns from an outcome whether the endpoint can be reached and has room.
func (e *endpoint) judge(now time.Time, err error) {
	switch fault.KindOf(err) {
	case fault.None:
		e.avoid = time.Time{}
	case fault.Unavailable:
		e.avoid = now.Add(avoidFor)
	case fault.Exhausted, fault.Tripped:
		if fault.NotSent(err) {
			e.avoid = now.Add(avoidFor)
		}
	}
}
