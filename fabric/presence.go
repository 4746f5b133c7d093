package fabric

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/sidecast/sidecast/fabric/subject"
)

const (
	// heartbeatEvery is how often everyone says that they are there; missedAfter is how long silence may last.
	heartbeatEvery = time.Second
	missedAfter    = 3500 * time.Millisecond
	// settleAfter is how long the answers to a newcomer's question may take, settleQuiet how long after the last one.
	settleAfter = 100 * time.Millisecond
	settleQuiet = 20 * time.Millisecond
	// maxInstances and maxHeartbeat bound what presence may grow to.
	maxInstances = 16384
	maxHeartbeat = 4 << 10
	// presenceToken is the place in the inbox where the server says that nobody answers a newcomer.
	presenceToken = "_presence"
)

// heartbeat is the payload on sc.<ns>.presence.<app>.<instance>, and with one more token to answer a newcomer.
type heartbeat struct {
	Instance
	Left bool `json:"left,omitempty"`
}

// presence is the registry: who is there, told by themselves.
//
// Heartbeats and answers come through one channel, so that they keep the order in which they were sent. Everything is
// behind mu; change callbacks run in a goroutine of their own, without it.
type presence struct {
	f       *Fabric
	ignored atomic.Uint64
	arrived chan *nats.Msg

	mu      sync.RWMutex
	roster  *roster
	last    map[Target][]byte // the last payload of each, so that an unchanged one is not parsed again
	self    *Instance         // nil until announced
	payload []byte            // of self
	gone    bool              // left for good
	frozen  bool              // the fabric is away: nobody's silence counts
	echoAt  time.Time         // when self's own heartbeat last came back

	askedAt    time.Time
	answeredAt time.Time
	alone      bool // nobody was there to answer

	watchers map[int]func(string, []Instance)
	nextID   int
	dirty    map[string]bool // apps whose watchers are to be told
	told     chan struct{}
}

func newPresence(f *Fabric) *presence {
	return &presence{
		f: f, arrived: make(chan *nats.Msg, 8192), roster: newRoster(maxInstances), last: make(map[Target][]byte),
		dirty: make(map[string]bool), watchers: make(map[int]func(string, []Instance)), told: make(chan struct{}, 1),
	}
}

func (p *presence) subject(tokens ...string) string {
	return p.f.prefix + "presence." + strings.Join(tokens, ".")
}

func (p *presence) own() string {
	return p.subject(subject.Token(p.f.config.AppID), subject.Token(p.f.config.Instance))
}

// subscribe listens, asks who is there, and only then listens for questions: so the server says at once when nobody is.
func (p *presence) subscribe() error {
	nc := p.f.link.nc
	for _, s := range []string{p.subject("*", "*"), p.subject("*", "*", subject.Token(p.f.config.Instance))} {
		if _, err := nc.ChanSubscribe(s, p.arrived); err != nil {
			return err
		}
	}
	if err := p.ask(); err != nil {
		return err
	}
	_, err := nc.ChanSubscribe(p.subject("ask"), p.arrived)
	return err
}

// ask asks everyone to answer this sidecar alone.
func (p *presence) ask() error {
	p.mu.Lock()
	p.askedAt, p.alone = time.Now(), false
	p.mu.Unlock()
	m := &nats.Msg{Subject: p.subject("ask"), Reply: p.f.outbound.inbox + presenceToken, Data: []byte(subject.Token(p.f.config.Instance))}
	return p.f.link.nc.PublishMsg(m)
}

// answered is told of what comes to the reply subject of a question: only that nobody is there.
func (p *presence) answered(m *nats.Msg) {
	if noResponders(m) {
		p.mu.Lock()
		p.alone = true
		p.mu.Unlock()
	}
}

// run is the goroutine that takes heartbeats and sends this sidecar's own.
func (p *presence) run(ctx context.Context) {
	tick := time.NewTicker(heartbeatEvery / 2)
	defer tick.Stop()
	last := time.Now()
	for beat := false; ; {
		select {
		case <-ctx.Done():
			return
		case m := <-p.arrived:
			p.take(m, time.Now())
		case now := <-tick.C:
			if now.Sub(last) > heartbeatEvery { // this process stood still: others' silence was not theirs
				p.refresh(now)
			}
			last = now
			p.sweep(now)
			if beat = !beat; beat {
				p.beat()
			}
		}
	}
}

// take applies one message.
func (p *presence) take(m *nats.Msg, now time.Time) {
	tokens := strings.Split(m.Subject[len(p.f.prefix)+len("presence."):], ".")
	if len(tokens) == 1 {
		p.answer(string(m.Data))
		return
	}
	app, errApp := subject.Untoken(tokens[0])
	id, errID := subject.Untoken(tokens[1])
	t := Target{app, id}
	if errApp != nil || errID != nil || len(m.Data) > maxHeartbeat {
		p.ignored.Add(1)
		return
	}
	p.mu.Lock()
	if t == (Target{p.f.config.AppID, p.f.config.Instance}) {
		p.echoAt = now
		p.mu.Unlock()
		return
	}
	if len(tokens) == 3 {
		p.answeredAt = now
	}
	same := bytes.Equal(p.last[t], m.Data) && p.roster.touch(t, now)
	p.mu.Unlock()
	if same {
		return
	}
	var h heartbeat
	if err := json.Unmarshal(m.Data, &h); err != nil {
		p.ignored.Add(1)
		return
	}
	if h.Left {
		p.remove(t)
		return
	}
	h.Instance.App, h.Instance.ID = app, id
	p.mu.Lock()
	defer p.mu.Unlock()
	changed, full := p.roster.upsert(h.Instance, now)
	if full {
		p.ignored.Add(1)
		return
	}
	p.last[t] = m.Data
	if changed {
		p.changed(app)
	}
}

// answer tells a newcomer, and nobody else, that this sidecar is there.
func (p *presence) answer(newcomer string) {
	if _, err := subject.Untoken(newcomer); err != nil {
		p.ignored.Add(1)
		return
	}
	p.mu.RLock()
	payload, silent := p.payload, p.self == nil || p.gone
	p.mu.RUnlock()
	if !silent {
		_ = p.f.link.nc.Publish(p.own()+"."+newcomer, payload) // the next heartbeat says it again
	}
}

// beat sends this sidecar's heartbeat.
func (p *presence) beat() {
	p.mu.RLock()
	payload, silent := p.payload, p.self == nil || p.gone
	p.mu.RUnlock()
	if !silent && p.f.link.up.Load() {
		_ = p.f.link.nc.Publish(p.own(), payload) // the next heartbeat says it again
	}
}

// Announce says that this sidecar is there, or what changed about it, to everyone and at once. App and ID are those of
// Config. When only the load differs the next heartbeat tells it.
func (f *Fabric) Announce(self Instance) {
	p := f.presence
	self.App, self.ID = f.config.AppID, f.config.Instance
	self.Tags = maps.Clone(self.Tags)
	payload, err := json.Marshal(heartbeat{Instance: self})
	if err == nil && len(payload) > maxHeartbeat {
		f.log.Error("the tags of this sidecar are left out of its presence: they are too long", "bytes", len(payload), "limit", maxHeartbeat)
		self.Tags = nil
		payload, err = json.Marshal(heartbeat{Instance: self})
	}
	if err != nil { // a year that JSON cannot write
		f.log.Error("this sidecar's presence cannot be announced", "error", err)
		return
	}
	p.mu.Lock()
	if p.gone {
		p.mu.Unlock()
		return
	}
	was := p.self
	if was == nil {
		p.echoAt = time.Now()
	}
	p.self, p.payload = &self, payload
	p.roster.pinned = Target{self.App, self.ID}
	if changed, _ := p.roster.upsert(self, time.Now()); changed {
		p.changed(self.App)
	}
	p.mu.Unlock()
	if was != nil {
		same := *was
		same.Load = self.Load
		if same.equal(self) {
			return
		}
	}
	p.beat()
}

// leave tells everyone that this sidecar goes. Afterwards it is silent.
func (p *presence) leave() {
	p.mu.Lock()
	tell := p.self != nil && !p.gone
	p.gone = true
	self := Target{p.f.config.AppID, p.f.config.Instance}
	if p.roster.remove(self) {
		p.changed(self.App)
	}
	p.mu.Unlock()
	if tell && p.f.link.nc != nil && p.f.link.up.Load() {
		_ = p.f.link.nc.Publish(p.own(), []byte(`{"left":true}`)) // missed heartbeats say it otherwise
	}
}

// Instances returns the instances of an app, or of all when app is "". The slice is a shared snapshot: do not change it.
func (f *Fabric) Instances(app string) []Instance {
	f.presence.mu.RLock()
	defer f.presence.mu.RUnlock()
	if app == "" {
		return f.presence.roster.all()
	}
	return f.presence.roster.byApp[app]
}

// OnChange calls fn when the instances of an app changed, with all of them. All callbacks run one after the other in one
// goroutine, without a lock; changes that come while one runs are told together. After cancel returns no new call of fn
// begins.
func (f *Fabric) OnChange(fn func(app string, instances []Instance)) (cancel func()) {
	p := f.presence
	p.mu.Lock()
	defer p.mu.Unlock()
	id := p.nextID
	p.nextID++
	p.watchers[id] = fn
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.watchers, id)
	}
}

// changed notes that watchers are to be told. p.mu is held.
func (p *presence) changed(app string) {
	p.dirty[app] = true
	wake(p.told)
}

// notify is the goroutine that calls the watchers.
func (p *presence) notify(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.told:
		}
		p.mu.Lock()
		apps := slices.Sorted(maps.Keys(p.dirty))
		clear(p.dirty)
		ids := slices.Sorted(maps.Keys(p.watchers))
		p.mu.Unlock()
		for _, app := range apps {
			for _, id := range ids {
				p.mu.RLock()
				fn, instances := p.watchers[id], p.roster.byApp[app]
				p.mu.RUnlock()
				if fn != nil {
					p.tell(fn, app, instances)
				}
			}
		}
	}
}

// tell calls one watcher and contains its panic.
func (p *presence) tell(fn func(string, []Instance), app string, instances []Instance) {
	defer func() {
		if failed := recover(); failed != nil {
			p.f.log.Error("a watcher of presence panicked", "app", app, "panic", failed, "stack", string(debug.Stack()))
		}
	}()
	fn(app, instances)
}

// eject drops an instance that was found to be gone. It comes back with its next heartbeat if it is not.
func (p *presence) eject(t Target) {
	p.mu.Lock()
	known := t != p.roster.pinned && p.roster.remove(t)
	if known {
		delete(p.last, t)
		p.changed(t.App)
	}
	p.mu.Unlock()
	if known {
		p.f.log.Info("an instance is gone: nobody listens", "app", t.App, "instance", t.Instance)
	}
	if !p.f.link.fresh() { // just after an outage others may still be coming back, with answers
		p.f.outbound.failTarget(t)
	}
}

// remove drops an instance that said it goes. Calls that it works on still get their answer.
func (p *presence) remove(t Target) {
	p.mu.Lock()
	if p.roster.remove(t) {
		delete(p.last, t)
		p.changed(t.App)
	}
	p.mu.Unlock()
}

// sweep drops those whose heartbeats were missed. It does not judge while this sidecar does not hear even itself: then its
// own connection is congested, or the machine is. And whoever answers calls is there.
func (p *presence) sweep(now time.Time) {
	p.mu.Lock()
	if p.frozen {
		p.mu.Unlock()
		return
	}
	if p.self != nil && !p.gone && now.Sub(p.echoAt) > 2*heartbeatEvery {
		p.roster.refresh(now)
	}
	gone := p.roster.expire(now.Add(-missedAfter), now, p.f.lively)
	for _, t := range gone {
		delete(p.last, t)
		p.changed(t.App)
	}
	p.mu.Unlock()
	for _, t := range gone {
		p.f.log.Info("an instance is gone: its heartbeats are missing", "app", t.App, "instance", t.Instance)
		p.f.outbound.failTarget(t)
	}
}

func (p *presence) refresh(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.roster.refresh(now)
}

// freeze keeps everyone while the fabric is away: calls go on where they can when it is back.
func (p *presence) freeze() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.frozen = true
}

func (p *presence) thaw() {
	p.mu.Lock()
	p.frozen = false
	p.roster.refresh(time.Now())
	p.mu.Unlock()
	p.beat()
	_ = p.ask() // heartbeats tell it otherwise, a little later
}

// Settle waits until those who were there when Open asked have had time to answer: at most 100 ms after Open, and not at
// all when the server said that nobody is there. It returns early when ctx ends.
func (f *Fabric) Settle(ctx context.Context) {
	for {
		f.presence.mu.RLock()
		until := f.presence.askedAt.Add(settleAfter)
		if quiet := f.presence.answeredAt.Add(settleQuiet); !f.presence.answeredAt.IsZero() && quiet.Before(until) {
			until = quiet
		}
		alone := f.presence.alone
		f.presence.mu.RUnlock()
		rest := time.Until(until)
		if alone || rest <= 0 {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(min(rest, settleQuiet/4)):
		}
	}
}
