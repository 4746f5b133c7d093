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
