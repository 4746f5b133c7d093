package natsconfig

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/configstore"
	"github.com/sidecast/sidecast/configstore/configtest"
	"github.com/sidecast/sidecast/fault"
)

// The server of the tests runs in a process of its own, the test binary again: its goroutines are not ours.
const (
	serverDir  = "NATSCONFIG_TEST_SERVER" // where the data is; set in the server's process
	serverPort = "NATSCONFIG_TEST_PORT"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(serverDir); dir != "" {
		if err := serve(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// serve runs a server, prints its URL, and ends with its input.
func serve(dir string) error {
	port, _ := strconv.Atoi(os.Getenv(serverPort))
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: port, JetStream: true, StoreDir: dir, NoSigs: true, NoLog: true})
	if err != nil {
		return err
	}
	s.Start()
	if !s.ReadyForConnections(time.Minute) {
		return fmt.Errorf("the server does not start")
	}
	fmt.Println(s.ClientURL())
	_, _ = io.Copy(io.Discard, os.Stdin)
	s.Shutdown()
	return nil
}

// start starts a server on the data in dir, and returns its URL and how to kill it.
func start(t *testing.T, dir, port string) (url string, kill func()) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), serverDir+"="+dir, serverPort+"="+port)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = in.Close(); _ = cmd.Wait() })
	url, err = bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("the server does not start: %v", err)
	}
	return strings.TrimSpace(url), func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }
}

// connect returns a connection that is closed, completely, when the test ends.
func connect(t *testing.T, url string) *nats.Conn {
	t.Helper()
	closed := make(chan struct{})
	conn, err := nats.Connect(url, nats.ClosedHandler(func(*nats.Conn) { close(closed) }), nats.ReconnectWait(20*time.Millisecond), nats.MaxReconnects(-1))
	if err != nil {
		t.Fatal(err)
	}
	_, _ = conn.Request("nobody", nil, time.Second) // starts the goroutine that all requests share
	t.Cleanup(func() {
		conn.Close()
		<-closed
	})
	return conn
}

func place(t *testing.T, conn *nats.Conn, component string) configtest.Place {
	t.Helper()
	host := components.Host{Namespace: "test", Component: component, NATS: func(context.Context) (*nats.Conn, error) { return conn, nil }}
	b, err := Component.Open(t.Context(), host, nil)
	if err != nil {
		t.Fatal(err)
	}
	kv, err := Open(t.Context(), conn, Bucket("test", component), 1) // as others come to it
	if err != nil {
		t.Fatal(err)
	}
	return configtest.Place{
		Store: b.(configstore.Store),
		Put: func(key, value, _ string) {
			if _, err := kv.PutString(context.Background(), key, value); err != nil {
				t.Errorf("put %s: %v", key, err)
			}
		},
		Delete: func(key string) {
			if err := kv.Delete(context.Background(), key); err != nil {
				t.Errorf("delete %s: %v", key, err)
			}
		},
	}
}

func TestConformance(t *testing.T) {
	url, _ := start(t, t.TempDir(), "-1")
	conn := connect(t, url)
	var places atomic.Int64
	configtest.Run(t, func(t *testing.T) configtest.Place {
		return place(t, conn, fmt.Sprintf("settings %d", places.Add(1)))
	}, configtest.Traits{OwnVersions: true})
}

// TestWatchOutlivesTheServer: what changes after the server has come back is told.
func TestWatchOutlivesTheServer(t *testing.T) {
	dir := t.TempDir()
	url, kill := start(t, dir, "-1")
	conn := connect(t, url)
	p := place(t, conn, "settings")
	p.Put("a", "1", "")
	ctx, cancel := context.WithCancel(t.Context())
	told, ended := make(chan []string, 100), make(chan error, 1)
	go func() {
		ended <- p.Store.Watch(ctx, []string{"a"}, nil, func(keys []string) { told <- keys })
	}()
	if keys := <-told; keys != nil {
		t.Fatalf("first %v", keys)
	}
	kill()
	start(t, dir, url[strings.LastIndex(url, ":")+1:])
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if _, err := p.Store.Get(t.Context(), []string{"a"}, nil); err == nil {
			break
		} else if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	p.Put("a", "2", "")
	select {
	case keys := <-told:
		if len(keys) != 1 || keys[0] != "a" {
			t.Errorf("told %v", keys)
		}
	case err := <-ended: // who watches again reads all
		t.Logf("the watch has ended: %v", err)
		ended <- err
	case <-time.After(time.Minute):
		t.Error("nobody is told of the change")
	}
	cancel()
	<-ended
	if err := p.Store.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestKeysAndBuckets(t *testing.T) {
	for key, want := range map[string]bool{"a": true, "a.b/c_d=e-F9": true, "": false, ".a": false, "a.": false, "a..b": false, "a b": false, "*": false, "a.>": false} {
		if ValidKey(key) != want {
			t.Errorf("%q: %t", key, !want)
		}
	}
	seen := map[string]bool{}
	for _, of := range [][2]string{{"a", "b"}, {"a_", "b"}, {"a", "_b"}, {"a__b", "c"}, {"a", "b__c"}, {"", "a"}, {"a b", "ü"}} {
		bucket := Bucket(of[0], of[1])
		if seen[bucket] || !validBucket.MatchString(bucket) {
			t.Errorf("%q is %s", of, bucket)
		}
		seen[bucket] = true
	}
	url, _ := start(t, t.TempDir(), "-1")
	conn := connect(t, url)
	p := place(t, conn, "settings")
	defer p.Store.Close(t.Context())
	if got, err := p.Store.Get(t.Context(), []string{"no key", "*"}, nil); err != nil || len(got) != 0 {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := Component.Open(t.Context(), components.Host{NATS: func(context.Context) (*nats.Conn, error) { return conn, nil }}, map[string]string{"bucket": "a.b"}); err == nil {
		t.Error("a bucket of a bad name opens")
	}
}

func TestLookingForABucketMakesNone(t *testing.T) {
	url, _ := start(t, t.TempDir(), "-1")
	conn := connect(t, url)
	for range 2 {
		if _, err := Find(t.Context(), conn, "absent"); !errors.Is(err, jetstream.ErrBucketNotFound) {
			t.Errorf("got %v", err)
		}
	}
	if _, err := Open(t.Context(), conn, "made", 1); err != nil {
		t.Fatal(err)
	}
	if kv, err := Find(t.Context(), conn, "made"); err != nil || kv.Bucket() != "made" {
		t.Errorf("got %v", err)
	}
	for _, reach := range []func() error{
		func() error { _, err := Find(t.Context(), conn, "a.b"); return err }, func() error { _, err := Open(t.Context(), conn, "a.b", 1); return err },
	} {
		if err := reach(); fault.ReasonOf(err) != fault.BadManifest {
			t.Errorf("got %v", err)
		}
	}
}
