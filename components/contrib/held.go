package contrib

import (
	"context"
	"slices"
	"strconv"
	"time"

	contribpubsub "github.com/dapr/components-contrib/pubsub"

	"github.com/sidecast/sidecast/pubsub"
)

// held is a message that the server waits for.
type held struct {
	message pubsub.Message
	token   string // what the server's copies of it have in common; "" if there is nothing
	stored  time.Time
	done    chan struct{} // closed when it was handled
	poke    chan struct{} // holds one: it is not at work any more; nil where the server takes nothing back

	unreadable error // why an app cannot have it; nil if it can

	// The rest belongs to the tap's mu.

	calls   []context.Context // of the library's calls with it
	out     bool              // it is at work
	touched bool              // it was
}

// live says whether the server still waits for h. The caller holds mu.
func (h *held) live() bool {
	return slices.ContainsFunc(h.calls, func(c context.Context) bool { return c.Err() == nil })
}

// recent are the tokens of messages that were handled lately. The oldest goes when there are too many.
type recent struct {
	known map[string]bool
	ring  []string
	next  int
}

const remembered = 1024

func (r *recent) add(token string) {
	if r.known == nil {
		r.known, r.ring = map[string]bool{}, make([]string, remembered)
	}
	delete(r.known, r.ring[r.next])
	r.ring[r.next], r.known[token] = token, true
	r.next = (r.next + 1) % remembered
}

// until returns nil when the message has been handled.
func (t *tap) until(ctx context.Context, h *held, token string) error {
	limit := ctx.Done()
	if token == "" {
		limit = nil // a copy would not be known: the message is kept for as long as it takes
	}
	var leaving <-chan struct{}
	if call, ok := ctx.(*kafkaCall); ok {
		leaving = call.leaving
		call.begun()
	}
	return t.await(ctx, h, limit, leaving)
}

// await waits until h was handled, or is to be given back: at leaving unless it is at work, at limit in any case.
func (t *tap) await(call context.Context, h *held, limit, leaving <-chan struct{}) error {
	over, left, moves := false, false, leaving != nil
	for !over {
		select {
		case <-h.done:
			return nil
		case <-limit:
			over = true
		case <-t.gone:
			over = true
		case <-leaving:
			leaving, left = nil, true
		case <-h.poke:
		}
		over = over || left && t.release(call, h)
	}
	if moves {
		t.release(call, h)
	}
	select {
	case <-h.done: // maybe at the same moment as the others
		return nil
	default:
		return errGivenBack
	}
}

// release ends the part of call in h, unless that is at work. If it never was, its place in the order goes with it: it comes
// again behind what was.
func (t *tap) release(call context.Context, h *held) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if h.out {
		return false
	}
	h.calls = slices.DeleteFunc(h.calls, func(c context.Context) bool { return c == call })
	if !h.touched && t.tokens[h.token] == h {
		delete(t.tokens, h.token)
	}
	return true
}

// deliver is the message that a delivery of the local broker stands for, or nil when the server has taken it back.
func (t *tap) deliver(number string) *held {
	t.mu.Lock()
	defer t.mu.Unlock()
	h := t.held[number]
	if h == nil || !t.b.product.moves {
		return h
	}
	if t.tokens[h.token] != h || !h.live() {
		t.forget(number, h)
		return nil
	}
	h.out, h.touched = true, true
	return h
}

// rest notes that h is not at work for now.
func (t *tap) rest(h *held) {
	if h.poke == nil {
		return
	}
	t.mu.Lock()
	h.out = false
	t.mu.Unlock()
	select {
	case h.poke <- struct{}{}:
	default:
	}
}

// forget takes h out of what is held. The caller holds mu.
func (t *tap) forget(number string, h *held) {
	delete(t.held, number)
	if h.token != "" && t.tokens[h.token] == h {
		delete(t.tokens, h.token)
	}
}

// hold remembers a message. One that is held already, because the server gave it out again, gets no number of its own; for
// one that has just been handled it returns nil.
func (t *tap) hold(call context.Context, from *contribpubsub.NewMessage, m pubsub.Message, token string) (h *held, number string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if h := t.tokens[token]; token != "" && h != nil {
		h.calls = append(slices.DeleteFunc(h.calls, func(c context.Context) bool { return c.Err() != nil }), call)
		return h, ""
	}
	if t.recent.known[token] {
		t.acknowledging(call)
		return nil, ""
	}
	number = strconv.FormatUint(t.ids.Add(1), 10)
	h = &held{message: m, token: token, stored: time.Now(), done: make(chan struct{}), calls: []context.Context{call}}
	if t.b.product.moves {
		h.stored, h.poke = storedAt(from), make(chan struct{}, 1)
	}
	if call, ok := call.(*kafkaCall); ok {
		h.unreadable = call.unreadable
	}
	t.held[number] = h
	if token != "" {
		t.tokens[token] = h
	}
	return h, number
}

// handled ends a message.
func (t *tap) handled(number string, h *held) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.forget(number, h)
	if h.token != "" && t.b.product.codec.unique {
		t.recent.add(h.token)
	}
	for _, call := range h.calls {
		t.acknowledging(call)
	}
	close(h.done)
}

// acknowledging notes that the library is about to acknowledge the message of call. A call with a time limit of its own
// has a context of its own, and the library ends that when it has done so. The caller holds mu.
func (t *tap) acknowledging(call context.Context) {
	if _, limited := call.Deadline(); t.closed || !limited || call.Err() != nil {
		t.latest = time.Now()
		return
	}
	t.acks.Add(1)
	context.AfterFunc(call, t.acks.Done)
}
