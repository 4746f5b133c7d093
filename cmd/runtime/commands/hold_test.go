//go:build unix

package commands_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sidecast/sidecast/cmd/runtime/commands"
)

// eventually polls a condition for as long as a busy machine may need.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !condition(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it never came that %s", what)
		}
	}
}

func TestLockIsHeldWhileACommandRuns(t *testing.T) {
	s := startSidecar(t, "orders")
	at := "--grpc-address=" + s.address
	r := execute(t.Context(), strings.NewReader("input\n"), "lock", "job", "--owner", "me", at, "--",
		"sh", "-c", `read line; echo "$line $SIDECAST_LOCK_NAME $SIDECAST_LOCK_OWNER $SIDECAST_LOCK_TOKEN"; exit 42`)
	if r.code != 42 || r.stdout != "input job me 1\n" || r.stderr != "" {
		t.Errorf("%+v", r)
	}
	eventually(t, "the lock is free", func() bool { return s.locks.holder("job") == "" })
	if r := execute(t.Context(), nil, "lock", "hold", "job", at, "--", "true"); r.code != 0 {
		t.Errorf("%+v", r)
	}
	if r := execute(t.Context(), nil, "lock", "job", "--wait", "10s", at, "--", "no-such-program"); r.code != 127 {
		t.Errorf("a command that does not exist: %+v", r)
	}
}

func TestLockHeldByAnother(t *testing.T) {
	s := startSidecar(t, "orders")
	at := "--grpc-address=" + s.address
	if r := execute(t.Context(), nil, "lock", "acquire", "job", "--owner", "other", at); r.code != 0 {
		t.Fatalf("%+v", r)
	}
	ran := filepath.Join(t.TempDir(), "ran")
	r := execute(t.Context(), nil, "lock", "job", at, "--", "touch", ran)
	if _, err := os.Stat(ran); err == nil || r.code != commands.ExitConflict || !strings.Contains(r.stderr, "other holds it") {
		t.Errorf("ran without the lock: %v, %+v", err == nil, r)
	}

	waited := make(chan result, 1)
	go func() { waited <- execute(t.Context(), nil, "lock", "job", "--wait", "1h", at, "--", "touch", ran) }()
	if r := execute(t.Context(), nil, "lock", "release", "job", "--owner", "other", "--token", "1", at); r.code != 0 {
		t.Fatalf("%+v", r)
	}
	if r := <-waited; r.code != 0 {
		t.Errorf("after its turn: %+v", r)
	}
	if _, err := os.Stat(ran); err != nil {
		t.Error("the command did not run in its turn")
	}

	r = execute(t.Context(), nil, "lock", "stuck", "--timeout", "50ms", at, "--", "true")
	if r.code != commands.ExitTimeout {
		t.Errorf("a sidecar that does not answer: %+v", r)
	}
}

func TestLostLockStopsTheCommand(t *testing.T) {
	s := startSidecar(t, "orders")
	s.locks.lose = make(chan struct{})
	started := filepath.Join(t.TempDir(), "started")
	go func() {
		for {
			if _, err := os.Stat(started); err == nil {
				close(s.locks.lose)
				return
			}
			time.Sleep(time.Millisecond)
		}
	}()
	r := execute(t.Context(), nil, "lock", "job", "--grpc-address="+s.address, "--",
		"sh", "-c", `trap 'echo stopped; exit 0' TERM; touch `+started+`; while :; do sleep 0.01; done`)
	if r.code != commands.ExitConflict || r.stdout != "stopped\n" || !strings.Contains(r.stderr, "LOCK_LOST") {
		t.Errorf("%+v", r)
	}
}

func TestHoldUntilInterrupted(t *testing.T) {
	s := startSidecar(t, "orders")
	ctx, interrupt := context.WithCancel(t.Context())
	done := make(chan result, 1)
	go func() {
		done <- execute(ctx, nil, "lock", "hold", "job", "--owner", "o'me", "--grpc-address="+s.address)
	}()
	eventually(t, "the lock is held", func() bool { return s.locks.holder("job") == "o'me" })
	interrupt()
	if r := <-done; r.code != 0 && r.code != commands.ExitInterrupted || r.stdout != "" && r.stdout != "name=job\nowner='o'\\''me'\ntoken=1\nttl=30s\n" {
		t.Errorf("%+v", r)
	}
	eventually(t, "the lock is free", func() bool { return s.locks.holder("job") == "" })
}
