package actors

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/resiliency"
)

// visit is one call on its way through a lane, as its caller's goroutine lives it. Each method takes one step and returns
// what the lane, or its absence, decided next.
type visit struct {
	lane     *Lane
	call     resiliency.Call
	attempt  func(ctx context.Context, grant Grant) error
	entry    call.Entry // nil when the call came through no front door
	racers   int        // how many attempts may run at once
	ticket   *ticket    // nil when the lane's actor holds it, or nobody
	attempts int
	answer   int   // the Grant.racer of the attempt whose answer counts
	last     error // of the latest try
}

// enter asks the lane for a turn and waits for the answer.
func (v *visit) enter(ctx context.Context) resiliency.Decision {
	l := v.lane
	life := l.life.Load()
	if life == nil {
		return v.rebuff(l.absent(v.call.Op))
	}
	gone := ctx.Done()
	switch {
	case v.spent():
		gone = nil // the lane says so at once, and counts it
	case ctx.Err() != nil:
		return v.rebuff(v.gone(ctx, "a turn"))
	}
	if l.asking.Add(1) > l.room.Load() {
		l.asking.Add(-1)
		return v.rebuff(fault.New(v.call.Op, fault.QueueFull, "lane %s has more calls asking than it can answer", l.name).
			After(overrunRetryAfter))
	}
	if v.ticket == nil {
		v.ticket = l.ticket(v.call)
	}
	v.ticket.entry = v.entry
	if d, heard := l.ask(v.ticket, gone, life, l.policy.Load().Queue.MaxWait); heard {
		return v.settle(d)
	}
	v.ticket = nil
	if life.isOver() {
		return v.rebuff(l.absent(v.call.Op))
	}
	return v.refused(v.gone(ctx, "a turn"))
}

// ask enters the ticket and waits for the answer. When gone ends first, or the lane's life does, nothing was heard and the
// actor has the ticket for good. After maxWait, if there is one, it tells the lane, which then answers.
func (l *Lane) ask(t *ticket, gone <-chan struct{}, life *life, maxWait time.Duration) (d resiliency.Decision, heard bool) {
	l.system.post(l.pid, enter{t})
	var impatient <-chan time.Time
	var timer *time.Timer
	if maxWait > 0 {
		timer = time.NewTimer(maxWait)
		defer timer.Stop()
		impatient = timer.C
	}
	for {
		select {
		case d := <-t.reply:
			return d, true
		case <-impatient:
			if longer := l.policy.Load().Queue.MaxWait; longer > maxWait {
				timer.Reset(longer - maxWait)
				maxWait = longer
				continue
			}
			t.hurried = true
			l.system.post(l.pid, overdue{t})
			timer.Reset(max(maxWait, leastHurry))
			continue
		case <-gone:
		case <-life.over:
		}
		l.system.post(l.pid, leave{t})
		return resiliency.Decision{}, false
	}
}

// leastHurry is how often at most a lane that an operator holds is told that a call has waited too long.
const leastHurry = 100 * time.Millisecond

// overrunRetryAfter is what a caller is told when a lane's mailbox is full: the actor clears it faster than that.
const overrunRetryAfter = 100 * time.Millisecond

// try makes the attempt that was granted, and those beside it, and asks what follows.
func (v *visit) try(ctx context.Context, grant resiliency.Decision) resiliency.Decision {
	v.attempts, v.answer = grant.Attempt, 0
	if grant.Hedge > 0 && v.racers > 1 {
		return v.race(ctx, grant)
	}
	begun := time.Now()
	err := v.run(ctx, v.ticket, grant, 0, nil, begun)
	return v.report(err, v.ticket.took(begun))
}

// report tells the lane the outcome of the attempt and waits for what follows from it. After a success nothing does, and
// nobody waits.
func (v *visit) report(err error, took time.Duration) resiliency.Decision {
	v.last = err
	t := v.ticket
	t.outcome = resiliency.Outcome{Turn: &t.turn, Err: err, Took: took}
	life := v.lane.life.Load()
	v.lane.system.post(v.lane.pid, outcome{t})
	switch {
	case err == nil:
		v.ticket = nil
		return resiliency.Decision{Verb: resiliency.Done}
	case life == nil:
		v.leave()
		return v.refused(v.lane.absent(v.call.Op))
	}
	select {
	case d := <-t.reply:
		return v.settle(d)
	case <-life.over:
		v.leave()
		return v.refused(v.lane.absent(v.call.Op))
	}
}

// run calls the attempt under the grant's deadline. A panic is its failure; a goroutine that exits inside it still gives
// its slot back.
func (v *visit) run(ctx context.Context, t *ticket, grant resiliency.Decision, racer int, r *race, begun time.Time) (err error) {
	within, cancel := until(ctx, grant.Deadline)
	defer cancel()
	returned := false
	defer func() {
		if returned {
			return
		}
		cause := recover()
		if cause == nil {
			v.lane.system.post(v.lane.pid, leave{t})
			return
		}
		v.lane.system.log.Error("attempt panicked", "lane", v.lane.name, "op", v.call.Op, "endpoint", grant.Endpoint,
			"panic", cause, "stack", string(debug.Stack()))
		err = fault.New(v.call.Op, fault.Panicked, "the attempt panicked: %v", cause)
	}()
	err = v.attempt(within, Grant{Endpoint: grant.Endpoint, Attempt: grant.Attempt, racer: racer, ticket: t, lane: v.lane, begun: begun, race: r})
	returned = true
	if err == nil || fault.NotSent(err) || !t.answered.IsZero() { // once it was answered its time is not up
		return err
	}
	return v.blame(err, ctx, within, grant.Attempt, time.Since(begun))
}

// clockSlack is by how much a peer may end an attempt too early: time left travels in whole milliseconds.
const clockSlack = 5 * time.Millisecond

// isOver reports whether the attempt's own time is up, or was as its peer sees it: its deadline is one of its own when the
// call's is later.
func isOver(call, attempt context.Context) bool {
	own, bounded := attempt.Deadline()
	whole, ends := call.Deadline()
	return attempt.Err() != nil || bounded && (!ends || own.Before(whole)) && time.Until(own) < clockSlack
}

// blame gives an attempt that failed because its time was up, or its caller gone, the failure that says so.
func (v *visit) blame(err error, call, attempt context.Context, n int, took time.Duration) error {
	_, isNamed := errors.AsType[*fault.Error](err)
	kind := fault.KindOf(err)
	switch {
	case call.Err() != nil && (!isNamed || kind == fault.Canceled):
		f := fault.FromContext(v.call.Op, call, "the answer")
		f.Err = fmt.Errorf("%w: %w", f.Err, err)
		return f
	case call.Err() == nil && isOver(call, attempt) && (!isNamed || kind == fault.Timeout || kind == fault.Canceled):
		return fault.New(v.call.Op, fault.AttemptTimeout, "attempt %d was given up after %v: %w",
			n, took.Round(time.Millisecond), err)
	}
	return err
}

// rest waits before the next try, holding no slot, and enters again.
func (v *visit) rest(ctx context.Context, again resiliency.Decision) resiliency.Decision {
	if again.Err != nil {
		v.last = again.Err
	}
	waitingFor := "the next attempt"
	if v.last == nil {
		waitingFor = "its rate limits"
	}
	timer := time.NewTimer(again.After)
	defer timer.Stop()
	select {
	case <-timer.C:
		return v.enter(ctx)
	case <-ctx.Done():
		return v.refused(v.gone(ctx, waitingFor))
	case <-v.lane.draining:
		return v.refused(v.lane.absent(v.call.Op))
	}
}

// settle takes the ticket back with the decision: it is the caller's again, to use or to free.
func (v *visit) settle(d resiliency.Decision) resiliency.Decision {
	if d.Verb == resiliency.GiveUp {
		v.lane.free(v.ticket)
		v.ticket = nil
	}
	return d
}

// leave gives the ticket to the actor for good. Whatever it decides about it before, nobody hears.
func (v *visit) leave() {
	v.lane.system.post(v.lane.pid, leave{v.ticket})
	v.ticket = nil
}

// rebuff is refused, of a call that the lane's actor did not count: it never heard of it, or is no more.
func (v *visit) rebuff(refusal *fault.Error) resiliency.Decision {
	if v.attempts == 0 {
		v.lane.rebuffed.add(refusal.Reason)
	}
	return v.refused(refusal)
}

// refused ends the visit without the actor. A call that failed before answers that failure, unless its caller is gone.
func (v *visit) refused(refusal *fault.Error) resiliency.Decision {
	if v.ticket != nil {
		v.lane.free(v.ticket)
		v.ticket = nil
	}
	var err error = refusal
	if v.last != nil && refusal.Reason.NotSent() {
		err = resiliency.NotRetried(v.last, refusal)
	}
	policy := v.lane.policy.Load().Name
	return resiliency.Decision{
		Verb: resiliency.GiveUp,
		Err:  resiliency.Explain(v.lane.name, policy, v.call.Op, v.attempts, err),
	}
}

// broken ends the visit with the failure of a hedge whose answer had begun. The lane has heard of it already.
func (v *visit) broken(err error) resiliency.Decision {
	policy := v.lane.policy.Load().Name
	return resiliency.Decision{
		Verb: resiliency.GiveUp,
		Err:  resiliency.Explain(v.lane.name, policy, v.call.Op, v.attempts, err),
	}
}

// gone is the end of the caller's context, with the last failure if there was one.
func (v *visit) gone(ctx context.Context, waitingFor string) *fault.Error {
	f := fault.FromContext(v.call.Op, ctx, waitingFor+" on lane "+v.lane.name)
	if v.last != nil {
		f.Err = fmt.Errorf("%w; before that: %w", f.Err, v.last)
	}
	return f
}

// spent reports whether the call's deadline has passed.
func (v *visit) spent() bool {
	return !v.call.Deadline.IsZero() && !time.Now().Before(v.call.Deadline)
}
