package components

import (
	"context"
	"slices"
	"strings"

	"github.com/sidecast/sidecast/fault"
)

// At is c as a program beside the sidecar brings it: place says where that is and what it can do. A component of another
// place is another component.
func (c Component) At(place string) Component {
	c.place = place
	return c
}

// Awaited says of a type that no component has why that is, and whether a program that is not there yet may bring it.
type Awaited func(typ string) (why string, awaited bool)

// Elsewhere stands for every type of the block that none of the other components has. A manifest of such a type is right,
// with a warning, if a program is awaited for it, but its component cannot be opened; or else why is part of the error.
func Elsewhere(block Block, awaited Awaited) Component {
	c := Foreign(block, "*", "A component that a program beside the sidecar brings.", AnyKeys, func(context.Context, Host, Settings) (Backend, error) {
		return nil, fault.New(string(block), fault.Defect, "a component that stands for others was opened")
	})
	c.input, c.output, c.awaited = true, true, awaited
	c.able = func() []string { return []string{} }
	return c
}

// AnyKeys lets a component take all keys, whatever they are.
func AnyKeys() []Field {
	return []Field{{Key: AnyKey, Type: "string", Doc: "Any key: it is handed on as it is."}}
}

// elsewhere is the component that stands for the type, if there is one.
func elsewhere(known []Component, typ string) (Component, bool) {
	block, product, _ := strings.Cut(typ, ".")
	i := slices.IndexFunc(known, func(c Component) bool { return c.awaited != nil && string(c.block) == block })
	if i < 0 || product == "" {
		return Component{}, false
	}
	return known[i], true
}

// await is what m means when no component has its type, or none that this program has: without says why it has not.
func await(known []Component, m Manifest, without string) (Component, bool) {
	c, ok := elsewhere(known, m.Type)
	if !ok {
		return Component{}, false
	}
	if _, awaited := c.awaited(m.Type); !awaited {
		return Component{}, false
	}
	if inner := c.awaited; without != "" {
		c.awaited = func(typ string) (string, bool) {
			why, awaited := inner(typ)
			return why + ", and the sidecar itself " + without, awaited
		}
	}
	_, c.product, _ = strings.Cut(m.Type, ".")
	c.schema.subject = m.Type
	c.open = func(context.Context, Host, metadata) (Backend, error) {
		why, _ := c.awaited(m.Type)
		return nil, fault.New(m.Type, fault.BackendDown, "%s", why)
	}
	return c, true
}

// SetKnown makes known the types that manifests may name. Components whose own was brought, or is brought otherwise than
// before, are opened again on first use, as with Reload.
func (s *Set) SetKnown(known []Component) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.options.Known = known
	s.reload(s.documents)
}

// Ailing is a Backend that can tell that it does not work at the moment.
type Ailing interface {
	// Ailment is why it does not work; nil when it does.
	Ailment() error
}

// Capable is a Backend that tells what it can do, in Dapr's words: ETAG, TRANSACTIONAL, …
type Capable interface {
	Capabilities() []string
}

// Worded is an error that says itself how a front door is to answer with it.
type Worded struct {
	// GRPC is the code over gRPC, HTTP the status over HTTP, Tag the errorCode there.
	GRPC, HTTP int
	Tag        string
	Message    string
	// Reason and Domain are those of a google.rpc.ErrorInfo.
	Reason, Domain string
}

func (w *Worded) Error() string { return w.Message }
