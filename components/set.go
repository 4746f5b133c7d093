package components

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"maps"
	"os"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/sidecast/sidecast/configstore"
	"github.com/sidecast/sidecast/conversation"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/keyring"
	"github.com/sidecast/sidecast/lock"
	"github.com/sidecast/sidecast/pipeline"
	"github.com/sidecast/sidecast/pubsub"
	"github.com/sidecast/sidecast/state"
)

// Options say what a Set is made of.
type Options struct {
	// Host is what the backends may use of the sidecar.
	Host Host
	// Known lists the types of components that manifests may name.
	Known []Component
	// BuiltIn lists the components that exist when no manifest has their name.
	BuiltIn []Manifest
	// Documents is what the folders hold; nil means nothing.
	Documents *Documents
	// AnyNamespace shows manifests of every namespace: nobody said of which the sidecar is.
	AnyNamespace bool
	// Supervise runs the retries of the component called name, restarts run when it panics, and returns how to stop it:
	// stop cancels run's context and waits for it. Nil means a goroutine that Close waits for.
	Supervise func(name string, run func(context.Context) error) (stop func(context.Context) error)
	// FollowSecrets opens components again whose secrets have changed in their store.
	FollowSecrets bool
	// LookupEnv finds environment variables for references; nil means os.LookupEnv.
	LookupEnv func(name string) (string, bool)
	// Log tells of components that start to fail, recover and change; nil means the Host's.
	Log *slog.Logger
}

// Set hands out backends by name. All methods may be called concurrently.
//
// A backend is opened when it is first asked for; those who ask meanwhile share that one attempt. One that cannot be
// opened is degraded: calls fail at once with COMPONENT_DEGRADED while it is tried again, soon at first and then every
// 30 seconds.
type Set struct {
	options Options
	current atomic.Pointer[snapshot]
	secrets atomic.Uint64 // how often a secret store has told of a change
	follows atomic.Bool   // opens components again whose secrets have changed

	mu        sync.Mutex
	closed    bool
	documents *Documents     // those in use
	leaving   map[*slot]bool // retired and not yet gone
	changed   chan struct{}  // closed when another snapshot takes its place that has other names, or none
}

// snapshot is what a name means at one moment. It never changes: a reload makes a new one.
type snapshot struct {
	slots  map[string]*slot
	closed bool
}

// NewSet makes a Set; nothing is opened yet.
func NewSet(o Options) *Set {
	o.Log = cmp.Or(o.Log, o.Host.Log, slog.New(slog.DiscardHandler))
	o.Host.Log = cmp.Or(o.Host.Log, o.Log)
	if o.LookupEnv == nil {
		o.LookupEnv = os.LookupEnv
	}
	s := &Set{options: o, leaving: make(map[*slot]bool), changed: make(chan struct{})}
	s.current.Store(&snapshot{})
	s.follows.Store(o.FollowSecrets)
	s.Reload(o.Documents)
	return s
}

// State gives the use of a state store; "" means "statestore".
func (s *Set) State(ctx context.Context, name string) (Use[state.Store], error) {
	return enter[state.Store](ctx, s, StateBlock, cmp.Or(name, "statestore"))
}

// PubSub gives the use of a broker; "" means "pubsub".
func (s *Set) PubSub(ctx context.Context, name string) (Use[pubsub.Broker], error) {
	return enter[pubsub.Broker](ctx, s, PubSubBlock, cmp.Or(name, "pubsub"))
}

// Lock gives the use of a locker; "" means "lockstore".
func (s *Set) Lock(ctx context.Context, name string) (Use[lock.Locker], error) {
	return enter[lock.Locker](ctx, s, LockBlock, cmp.Or(name, "lockstore"))
}

// Keyring gives the use of a crypto provider.
func (s *Set) Keyring(ctx context.Context, name string) (Use[keyring.Keyring], error) {
	return enter[keyring.Keyring](ctx, s, CryptoBlock, name)
}

// Partner gives the use of a conversation component.
func (s *Set) Partner(ctx context.Context, name string) (Use[conversation.Partner], error) {
	return enter[conversation.Partner](ctx, s, ConversationBlock, name)
}

// Secrets gives the use of a secret store.
func (s *Set) Secrets(ctx context.Context, name string) (Use[SecretStore], error) {
	return enter[SecretStore](ctx, s, SecretBlock, name)
}

// Configuration gives the use of a configuration store.
func (s *Set) Configuration(ctx context.Context, name string) (Use[configstore.Store], error) {
	return enter[configstore.Store](ctx, s, ConfigurationBlock, name)
}

// Middleware gives the use of the HTTP middleware that a pipeline names. It is none where the app has no component of that
// name, type and version, or has one that cannot be opened and says ignoreErrors.
func (s *Set) Middleware(ctx context.Context, h pipeline.Handler) (pipeline.Link, error) {
	slot := s.current.Load().slots[h.Name]
	if slot == nil || slot.denied || slot.component.block != MiddlewareBlock || slot.manifest.Type != h.Type ||
		cmp.Or(slot.manifest.Version, "v1") != cmp.Or(h.Version, "v1") {
		s.options.Log.Warn("a middleware is passed over: the app has no such component", "name", h.Name, "type", h.Type, "version", cmp.Or(h.Version, "v1"))
		return pipeline.Link{}, nil
	}
	use, err := enter[pipeline.Middleware](ctx, s, MiddlewareBlock, h.Name)
	if err != nil && ctx.Err() == nil && slot.manifest.IgnoreErrors {
		return pipeline.Link{Later: true}, nil // the log says that it cannot be opened
	}
	if err != nil {
		return pipeline.Link{}, err
	}
	return pipeline.Link{Middleware: use.Backend, Release: use.Release, Replaced: use.slot.renewed}, nil
}

// Start opens the components marked required, at once, and fails when one of them cannot be opened.
func (s *Set) Start(ctx context.Context) error {
	var errs []error
	for _, slot := range s.current.Load().sorted() {
		if !slot.manifest.Required || slot.denied {
			continue
		}
		err := slot.enter(ctx)
		if err == nil {
			slot.leave()
		}
		if err != nil && !errors.Is(err, errRetired) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Reload makes docs what names mean from now on; nil means built-ins alone. Components that did not change keep running.
// Those that did are opened again on first use, while the old backend stays open until its last Use is released.
func (s *Set) Reload(docs *Documents) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reload(docs)
}

// Changed is closed when names may mean something else than now, or nothing any more.
func (s *Set) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

// reload is Reload. s.mu is held.
func (s *Set) reload(docs *Documents) {
	if s.closed {
		return
	}
	s.documents = docs
	old := s.current.Load()
	wanted := s.wanted(docs)
	kept := keep(old, wanted)
	next := &snapshot{slots: make(map[string]*slot, len(wanted))}
	for name, m := range wanted {
		if kept[name] {
			next.slots[name] = old.slots[name]
		} else {
			next.slots[name] = s.newSlot(m, old.slots[name])
		}
	}
	s.current.Store(next) // before the old ones retire: who finds a slot retired looks here again
	close(s.changed)
	s.changed = make(chan struct{})
	var changed []string
	for name, slot := range old.slots {
		if next.slots[name] != slot {
			s.retire(slot)
			changed = append(changed, name)
		}
	}
	if len(changed) > 0 {
		slices.Sort(changed)
		s.options.Log.Info("components changed or removed", "components", changed)
	}
}

// wanted lists the manifests that this sidecar sees, by name: those of its namespace, with AnyNamespace those of others
// whose names they leave, and the built-ins that these leave.
func (s *Set) wanted(docs *Documents) map[string]Manifest {
	wanted := make(map[string]Manifest)
	for _, m := range s.options.BuiltIn {
		m.Source = Source{File: BuiltIn}
		wanted[m.Name] = m
	}
	if docs == nil {
		return wanted
	}
	for _, m := range docs.Components {
		other := wanted[m.Name]
		foreign := s.options.AnyNamespace && (other.Name == "" || other.Source.File == BuiltIn)
		if inNamespace(m.Namespace, s.options.Host.Namespace) || foreign {
			wanted[m.Name] = m
		}
	}
	return wanted
}

// keep tells which slots stay: their manifest is the same, and so is the secret store it refers to.
func keep(old *snapshot, wanted map[string]Manifest) map[string]bool {
	kept := make(map[string]bool, len(wanted))
	for name, m := range wanted {
		if slot := old.slots[name]; slot != nil && slot.serves(m) {
			kept[name] = true
		}
	}
	for stable := false; !stable; {
		stable = true
		for name := range kept {
			if store := wanted[name].SecretStore; store != "" && !kept[store] {
				delete(kept, name)
				stable = false
			}
		}
	}
	return kept
}

// retire ends a slot in the background. s.mu is held.
func (s *Set) retire(slot *slot) {
	s.leaving[slot] = true
	slot.retire()
	go func() {
		slot.bury()
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.leaving, slot)
		if slot.closeErr != nil && !s.closed {
			s.options.Log.Warn("component did not close cleanly", "component", slot.manifest.Name, "error", slot.closeErr)
		}
		close(slot.gone)
	}()
}

// Close refuses new uses, waits for those there are, closes every backend and waits for it. When ctx ends first, it says
// which are still in use; they close when their last Use is released.
func (s *Set) Close(ctx context.Context) error {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		close(s.changed)
		old := s.current.Swap(&snapshot{closed: true})
		for _, slot := range old.slots {
			s.retire(slot)
		}
	}
	leaving := slices.Collect(maps.Keys(s.leaving))
	s.mu.Unlock()

	var errs []error
	for _, slot := range leaving {
		select {
		case <-slot.gone:
			errs = append(errs, slot.closeErr)
		case <-ctx.Done():
			errs = append(errs, fault.FromContext("close component "+slot.manifest.Name, ctx, "its last use to end"))
		}
	}
	return errors.Join(errs...)
}

// Status is how one component is doing.
type Status struct {
	// Name is the component's, Type its type, Version that of the type.
	Name, Type, Version string
	// State is "idle" (not used yet), "ready" or "degraded".
	State string
	// Error is why it is degraded.
	Error string
	// Origin is the file it comes from, or "built in".
	Origin string
	// Required says that the sidecar is not well without it.
	Required bool
	// Capabilities are what the component can do, in Dapr's words, as its backend tells when it is open; nil for those that tell
	// nothing.
	Capabilities []string
}

// Has says whether the block has a component of that name that the app may use, and whether it has any. It opens nothing.
func (s *Set) Has(block Block, name string) (found, any bool) {
	slots := s.current.Load().slots
	if slot := slots[name]; slot != nil && slot.component.block == block && !slot.denied {
		return true, true
	}
	for _, slot := range slots {
		if slot.component.block == block && !slot.denied {
			return false, true
		}
	}
	return false, false
}

// Type is the type of the component of that name, or "" when the app may use none.
func (s *Set) Type(name string) string {
	if slot := s.current.Load().slots[name]; slot != nil && !slot.denied {
		return slot.manifest.Type
	}
	return ""
}

// Plain says whether the component of that name is a state store that has values alone: see state.Plain. It opens nothing.
func (s *Set) Plain(name string) bool {
	slot := s.current.Load().slots[name]
	return slot != nil && !slot.denied && slot.component.plain
}

// Statuses tells of all components that the app may use, by name.
func (s *Set) Statuses() []Status {
	var all []Status
	for _, slot := range s.current.Load().sorted() {
		if !slot.denied {
			all = append(all, slot.status())
		}
	}
	return all
}

func (n *snapshot) sorted() []*slot {
	return slices.SortedFunc(maps.Values(n.slots), func(a, b *slot) int { return cmp.Compare(a.manifest.Name, b.manifest.Name) })
}
