package blocks

import (
	"context"
	"errors"
	"strings"
	"sync"
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

	mu     sync.Mutex
	all    map[string]*neighbor
	closed bool
}

type neighbor struct {
	joined     chan struct{} // closed when invocation or err is there
	invocation *Invocation
	err        error
}

// in is the way into a namespace. The first call joins it; one that cannot be joined is tried again by the next call.
func (n *neighbors) in(ctx context.Context, namespace string) (*Invocation, error) {
	op := "join namespace " + namespace
	if err := checkName(op, "the namespace", namespace, maxName, fault.BadRequest); err != nil {
		return nil, err
	}
	n.mu.Lock()
	at, first := n.all[namespace], false
	switch {
	case n.join == nil:
		n.mu.Unlock()
		return nil, fault.New(op, fault.NotSupported, "this sidecar reaches only apps of its own namespace")
	case n.closed:
		n.mu.Unlock()
		return nil, fault.New(op, fault.Shutdown, "the sidecar is draining")
	case at == nil && len(n.all) >= maxNeighbors:
		n.mu.Unlock()
		return nil, fault.New(op, fault.QueueFull, "this sidecar calls into %d other namespaces already", maxNeighbors)
	case at == nil:
		at, first = &neighbor{joined: make(chan struct{})}, true
		n.all[namespace] = at
	}
	n.mu.Unlock()
	if first {
		n.open(ctx, namespace, at)
	}
	select {
	case <-at.joined:
		return at.invocation, at.err
	case <-ctx.Done():
		return nil, fault.FromContext(op, ctx, "the fabric")
	}
}

func (n *neighbors) open(ctx context.Context, namespace string, at *neighbor) {
	defer close(at.joined)
	joining, cancel := context.WithTimeout(context.WithoutCancel(ctx), neighborTimeout) // others wait for it too
	defer cancel()
	f, err := n.join(joining, namespace)
	if err != nil {
		at.err = err
		n.mu.Lock()
		delete(n.all, namespace)
		n.mu.Unlock()
		return
	}
	f.Settle(joining)
	at.invocation = n.enter(namespace, f)
	at.invocation.start()
}

// close leaves all namespaces. Calls that still run into them are cut off.
func (n *neighbors) close(ctx context.Context) error {
	n.mu.Lock()
	n.closed = true
	all := n.all
	n.all = nil
	n.mu.Unlock()
	var errs []error
	for _, at := range all {
		<-at.joined
		if at.invocation != nil {
			errs = append(errs, at.invocation.fabric.Close(ctx))
		}
	}
	return errors.Join(errs...)
}

// elsewhere is the way of a request into another namespace, or nil for one of this.
func (v *Invocation) elsewhere(ctx context.Context, req *call.Request) (*Invocation, error) {
	if req.Namespace == "" || req.Namespace == v.self.Namespace {
		return nil, nil
	}
	return v.neighbors.in(ctx, req.Namespace)
}
