//go:build unix

package pluggable

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sidecast/sidecast/binding"
	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/pubsub"
	"github.com/sidecast/sidecast/state"
	"github.com/sidecast/sidecast/tests/plugintest"
)

// process runs the program as a process of its own, and waits until it is known.
func process(t *testing.T, dir, name string, without ...string) *plugintest.Process {
	t.Helper()
	p := plugintest.Start(t, sock(dir, name), dir+"/"+name+".json", without...)
	until(t, "the program serves", func() bool {
		_, err := ask(t.Context(), sock(dir, name))
		return err == nil || strings.Contains(err.Error(), "no gRPC reflection")
	})
	return p
}

// works says whether the component works, which tells of itself.
func works(t *testing.T, b any) func() bool {
	return func() bool { return b.(components.Ailing).Ailment() == nil }
}

func set(t *testing.T, s state.Store, key, value string) {
	t.Helper()
	if _, err := s.Apply(t.Context(), []state.Op{{Kind: state.Set, Key: key, Value: []byte(value)}}); err != nil {
		t.Fatal(err)
	}
}

func TestAStoreOutlivesItsProgram(t *testing.T) {
	dir := folderAt(t)
	p := process(t, dir, "plain")
	s := open[state.Store](t, dir, "state.plain")
	defer shut(t, s)
	set(t, s, "k", "acknowledged")
	if !works(t, s)() {
		t.Error("it does not work")
	}

	p.Kill()
	until(t, "the store notices", func() bool { return !works(t, s)() })
	for what, err := range map[string]error{
		"a call": func() error { _, err := s.Get(t.Context(), []string{"k"}); return err }(), "the component": s.(components.Ailing).Ailment(),
	} {
		if fault.ReasonOf(err) != fault.BackendDown || !strings.Contains(err.Error(), sock(dir, "plain")) {
			t.Errorf("%s says %v", what, err)
		}
	}

	process(t, dir, "plain") // which knows nothing of the settings until it is told again
	until(t, "the store is back", works(t, s))
	items, err := s.Get(t.Context(), []string{"k"})
	if err != nil || len(items) != 1 || string(items[0].Value) != "acknowledged" {
		t.Errorf("after the restart: %v, %v", items, err)
	}
	set(t, s, "k", "again")
}

func TestAMessageOutlivesItsProgram(t *testing.T) {
	dir := folderAt(t)
	p := process(t, dir, "bus")
	b := open[pubsub.Broker](t, dir, "pubsub.bus")
	defer shut(t, b)
	feed, err := b.Subscribe(t.Context(), "t", pubsub.Group{Name: "g", AckWait: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	stored := map[string]bool{}
	for n := range 200 {
		id := string(rune('a'+n%26)) + strings.Repeat("x", n/26)
		data, _ := json.Marshal(map[string]string{"specversion": "1.0", "id": id, "source": "s", "type": "t"})
		switch n {
		case 60:
			p.Kill()
		case 70:
			p = process(t, dir, "bus")
			until(t, "the broker is back", works(t, b))
		}
		if err := b.Publish(t.Context(), "t", []pubsub.Message{{ID: id, Data: data}})[0]; err == nil {
			stored[id] = true
		} else if !strings.Contains(err.Error(), sock(dir, "bus")) {
			t.Errorf("publish: %v", err)
		}
	}
	if len(stored) < 100 {
		t.Fatalf("%d messages are stored", len(stored))
	}
	for len(stored) > 0 {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		got, err := feed.Next(ctx, 10)
		cancel()
		if err != nil {
			t.Fatalf("%d messages did not come: %v", len(stored), err)
		}
		for _, d := range got {
			delete(stored, d.Message().ID)
			_ = d.Ack(t.Context()) // one from before the restart is brought again
		}
	}
}

func TestABindingOutlivesItsProgram(t *testing.T) {
	dir := folderAt(t)
	p := process(t, dir, "both")
	b := open[*both](t, dir, "bindings.both")
	defer shut(t, b)
	ctx, cancel := context.WithCancel(t.Context())
	got, ended := make(chan binding.Event, 10), make(chan error, 1)
	failures := 2
	go func() {
		ended <- b.Read(ctx, func(e binding.Event) ([]byte, error) {
			if string(e.Data) == "second" && failures > 0 {
				failures--
				return nil, fault.New("app", fault.AppFailed, "not yet")
			}
			got <- e
			return []byte("answer to " + string(e.Data)), nil
		})
	}()
	create := func(data string) {
		t.Helper()
		r, err := b.Invoke(t.Context(), binding.Request{Operation: "create", Data: []byte(data), Metadata: map[string]string{"from": "here"}})
		if err != nil || r.Metadata["made"] != "yes" {
			t.Fatalf("create: %v, %v", r, err)
		}
	}
	create("first")
	if e := <-got; string(e.Data) != "first" || e.Metadata["from"] != "here" {
		t.Errorf("event %+v", e)
	}
	answered := func(text string) func() bool {
		return func() bool {
			r, err := b.Invoke(t.Context(), binding.Request{Operation: "answers"})
			return err == nil && strings.Contains(string(r.Data), text)
		}
	}
	until(t, "the program has the answer", answered(`"answer to first"`))
	p.Kill()
	until(t, "the binding notices", func() bool { return !works(t, b)() })
	process(t, dir, "both")
	until(t, "the binding is back", works(t, b))
	create("second")
	if e := <-got; string(e.Data) != "second" || failures != 0 {
		t.Errorf("event %+v, %d failures are left", e, failures)
	}
	until(t, "the program has the other answer", answered(`"answer to second"`))
	r, err := b.Invoke(t.Context(), binding.Request{Operation: "settings"})
	if err != nil || string(r.Data) != `{"any":"thing"}` {
		t.Errorf("the program was told %s, %v", r.Data, err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Read: %v", err)
	}
}

func TestAProgramThatHangs(t *testing.T) {
	dir := folderAt(t)
	p := process(t, dir, "plain")
	s := open[state.Store](t, dir, "state.plain").(*store)
	p.Signal(syscall.SIGSTOP)
	get := func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		_, err := s.Get(ctx, []string{"k"})
		return err
	}
	until(t, "all threads of the program stand still", func() bool {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", p.PID()))
		for _, thread := range threads {
			stat, gone := os.ReadFile(thread)
			if gone == nil && !bytes.Contains(stat, []byte(") T ")) {
				return false
			}
		}
		return err == nil && get() != nil // without a /proc, an answer that does not come is all there is to see
	})
	if err := get(); fault.ReasonOf(err) != fault.DeadlineExceeded || !strings.Contains(err.Error(), sock(dir, "plain")) {
		t.Errorf("a call says %v", err)
	}
	asked, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	s.ping(asked, s.now)
	if err := s.Ailment(); fault.ReasonOf(err) != fault.BackendDown || !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("the component says %v", err)
	}
	p.Signal(syscall.SIGCONT)
	s.ping(t.Context(), s.now)
	if err := s.Ailment(); err != nil {
		t.Errorf("the component says %v", err)
	}
	shut(t, s)
}

func TestCloseCutsCallsShort(t *testing.T) {
	dir := folderAt(t)
	hung := make(chan struct{})
	serve(t, sock(dir, "out"), &plugintest.Program{Without: []string{"InputBinding"}, Hung: hung})
	b := open[binding.Output](t, dir, "bindings.out")
	failed := make(chan error, 1)
	go func() {
		_, err := b.Invoke(t.Context(), binding.Request{Operation: "hang"})
		failed <- err
	}()
	<-hung
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := b.Close(ctx); err != nil {
		t.Error(err)
	}
	if err := <-failed; fault.ReasonOf(err) != fault.Shutdown {
		t.Errorf("the call says %v", err)
	}
	if _, err := b.Invoke(t.Context(), binding.Request{Operation: "answers"}); fault.ReasonOf(err) != fault.Shutdown {
		t.Errorf("a later call says %v", err)
	}
}

func TestWhatInitSaysIsTold(t *testing.T) {
	dir := folderAt(t)
	serve(t, sock(dir, "all"), &plugintest.Program{})
	for _, typ := range []string{"state.all", "pubsub.all", "bindings.all", "secretstores.all"} {
		c := find(t, folder(t, dir, io.Discard), typ)
		_, err := c.Open(t.Context(), host(io.Discard), map[string]string{"failInit": "set"})
		if err == nil || !strings.Contains(err.Error(), "failInit is set") || !strings.Contains(err.Error(), sock(dir, "all")) {
			t.Errorf("%s says %v", typ, err)
		}
	}
}

func TestSecrets(t *testing.T) {
	dir := folderAt(t)
	serve(t, sock(dir, "safe"), &plugintest.Program{})
	v := open[components.SecretStore](t, dir, "secretstores.safe")
	defer shut(t, v)
	one, err := v.Secret(t.Context(), "db", nil)
	if err != nil || one["password"] != "from-the-plug-in" || one["user"] != "me" {
		t.Errorf("%v, %v", one, err)
	}
	if _, err := v.Secret(t.Context(), "none", nil); fault.ReasonOf(err) != fault.SecretNotFound || !strings.Contains(err.Error(), "there is no secret none") {
		t.Errorf("no secret: %v", err)
	}
	all, err := v.Secrets(t.Context(), nil)
	if err != nil || len(all) != 2 || all["token"]["token"] != "t0k3n" {
		t.Errorf("%v, %v", all, err)
	}
	version := map[string]string{"version_id": "2"}
	if said, err := v.Secret(t.Context(), "said", version); err != nil || !maps.Equal(said, version) {
		t.Errorf("the program was told %v, %v", said, err)
	}
	if all, err := v.Secrets(t.Context(), version); err != nil || !maps.Equal(all["said"], version) {
		t.Errorf("the program was told %v, %v", all["said"], err)
	}
}
