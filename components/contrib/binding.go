package contrib

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"sync"
	"time"

	contribbindings "github.com/dapr/components-contrib/bindings"
	contribmetadata "github.com/dapr/components-contrib/metadata"
	"github.com/dapr/kit/logger"

	"github.com/sidecast/sidecast/binding"
	"github.com/sidecast/sidecast/components"
)

// system is a binding of the library, in one direction, and what is particular to it.
type system struct {
	name   string // the component's type
	output func(logger.Logger) contribbindings.OutputBinding
	input  func(logger.Logger) contribbindings.InputBinding
	fields func() []components.Field
	// settle sets what the library needs and the manifest leaves open; nil sets nothing.
	settle func(values map[string]string, s components.Settings)
	// done are operations that succeed without the library.
	done []string
	// fresh has each operation made by an instance of its own, where these open nothing before.
	fresh bool
}

// component makes the system known to the runtime.
func (s *system) component(product, doc string) components.Component {
	s.name = "bindings." + product
	if s.output != nil {
		return components.Foreign(components.BindingBlock, product, doc, s.fields, s.openOutput)
	}
	return components.Foreign(components.BindingBlock, product, doc, s.fields, s.openInput)
}

func (s *system) openOutput(ctx context.Context, host components.Host, settings components.Settings) (*outputBinding, error) {
	b := &outputBinding{system: s, host: host, settings: settings, life: newLife(host.Log), out: make(chan struct{}, mostOut)}
	if !host.Binding.Output {
		return b, nil
	}
	b.inner = s.output(newLogs(host.Log, nil))
	if err := s.connect(ctx, b.life, b.inner, host, settings); err != nil {
		return nil, err
	}
	return b, nil
}

// openInput tries whether the system can be reached at all. Each Read has a connection of its own.
func (s *system) openInput(ctx context.Context, host components.Host, settings components.Settings) (*inputBinding, error) {
	b := &inputBinding{system: s, host: host, settings: settings, life: newLife(host.Log)}
	if !host.Binding.Input {
		return b, nil
	}
	inner := s.input(newLogs(host.Log, nil))
	if err := s.connect(ctx, b.life, inner, host, settings); err != nil {
		return nil, err
	}
	closeQuietly(inner)
	return b, nil
}

// initialized is what the library's bindings have in common.
type initialized interface {
	Init(ctx context.Context, m contribbindings.Metadata) error
	Close() error
}

// connect initializes inner. One that comes too late is closed.
func (s *system) connect(ctx context.Context, l *life, inner initialized, host components.Host, settings components.Settings) error {
	values := maps.Clone(settings.Values)
	if s.settle != nil {
		s.settle(values, settings)
	}
	err := initialize(ctx, l, inner, func() error {
		return inner.Init(ctx, contribbindings.Metadata{Base: contribmetadata.Base{Name: host.Component, Properties: values}})
	})
	if err != nil {
		return badOpen(ctx, s.name+": open", settings, err)
	}
	return nil
}

var (
	_ binding.Output = (*outputBinding)(nil)
	_ binding.Input  = (*inputBinding)(nil)
)

// outputBinding makes an output binding of the library one of ours.
type outputBinding struct {
	system   *system
	inner    contribbindings.OutputBinding // nil where the manifest wants no output
	life     *life
	host     components.Host
	settings components.Settings
	out      chan struct{} // holds one for each operation that the library is at, maybe for nobody any more
}

// mostOut bounds what a system that hangs costs: as many operations as a lane lets pass.
const mostOut = 512

// Operations implements binding.Output.
func (b *outputBinding) Operations() []string {
	var all []string
	for _, kind := range b.inner.Operations() {
		all = append(all, string(kind))
	}
	return all
}

// Invoke implements binding.Output.
func (b *outputBinding) Invoke(ctx context.Context, r binding.Request) (*binding.Response, error) {
	op := b.system.name + ": " + r.Operation
	calling, leave, err := b.life.enter(ctx, op)
	if err != nil {
		return nil, err
	}
	defer leave()
	for _, done := range b.system.done {
		if r.Operation == done {
			return nil, nil
		}
	}
	request := &contribbindings.InvokeRequest{
		Data: bytes.Clone(r.Data), Metadata: maps.Clone(r.Metadata), Operation: contribbindings.OperationKind(r.Operation),
	}
	if request.Metadata == nil {
		request.Metadata = map[string]string{}
	}
	select {
	case b.out <- struct{}{}:
	case <-calling.Done():
		return nil, b.life.failure(ctx, op, context.Cause(calling))
	}
	inner := b.inner
	if b.system.fresh {
		inner = b.system.output(newLogs(b.host.Log, nil))
		if err := b.system.connect(calling, b.life, inner, b.host, b.settings); err != nil {
			<-b.out
			return nil, err
		}
	}
	answer, err := detached(calling, b.life, func() (*contribbindings.InvokeResponse, error) {
		defer func() { <-b.out }()
		if b.system.fresh {
			defer closeQuietly(inner)
		}
		return inner.Invoke(calling, request)
	})
	var response *binding.Response
	if answer != nil {
		response = &binding.Response{Data: answer.Data, Metadata: answer.Metadata}
	}
	return response, b.life.failure(ctx, op, err)
}

// Close implements binding.Output.
func (b *outputBinding) Close(ctx context.Context) error {
	return b.life.close(ctx, b.system.name+": close", func() error {
		if b.inner != nil {
			closeQuietly(b.inner) // of a connection that is lost already, the library tells as an error
		}
		return nil
	})
}

// inputBinding makes an input binding of the library one of ours.
type inputBinding struct {
	system   *system
	host     components.Host
	settings components.Settings
	life     *life
}

// Read implements binding.Input. It has an instance of the library's binding for itself, so that its end is the end of all that
// belongs to it.
func (b *inputBinding) Read(ctx context.Context, handle binding.Handler) error {
	op := b.system.name + ": read"
	calling, leave, err := b.life.enter(ctx, op)
	if err != nil {
		return unlessOver(ctx, err)
	}
	defer leave()
	inner := b.system.input(newLogs(b.host.Log, nil))
	if err := b.system.connect(calling, b.life, inner, b.host, b.settings); err != nil {
		return unlessOver(ctx, err)
	}
	r := newReading(handle, false)
	reading, stop := context.WithCancel(context.WithoutCancel(calling))
	_, err = detached(calling, b.life, func() (struct{}, error) { return struct{}{}, inner.Read(reading, r.event) })
	if err == nil {
		<-calling.Done()
	}
	r.close()
	stop()
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeGrace)
	defer cancel()
	if _, late := detached(closing, b.life, func() (struct{}, error) { closeQuietly(inner); return struct{}{}, nil }); late != nil {
		b.host.Log.Warn("the library has not closed its connection yet", "error", late)
	}
	return unlessOver(ctx, b.life.failure(ctx, op, err))
}

// closeGrace is how long the end of a Read waits for the library, which then goes on behind its back.
const closeGrace = 5 * time.Second

// unlessOver is err, or nil when ctx has ended: a Read that is told to end has nothing to complain of.
func unlessOver(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// Close implements binding.Input.
func (b *inputBinding) Close(ctx context.Context) error {
	return b.life.close(ctx, b.system.name+": close", func() error { return nil })
}

// reading is the gate that the events of one Read pass.
type reading struct {
	handle  binding.Handler
	repeats bool          // an event that failed, until it is handled
	closed  chan struct{} // no more events pass
	over    chan struct{} // the library is told that those which wait do not

	mu   sync.Mutex
	busy int           // events that are out
	idle chan struct{} // closed when closed is and busy is 0; nil before
}

// errNotTaken has the library keep an event that nobody has seen.
var errNotTaken = errors.New("the sidecar takes no more events")

func newReading(handle binding.Handler, repeats bool) *reading {
	return &reading{handle: handle, repeats: repeats, closed: make(chan struct{}), over: make(chan struct{})}
}

// event hands over one of the library's.
func (r *reading) event(_ context.Context, e *contribbindings.ReadResponse) ([]byte, error) {
	if e == nil {
		return nil, nil
	}
	return r.pass(binding.Event{Data: e.Data, Metadata: e.Metadata}, func() {})
}

// pass hands an event over; handled is called once it is.
func (r *reading) pass(e binding.Event, handled func()) ([]byte, error) {
	if !r.enter() {
		<-r.over // not at once: the library might come again as fast as it can
		return nil, errNotTaken
	}
	defer r.leave()
	for {
		answer, err := r.handle(e)
		if err == nil {
			handled()
		}
		if err == nil || !r.repeats {
			return answer, err
		}
		select {
		case <-r.closed:
			return nil, err
		default:
		}
	}
}

func (r *reading) enter() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.idle != nil {
		return false
	}
	r.busy++
	return true
}

func (r *reading) leave() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.busy--; r.busy == 0 && r.idle != nil {
		close(r.idle)
	}
}

// close lets no more events in and waits for those that are out.
func (r *reading) close() {
	r.mu.Lock()
	r.idle = make(chan struct{})
	close(r.closed)
	if r.busy == 0 {
		close(r.idle)
	}
	r.mu.Unlock()
	<-r.idle
	close(r.over)
}
