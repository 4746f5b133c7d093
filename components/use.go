package components

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/manifest"
)

// Use is a backend in use: until Release is called, once, no reload closes it. The zero Use has nothing to release.
type Use[T any] struct {
	Backend T
	// Name is the component's, Type its type.
	Name, Type string
	// KeyPrefix is what the keys of a state store start with, or the names of locks that keep apart by app; without a
	// separator, "" means no prefix.
	KeyPrefix string
	// Topics says which topics of a broker the app may use.
	Topics Topics
	// Outbox is where the transactions of a state store publish what they write.
	Outbox Outbox
	// Binding is what a binding is for the app.
	Binding Binding

	slot *slot
}

// Release ends the use.
func (u Use[T]) Release() {
	if u.slot != nil {
		u.slot.leave()
	}
}

// Replaced is closed when the component has changed, been removed or is closing. Who holds a Use for long (a
// subscription, a watch) lets go of it then and asks again, or the old backend stays open.
func (u Use[T]) Replaced() <-chan struct{} {
	if u.slot == nil {
		return nil
	}
	return u.slot.ctx.Done()
}

// enter finds the slot of name and waits for its backend to be open. The loop turns again only when a reload got between
// the two.
func enter[T Backend](ctx context.Context, s *Set, block Block, name string) (Use[T], error) {
	for {
		now := s.current.Load()
		slot := now.slots[name]
		if slot == nil || slot.component.block != block || slot.denied {
			return Use[T]{}, now.refuse(block, name)
		}
		err := slot.enter(ctx)
		if err == nil {
			return Use[T]{
				Backend: slot.backend.(T), Name: name, Type: slot.manifest.Type, KeyPrefix: slot.keyPrefix,
				Topics: slot.topics, Outbox: slot.outbox, slot: slot,
			}, nil
		}
		if !errors.Is(err, errRetired) {
			return Use[T]{}, err
		}
	}
}

// refuse says why there is no component of that name for the block.
func (n *snapshot) refuse(block Block, name string) error {
	op := fmt.Sprintf("%s %s", block, name)
	if n.closed {
		return fault.New(op, fault.Shutdown, "the sidecar is closing its components")
	}
	slot := n.slots[name]
	if slot != nil && slot.component.block == block {
		return fault.New(op, fault.ComponentDenied, "the scopes of the component (%s) do not include app %q",
			slot.manifest.Source, slot.set.options.Host.AppID).With("component", name)
	}
	var names []string
	for _, other := range n.slots {
		if other.component.block == block && !other.denied {
			names = append(names, other.manifest.Name)
		}
	}
	what := "no component has that name"
	if slot != nil {
		what = fmt.Sprintf("the component of that name is %s (%s)", slot.manifest.Type, slot.manifest.Source)
	}
	f := manifest.Unknown(what, name, names)
	return fault.New(op, fault.ComponentNotFound, "%s", strings.Replace(f.Text(), "; valid:", "; there are:", 1)).With("component", name)
}
