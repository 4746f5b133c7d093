package supervisor

import (
	"context"
	"time"
)

// keeper keeps one process running.
type keeper struct {
	who   string
	out   *output
	start func() (*process, error)
	// again decides whether a process that ended by itself is started again; nil means always.
	again func(Exit) bool
	// before runs before each restart, after after each end. Either may be nil.
	before func(context.Context)
	after  func()
}

func newKeeper(who string, out *output, start func() (*process, error)) *keeper {
	return &keeper{who: who, out: out, start: start}
}

// kept is a process being kept. exit may be read once done is closed: how it ended for good. The zero kept is no process.
type kept struct {
	done       chan struct{}
	exit       Exit
	term, kill context.CancelFunc
}

// keep starts the process and keeps it until it ends for good or is stopped. When killing ends it is killed.
func (k *keeper) keep(killing context.Context) *kept {
	term, terminate := context.WithCancel(killing)
	kill, killNow := context.WithCancel(killing)
	one := &kept{done: make(chan struct{}), term: terminate, kill: killNow}
	go func() {
		defer close(one.done)
		defer killNow()
		defer terminate()
		one.exit = k.run(term, kill)
	}()
	return one
}

// stop asks the process to end, kills it after grace and waits until it is gone.
func (one *kept) stop(grace time.Duration) {
	if one.done == nil {
		return
	}
	fuse := time.AfterFunc(grace, one.kill)
	defer fuse.Stop()
	one.term()
	<-one.done
}

// run is the life of the process over all its restarts. A process that cannot be started the first time ends for good;
// later its file may only be missing while it is rebuilt.
func (k *keeper) run(term, kill context.Context) Exit {
	policy := newRestarts()
	for restarted := false; ; restarted = true {
		exit := k.once(term, kill)
		if term.Err() != nil || exit.failed != nil && !restarted || k.again != nil && !k.again(exit) {
			return exit
		}
		wait, nth := policy.died(exit.Lived)
		k.out.say("%s: %s after %v; restarting in %v (restart %d)", k.who, exit, exit.Lived, wait, nth)
		select {
		case <-term.Done():
			return exit
		case <-time.After(wait):
		}
		if k.before != nil {
			k.before(term)
		}
		if term.Err() != nil {
			return exit
		}
	}
}

// once is one life of the process.
func (k *keeper) once(term, kill context.Context) Exit {
	child, err := k.start()
	if err != nil {
		return Exit{failed: err}
	}
	exit := child.wait(term.Done(), kill.Done())
	if k.after != nil {
		k.after()
	}
	if kill.Err() != nil {
		k.out.say("%s: was killed", k.who)
	}
	return exit
}
