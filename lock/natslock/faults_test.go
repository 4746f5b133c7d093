package natslock

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/lock"
	"github.com/sidecast/sidecast/tests/ports"
)

// lockInChild takes the lock "held", stands in line for "line" ahead of others, tells the lease, and waits to be killed.
func lockInChild(url string) {
	ctx := context.Background()
	conn, err := nats.Connect(url)
	if err != nil {
		panic(err)
	}
	l, err := open(ctx, host(conn, true), Config{Bucket: "locks"})
	if err != nil {
		panic(err)
	}
	lease, err := l.Acquire(ctx, "held", "child", 2*time.Second, false)
	if err != nil {
		panic(err)
	}
	for range 3 {
		go l.Acquire(ctx, "line", "child", time.Hour, true)
	}
	err = l.Watch(ctx, "line", func(s lock.Status) error {
		if s.Waiting == 3 {
			return fmt.Errorf("in line")
		}
		return nil
	})
	_ = json.NewEncoder(os.Stdout).Encode(lease)
	fmt.Fprintln(os.Stderr, err)
	time.Sleep(time.Minute)
	os.Exit(1)
}

// child runs this test again with the environment, and returns it once it has written a line.
func child(t *testing.T, env ...string) (*exec.Cmd, string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { kill(cmd) })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("the child ended: %v", err)
	}
	return cmd, line
}

func kill(cmd *exec.Cmd) {
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s did not happen", what)
		}
	}
}

func want(t *testing.T, err error, reasons ...fault.Reason) {
	t.Helper()
	if !slices.Contains(reasons, fault.ReasonOf(err)) {
		t.Fatalf("got %v, want reason %v", err, reasons)
	}
}

type got struct {
	lease lock.Lease
	err   error
}

func wait(ctx context.Context, l *locker, name string) <-chan got {
	ch := make(chan got, 1)
	go func() {
		lease, err := l.Acquire(ctx, name, "waiter", 30*time.Second, true)
		ch <- got{lease, err}
	}()
	return ch
}

func inLine(t *testing.T, l *locker, name string, n int) {
	t.Helper()
	eventually(t, fmt.Sprint(n, " waiting"), func() bool {
		s, err := l.bucket.read(t.Context(), "test", keyOf(name))
		return err == nil && len(s.line) == n
	})
}

func receive(t *testing.T, ch <-chan got) lock.Lease {
	t.Helper()
	select {
	case g := <-ch:
		if g.err != nil {
			t.Fatal(g.err)
		}
		return g.lease
	case <-time.After(time.Minute):
		t.Fatal("the waiter was not let in")
	}
	panic("unreachable")
}

// A process that holds a lock and waits for another is killed: its lease runs out, its places are passed over.
func TestKilledHolderAndWaiter(t *testing.T) {
	s := serve(t, t.TempDir(), -1)
	l := opened(t, connect(t, s.ClientURL()))
	lease, err := l.Acquire(t.Context(), "line", "ann", 30*time.Second, false)
	if err != nil {
		t.Fatal(err)
	}
	cmd, told := child(t, childURL+"="+s.ClientURL())
	var held lock.Lease
	if err := json.Unmarshal([]byte(told), &held); err != nil {
		t.Fatal(err)
	}
	behind := wait(t.Context(), l, "line")
	inLine(t, l, "line", 4)
	kill(cmd)

	_, err = l.Acquire(t.Context(), "held", "bob", time.Second, false)
	want(t, err, fault.LockHeld)
	next := receive(t, wait(t.Context(), l, "held"))
	if next.Token <= held.Token {
		t.Fatalf("token %d came after %d", next.Token, held.Token)
	}
	if err := l.Release(t.Context(), lease); err != nil {
		t.Fatal(err)
	}
	if next := receive(t, behind); next.Token <= lease.Token {
		t.Fatalf("token %d came after %d", next.Token, lease.Token)
	}
	inLine(t, l, "line", 0)
}

// The server is killed, not stopped, and comes back: leases hold, waiters have kept their place, tokens grow.
func TestKilledServer(t *testing.T) {
	dir, port := t.TempDir(), ports.Get(t)
	env := []string{childDir + "=" + dir, fmt.Sprint(childPort, "=", port)}
	cmd, _ := child(t, env...)
	conn := connect(t, fmt.Sprint("nats://127.0.0.1:", port))
	l := opened(t, conn)
	lease, err := l.Acquire(t.Context(), "door", "ann", 30*time.Second, false)
	if err != nil {
		t.Fatal(err)
	}
	one := wait(t.Context(), l, "door")
	inLine(t, l, "door", 1)
	two := wait(t.Context(), l, "door")
	inLine(t, l, "door", 2)
	seen := make(chan lock.Status, 100)
	watching, stopWatch := context.WithCancel(t.Context())
	defer stopWatch()
	go l.Watch(watching, "door", func(s lock.Status) error { seen <- s; return nil })
	eventually(t, "the first state", func() bool { return len(seen) > 0 }) // a watch that has begun survives what follows
	last, err := l.Acquire(t.Context(), "gone", "ann", 30*time.Second, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Release(t.Context(), last); err != nil { // the very last entry is a mark
		t.Fatal(err)
	}

	kill(cmd)
	eventually(t, "the loss of the connection", func() bool { return !conn.IsConnected() })
	_, err = l.Acquire(t.Context(), "other", "ann", time.Second, false)
	want(t, err, fault.FabricDown)
	_, err = l.Acquire(t.Context(), "other", "ann", time.Second, true)
	want(t, err, fault.FabricDown)
	_, err = l.Renew(t.Context(), lease, time.Minute)
	want(t, err, fault.FabricDown)

	child(t, env...)
	eventually(t, "the connection", conn.IsConnected)
	if lease, err = l.Renew(t.Context(), lease, time.Minute); err != nil {
		t.Fatalf("renew after the server came back: %v", err)
	}
	if err := l.Release(t.Context(), lease); err != nil {
		t.Fatalf("release after the server came back: %v", err)
	}
	first := receive(t, one)
	if err := l.Release(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	second := receive(t, two)
	again, err := l.Acquire(t.Context(), "gone", "ann", time.Second, false)
	if err != nil {
		t.Fatal(err)
	}
	if !(lease.Token < first.Token && first.Token < second.Token && last.Token < again.Token) {
		t.Fatalf("tokens %d, %d, %d and %d, %d", lease.Token, first.Token, second.Token, last.Token, again.Token)
	}
	eventually(t, "the last state", func() bool {
		select {
		case s := <-seen:
			return s.Lease != nil && s.Lease.Token == second.Token && s.Waiting == 0
		default:
			return false
		}
	})
}

// An empty bucket does not forget how far its sequences had come, however its server ended.
func TestTokensGrowWhenTheBucketWasEmpty(t *testing.T) {
	dir, port := t.TempDir(), ports.Get(t)
	env := []string{childDir + "=" + dir, fmt.Sprint(childPort, "=", port)}
	cmd, _ := child(t, env...)
	conn := connect(t, fmt.Sprint("nats://127.0.0.1:", port))
	l := opened(t, conn)
	var last uint64
	for range 3 {
		for range 20 {
			lease, err := l.Acquire(t.Context(), "door", "ann", time.Second, false)
			if err != nil {
				t.Fatal(err)
			}
			if lease.Token <= last {
				t.Fatalf("token %d came after %d", lease.Token, last)
			}
			last = lease.Token
			if err := l.Release(t.Context(), lease); err != nil {
				t.Fatal(err)
			}
		}
		if err := l.bucket.bound.Load().Purge(t.Context()); err != nil {
			t.Fatal(err)
		}
		kill(cmd)
		cmd, _ = child(t, env...)
		eventually(t, "the connection", func() bool { return conn.IsConnected() && conn.FlushTimeout(time.Second) == nil })
		eventually(t, "the bucket", func() bool { _, err := l.bucket.read(t.Context(), "test", "x"); return err == nil })
	}
}

// The bucket is deleted under the locker: it is made anew, and tokens go on growing.
func TestLostBucket(t *testing.T) {
	s := serve(t, t.TempDir(), -1)
	conn := connect(t, s.ClientURL())
	l := opened(t, conn)
	lease, err := l.Acquire(t.Context(), "door", "ann", 30*time.Second, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.bucket.js.DeleteStream(t.Context(), "KV_test_locks"); err != nil {
		t.Fatal(err)
	}
	var next lock.Lease
	eventually(t, "a new bucket", func() bool { // the server may still be removing the old one's files
		next, err = l.Acquire(t.Context(), "door", "bob", 30*time.Second, false)
		return err == nil
	})
	if next.Token <= lease.Token {
		t.Fatalf("token %d after %d", next.Token, lease.Token)
	}
	want(t, l.Release(t.Context(), lease), fault.LockLost)
	if err := l.Release(t.Context(), next); err != nil {
		t.Fatal(err)
	}
}

// A write whose answer never came is taken back: a failed Acquire holds nothing.
func TestUnansweredAcquireIsUndone(t *testing.T) {
	s := serve(t, t.TempDir(), -1)
	l := opened(t, connect(t, s.ClientURL()))
	for range 30 {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Microsecond) // less than a write takes
		lease, err := l.Acquire(ctx, "door", "ann", time.Hour, false)
		cancel()
		if err == nil {
			if err := l.Release(t.Context(), lease); err != nil {
				t.Fatal(err)
			}
			continue
		}
		want(t, err, fault.DeadlineExceeded, fault.LockHeld)
	}
	if err := l.Release(t.Context(), receive(t, wait(t.Context(), l, "door"))); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the end of doubts", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.doubts) == 0
	})
}

// A server whose disk fills up answers nothing to a write that failed. The error says why.
func TestSilentFullServer(t *testing.T) {
	s := serve(t, t.TempDir(), -1)
	conn := connect(t, s.ClientURL())
	l := opened(t, conn)
	if err := l.bucket.js.DeleteStream(t.Context(), l.bucket.config.Name); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Subscribe(l.bucket.keys+">", func(*nats.Msg) {}); err != nil { // takes writes and says nothing
		t.Fatal(err)
	}
	none := server.JetStreamAccountLimits{MaxMemory: -1, MaxStreams: -1, MaxConsumers: -1, MaxAckPending: -1, MemoryMaxStreamBytes: -1, StoreMaxStreamBytes: -1}
	if err := s.GlobalAccount().UpdateJetStreamLimits(map[string]server.JetStreamAccountLimits{"": none}); err != nil {
		t.Fatal(err)
	}
	_, err := l.bucket.write(t.Context(), "acquire", "door", state{}, 0)
	want(t, err, fault.JetStreamExhausted)
	if !unsure(err) {
		t.Error("a write that was not answered is taken to have failed")
	}
}

// A connection that is cut while many wait and hold.
func TestRestartsUnderLoad(t *testing.T) {
	dir, port := t.TempDir(), ports.Get(t)
	s := serve(t, dir, port)
	lockers := []*locker{
		opened(t, connect(t, s.ClientURL())), opened(t, connect(t, s.ClientURL())),
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	type hold struct{ token uint64 }
	turn := make(chan hold, 1) // the guarded thing: refuses tokens that are not greater
	turn <- hold{}
	rounds := make(chan error, 1000)
	const callers = 12
	done := make(chan struct{}, callers)
	for i := range callers {
		go func() {
			defer func() { done <- struct{}{} }()
			for ctx.Err() == nil {
				lease, err := lockers[i%2].Acquire(ctx, "door", fmt.Sprint(i), 5*time.Second, true)
				if err != nil {
					if k := fault.KindOf(err); k != fault.Unavailable && k != fault.Canceled {
						rounds <- err
					}
					time.Sleep(10 * time.Millisecond)
					continue
				}
				select {
				case h := <-turn:
					if lease.Token <= h.token {
						rounds <- fmt.Errorf("token %d came after %d", lease.Token, h.token)
					}
					turn <- hold{lease.Token}
				default:
					rounds <- fmt.Errorf("two hold the lock")
				}
				_ = lockers[i%2].Release(ctx, lease)
				select {
				case rounds <- nil:
				default:
				}
			}
		}()
	}
	count := func(n int) {
		t.Helper()
		for range n {
			select {
			case err := <-rounds:
				if err != nil {
					t.Error(err)
				}
			case <-time.After(30 * time.Second):
				t.Fatal("nobody gets the lock")
			}
		}
	}
	count(100)
	for range 2 {
		stop(s)
		s = serve(t, dir, port)
		count(len(rounds)) // those from before
		count(100)
	}
	cancel()
	for range callers {
		<-done
	}
}

// A server without a time to live for entries: marks are swept.
func TestOldServer(t *testing.T) {
	s := serve(t, t.TempDir(), -1)
	conn := connect(t, s.ClientURL())
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	l := opened(t, conn)
	config := l.bucket.config
	config.AllowMsgTTL = false
	if err := js.DeleteStream(t.Context(), config.Name); err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	l = opened(t, conn)
	for range 10 {
		lease, err := l.Acquire(t.Context(), "door", "ann", time.Second, false)
		if err != nil {
			t.Fatal(err)
		}
		behind := wait(t.Context(), l, "door")
		inLine(t, l, "door", 1)
		if err := l.Release(t.Context(), lease); err != nil {
			t.Fatal(err)
		}
		if err := l.Release(t.Context(), receive(t, behind)); err != nil {
			t.Fatal(err)
		}
	}
	if n := entries(t, conn); n != 0 {
		t.Fatalf("%d entries are left", n)
	}
}

func TestForeignBucket(t *testing.T) {
	s := serve(t, t.TempDir(), -1)
	conn := connect(t, s.ClientURL())
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: "test_locks"}); err != nil {
		t.Fatal(err)
	}
	_, err = open(t.Context(), host(conn, true), Config{Bucket: "locks"})
	want(t, err, fault.JetStreamRefused)
	if !strings.Contains(err.Error(), "KV_test_locks") {
		t.Fatalf("the bucket is not named: %v", err)
	}
}

// What a locker remembers is bounded by what is in use.
func TestMemory(t *testing.T) {
	s := serve(t, t.TempDir(), -1)
	l := opened(t, connect(t, s.ClientURL()))
	held := lock.Lease{Name: "x", Owner: "ann", Token: 1, Expires: time.Now().Add(-time.Second)}
	for i := range 10_000 {
		l.memos.hold(fmt.Sprint(i), 1, "id", held)
	}
	if n := len(l.memos.byKey); n > 1000 {
		t.Fatalf("%d memos of leases that have ended", n)
	}
	for range 3 {
		lease, err := l.Acquire(t.Context(), "door", "ann", 30*time.Second, false)
		if err != nil {
			t.Fatal(err)
		}
		waiting := wait(t.Context(), l, "door")
		inLine(t, l, "door", 1)
		if err := l.Release(t.Context(), lease); err != nil {
			t.Fatal(err)
		}
		if err := l.Release(t.Context(), receive(t, waiting)); err != nil {
			t.Fatal(err)
		}
	}
	if len(l.rooms) != 0 {
		t.Fatalf("%d rooms are left", len(l.rooms))
	}
}
