package actors

import (
	"context"
	"sync"
	"time"

	"github.com/sidecast/sidecast/resiliency"
)

// race is an attempt and the hedges that run beside it: the first answer wins. It belongs to the caller's goroutine, which
// makes the first attempt itself and waits for all others before it goes on. A hedge costs a goroutine only when its time
// has come.
type race struct {
	visit  *visit
	grant  resiliency.Decision // of the first attempt
	ctx    context.Context     // of all attempts
	cancel context.CancelFunc
	hedges sync.WaitGroup

	mu     sync.Mutex
	timer  *time.Timer // starts the next hedge
	over   bool        // no other is started
	winner int         // the hedge that answered first; 0 is none
}

// race makes the attempt that was granted and hedges it.
func (v *visit) race(ctx context.Context, grant resiliency.Decision) resiliency.Decision {
	r := &race{visit: v, grant: grant}
	r.ctx, r.cancel = context.WithCancel(ctx)
	defer r.end()
	r.schedule(1)
	begun := time.Now()
	err := v.run(r.ctx, v.ticket, grant, 0, begun)
	took := time.Since(begun)
	if err == nil {
		return v.report(nil, took)
	}
	lost := r.decided()
	if v.answer = r.wait(); v.answer == 0 {
		return v.report(err, took)
	}
	if !lost { // it failed by itself before the other won
		t := v.ticket
		t.outcome = resiliency.Outcome{Turn: &t.turn, Err: err, Took: took}
		v.lane.system.post(v.lane.pid, outcome{t})
	}
	v.leave()
	return resiliency.Decision{Verb: resiliency.Done}
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
	r.mu.Unlock()
	defer r.hedges.Done()
	r.schedule(n + 1)
	r.hedge(n)
}

// hedge makes an attempt beside the first if the lane has room for it now.
func (r *race) hedge(n int) {
	v, l := r.visit, r.visit.lane
	life := l.life.Load()
	if life == nil || l.asking.Add(1) > l.room.Load() {
		if life != nil {
			l.asking.Add(-1)
		}
		return
	}
	t := l.hedgeTicket(v.call, r.grant.Endpoint)
	d, heard := l.ask(t, r.ctx.Done(), life, 0)
	if !heard {
		return
	}
	if l.system.observe != nil {
		l.system.observe(r.ctx, Decided{Decision: d, Lane: l.name, Hedge: true})
	}
	if d.Verb != resiliency.Go {
		l.free(t)
		return
	}
	begun := time.Now()
	err := v.run(r.ctx, t, d, n, begun)
	if err != nil && r.ctx.Err() != nil {
		l.system.post(l.pid, leave{t})
		return
	}
	t.outcome = resiliency.Outcome{Turn: &t.turn, Err: err, Took: time.Since(begun)}
	l.system.post(l.pid, outcome{t})
	if err == nil {
		r.win(n)
	}
}

// win makes the nth hedge's answer the one that counts, unless another was first, and cancels the others.
func (r *race) win(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.winner == 0 {
		r.winner = n
		r.over = true
	}
	r.cancel()
}

func (r *race) decided() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.winner != 0
}

// wait starts no other hedge, waits for those that run, and returns the one that answered, or 0.
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
	r.cancel()
	r.wait()
}
