//go:build unix

package pluggable

import (
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/state"
	"github.com/sidecast/sidecast/tests/plugintest"
)

// lines is a log that may be read while it is written.
type logged struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.Write(b)
}

func (l *logged) of(text string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.all.String()) {
		if strings.Contains(line, text) {
			n++
		}
	}
	return n
}

func types(f *Folder) (all []string) {
	for _, c := range f.Components() {
		all = append(all, c.Type())
	}
	return all
}

// TestMalformedSocketsAreTold: whatever lies in the folder keeps nobody up, and each thing has one line in the log.
func TestMalformedSocketsAreTold(t *testing.T) {
	dir := folderAt(t)
	serve(t, sock(dir, "Good"), &plugintest.Program{})
	serve(t, sock(dir, "blind"), &plugintest.Program{Without: []string{"Reflection"}})
	serve(t, sock(dir, "idle"), &plugintest.Program{Without: []string{"StateStore", "PubSub", "InputBinding", "OutputBinding", "SecretStore", "TransactionalStateStore", "QueriableStateStore", "TransactionalStoreMultiMaxSize"}})
	if err := os.WriteFile(filepath.Join(dir, "notes.txt"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, talk := range map[string]func(net.Conn){
		"hung": func(c net.Conn) { _, _ = io.Copy(io.Discard, c) },
		"other": func(c net.Conn) {
			_, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n")
			_, _ = io.Copy(io.Discard, c) // which of two errors a program would see that writes to who has gone is chance
		},
	} {
		listener, err := net.Listen("unix", sock(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		var serving sync.WaitGroup
		serving.Go(func() {
			for {
				c, err := listener.Accept()
				if err != nil {
					return
				}
				serving.Go(func() { defer c.Close(); talk(c) })
			}
		})
		t.Cleanup(func() { _ = listener.Close(); serving.Wait() })
	}
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: sock(dir, "dead")})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	_ = dead.Close()

	log := &logged{}
	f := folder(t, dir, log)
	for range 2 {
		f.Discover(t.Context())
	}
	if got := types(f); !slices.Equal(got, []string{"bindings.good", "pubsub.good", "secretstores.good", "state.good"}) {
		t.Errorf("found %v", got)
	}
	for file, reason := range map[string]string{
		"blind.sock": "no gRPC reflection", "idle.sock": "serves no component", "notes.txt": "it is no socket", "hung.sock": "does not say within 3s",
		"other.sock": "does not speak gRPC", "dead.sock": "connection refused",
	} {
		if n := log.of(filepath.Join(dir, file)); n != 1 || log.of(reason) != 1 {
			t.Errorf("%d lines tell of %s and %d that %s: %s", n, file, log.of(reason), reason, &log.all)
		}
		why, awaited := f.awaited("state." + strings.TrimSuffix(file, filepath.Ext(file)))
		if !awaited || !strings.Contains(why, filepath.Join(dir, file)) || !strings.Contains(why, reason) {
			t.Errorf("of a component it says %q", why)
		}
	}
	if log.of("folder") != 0 {
		t.Error("a folder is told of")
	}
}

// TestProgramsThatComeLater: what is known follows the folder, be it there or not; a program that goes stays known.
func TestProgramsThatComeLater(t *testing.T) {
	dir := filepath.Join(folderAt(t), "s")
	f := folder(t, dir, io.Discard)
	ctx, cancel := context.WithCancel(t.Context())
	changes, ended := make(chan []string, 10), make(chan error, 1)
	go func() { ended <- f.Follow(ctx, func() { changes <- types(f) }) }()
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	p := process(t, dir, "late", "PubSub", "InputBinding", "OutputBinding", "SecretStore")
	if got := <-changes; !slices.Equal(got, []string{"state.late"}) {
		t.Errorf("found %v", got)
	}
	p.Kill()
	process(t, dir, "late", "PubSub", "InputBinding", "OutputBinding")
	if got := <-changes; !slices.Equal(got, []string{"secretstores.late", "state.late"}) {
		t.Errorf("found %v", got)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestAFolderOfAnotherUser: where anybody may make it, who made it counts.
func TestAFolderOfAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give a folder away")
	}
	dir := folderAt(t)
	serve(t, sock(dir, "trap"), &plugintest.Program{})
	if err := os.Chown(dir, 12345, 0); err != nil {
		t.Fatal(err)
	}
	log := &logged{}
	f := folder(t, dir, log)
	f.named = false
	for range 2 {
		f.Discover(t.Context())
	}
	if why, awaited := f.awaited("state.trap"); len(types(f)) != 0 || awaited || !strings.Contains(why, "another user") || log.of("another user") != 1 {
		t.Errorf("it brings %v; %v, %q: %s", types(f), awaited, why, &log.all)
	}
	f.named = true
	f.Discover(t.Context())
	if len(types(f)) == 0 {
		t.Error("a folder that was named brings nothing")
	}
}

// TestAFolderThatOthersMayFill: a link may lead to a folder of the sidecar's own user, or root's, that anybody may write to.
func TestAFolderThatOthersMayFill(t *testing.T) {
	for name, damage := range map[string]struct {
		do  func(dir string) (string, error)
		why string
	}{
		"a link":       {func(dir string) (string, error) { return dir + "/link", os.Symlink(dir, dir+"/link") }, "is a link"},
		"for a group":  {func(dir string) (string, error) { return dir, os.Chmod(dir, 0o770) }, "written to by others"},
		"for everyone": {func(dir string) (string, error) { return dir, os.Chmod(dir, 0o757|os.ModeSticky) }, "written to by others"},
		"none":         {func(dir string) (string, error) { return dir, os.Chmod(dir, 0o755) }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir := folderAt(t)
			serve(t, sock(dir, "trap"), &plugintest.Program{})
			at, err := damage.do(dir)
			if err != nil {
				t.Fatal(err)
			}
			log := &logged{}
			f := folder(t, at, log)
			f.named = false
			f.Discover(t.Context())
			if damage.why == "" {
				if len(types(f)) == 0 {
					t.Errorf("it brings nothing: %s", &log.all)
				}
				return
			}
			if why, awaited := f.awaited("state.trap"); len(types(f)) != 0 || awaited || !strings.Contains(why, damage.why) || log.of(damage.why) != 1 {
				t.Errorf("it brings %v; %v, %q: %s", types(f), awaited, why, &log.all)
			}
			f.named = true
			f.Discover(t.Context())
			if len(types(f)) == 0 {
				t.Error("a folder that was named brings nothing")
			}
		})
	}
}

// TestOlderReflection: programs may have the first version of reflection alone.
func TestOlderReflection(t *testing.T) {
	dir := folderAt(t)
	serve(t, sock(dir, "old"), &plugintest.Program{})
	s, err := newSession(sock(dir, "old"), "")
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	services, err := askBy(t.Context(), s.conn, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
	if err != nil || !slices.Contains(services, "dapr.proto.components.v1.StateStore") {
		t.Errorf("%v, %v", services, err)
	}
}

func TestWhereItLooks(t *testing.T) {
	t.Setenv(FolderVariable, "/no/such/folder")
	named := New(nil)
	if why, awaited := named.awaited("state.x"); !awaited || !strings.Contains(why, "/no/such/folder/x.sock") {
		t.Errorf("%v, %q", awaited, why)
	}
	t.Setenv(FolderVariable, "")
	if standard := New(nil); standard.dir != DefaultFolder || standard.named {
		t.Errorf("%+v", standard)
	}
	f := &Folder{dir: filepath.Join(folderAt(t), "none")}
	if why, awaited := f.awaited("state.x"); awaited || !strings.Contains(why, f.dir) || !strings.Contains(why, FolderVariable) {
		t.Errorf("%v, %q", awaited, why)
	}
}

// TestASetWithPrograms: a component waits for its program, works when it is there, is degraded while it is away, and takes a
// secret from another.
func TestASetWithPrograms(t *testing.T) {
	dir := folderAt(t)
	f := folder(t, dir, io.Discard)
	file := filepath.Join(t.TempDir(), "all.yaml")
	if err := os.WriteFile(file, []byte(`
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: cart}
spec:
  type: state.Late
  version: v1
  metadata:
  - {name: anything, value: goes}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: safe}
spec: {type: secretstores.late, version: v1, metadata: []}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: out}
spec:
  type: bindings.late
  version: v1
  metadata:
  - {name: pass, secretKeyRef: {name: db, key: password}}
auth: {secretStore: safe}
`), 0o600); err != nil {
		t.Fatal(err)
	}
	docs, err := components.Load(t.Context(), []string{file}, f.Known(nil))
	if err != nil || len(docs.Warnings) != 3 || !strings.Contains(docs.Warnings[0].String(), sock(dir, "Late")) {
		t.Fatalf("%v, %v", docs, err)
	}
	set := components.NewSet(components.Options{Host: host(io.Discard), Known: f.Known(nil), Documents: docs})
	defer func() {
		if err := set.Close(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	if _, err := set.State(t.Context(), "cart"); err == nil || !strings.Contains(err.Error(), dir) {
		t.Errorf("without a program: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- f.Follow(ctx, func() { set.SetKnown(f.Known(nil)) }) }()
	defer func() { cancel(); <-ended }()

	p := process(t, dir, "late")
	var wrong error
	defer func() {
		if t.Failed() {
			t.Log("the store: ", wrong)
		}
	}()
	until(t, "the store works", func() bool { wrong = uses(t, set); return wrong == nil })
	status := func() components.Status { return set.Statuses()[0] }
	if got := status(); got.State != "ready" || !slices.Equal(got.Capabilities, []string{"ETAG", "TRANSACTIONAL", "QUERY_API", "TTL"}) {
		t.Errorf("%+v", got)
	}
	use, err := set.OutputBinding(t.Context(), "out")
	if err != nil {
		t.Fatal(err)
	}
	use.Release()
	p.Kill()
	until(t, "it is degraded", func() bool {
		return status().State == "degraded" && strings.Contains(status().Error, sock(dir, "late"))
	})
	process(t, dir, "late")
	until(t, "it is ready", func() bool { return status().State == "ready" && uses(t, set) == nil })
}

// TestAProgramRepeatsASecret: one that comes back and says what it was told shows no secret in an error, the log or the status.
func TestAProgramRepeatsASecret(t *testing.T) {
	dir := folderAt(t)
	p := process(t, dir, "late")
	log := &logged{}
	f := folder(t, dir, log)
	f.Discover(t.Context())
	file := filepath.Join(t.TempDir(), "all.yaml")
	if err := os.WriteFile(file, []byte(`
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: cart}
spec:
  type: state.late
  version: v1
  metadata:
  - {name: pass, secretKeyRef: {name: PASS, key: PASS}}
`), 0o600); err != nil {
		t.Fatal(err)
	}
	docs, err := components.Load(t.Context(), []string{file}, f.Known(nil))
	if err != nil {
		t.Fatal(err)
	}
	set := components.NewSet(components.Options{
		Host: host(log), Known: f.Known(nil), Documents: docs, LookupEnv: func(string) (string, bool) { return "open-sesame", true },
	})
	defer func() {
		if err := set.Close(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	if err := uses(t, set); err != nil {
		t.Fatal(err)
	}
	p.Kill()
	process(t, dir, "late", "Init")
	said := "cannot sign in with map[pass:(secret)]"
	until(t, "it is degraded", func() bool {
		status := set.Statuses()[0]
		return status.State == "degraded" && strings.Contains(status.Error, "cannot sign in")
	})
	if text := set.Statuses()[0].Error; !strings.Contains(text, said) {
		t.Errorf("its status says %s", text)
	}
	if err := uses(t, set); err == nil || !strings.Contains(err.Error(), said) {
		t.Errorf("a call says %v", err)
	}
	if log.of("open-sesame") != 0 {
		t.Errorf("the log shows it: %s", &log.all)
	}
}

func uses(t *testing.T, set *components.Set) error {
	use, err := set.State(t.Context(), "cart")
	if err != nil {
		return err
	}
	defer use.Release()
	_, err = use.Backend.Get(t.Context(), []string{"k"})
	return err
}

// TestATypeThatTheSidecarHas: it is the program's if that was there first; one that it only could have is the program's anyway.
func TestATypeThatTheSidecarHas(t *testing.T) {
	own := components.State("shelf", "Of the sidecar.", func(context.Context, components.Host, struct{}) (state.Store, error) { return nil, nil })
	rare := components.NotLinked(components.StateBlock, "rare", "is built without it", func() string { return "Of another sidecar." }, func() []components.Field { return nil })
	base := []components.Component{own, rare}
	docOf := func(f *Folder, typ string) string {
		t.Helper()
		all := f.Known(base)
		i := slices.IndexFunc(all, func(c components.Component) bool { return c.Type() == typ })
		return all[i].Doc()
	}
	dir := folderAt(t)
	log := &logged{}
	late := folder(t, dir, log)
	late.Discover(t.Context())
	if doc := docOf(late, "state.shelf"); doc != "Of the sidecar." {
		t.Errorf("without a program it is: %s", doc)
	}
	serve(t, sock(dir, "shelf"), &plugintest.Program{})
	serve(t, sock(dir, "rare"), &plugintest.Program{})
	early := folder(t, dir, io.Discard)
	for f, want := range map[*Folder]string{late: "Of the sidecar.", early: "A pluggable component of the program at " + sock(dir, "shelf") + "."} {
		f.Discover(t.Context())
		for range 2 {
			if doc := docOf(f, "state.shelf"); doc != want {
				t.Errorf("it is: %s want: %s", doc, want)
			}
		}
		if doc := docOf(f, "state.rare"); !strings.Contains(doc, sock(dir, "rare")) {
			t.Errorf("what the sidecar has not is: %s", doc)
		}
	}
	if log.of("counts from the next start") != 1 {
		t.Errorf("the log says %s", &log.all)
	}
}
