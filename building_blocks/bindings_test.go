package blocks

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sidecast/sidecast/appchannel"
	"github.com/sidecast/sidecast/binding"
	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/fault"
)

// outsideSystem is a binding of the test's own, in both directions: what it is told to create it hands over as events, again
// and again until they are handled.
type outsideSystem struct {
	events  chan binding.Event
	invoked func(r binding.Request) error

	mu      sync.Mutex
	readers int
	most    int // readers at once
	closed  bool
	seen    []binding.Request
}

func newOutsideSystem() *outsideSystem {
	return &outsideSystem{events: make(chan binding.Event, 100), invoked: func(binding.Request) error { return nil }}
}

func (o *outsideSystem) component() components.Component {
	return components.Foreign(components.BindingBlock, "test", "A test.", nil, func(context.Context, components.Host, components.Settings) (*outsideSystem, error) {
		return o, nil
	})
}

func (o *outsideSystem) Operations() []string { return []string{"create", "fail"} }

func (o *outsideSystem) Invoke(_ context.Context, r binding.Request) (*binding.Response, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.seen = append(o.seen, r)
	if r.Operation == "fail" {
		return &binding.Response{Metadata: map[string]string{"why": "because"}}, fault.New("test", fault.BackendFailed, "it fails")
	}
	return &binding.Response{Data: r.Data}, o.invoked(r)
}

func (o *outsideSystem) Read(ctx context.Context, handle binding.Handler) error {
	o.count(1)
	defer o.count(-1)
	var working sync.WaitGroup
	defer working.Wait()
	for {
		select {
		case <-ctx.Done():
			return nil
		case e := <-o.events:
			working.Go(func() {
				if _, err := handle(e); err != nil {
					o.events <- e
				}
			})
		}
	}
}

func (o *outsideSystem) count(n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.readers += n
	o.most = max(o.most, o.readers)
}

func (o *outsideSystem) read() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.readers
}

func (o *outsideSystem) requests() []binding.Request {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.seen)
}

func (o *outsideSystem) Close(context.Context) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	return nil
}

// bindingApp takes events of bindings.
type bindingApp struct {
	testApp
	wants chan []string // a change of what it wants
	take  func(ctx context.Context, event *appchannel.BindingEvent) (*appchannel.BindingAnswer, error)

	mu    sync.Mutex
	asked []appchannel.InputBinding
}

var _ appchannel.BindingTaker = (*bindingApp)(nil)

func (a *bindingApp) Bindings(ctx context.Context, inputs []appchannel.InputBinding, changed func([]string)) error {
	a.mu.Lock()
	a.asked = inputs
	a.mu.Unlock()
	for {
		select {
		case <-ctx.Done():
			return nil
		case names := <-a.wants:
			changed(names)
		}
	}
}

func (a *bindingApp) TakeBinding(ctx context.Context, event *appchannel.BindingEvent) (*appchannel.BindingAnswer, error) {
	return a.take(ctx, event)
}

func bindingManifest(name string, settings ...string) components.Manifest {
	m := components.Manifest{Name: name, Type: "bindings.test"}
	for i := 0; i+1 < len(settings); i += 2 {
		m.Metadata = append(m.Metadata, components.Entry{Key: settings[i], Value: settings[i+1]})
	}
	return m
}

func bound(t *testing.T, system *outsideSystem, app appchannel.Channel, manifests ...components.Manifest) *Blocks {
	t.Helper()
	return sidecarKnowing(t, t.TempDir(), "orders", app, []components.Component{system.component()}, &components.Documents{Components: manifests})
}

func TestInvokeABinding(t *testing.T) {
	system := newOutsideSystem()
	b := bound(t, system, &testApp{}, bindingManifest("out"), bindingManifest("in", "direction", "input"), bindingManifest("scoped"))
	ctx := t.Context()
	got, err := b.Bindings.Invoke(ctx, "out", binding.Request{Operation: "create", Data: []byte("x"), Metadata: map[string]string{"a": "b"}},
		call.Header{{Key: "traceparent", Value: "00-1"}})
	if err != nil || string(got.Data) != "x" {
		t.Fatalf("got %v and %v", got, err)
	}
	if md := system.requests()[0].Metadata; md["a"] != "b" || md["traceparent"] != "00-1" {
		t.Errorf("the metadata is %v", md)
	}
	got, err = b.Bindings.Invoke(ctx, "out", binding.Request{Operation: "fail"}, nil)
	if got == nil || got.Metadata["why"] != "because" || fault.ReasonOf(err) != fault.BackendFailed {
		t.Errorf("a failure comes with %v and %v", got, err)
	}
	if n := len(system.requests()); n != 2 {
		t.Errorf("an operation that may have been done was repeated: there are %d", n)
	}
	_, err = b.Bindings.Invoke(ctx, "out", binding.Request{Operation: "explode"}, nil)
	wantReason(t, err, fault.NotSupported)
	for _, name := range []string{"in", "nope", "statestore"} {
		_, err = b.Bindings.Invoke(ctx, name, binding.Request{Operation: "create"}, nil)
		wantReason(t, err, fault.ComponentNotFound)
	}
}

func TestABindingsEventsComeUntilTheyAreHandled(t *testing.T) {
	system := newOutsideSystem()
	app := &bindingApp{wants: make(chan []string)}
	var mu sync.Mutex
	tries := map[string]int{}
	app.take = func(_ context.Context, e *appchannel.BindingEvent) (*appchannel.BindingAnswer, error) {
		mu.Lock()
		defer mu.Unlock()
		tries[string(e.Data)]++
		switch n := tries[string(e.Data)]; {
		case e.Name != "queue" || e.Route != "own" || e.Metadata["k"] != "v" || e.Header.Get("traceparent") == "":
			t.Errorf("the app got %+v", e)
		case n == 1:
			return nil, errors.New("cannot be reached")
		case n == 2:
			return &appchannel.BindingAnswer{Status: 503}, nil
		}
		return &appchannel.BindingAnswer{Status: 201}, nil
	}
	b := bound(t, system, app, bindingManifest("queue", "route", "own"))
	app.wants <- []string{"queue"}
	for i := range 2 {
		system.events <- binding.Event{Data: fmt.Append(nil, i), Metadata: map[string]string{"k": "v", "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}}
	}
	eventually(t, "every event is handled", func() bool {
		mu.Lock()
		defer mu.Unlock()
		for i := range 2 {
			if tries[fmt.Sprint(i)] != 3 {
				return false
			}
		}
		return true
	})
	app.wants <- nil // it is not ready
	eventually(t, "the binding is read no longer", func() bool { return system.read() == 0 })
	app.wants <- []string{"queue"}
	eventually(t, "the binding is read again", func() bool { return system.read() == 1 })
	_ = b
}

// A reader that still waits for the app is not joined by its successor.
func TestABindingIsReadOnceAtATime(t *testing.T) {
	system := newOutsideSystem()
	began, release := make(chan struct{}), make(chan struct{})
	app := &bindingApp{wants: make(chan []string), take: func(context.Context, *appchannel.BindingEvent) (*appchannel.BindingAnswer, error) {
		close(began)
		<-release
		return &appchannel.BindingAnswer{}, nil
	}}
	bound(t, system, app, bindingManifest("queue"))
	app.wants <- []string{"queue"}
	system.events <- binding.Event{Data: []byte("slow")}
	<-began
	for range 3 {
		app.wants <- nil
		app.wants <- []string{"queue"}
	}
	time.Sleep(20 * time.Millisecond) // a successor that did not wait would be there
	close(release)
	app.wants <- []string{"queue"} // the last change is taken
	eventually(t, "the successor reads", func() bool { return system.read() == 1 })
	if system.mu.Lock(); system.most != 1 {
		t.Errorf("%d read at once", system.most)
	}
	system.mu.Unlock()
}

func TestAnAppHoldsAnEventForABoundedTime(t *testing.T) {
	for asked, want := range map[time.Duration]time.Duration{time.Second: time.Second, 24 * time.Hour: longestHandBack} {
		busy := fault.E("test", fault.Unavailable, fault.AppFailed, nil)
		busy.RetryAfter = asked
		if got := handBack(busy, 1); got != want {
			t.Errorf("an app that asks for %v gets %v", asked, got)
		}
	}
	if got := handBack(errors.New("down"), 100); got < handedBack.MaxInterval/2 || got > 2*handedBack.MaxInterval {
		t.Errorf("one that asks for nothing gets %v", got)
	}
}

func TestWhatAnAnswerToABindingAsksFor(t *testing.T) {
	system := newOutsideSystem()
	app := &bindingApp{wants: make(chan []string)}
	done := make(chan struct{}, 10)
	app.take = func(_ context.Context, e *appchannel.BindingEvent) (*appchannel.BindingAnswer, error) {
		defer func() { done <- struct{}{} }()
		return &appchannel.BindingAnswer{
			To: []string{"out", "nope", "out"}, Data: []byte(`{"a":1}`), Parallel: string(e.Data) == "parallel", StoreName: "statestore",
			State: []appchannel.StateItem{{Key: "k", Value: []byte("first")}, {Key: "k", Value: []byte(e.Data)}, {Key: "brief", Value: []byte("v"), Metadata: map[string]string{"ttlInSeconds": "100"}}},
		}, nil
	}
	b := bound(t, system, app, bindingManifest("queue", "direction", "input"), bindingManifest("out", "direction", "output"))
	app.wants <- []string{"queue"}
	for how, want := range map[string]int{"sequential": 1, "parallel": 2} { // what comes after a failure is not sent
		before := len(system.requests())
		system.events <- binding.Event{Data: []byte(how)}
		<-done
		eventually(t, how, func() bool { return len(system.requests()) == before+want })
		for _, r := range system.requests()[before:] {
			if r.Operation != "create" || string(r.Data) != `{"a":1}` {
				t.Errorf("%s: sent %s %s", how, r.Operation, r.Data)
			}
		}
		items, err := b.State.Get(t.Context(), "statestore", []string{"k", "brief"})
		if err != nil || len(items) != 2 || string(items[0].Value) != how || items[1].Expires.IsZero() {
			t.Errorf("%s: saved %v (%v)", how, items, err)
		}
	}
}

func TestComponentsOfBindingsChange(t *testing.T) {
	system := newOutsideSystem()
	app := &bindingApp{wants: make(chan []string), take: func(context.Context, *appchannel.BindingEvent) (*appchannel.BindingAnswer, error) {
		return &appchannel.BindingAnswer{}, nil
	}}
	b := bound(t, system, app, bindingManifest("queue"))
	app.wants <- []string{"queue"}
	eventually(t, "the binding is read", func() bool { return system.read() == 1 })
	set := b.Runtime.deps.Components
	set.Reload(&components.Documents{Components: []components.Manifest{bindingManifest("queue", "route", "other"), bindingManifest("more", "direction", "input")}})
	b.Reloaded()
	eventually(t, "the app is asked again", func() bool {
		app.mu.Lock()
		defer app.mu.Unlock()
		want := []appchannel.InputBinding{{Name: "more", Route: "more", Declared: true}, {Name: "queue", Route: "other"}}
		return slices.Equal(app.asked, want)
	})
	app.wants <- []string{"queue", "more"}
	eventually(t, "both are read", func() bool { return system.read() == 2 })
	set.Reload(nil)
	b.Reloaded()
	eventually(t, "none is read", func() bool { return system.read() == 0 })
}

// A handler that hangs is cut off when the time for stopping is over, and not before.
func TestStoppingWaitsForBindings(t *testing.T) {
	system := newOutsideSystem()
	began, cut := make(chan struct{}), make(chan error, 1)
	app := &bindingApp{wants: make(chan []string), take: func(ctx context.Context, _ *appchannel.BindingEvent) (*appchannel.BindingAnswer, error) {
		close(began)
		<-ctx.Done()
		cut <- ctx.Err()
		return nil, ctx.Err()
	}}
	b := bound(t, system, app, bindingManifest("queue"))
	app.wants <- []string{"queue"}
	system.events <- binding.Event{Data: []byte("slow")}
	<-began
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := b.StopIntake(ctx); fault.KindOf(err) != fault.Timeout || !strings.Contains(err.Error(), "bindings") {
		t.Errorf("stopping over a handler that hangs gives %v", err)
	}
	<-cut
	eventually(t, "the binding is read no longer", func() bool { return system.read() == 0 })
	if len(system.events) != 1 {
		t.Error("the event that was cut off is lost")
	}
}
