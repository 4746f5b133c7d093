package supervisor

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sidecast/sidecast/fault"
)

const (
	pollEvery = 20 * time.Millisecond
	// restartGate bounds how long the restart of an app waits for a sidecar that is down as well.
	restartGate = 5 * time.Second
	// patience is how often the log says that a sidecar still does not answer.
	patience = 10 * time.Second
)

// configExit is the status of a sidecar that cannot work with what it was told. Before it ever answered this ends the
// run: to try again would not help.
const configExit = 2

// pair is an app with its sidecar.
type pair struct {
	house    *house
	app      App
	label    string
	keepSide *keeper
	keepApp  *keeper
	pipe     parentPipe
	answered atomic.Bool // the sidecar has, once
}

func newPair(h *house, app App, label string, nth int) *pair {
	p := &pair{house: h, app: app, label: label}
	env := h.plan.environment(app)
	appSource, sideSource := h.out.source(label, kindApp, nth), h.out.source(label, kindSidecar, nth)
	p.keepApp = newKeeper(label, h.out, func() (*process, error) {
		child, err := start(spec{command: app.Command, dir: app.Dir, env: env, stdin: app.Stdin, out: h.out, src: appSource})
		if err == nil {
			p.pipe.tellApp(child.group.id())
		}
		return child, err
	})
	p.keepApp.again = app.Restart.again
	p.keepApp.before = p.beforeRestart
	p.keepApp.after = func() { p.pipe.tellApp(0) }

	p.keepSide = newKeeper(label+sidecarMark, h.out, func() (*process, error) {
		stdin, err := p.pipe.open()
		if err != nil {
			return nil, err
		}
		defer stdin.Close()
		command := append([]string{h.plan.Executable}, h.plan.SidecarArgs(app)...)
		return start(spec{command: command, env: env, stdin: stdin, out: h.out, src: sideSource, sidecar: true})
	})
	p.keepSide.again = func(e Exit) bool { return p.answered.Load() || e.Code() != configExit }
	p.keepSide.after = p.pipe.close
	return p
}

// live runs the pair from its start to the end of the house.
func (p *pair) live() {
	h := p.house
	sidecar := p.startSidecar()
	defer func() { sidecar.stop(sidecarGrace) }()

	if !p.awaitSidecar(sidecar) {
		return
	}
	if len(p.app.Command) == 0 {
		p.awaitStop(sidecar)
		p.drain()
		return
	}
	app := p.keepApp.keep(h.killing)
	select {
	case <-app.done:
		p.appEnded(app.exit)
		if !p.app.ExitWhenDone {
			p.awaitStop(sidecar)
		}
		return
	case <-sidecar.done:
		p.sidecarFailed(sidecar.exit)
	case <-h.stopping.Done():
	}
	deadline := time.Now().Add(h.plan.Grace)
	p.drain()
	app.stop(time.Until(deadline))
	p.appEnded(app.exit)
}

// startSidecar starts to keep the sidecar. Where the caller is the sidecar there is none to keep.
func (p *pair) startSidecar() *kept {
	if p.house.plan.NoSidecars {
		return &kept{}
	}
	return p.keepSide.keep(p.house.killing)
}

// awaitSidecar waits until the sidecar answers and its fellows had their chance to; false means stop instead.
func (p *pair) awaitSidecar(sidecar *kept) bool {
	h := p.house
	nudge := time.NewTicker(patience)
	defer nudge.Stop()
	for {
		err := h.plan.Ready(h.stopping, p.app)
		if err == nil {
			break
		}
		select {
		case <-time.After(pollEvery):
		case <-nudge.C:
			h.out.say("%s: its sidecar does not answer yet%s", p.label, because(err))
		case <-sidecar.done:
			p.sidecarFailed(sidecar.exit)
			return false
		case <-h.stopping.Done():
			return false
		}
	}
	p.answered.Store(true)
	h.answered()
	if !h.plan.NoSidecars {
		h.out.say("%s: sidecar answers on %s", p.label, doors(p.app))
	}
	select {
	case <-h.together:
	case <-time.After(startTogether):
	case <-h.stopping.Done():
		return false
	}
	return true
}

// doors are the addresses that the app, and who looks at it, finds its sidecar at.
func doors(app App) string {
	if !app.Dapr {
		return "gRPC " + sidecarAddress(app)
	}
	for _, flag := range app.DaprFlags {
		if folder, ok := strings.CutPrefix(flag, "--unix-domain-socket="); ok {
			return "sockets in " + folder
		}
	}
	return fmt.Sprintf("HTTP 127.0.0.1:%d, gRPC 127.0.0.1:%d", app.DaprHTTPPort, app.DaprGRPCPort)
}

// because is what a try to reach the sidecar tells beyond that nobody answered in time.
func because(err error) string {
	if errors.Is(err, context.DeadlineExceeded) || status.Code(err) == codes.DeadlineExceeded {
		return ""
	}
	return ": " + err.Error()
}

// awaitStop waits for the end of the house, or of a sidecar that cannot be kept.
func (p *pair) awaitStop(sidecar *kept) {
	select {
	case <-p.house.stopping.Done():
	case <-sidecar.done:
		p.sidecarFailed(sidecar.exit)
	}
}

// beforeRestart gives a sidecar that died with its app the time to come back first.
func (p *pair) beforeRestart(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, restartGate)
	defer cancel()
	for p.house.plan.Ready(ctx, p.app) != nil {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pollEvery):
		}
	}
}

// drain lets the sidecar finish what others asked of the app, for at most half the grace period.
func (p *pair) drain() {
	ctx, cancel := context.WithTimeout(p.house.killing, p.house.plan.Grace/2)
	defer cancel()
	if p.house.plan.Drain != nil {
		p.house.plan.Drain(ctx, p.app)
		return
	}
	if !p.house.plan.NoSidecars {
		p.pipe.tellDrain()
		drained(ctx, p.app)
	}
}

func (p *pair) appEnded(e Exit) {
	if e.failed != nil {
		p.house.fail(fault.New("run "+p.label, fault.ProcessFailed, "%w", e.failed))
		return
	}
	stopped := p.house.stopping.Err() != nil
	switch {
	case !stopped && e.Code() == 0:
		p.house.out.say("%s: done after %v", p.label, e.Lived)
	case !stopped:
		p.house.out.say("%s: %s after %v; it is not restarted", p.label, e, e.Lived)
	}
	p.house.appEnded(p.app, e)
}

func (p *pair) sidecarFailed(e Exit) {
	if p.house.stopping.Err() != nil {
		return
	}
	cause := e.failed
	if cause == nil {
		cause = fmt.Errorf("its sidecar %w: it cannot work with what it was told, see its output above", e)
	}
	p.house.fail(fault.New("run "+p.label, fault.ProcessFailed, "%w", cause))
}
