package blocks

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/fabric"
	"github.com/sidecast/sidecast/fault"
)

const (
	// maxNeighbors is how many other namespaces a sidecar calls into: apps make their names up.
	maxNeighbors = 16
	// neighborTimeout bounds the joining of one.
	neighborTimeout = 10 * time.Second
	// namespaceMark stands between app id and namespace in the name of a caller of another namespace. No app id holds it.
	namespaceMark = "@"
)

// CallerName is what an app is called in the subjects of another namespace than its own: NATS permissions hold it to that
// name there as they hold it to its app id at home.
func CallerName(app, namespace string) string { return app + namespaceMark + namespace }

// splitCaller takes a caller's name apart; the namespace is "" at home.
func splitCaller(name string) (app, namespace string) {
	app, namespace, _ = strings.Cut(name, namespaceMark)
	return app, namespace
}

// neighbors are the other namespaces of the fabric that this sidecar calls into. It is a member of each only as far as its
// calls need: it listens to presence there, and nobody sees it.
type neighbors struct {
	join  func(ctx context.Context, namespace string) (*fabric.Fabric, error)
	enter func(namespace string, f *fabric.Fabric) *Invocation

	life    context.Context // of all joining and leaving
	end     func()
	running sync.WaitGroup // joining and leaving; Add under mu and only while not closed

	mu      sync.Mutex
	all     map[string]*neighbor
	leaving map[string]chan struct{} // namespaces that gave up their place; closed once nothing is left of them
	closed  bool
}

type neighbor struct {
	joined     chan struct{} // closed when invocation or err is there
	invocation *Invocation   // written under mu
	err        error
	calls      atomic.Int64 // into it, and waiting for it; grows under mu
}

func newNeighbors() *neighbors {
	n := &neighbors{all: map[string]*neighbor{}, leaving: map[string]chan struct{}{}}
	n.life, n.end = context.WithCancel(context.Background())
	return n
}

// done ends a call that in has let in.
func (at *neighbor) done() { at.calls.Add(-1) }

// in is the way into a namespace for a call, which ends with done. The first call has it joined; one that cannot be joined is
// tried again by the next call.
func (n *neighbors) in(ctx context.Context, namespace string) (*neighbor, error) {
	op := "join namespace " + namespace
	if err := checkName(op, "the namespace", namespace, maxName, fault.BadRequest); err != nil {
		return nil, err
	}
	at, err := n.at(op, namespace)
	if err != nil {
		return nil, err
	}
	select {
	case <-at.joined:
	default:
		if entry := call.EntryOf(ctx); entry != nil {
			entry.Leave() // joining may take seconds
		}
		select {
		case <-at.joined:
		case <-ctx.Done():
			at.done()
			return nil, fault.FromContext(op, ctx, "the fabric")
		}
	}
	if at.err != nil {
		at.done()
		return nil, at.err
	}
	return at, nil
}

// at is the place of a namespace, joined or about to be, with one call more.
func (n *neighbors) at(op, namespace string) (*neighbor, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	at := n.all[namespace]
	switch {
	case n.join == nil:
		return nil, fault.New(op, fault.NotSupported, "this sidecar reaches only apps of its own namespace")
	case n.closed:
		return nil, errDraining(op)
	case at == nil && len(n.all) >= maxNeighbors && !n.makePlace():
		return nil, fault.New(op, fault.QueueFull, "this sidecar calls into %d other namespaces already", maxNeighbors)
	case at == nil:
		at = &neighbor{joined: make(chan struct{})}
		n.all[namespace] = at
		left := n.leaving[namespace]
		n.running.Go(func() {
			if left != nil {
				<-left // its lanes have the same names
			}
			n.open(op, namespace, at)
		})
	}
	at.calls.Add(1)
	return at, nil
}

func errDraining(op string) error { return fault.New(op, fault.Shutdown, "the sidecar is draining") }

// makePlace lets go of a namespace that nobody is in and nobody calls into, as one that was misspelled. n.mu is held.
func (n *neighbors) makePlace() bool {
	for namespace, at := range n.all {
		if v := at.invocation; v != nil && at.calls.Load() == 0 && len(v.fabric.Instances("")) == 0 {
			left := make(chan struct{})
			delete(n.all, namespace)
			n.leaving[namespace] = left
			n.running.Go(func() {
				_ = v.leave(n.life) // nobody serves there, and nobody calls
				n.mu.Lock()
				defer n.mu.Unlock()
				delete(n.leaving, namespace)
				close(left)
			})
			return true
		}
	}
	return false
}

// open joins a namespace for all who wait for it.
func (n *neighbors) open(op, namespace string, at *neighbor) {
	defer close(at.joined)
	joining, cancel := context.WithTimeout(n.life, neighborTimeout)
	defer cancel()
	f, err := n.join(joining, namespace)
	if err == nil {
		f.Settle(joining)
		v := n.enter(namespace, f)
		v.start()
		n.mu.Lock()
		closed := n.closed
		if !closed {
			at.invocation = v
		}
		n.mu.Unlock()
		if !closed {
			return
		}
		err = v.leave(n.life) // close did not see it
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.all, namespace)
	if at.err = err; n.closed {
		at.err = errDraining(op)
	}
}

// close leaves all namespaces. Calls that still run into them are cut off.
func (n *neighbors) close(ctx context.Context) error {
	n.mu.Lock()
	n.closed = true
	all := n.all
	n.all = nil
	var joined []*Invocation
	for _, at := range all {
		if at.invocation != nil {
			joined = append(joined, at.invocation)
		}
	}
	n.mu.Unlock()
	n.end()
	var errs []error
	for _, v := range joined {
		errs = append(errs, v.fabric.Close(ctx))
	}
	ended := make(chan struct{})
	go func() {
		n.running.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-ctx.Done():
		errs = append(errs, fault.FromContext("leave other namespaces", ctx, "the joining of one to end"))
	}
	return errors.Join(errs...)
}

// elsewhere is the way of a request into another namespace, or nil for one of this.
func (v *Invocation) elsewhere(ctx context.Context, req *call.Request) (*neighbor, error) {
	if req.Namespace == "" || req.Namespace == v.self.Namespace {
		return nil, nil
	}
	return v.neighbors.in(ctx, req.Namespace)
}

// leave leaves the namespace of v and lets go of its lanes.
func (v *Invocation) leave(ctx context.Context) error {
	err := v.fabric.Close(ctx) // from here on nothing adds lanes
	over, cancel := context.WithCancel(context.Background())
	cancel() // what the lanes held was cut off: there is nothing to wait for
	_ = v.unknown.Close(over)
	v.targets.Range(func(_, t any) bool {
		t.(*target).close(over)
		return true
	})
	return err
}

// close ends the lanes of an app, as Lane.Close does.
func (t *target) close(ctx context.Context) {
	_ = t.calls.Close(ctx)
}
