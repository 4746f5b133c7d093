package fabric

import (
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/nats-io/nats.go"
	"github.com/sidecast/sidecast/fabric/subject"
	"github.com/sidecast/sidecast/fault"
)

// outbound is everything that waits for messages in this sidecar's inbox: one subscription, one table by token.
//
// The request of an exchange carries the reply subject <inbox><token>; later frames carry <inbox><token>-. So when the
// server answers that nobody listens, it is known whether the exchange began.
type outbound struct {
	inbox string

	mu      sync.Mutex
	next    uint64
	entries map[uint64]entry

	routesMu sync.RWMutex
	routes   map[Target]*route

	answers sync.Pool // of chan answer
}

// entry is one exchange that waits in the inbox. Its methods must not block, and are called without the table's lock.
type entry interface {
	// heard takes a message; nobody says that nobody listens at the peer any more.
	heard(token uint64, m *nats.Msg, value string)
	nobody(token uint64, later bool)
	// fail ends the exchange.
	fail(token uint64, err *fault.Error)
	// probe asks the peer whether it still knows the exchange, when nothing was heard for a while.
	probe(token uint64, pulse int64)
	// peer is who the exchange is with, and the subject its frames go to.
	peer() (Target, string)
}

func (o *outbound) init() {
	o.inbox = nats.NewInbox() + "."
	o.entries = make(map[uint64]entry)
	o.routes = make(map[Target]*route)
	o.answers.New = func() any { return make(chan answer, 1) }
}

func (o *outbound) add(e entry) uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.next++
	o.entries[o.next] = e
	return o.next
}

// addStream is add for a stream, which knows its own token.
func (o *outbound) addStream(s *stream) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.next++
	s.token, s.back = o.next, o.later(o.next)
	o.entries[s.token] = s
}

// drop forgets an exchange. False means that someone else did: that one answers it.
func (o *outbound) drop(token uint64, e entry) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.entries[token] != e {
		return false
	}
	delete(o.entries, token)
	return true
}

func (o *outbound) replace(token uint64, old, e entry) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.entries[token] != old {
		return false
	}
	o.entries[token] = e
	return true
}

func (o *outbound) count() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.entries)
}

// each calls do for a snapshot of the exchanges that match.
func (o *outbound) each(match func(entry) bool, do func(uint64, entry)) {
	type pair struct {
		token uint64
		entry entry
	}
	o.mu.Lock()
	var found []pair
	for token, e := range o.entries {
		if match == nil || match(e) {
			found = append(found, pair{token, e})
		}
	}
	o.mu.Unlock()
	for _, p := range found {
		do(p.token, p.entry)
	}
}

func (o *outbound) failAll(match func(entry) bool, err *fault.Error) {
	o.each(match, func(token uint64, e entry) { e.fail(token, err) })
}

func (o *outbound) failStreams(err *fault.Error) {
	o.failAll(func(e entry) bool { _, ok := e.(*stream); return ok }, err)
}

func (o *outbound) failSubject(to string, err *fault.Error) {
	o.failAll(func(e entry) bool { _, s := e.peer(); return s == to }, err)
}

// failTarget ends what waits for an instance that is no more.
func (o *outbound) failTarget(t Target) {
	o.failAll(func(e entry) bool { at, _ := e.peer(); return at == t },
		fault.New("", fault.InstanceLost, "instance %s of %s left or died while it worked on the call", t.Instance, t.App))
}

// reply is the reply subject of an exchange's request, later that of its other frames.
func (o *outbound) reply(token uint64) string {
	var b [64]byte
	return string(strconv.AppendUint(append(b[:0], o.inbox...), token, 36))
}

func (o *outbound) later(token uint64) string { return o.reply(token) + "-" }

// route is the way to a target: the subject on which it takes the calls of this sidecar, and when it last answered one.
type route struct {
	subject string
	heardAt atomic.Int64 // pulse
}

func (f *Fabric) route(t Target) *route {
	o := &f.outbound
	o.routesMu.RLock()
	r := o.routes[t]
	o.routesMu.RUnlock()
	if r != nil {
		return r
	}
	o.routesMu.Lock()
	defer o.routesMu.Unlock()
	if r := o.routes[t]; r != nil {
		return r
	}
	if len(o.routes) >= maxInstances {
		clear(o.routes)
	}
	r = &route{subject: f.prefix + "call." + subject.Token(t.App) + "." + subject.Token(t.Instance) + "." + subject.Token(f.config.AppID)}
	r.heardAt.Store(-quietPulses)
	o.routes[t] = r
	return r
}

// lively tells whether an instance has answered this sidecar within the last pulses.
func (f *Fabric) lively(t Target) bool {
	f.outbound.routesMu.RLock()
	defer f.outbound.routesMu.RUnlock()
	r := f.outbound.routes[t]
	return r != nil && f.clock.Load()-r.heardAt.Load() < quietPulses
}

// What may wait for the goroutines that sort messages. They never wait themselves, so that messages do not gather.
const (
	pendingMessages = 1 << 18
	pendingBytes    = 256 << 20
)

func (f *Fabric) subscribeInbox() error {
	sub, err := f.link.nc.Subscribe(f.outbound.inbox+"*", f.hear)
	if err != nil {
		return err
	}
	return sub.SetPendingLimits(pendingMessages, pendingBytes)
}

// hear sorts one message of the inbox.
func (f *Fabric) hear(m *nats.Msg) {
	name := m.Subject[len(f.outbound.inbox):]
	if name == presenceToken {
		f.presence.answered(m)
		return
	}
	name, later := strings.CutSuffix(name, "-")
	token, err := strconv.ParseUint(name, 36, 64)
	if err != nil {
		f.badFrames.Add(1)
		return
	}
	f.outbound.mu.Lock()
	e := f.outbound.entries[token]
	f.outbound.mu.Unlock()
	if noResponders(m) {
		if e != nil {
			e.nobody(token, later)
		}
		return
	}
	value := valueOf(m)
	switch {
	case value == "":
		f.badFrames.Add(1)
	case e != nil:
		e.heard(token, m, value)
	case m.Reply != "":
		f.tellGone(m.Reply)
	}
}

func (f *Fabric) tellGone(to string) {
	_ = f.link.publish(to, "", begin(nil, kindGone), nil) // best effort: the peer asks again
}

// valueOf is the frame's value in the message's header, or "".
func valueOf(m *nats.Msg) string {
	if values := m.Header[headerKey]; len(values) == 1 {
		return values[0]
	}
	return ""
}

func noResponders(m *nats.Msg) bool {
	if len(m.Data) != 0 {
		return false
	}
	status := m.Header["Status"]
	return len(status) == 1 && status[0] == "503"
}
