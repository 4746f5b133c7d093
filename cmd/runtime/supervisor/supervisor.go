// Package supervisor keeps apps and their sidecars running: what `sidecast run -f FILE` and `sidecast run -- COMMAND` do.
//
// Every app and every sidecar is a child process in a process group of its own. One that dies is started again after a
// back-off (200 ms, doubling to 30 s, forgotten after 30 s of health), and the log says so in one line. A sidecar keeps
// its ports over restarts, so its app just reconnects. An app that ends with status 0 is done.
//
// # Order
//
// Sidecars start first; an app starts when its own sidecar answers, and, so that first calls find somebody, when all
// sidecars have answered or five seconds have passed.
//
// Stopping is starting backwards, for each pair of app and sidecar on its own:
//
//  1. The sidecar drains, while its app lives: it leaves presence, refuses new calls and events, and lets those that run
//     end. It goes on serving what its app asks of it. This takes at most half the grace period.
//  2. The app is asked to end (SIGTERM to its group) and can still make its last calls. When the grace period is over
//     the group is killed.
//  3. The sidecar is asked to end, with nothing left to do, and killed if it takes longer than two seconds.
//
// Both at once, as a container platform does, would cut the answers of apps that end at the first signal; the sidecar
// first would take the state store away from an app that wants to save its work.
//
// No child outlives the supervisor: see process.go for what each system offers, and parent.go for the pipe by which a
// sidecar learns that the supervisor was killed. A process that leaves its group and detaches on purpose is let go.
//
//	plan, notes, err := supervisor.Load("sidecast.yaml", false)
//	ctx, kill, release := supervisor.Signals(context.Background())
//	defer release()
//	plan.Kill = kill
//	code, err := supervisor.Run(ctx, plan)
package supervisor

import (
	"context"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/sidecast/sidecast/fault"
)

const (
	defaultGrace = 10 * time.Second
	// sidecarGrace bounds the end of a sidecar that has drained and whose app is gone.
	sidecarGrace = 2 * time.Second
	// startTogether bounds how long apps wait for the sidecars of the others.
	startTogether = 5 * time.Second
)

// Run builds and starts what the plan says and keeps it running until ctx ends, a main app ends or every app with a
// command is done; then it stops everything and waits until nothing is left.
//
// The code is what the process should exit with: that of the main app, else that of the first app which failed for good,
// else 0. The error, whose code is 1 or 2, says why the plan could not be carried out: a port in use, a command that does
// not exist, a build that failed, a sidecar that refuses its configuration.
func Run(ctx context.Context, plan Plan) (exitCode int, err error) {
	plan, err = plan.prepared()
	if err != nil {
		return 2, err
	}
	out := newOutput(plan)
	if plan.Voice != nil {
		plan.Voice.out.Store(out)
		defer plan.Voice.out.Store(nil)
	}
	if err := build(ctx, plan, out); err != nil {
		if ctx.Err() != nil {
			return 0, nil
		}
		return 1, err
	}
	return newHouse(plan, out).run(ctx)
}

// house is one run: the pairs and what has become of them so far.
type house struct {
	plan  Plan
	out   *output
	pairs []*pair

	// stopping ends when everything is to stop, killing when there is no more time to be polite.
	stopping, killing context.Context
	stop, kill        context.CancelFunc

	together chan struct{} // closed when every sidecar has answered once

	mu       sync.Mutex
	waiting  int // sidecars that have not answered yet
	working  int // apps with a command that are not done
	exitCode int
	err      error
}

func newHouse(plan Plan, out *output) *house {
	h := &house{plan: plan, out: out, together: make(chan struct{}), waiting: len(plan.Apps)}
	for i, app := range plan.Apps {
		h.pairs = append(h.pairs, newPair(h, app, plan.label(i), i))
		if len(app.Command) > 0 {
			h.working++
		}
	}
	return h
}

func (h *house) run(ctx context.Context) (int, error) {
	h.stopping, h.stop = context.WithCancel(ctx)
	defer h.stop()
	h.killing, h.kill = context.WithCancel(context.Background())
	defer h.kill()
	defer h.passOnKill()()

	var pairs sync.WaitGroup
	for _, p := range h.pairs {
		pairs.Go(p.live)
	}
	<-h.stopping.Done()
	if ctx.Err() != nil {
		h.out.say("stopping; interrupt again to kill at once")
	}
	pairs.Wait()
	return h.exitCode, h.err
}

// passOnKill turns the closing of Plan.Kill into the end of h.killing. The returned function ends the passing on.
func (h *house) passOnKill() (end func()) {
	ended, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		select {
		case <-h.plan.Kill:
			h.out.say("killing everything")
			h.stop()
			h.kill()
		case <-ended:
		}
	}()
	return func() { close(ended); <-done }
}

// answered counts the sidecars that answer for the first time.
func (h *house) answered() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.waiting--; h.waiting == 0 {
		close(h.together)
	}
}

// appEnded records an app that will not be started again and stops the house when that was the last thing it waited for.
func (h *house) appEnded(app App, e Exit) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.working--
	asked := h.stopping.Err() != nil
	switch {
	case asked && (e.signaled() || !app.Main): // it did what it was asked to
	case app.Main || h.exitCode == 0:
		h.exitCode = e.Code()
	}
	if app.Main || h.working == 0 {
		h.stop()
	}
}

// fail records why the plan cannot be carried out and stops the house.
func (h *house) fail(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.err == nil && h.stopping.Err() == nil {
		h.err, h.exitCode = err, 1
		if fault.KindOf(err) == fault.Invalid {
			h.exitCode = 2
		}
	}
	h.stop()
}

// build runs the build commands one after the other, each distinct one once.
func build(ctx context.Context, plan Plan, out *output) error {
	done := make(map[string]bool)
	for i, app := range plan.Apps {
		key := strings.Join(append([]string{app.Dir}, app.Build...), "\x00")
		if len(app.Build) == 0 || done[key] {
			continue
		}
		done[key] = true
		op := "build " + plan.label(i)
		src := out.source(plan.label(i), kindApp, i)
		out.say("%s: building: %s", plan.label(i), strings.Join(app.Build, " "))
		p, err := start(spec{command: app.Build, dir: app.Dir, env: plan.environment(app), out: out, src: src})
		if err != nil {
			return fault.New(op, fault.ProcessFailed, "cannot start the build command: %w", err)
		}
		if exit := p.wait(ctx.Done(), plan.Kill); exit.Code() != 0 {
			return fault.E(op, fault.Internal, fault.ProcessFailed, exit)
		}
	}
	return nil
}

// doubled is how soon after a signal another is the same one: timeout(1) sends its own to the process and to its group.
const doubled = 200 * time.Millisecond

// Signals turns Ctrl-C into a stop: the first SIGINT, SIGTERM or SIGHUP (unless nohup took it away) ends ctx, a second one
// closes kill. The caller calls release when it no longer wants the signals.
func Signals(parent context.Context) (ctx context.Context, kill <-chan struct{}, release func()) {
	ctx, cancel := context.WithCancel(parent)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	if !signal.Ignored(syscall.SIGHUP) {
		signal.Notify(signals, syscall.SIGHUP)
	}
	killed, released, done := make(chan struct{}), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for first := (time.Time{}); ; {
			select {
			case <-signals:
			case <-released:
				return
			}
			switch {
			case first.IsZero():
				first = time.Now()
				cancel()
			case time.Since(first) > doubled:
				close(killed)
				return
			}
		}
	}()
	var once sync.Once
	return ctx, killed, func() {
		once.Do(func() {
			signal.Stop(signals)
			close(released)
			<-done
			cancel()
		})
	}
}
