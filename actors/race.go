package actors

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/sidecast/sidecast/resiliency"
)

// race is an attempt and the hedges that run beside it: the first answer wins, and it is enough that one has begun. It belongs
// to the caller's goroutine, which makes the first attempt itself and waits for all others before it goes on. A hedge costs a
// goroutine only when its time has come.
type race struct {
	visit  *visit
	grant  resiliency.Decision // of the first attempt
	ctx    context.Context     // of the call
	hedges sync.WaitGroup

	mu      sync.Mutex
	timer   *time.Timer          // starts the next hedge
	over    bool                 // no other is started
	cancels []context.CancelFunc // of the attempts, by their racer
	decided bool
	winner  int   // the attempt that answered first, once it is decided
	failure error // of a hedge that won, and whose answer broke off
}

// errExited is what came of an attempt that ended its goroutine.
var errExited = errors.New("the attempt ended its goroutine")

// race makes the attempt that was granted and hedges it.
func (v *visit) race(ctx context.Context, grant resiliency.Decision) resiliency.Decision {
	r := &race{visit: v, grant: grant, ctx: ctx}
	own := r.enter()
	defer r.end()
	r.schedule(1)
	begun := time.Now()
	err := v.run(own, v.ticket, grant, 0, r, begun)
	took := v.ticket.took(begun)
	if err == nil {
		return v.report(nil, took)
	}
	lost := r.lost(0)
	if v.answer = r.wait(); v.answer == 0 {
		return v.report(err, took)
	}
	if !lost { // it failed by itself before the other won
		t := v.ticket
		t.outcome = resiliency.Outcome{Turn: &t.turn, Err: err, Took: took}
		v.lane.system.post(v.lane.pid, outcome{t})
	}
	v.leave()
	if r.failure != nil {
		return v.broken(r.failure)
	}
	return resiliency.Decision{Verb: resiliency.Done}
}

// enter makes the context of the next attempt. The race is locked, or has not begun.
func (r *race) enter() context.Context {
	ctx, cancel := context.WithCancel(r.ctx)
	r.cancels = append(r.cancels, cancel)
	return ctx
}

// schedule sets the time of the nth hedge.
func (r *race) schedule(n int) {
	if n >= r.visit.racers || n > r.grant.Hedges {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.over {
		r.timer = time.AfterFunc(r.grant.Hedge, func() { r.start(n) })
	}
}

// start runs the nth hedge in the goroutine of its timer.
func (r *race) start(n int) {
	r.mu.Lock()
	if r.over {
		r.mu.Unlock()
		return
	}
	r.hedges.Add(1)
	ctx := r.enter()
	r.mu.Unlock()
	defer r.hedges.Done()
	r.schedule(n + 1)
	r.hedge(ctx, n)
}

// hedge makes an attempt beside the first if the lane has room for it now.
func (r *race) hedge(ctx context.Context, n int) {
	v, l := r.visit, r.visit.lane
	life := l.life.Load()
	if life == nil || l.asking.Add(1) > l.room.Load() {
		if life != nil {
			l.asking.Add(-1)
		}
		return
	}
	t := l.hedgeTicket(v.call, r.grant.Endpoint)
	d, heard := l.ask(t, ctx.Done(), life, 0)
	if !heard {
		return
	}
	if l.system.observe != nil {
		l.system.observe(ctx, Decided{Decision: d, Lane: l.name, Hedge: true})
	}
	if d.Verb != resiliency.Go {
		l.free(t)
		return
	}
	err := errExited
	defer func() { r.ended(n, err) }()
	begun := time.Now()
	err = v.run(ctx, t, d, n, r, begun)
	if err != nil && ctx.Err() != nil && t.answered.IsZero() {
		l.system.post(l.pid, leave{t})
		return
	}
	t.outcome = resiliency.Outcome{Turn: &t.turn, Err: err, Took: t.took(begun)}
	l.system.post(l.pid, outcome{t})
}

// ended takes note of what came of the nth hedge.
func (r *race) ended(n int, err error) {
	if err == nil {
		r.take(n)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.decided && r.winner == n {
		r.failure = err
	}
}

// take makes the nth attempt's answer the one that counts, unless another was first, and cancels the others.
func (r *race) take(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.decided {
		return
	}
	r.decided, r.winner, r.over = true, n, true
	for racer, cancel := range r.cancels {
		if racer != n {
			cancel()
		}
	}
}

// lost says that another attempt than the nth has won.
func (r *race) lost(n int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.decided && r.winner != n
}

// wait starts no other hedge, waits for those that run, and returns the one that answered, or 0 when none did.
func (r *race) wait() int {
	r.mu.Lock()
	r.over = true
	if r.timer != nil {
		r.timer.Stop()
	}
	r.mu.Unlock()
	r.hedges.Wait()
	return r.winner
}

// end cancels the hedges that still run and waits for them.
func (r *race) end() {
	r.mu.Lock()
	r.over = true
	for _, cancel := range r.cancels {
		cancel()
	}
	r.mu.Unlock()
	r.wait()
}
