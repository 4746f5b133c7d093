package resiliency

import (
	"cmp"
	"errors"
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
	// Room is how many calls it can have from one lane at most: it would refuse more. 0 = it does not say.
	Room int
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
	// room is how many calls of this lane it took when it last refused one, which counts until full; wait is what it asked
	// for then. Each success lets in one more, so that what it can take is found again as TCP's slow start finds it, at the
	// price of one refusal for each success. Whoever comes beyond that is refused here: it costs less than to be told so by
	// the endpoint, which has work to do.
	room   int
	full   time.Time
	wait   time.Duration
	spared int // calls refused here since it was full
	// pass is the virtual time of its next turn among equals: each choice moves it on by 1/Weight, so that they take turns
	// in proportion to their weights (stride scheduling, Waldspurger and Weihl 1995).
	pass float64
}

// How long an endpoint that refused for want of room is believed, at least and at most. What it asks for lies between.
const (
	minFull = 100 * time.Millisecond
	maxFull = 2 * time.Second
)

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

// choose returns the best endpoint for t, or nil when none is known that has room, and counts the turn against it.
func (b *balancer) choose(now time.Time, t *Turn) *endpoint {
	var best *endpoint
	var bestClass int
	var bestLoad float64
	for _, e := range b.endpoints {
		if e.isFull(now) {
			continue
		}
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

// untried reports whether there is an endpoint with room that t has not tried. The balancer of a lane without endpoints is
// nil.
func (b *balancer) untried(now time.Time, t *Turn) bool {
	return b != nil && slices.ContainsFunc(b.endpoints, func(e *endpoint) bool { return !e.isFull(now) && !t.hasTried(e.ID) })
}

// comeBack is when a call that finds every endpoint full may find room. Who has room for so many and refuses others for
// wait works off room calls in wait, so those refused here are told to come at that rate, not all at once; the next round
// begins after four waits, lest callers that do not heed it make the advice to others absurd.
func (b *balancer) comeBack() time.Duration {
	soonest := slices.MinFunc(b.endpoints, func(e, o *endpoint) int { return cmp.Compare(e.wait, o.wait) })
	wait, room := max(soonest.wait, minFull), max(soonest.room, soonest.Room, 1)
	if soonest.wait > 0 {
		room = soonest.room
	}
	rank := soonest.spared % (3 * room)
	soonest.spared++
	return wait + time.Duration(float64(wait)*float64(rank)/float64(room))
}

// isFull reports whether the endpoint would have no room for one more call.
func (e *endpoint) isFull(now time.Time) bool {
	return e.Room > 0 && e.inFlight >= e.Room || e.inFlight >= e.room && now.Before(e.full)
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

// judge learns from the outcome of a call that is still counted whether the endpoint can be reached and has room.
func (e *endpoint) judge(now time.Time, err error) {
	switch fault.KindOf(err) {
	case fault.None:
		e.avoid = time.Time{}
		e.room++
	case fault.Unavailable:
		e.avoid = now.Add(avoidFor)
	case fault.Exhausted, fault.Tripped:
		if fault.NotSent(err) {
			e.avoid = now.Add(avoidFor)
		}
		switch fault.ReasonOf(err) {
		case fault.QueueFull, fault.FabricBusy:
			if !forAll(err) {
				return
			}
			if !now.Before(e.full) {
				e.spared = 0
			}
			e.room = max(e.inFlight-1, 1)
			e.wait = min(max(fault.RetryAfter(err), minFull), maxFull)
			e.full = now.Add(e.wait)
		}
	}
}

// forAll tells whether a refusal for want of room speaks for every call of this lane. That of a rule for some operations at the
// endpoint does not, nor one that a higher priority would have spared.
func forAll(err error) bool {
	f, ok := errors.AsType[*fault.Error](err)
	return ok && f.Meta[tooLow] == "" && !IsRuleLane(f.Meta["lane"])
}
