package blocks

import (
	"context"
	"errors"
	"sync"

	"github.com/sidecast/sidecast/actors"
	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/fault"
)

// componentLanes are the lanes of one block's components, one each. Only components that exist get one.
type componentLanes struct {
	system *actors.System
	block  string
	lanes  sync.Map // component → *actors.Lane
}

func (c *componentLanes) of(component string) *actors.Lane {
	if lane, ok := c.lanes.Load(component); ok {
		return lane.(*actors.Lane)
	}
	lane, _ := c.lanes.LoadOrStore(component, c.system.Lane(c.block+"/"+component, componentPolicy))
	return lane.(*actors.Lane)
}

// deliveryLanes are the lanes of topics that somebody subscribes to. Topics are the apps' own words, so a lane lives no
// longer than its subscriptions.
type deliveryLanes struct {
	system *actors.System

	mu    sync.Mutex
	users map[string]int // by name
}

// use returns the lane of that name until done is called.
func (d *deliveryLanes) use(name string) (lane *actors.Lane, done func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.users[name]++
	lane = d.system.Lane(name, deliveryPolicy)
	return lane, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.users[name]--; d.users[name] == 0 {
			delete(d.users, name)
			_ = lane.Close(context.Background()) // nothing runs in it: there is nothing to wait for
		}
	}
}

// whileCurrent is for who uses a component for long: the context also ends when the component is replaced, so that the
// old backend can be closed.
func whileCurrent[T any](ctx context.Context, use components.Use[T]) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	done := make(chan struct{})
	go func() {
		select {
		case <-use.Replaced():
			cancel(fault.New("component "+use.Name, fault.ComponentReplaced, "its file changed; start again to use the new one"))
		case <-done:
		}
	}()
	return ctx, sync.OnceFunc(func() {
		close(done)
		cancel(nil)
	})
}

// replacedOr is the error of a context that ended because its component was replaced, or else err.
func replacedOr(ctx context.Context, err error) error {
	var replaced *fault.Error
	if errors.As(context.Cause(ctx), &replaced) && replaced.Reason == fault.ComponentReplaced {
		return replaced
	}
	return err
}
