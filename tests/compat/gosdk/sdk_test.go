package gosdk

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dapr/go-sdk/client"
	"google.golang.org/grpc/status"
)

const patience = 30 * time.Second

// binary is the sidecast under test: SIDECAST_BINARY, or one that is built of the sources above.
var binary = os.Getenv("SIDECAST_BINARY")

func TestMain(m *testing.M) {
	beSoakApp()
	if binary == "" {
		dir, err := os.MkdirTemp("", "sidecast-gosdk-")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		binary = filepath.Join(dir, "sidecast")
		build := exec.Command("go", "build", "-C", "../../..", "-o", binary, "./cmd/runtime")
		build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
		if out, err := build.CombinedOutput(); err != nil {
			panic(fmt.Sprintf("the binary does not build: %v\n%s", err, out))
		}
	}
	m.Run()
}

const resources = `
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: store}
spec: {type: state.in-memory, version: v1, metadata: []}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: bus}
spec: {type: pubsub.jetstream, version: v1, metadata: []}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: locks}
spec: {type: lock.in-memory, version: v1, metadata: []}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: settings}
spec: {type: configuration.jetstream, version: v1, metadata: []}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: vault}
spec: {type: secretstores.local.file, version: v1, metadata: [{name: secretsFile, value: SECRETS}, {name: multiValued, value: "true"}]}
`

// freePort is one that nobody listens on, out of those that no system gives to sockets which name none: a program that is
// started again finds it free.
func freePort(t *testing.T) string {
	t.Helper()
	for range 1000 {
		port := 32000 + rand.IntN(700) // tests/ports and supervisors choose below
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			continue
		}
		_ = l.Close()
		if _, given := givenPorts.LoadOrStore(port, true); !given {
			return strconv.Itoa(port)
		}
	}
	t.Fatal("no port is free")
	return ""
}

// givenPorts are those that freePort has returned.
var givenPorts sync.Map

// sidecar starts a daprd of the group that dir is, and returns the SDK's client of it.
func sidecar(t *testing.T, dir, app string, args ...string) client.Client {
	t.Helper()
	folder := t.TempDir()
	secrets := filepath.Join(folder, "secrets.json")
	for name, text := range map[string]string{
		filepath.Join(folder, "r.yaml"): strings.ReplaceAll(resources, "SECRETS", secrets), secrets: `{"password": "hunter2", "db": {"user": "me", "key": "k"}}`,
	} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	httpPort, grpcPort := freePort(t), freePort(t)
	cmd := exec.Command(binary, append([]string{"daprd", "--app-id", app, "--dapr-http-port", httpPort, "--dapr-grpc-port", grpcPort,
		"--metrics-port", freePort(t), "--resources-path", folder}, args...)...)
	cmd.Env = append(os.Environ(), "SIDECAST_DATA_DIR="+dir)
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		select {
		case <-ended:
		case <-time.After(patience):
			_ = cmd.Process.Kill()
			<-ended
			t.Errorf("the sidecar of %s did not end", app)
		}
		if code := cmd.ProcessState.ExitCode(); code != 0 || t.Failed() {
			t.Errorf("%s ended with code %d: %s", app, code, log.String())
		}
	})
	until(t, app+" is up", func() bool {
		response, err := http.Get("http://127.0.0.1:" + httpPort + "/v1.0/healthz")
		if err != nil {
			return false
		}
		response.Body.Close()
		return response.StatusCode == http.StatusNoContent
	})
	c, err := client.NewClientWithAddress("127.0.0.1:" + grpcPort)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	if err := c.Wait(t.Context(), patience); err != nil {
		t.Fatal(err)
	}
	return c
}

func until(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !condition(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

// group is a data folder that is there until the sidecars in it have ended.
func group(t *testing.T) string {
	dir, err := os.MkdirTemp("", "sidecast-group-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func TestState(t *testing.T) {
	c, ctx := sidecar(t, group(t), "app"), t.Context()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(c.SaveState(ctx, "store", "a", []byte("one"), map[string]string{"ttlInSeconds": "100"}))
	item, err := c.GetState(ctx, "store", "a", nil)
	must(err)
	if string(item.Value) != "one" || item.Etag == "" || item.Metadata["ttlExpireTime"] == "" {
		t.Errorf("got %+v", item)
	}
	must(c.SaveStateWithETag(ctx, "store", "a", []byte("two"), item.Etag, nil, client.WithConcurrency(client.StateConcurrencyFirstWrite)))
	if err := c.SaveStateWithETag(ctx, "store", "a", []byte("three"), item.Etag, nil, client.WithConcurrency(client.StateConcurrencyFirstWrite)); err == nil {
		t.Error("an old ETag is taken")
	}
	must(c.SaveBulkState(ctx, "store", &client.SetStateItem{Key: "b", Value: []byte("B")}, &client.SetStateItem{Key: "c", Value: []byte("C")}))
	must(c.ExecuteStateTransaction(ctx, "store", nil, []*client.StateOperation{
		{Type: client.StateOperationTypeUpsert, Item: &client.SetStateItem{Key: "d", Value: []byte("D")}},
		{Type: client.StateOperationTypeDelete, Item: &client.SetStateItem{Key: "b"}},
	}))
	items, err := c.GetBulkState(ctx, "store", []string{"a", "b", "c", "d"}, nil, 2)
	must(err)
	got := ""
	for _, item := range items {
		got += item.Key + "=" + string(item.Value) + " "
	}
	if got != "a=two b= c=C d=D " {
		t.Errorf("got %s", got)
	}
	must(c.DeleteState(ctx, "store", "a", nil))
	must(c.DeleteBulkState(ctx, "store", []string{"c", "d"}, nil))
	if item, err := c.GetState(ctx, "store", "a", nil); err != nil || item.Value != nil {
		t.Errorf("got %+v %v", item, err)
	}
}

func TestLock(t *testing.T) {
	c, ctx := sidecar(t, group(t), "app"), t.Context()
	try := func(owner string) bool {
		t.Helper()
		got, err := c.TryLockAlpha1(ctx, "locks", &client.LockRequest{ResourceID: "r", LockOwner: owner, ExpiryInSeconds: 60})
		if err != nil {
			t.Fatal(err)
		}
		return got.Success
	}
	unlock := func(owner, want string) {
		t.Helper()
		got, err := c.UnlockAlpha1(ctx, "locks", &client.UnlockRequest{ResourceID: "r", LockOwner: owner})
		if err != nil || got.Status != want {
			t.Errorf("%s unlocks: %v %v, not %s", owner, got, err, want)
		}
	}
	unlock("one", "LOCK_DOES_NOT_EXIST")
	if !try("one") || try("two") || try("one") {
		t.Error("the lock is not held by one alone, once")
	}
	unlock("two", "LOCK_BELONGS_TO_OTHERS")
	unlock("one", "SUCCESS")
	if !try("two") {
		t.Error("a released lock is not free")
	}
}

func TestSecrets(t *testing.T) {
	c, ctx := sidecar(t, group(t), "app"), t.Context()
	if got, err := c.GetSecret(ctx, "vault", "db", map[string]string{"version": "1"}); err != nil || !maps.Equal(got, map[string]string{"user": "me", "key": "k"}) {
		t.Errorf("got %v, %v", got, err)
	}
	want := map[string]map[string]string{"password": {"password": "hunter2"}, "db": {"user": "me", "key": "k"}}
	if got, err := c.GetBulkSecret(ctx, "vault", nil); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, %v", got, err)
	}
	_, err := c.GetSecret(ctx, "vault", "nope", nil)
	if want := "failed getting secret with key nope from secret store vault: secret nope not found"; status.Convert(errors.Unwrap(err)).Message() != want {
		t.Errorf("got %v", err)
	}
}

func TestConfiguration(t *testing.T) {
	dir := group(t)
	c, ctx := sidecar(t, dir, "app"), t.Context()
	set := func(key, value string) {
		t.Helper()
		cmd := exec.Command(binary, "config", "set", key, value, "--store", "settings")
		cmd.Env = append(os.Environ(), "SIDECAST_DATA_DIR="+dir)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	set("a", "1")
	set("b", "2")
	if got, err := c.GetConfigurationItem(ctx, "settings", "a"); err != nil || got.Value != "1" || got.Version != "1" {
		t.Errorf("got %v, %v", got, err)
	}
	items, err := c.GetConfigurationItems(ctx, "settings", nil, client.WithConfigurationMetadata("x", "y"))
	if err != nil || len(items) != 2 || items["b"].Value != "2" {
		t.Errorf("got %v, %v", items, err)
	}
	told := make(chan string, 100)
	id, err := c.SubscribeConfigurationItems(ctx, "settings", []string{"a"}, func(id string, items map[string]*client.ConfigurationItem) {
		for key, item := range items {
			told <- id + " " + key + "=" + item.Value
		}
	})
	if err != nil || id == "" {
		t.Fatalf("id %q, %v", id, err)
	}
	set("b", "3")
	set("a", "4")
	select {
	case got := <-told:
		if got != id+" a=4" {
			t.Errorf("told %s", got)
		}
	case <-time.After(patience):
		t.Error("no change is told")
	}
	if err := c.UnsubscribeConfigurationItems(ctx, "settings", id); err != nil {
		t.Error(err)
	}
	if err := c.UnsubscribeConfigurationItems(ctx, "settings", id); err == nil || !strings.Contains(err.Error(), "subscription does not exist") {
		t.Errorf("twice: %v", err)
	}
}

func TestMetadataAndShutdown(t *testing.T) {
	c, ctx := sidecar(t, group(t), "app"), t.Context()
	if err := c.SetMetadata(ctx, "colour", "blue"); err != nil {
		t.Fatal(err)
	}
	m, err := c.GetMetadata(ctx)
	if err != nil || m.ID != "app" || m.ExtendedMetadata["colour"] != "blue" || len(m.RegisteredComponents) != 5 {
		t.Errorf("got %+v %v", m, err)
	}
	if err := c.Shutdown(ctx); err != nil {
		t.Error(err)
	}
}
