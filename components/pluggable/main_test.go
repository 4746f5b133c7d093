//go:build unix

package pluggable

import (
	"context"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/tests/plugintest"
)

func TestMain(m *testing.M) {
	if plugintest.Wanted() {
		plugintest.Main()
	}
	goleak.VerifyTestMain(m)
}

// patience bounds every wait of these tests.
const patience = 20 * time.Second

// folderAt makes a folder of sockets the one that programs are looked for in. Paths of sockets must be short.
func folderAt(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "sockets")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func folder(t testing.TB, dir string, log io.Writer) *Folder {
	t.Helper()
	f := New(slog.New(slog.NewTextHandler(log, nil)))
	f.dir, f.named = dir, true
	return f
}

// serve runs a program in this process until the test ends.
func serve(t testing.TB, socket string, p *plugintest.Program) {
	t.Helper()
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- p.Serve(ctx, listener) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// find is the component of that type.
func find(t testing.TB, f *Folder, typ string) components.Component {
	t.Helper()
	f.Discover(t.Context())
	all := f.Components()
	i := slices.IndexFunc(all, func(c components.Component) bool { return c.Type() == typ })
	if i < 0 {
		t.Fatalf("there is no %s", typ)
	}
	return all[i]
}

func host(log io.Writer) components.Host {
	return components.Host{
		Log: slog.New(slog.NewTextHandler(log, nil)), AppID: "app", Component: "mine", Binding: components.Binding{Input: true, Output: true},
	}
}

// open opens a component of a program that serves everything.
func open[B components.Backend](t testing.TB, dir, typ string) B {
	t.Helper()
	b, err := find(t, folder(t, dir, io.Discard), typ).Open(t.Context(), host(io.Discard), map[string]string{"any": "thing"})
	if err != nil {
		t.Fatal(err)
	}
	return b.(B)
}

func shut(t testing.TB, b components.Backend) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := b.Close(ctx); err != nil {
		t.Error(err)
	}
}

func until(t testing.TB, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not in %s: %s", patience, what)
		}
	}
}

func sock(dir, name string) string { return filepath.Join(dir, name+".sock") }
