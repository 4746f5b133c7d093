package components

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"reflect"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/state"
	"github.com/sidecast/sidecast/state/sealed"
)

const (
	defaultInitTimeout = 5 * time.Second // Dapr's
	firstRetry         = 250 * time.Millisecond
	lastRetry          = 30 * time.Second
	closeTimeout       = 30 * time.Second
	// handover is how long the first use after a change waits for the old backend to close: two of them may not be able
	// to hold the same directory. Who holds the old one for longer must live beside the new one.
	handover = time.Second
)

// errRetired tells enter to look the name up again.
var errRetired = errors.New("the component was replaced")

// slot is one manifest's life in a Set: idle, opening, then ready or degraded, at last retired and gone. It opens one
// backend successfully at most; a changed manifest gets a new slot.
type slot struct {
	topics    Topics // of a broker
	outbox    Outbox // of a state store
	binding   Binding
	set       *Set
	manifest  Manifest
	component Component
	denied    bool
	// ctx ends when the slot is retired.
	ctx    context.Context
	cancel context.CancelFunc
	// before is closed when the slot that this one replaces is gone.
	before  <-chan struct{}
	gone    chan struct{}
	renewed chan struct{} // closed when another takes its place that differs in secrets alone

	// refs counts the uses, plus one for the slot itself while it is ready; 0 means not open. backend, keyPrefix and
	// secrets are written before refs first leaves 0 and never after.
	refs      atomic.Int64
	backend   Backend
	keyPrefix string
	secrets   scrubber
	unused    chan struct{} // closed by whoever brings refs back to 0

	mu      sync.Mutex
	retired bool
	opened  bool          // refs was raised
	opening chan struct{} // not nil while the first users wait; closed when they have their answer
	starter chan struct{} // closed when the goroutine of the first attempt has ended; nil when there was none
	failure error
	retryAt time.Time
	stop    func(context.Context) error // of the retries
	unwatch func(context.Context) error // of a secret store that is followed
	taken   digest                      // of the secrets that it was opened with

	closeErr error // written before gone is closed
}

func (s *Set) newSlot(m Manifest, old *slot) *slot {
	component, ok, _ := choose(s.options.Known, m)
	n := &slot{
		set: s, manifest: m, component: component, topics: topicsOf(m, s.options.Host), outbox: outboxOf(m), binding: bindingOf(m, component), denied: !admits(m.Scopes, s.options.Host.AppID),
		gone: make(chan struct{}), renewed: make(chan struct{}), unused: make(chan struct{}),
	}
	if !ok { // Load refuses such a manifest; one made by hand is refused here
		block, product, _ := strings.Cut(m.Type, ".")
		n.component = Component{block: Block(block), product: product}
		n.component.open = func(context.Context, Host, metadata) (Backend, error) {
			return nil, fault.New(m.Source.String(), fault.BadManifest, "there is no component of type %q", m.Type)
		}
	}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	if old != nil {
		n.before = old.gone
	}
	return n
}

// serves says whether the slot can stay when its manifest becomes m. A backend that runs may come from lines that moved;
// one that does not must report the place where its manifest is now.
func (s *slot) serves(m Manifest) bool {
	component, _, _ := choose(s.set.options.Known, m)
	return component.place == s.component.place && (component.awaited == nil) == (s.component.awaited == nil) &&
		s.manifest.same(m) && (s.refs.Load() > 0 || reflect.DeepEqual(s.manifest, m))
}

// enter counts one more use, opening the backend first when it is not. It allocates nothing once the slot is ready.
func (s *slot) enter(ctx context.Context) error {
	for n := s.refs.Load(); n > 0; n = s.refs.Load() {
		if s.refs.CompareAndSwap(n, n+1) {
			return nil
		}
	}
	return s.wait(ctx)
}

// leave counts one use less.
func (s *slot) leave() {
	if s.refs.Add(-1) == 0 {
		close(s.unused)
	}
}

// wait joins the first attempt, or starts it, and counts one more use when it succeeds.
func (s *slot) wait(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		switch {
		case s.retired:
			return errRetired
		case s.opened:
			s.refs.Add(1) // not retired: the slot's own count holds it above 0
			return nil
		case s.failure != nil:
			return s.degraded()
		case s.opening == nil:
			s.opening, s.starter = make(chan struct{}), make(chan struct{})
			go s.start()
		}
		answered := s.opening
		s.mu.Unlock()
		if entry := call.EntryOf(ctx); entry != nil {
			entry.Leave() // it may take seconds
		}
		select {
		case <-answered:
		case <-ctx.Done():
		}
		s.mu.Lock()
		if ctx.Err() != nil && s.opening == answered {
			return fault.FromContext(s.op(), ctx, "the component to open")
		}
	}
}

func (s *slot) op() string { return fmt.Sprintf("component %s (%s)", s.manifest.Name, s.manifest.Type) }

// degraded is what callers get while the component cannot start. s.mu is held.
func (s *slot) degraded() error {
	err := fault.E(s.op(), fault.None, fault.ComponentDegraded, fmt.Errorf("cannot start: %w", s.failure))
	return err.After(max(time.Until(s.retryAt), firstRetry)).With("component", s.manifest.Name)
}

// start makes the first attempt and hands a component that cannot start to the supervisor.
func (s *slot) start() {
	defer close(s.starter)
	if s.attempt(s.ctx) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.retired {
		return
	}
	s.set.options.Log.Warn("component cannot start and is tried again",
		"component", s.manifest.Name, "type", s.manifest.Type, "error", s.failure)
	s.stop = s.set.supervise(s.manifest.Name, s.retry)
}

// supervise runs run as the options say.
func (s *Set) supervise(name string, run func(context.Context) error) (stop func(context.Context) error) {
	if s.options.Supervise != nil {
		return s.options.Supervise(name, run)
	}
	return supervised(name, run)
}

// supervised runs what cannot panic in a goroutine of its own.
func supervised(_ string, run func(context.Context) error) func(context.Context) error {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = run(ctx) // retry has nothing to report: it ends when it has succeeded or is stopped
	}()
	return func(ctx context.Context) error {
		cancel()
		select {
		case <-done:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// retry tries until the component is open or the slot retired.
func (s *slot) retry(ctx context.Context) error {
	schedule := backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(firstRetry), backoff.WithMaxInterval(lastRetry), backoff.WithMultiplier(2),
		backoff.WithRandomizationFactor(0.2), backoff.WithMaxElapsedTime(0))
	before := s.before
	for {
		wait := min(schedule.NextBackOff(), lastRetry)
		s.mu.Lock()
		s.retryAt = time.Now().Add(wait)
		s.mu.Unlock()
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-before: // what it holds may be what was missing
			before = nil
		case <-s.ctx.Done():
		case <-ctx.Done():
		}
		timer.Stop()
		if s.ctx.Err() != nil || ctx.Err() != nil || s.attempt(ctx) {
			return nil
		}
	}
}

// attempt tries once to open the backend. Users are answered when the init timeout has passed; a backend that opens
// later all the same is welcome, so that never two opens of one component run at once.
func (s *slot) attempt(ctx context.Context) bool {
	timeout := cmp.Or(s.manifest.InitTimeout, defaultInitTimeout)
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	late := fault.New(s.op(), fault.DeadlineExceeded, "did not open within its init timeout of %s", timeout)
	defer context.AfterFunc(ctx, func() {
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			s.answer(late)
		}
	})()

	backend, prefix, secrets, err := s.open(ctx)
	switch {
	case err == nil:
		return s.adopt(backend, prefix, secrets)
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		s.answer(fmt.Errorf("%w: %w", late, err))
	default:
		s.answer(err)
	}
	return false
}

// answer tells the users that wait, and those to come, why the component is degraded.
func (s *slot) answer(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.opened {
		return
	}
	s.failure = err
	s.release()
}

// adopt makes an open backend the slot's, or closes it when the slot was retired meanwhile.
func (s *slot) adopt(b Backend, prefix string, secrets scrubber) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.retired {
		s.closeErr = closeBackend(b)
		return false
	}
	if s.failure != nil {
		s.set.options.Log.Info("component recovered", "component", s.manifest.Name, "type", s.manifest.Type)
	}
	s.backend, s.keyPrefix, s.secrets, s.failure, s.opened = b, prefix, secrets, nil, true
	s.refs.Store(1)
	s.follow()
	s.release()
	return true
}

// release lets the users go that wait for the first attempt. s.mu is held.
func (s *slot) release() {
	if s.opening != nil {
		close(s.opening)
		s.opening = nil
	}
}

// open resolves the manifest's references and opens the backend. A panic is contained, secrets stay out of errors.
func (s *slot) open(ctx context.Context) (b Backend, prefix string, secrets scrubber, err error) {
	if s.before != nil {
		grace, cancel := context.WithTimeout(ctx, handover)
		defer cancel()
		select {
		case <-s.before:
		case <-grace.Done():
		}
	}
	m, secrets, err := s.set.resolve(ctx, s.manifest, s.component)
	if err != nil {
		return nil, "", secrets, err
	}
	prefix, err = keyPrefix(s.manifest, m, s.set.options.Host)
	if err != nil {
		return nil, "", secrets, err
	}
	s.took(m)
	var keys *sealed.Keys
	if s.component.block == StateBlock {
		if keys, err = encryption(s.manifest, m); err != nil {
			return nil, "", secrets, err
		}
	}
	defer func() {
		if p := recover(); p != nil {
			s.set.options.Log.Error("component panicked while it opened", "component", s.manifest.Name,
				"panic", secrets.scrub(fmt.Sprint(p)), "stack", secrets.scrub(string(debug.Stack())))
			b, err = nil, fault.New(s.op(), fault.Panicked, "panicked while it opened: %s", secrets.scrub(fmt.Sprint(p)))
		}
	}()
	host := s.set.options.Host
	host.Component, host.Binding = s.manifest.Name, s.binding
	host.Log, host.Scrub = secrets.logger(host.Log).With("component", s.manifest.Name), secrets.scrubError
	b, err = s.component.open(ctx, host, m)
	if err != nil {
		return nil, "", secrets, secrets.scrubError(err)
	}
	return encrypted(b, keys), prefix, secrets, nil
}

// retire lets nobody in any more. Uses that there are go on until they are released.
func (s *slot) retire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.retired = true
	s.cancel()
	s.release()
	if s.opened {
		s.leave()
	}
}

// bury waits until nothing of a retired slot runs any more and closes its backend.
func (s *slot) bury() {
	s.mu.Lock()
	starter, opened := s.starter, s.opened
	s.mu.Unlock()
	if starter != nil {
		<-starter
	}
	s.mu.Lock()
	stops := []func(context.Context) error{s.stop, s.unwatch}
	s.mu.Unlock()
	for _, stop := range stops {
		if stop != nil {
			_ = stop(context.Background()) // fails only when its context ends
		}
	}
	if opened {
		<-s.unused
		s.closeErr = closeBackend(s.backend)
	}
}

// closeBackend closes b and contains its panic.
func closeBackend(b Backend) (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	defer func() {
		if p := recover(); p != nil {
			err = fault.New("close component", fault.Panicked, "panicked while it closed: %v", p)
		}
	}()
	return b.Close(ctx)
}

func (s *slot) status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	status := Status{
		Name: s.manifest.Name, Type: s.manifest.Type, Version: cmp.Or(s.manifest.Version, "v1"), State: "idle", Origin: s.manifest.Source.File, Required: s.manifest.Required,
	}
	if s.component.able != nil {
		status.Capabilities = s.component.able()
	}
	if s.component.option.in(s.manifest.Metadata) {
		status.Capabilities = append(status.Capabilities, s.component.option.ability)
	}
	switch {
	case s.opened:
		status.State = "ready"
		bare := s.backend
		if w, ok := bare.(interface{ Unwrap() state.Store }); ok {
			bare = w.Unwrap()
		}
		if b, ok := bare.(Capable); ok {
			status.Capabilities = b.Capabilities()
		}
		if b, ok := bare.(Ailing); ok {
			if err := b.Ailment(); err != nil {
				status.State, status.Error = "degraded", s.secrets.scrub(err.Error())
			}
		}
	case s.failure != nil:
		status.State, status.Error = "degraded", s.failure.Error()
	}
	return status
}
