package fabric_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/fabric"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/tests/ports"
)

func TestDirectoryIsPrivate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	open(t, config(dir, "a", "a1"))
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the directory has %v, %v", info.Mode(), err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		if !e.IsDir() && info.Mode().Perm() != 0o600 {
			t.Errorf("%s has %v", e.Name(), info.Mode())
		}
	}
}

func address(t testing.TB, dir string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(dir, "fabric.addr"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(content))
}

func TestStrangersStayOutside(t *testing.T) {
	dir := t.TempDir()
	f := open(t, config(dir, "a", "a1"))
	at := address(t, dir)
	if !strings.HasPrefix(at, "127.0.0.1:") {
		t.Errorf("the server listens on %s", at)
	}
	if nc, err := nats.Connect("nats://" + at); err == nil {
		nc.Close()
		t.Error("a connection without the key was let in")
	}
	if f.Conn().ConnectedAddr() == "" {
		t.Error("the host is not connected")
	}
	option, err := nats.NkeyOptionFromSeed(filepath.Join(dir, "fabric.key"))
	if err != nil {
		t.Fatal(err)
	}
	nc, err := nats.Connect("nats://"+at, option)
	if err != nil {
		t.Fatalf("a connection with the key: %v", err)
	}
	nc.Close()
}

func TestPortFaults(t *testing.T) {
	port := ports.Get(t)
	dir := t.TempDir()
	one := config(dir, "a", "a1")
	one.Port = port
	open(t, one)
	if got := address(t, dir); got != fmt.Sprintf("127.0.0.1:%d", port) {
		t.Errorf("the host listens on %s, not on port %d", got, port)
	}
	two := config(dir, "b", "b1") // the same directory: a guest, whatever its port
	two.Port = port + 1
	open(t, two)

	other := config(t.TempDir(), "c", "c1")
	other.Port = port
	_, err := fabric.Open(within(t), other)
	wantReason(t, err, fault.FabricConfig)
	if !strings.Contains(err.Error(), "another directory") {
		t.Errorf("the fault does not say what is there: %v", err)
	}

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	other.Port = l.Addr().(*net.TCPAddr).Port
	_, err = fabric.Open(within(t), other)
	wantReason(t, err, fault.PortInUse)
}

func TestDirectoryFaults(t *testing.T) {
	_, err := fabric.Open(within(t), config("", "a", "a1"))
	wantReason(t, err, fault.FabricConfig)

	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = fabric.Open(within(t), config(file, "a", "a1"))
	wantReason(t, err, fault.DirectoryBad)

	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "fabric.key"), []byte("no key"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = fabric.Open(within(t), config(dir, "a", "a1"))
	wantReason(t, err, fault.DirectoryBad)
}

func TestGuestOnlyWaitsForAHost(t *testing.T) {
	dir := t.TempDir()
	guest := config(dir, "g", "g1")
	guest.GuestOnly = true
	brief, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	_, err := fabric.Open(brief, guest)
	wantReason(t, err, fault.FabricDown)

	opened := make(chan *fabric.Fabric, 1)
	go func() {
		f, err := fabric.Open(within(t), guest)
		if err != nil {
			t.Errorf("Open: %v", err)
		}
		opened <- f
	}()
	host := open(t, config(dir, "h", "h1"))
	f := <-opened
	if f == nil {
		return
	}
	defer shut(t, f)
	shut(t, host)
	eventually(t, "the guest notices", func() bool { return !f.Connected() })
	_, err = f.Call(within(t), b1, &call.Request{Method: "m"})
	wantReason(t, err, fault.FabricDown)
	if err := f.Conn().Publish("x", nil); err == nil {
		t.Error("a publish while the fabric is away was taken")
	}
	if f.Describe() != "embedded guest" {
		t.Errorf("a guest that never hosts became %q", f.Describe())
	}
	open(t, config(dir, "h", "h2"))
	eventually(t, "the guest is back", f.Connected)
}

// Sidecars that start at once elect exactly one host.
func TestStartTogether(t *testing.T) {
	dir := t.TempDir()
	var mu sync.Mutex
	var all []*fabric.Fabric
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			f, err := fabric.Open(within(t), config(dir, "app", strconv.Itoa(i)))
			if err != nil {
				t.Error(err)
				return
			}
			f.Announce(fabric.Instance{})
			mu.Lock()
			defer mu.Unlock()
			all = append(all, f)
		})
	}
	group.Wait()
	hosts := 0
	for _, f := range all {
		if f.Describe() == "embedded host" {
			hosts++
		}
		eventually(t, "everyone knows everyone", func() bool { return len(f.Instances("app")) == len(all) })
	}
	if hosts != 1 {
		t.Errorf("%d hosts", hosts)
	}
	for _, f := range all {
		group.Go(func() { shut(t, f) })
	}
	group.Wait()
}

// A host that leaves hands the fabric on: connections, subscriptions and what JetStream stored survive.
func TestHandOver(t *testing.T) {
	dir := t.TempDir()
	host, guest, third := open(t, config(dir, "a", "a1")), open(t, config(dir, "b", "b1")), open(t, config(dir, "c", "c1"))
	serve(t, guest, handler{})
	js, err := jetstream.New(guest.Conn())
	if err != nil {
		t.Fatal(err)
	}
	kv, err := js.CreateKeyValue(within(t), jetstream.KeyValueConfig{Bucket: "kept"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kv.PutString(within(t), "k", "v"); err != nil {
		t.Fatal(err)
	}
	conn := third.Conn()
	shut(t, host)
	eventually(t, "someone else hosts", func() bool {
		return (guest.Describe() == "embedded host") != (third.Describe() == "embedded host")
	})
	eventually(t, "all are connected", func() bool { return guest.Connected() && third.Connected() })
	eventually(t, "calls pass", func() bool {
		resp, err := third.Call(within(t), b1, &call.Request{Method: "m", Body: []byte("x")})
		return err == nil && string(resp.Body) == "x"
	})
	if conn != third.Conn() || conn.IsClosed() {
		t.Error("the connection did not survive")
	}
	eventually(t, "the value is there", func() bool {
		entry, err := kv.Get(within(t), "k")
		return err == nil && string(entry.Value()) == "v"
	})
}

// What JetStream acknowledged survives SIGKILL of the host, with the default settings.
func TestKilledHostLosesNothingAcknowledged(t *testing.T) {
	dir := t.TempDir()
	host := spawn(t, "publish", dir, "h")
	guest := open(t, config(dir, "g", "g1"))
	if guest.Describe() != "embedded guest" {
		t.Fatalf("the second sidecar is %q", guest.Describe())
	}
	js, err := jetstream.New(guest.Conn())
	if err != nil {
		t.Fatal(err)
	}
	mine, last := uint64(0), uint64(0)
	for range 300 {
		ack, err := js.Publish(within(t), "durable.guest", []byte("mine"))
		if err != nil {
			t.Fatal(err)
		}
		mine = ack.Sequence
		if _, err := fmt.Sscanf(host.await("acked"), "acked %d", &last); err != nil {
			t.Fatal(err)
		}
	}
	host.kill()
	for host.lines.Scan() { // what it had said before it died
		if _, err := fmt.Sscanf(host.lines.Text(), "acked %d", &last); err != nil {
			break
		}
	}
	last = max(last, mine)
	eventually(t, "the guest hosts", func() bool { return guest.Describe() == "embedded host" && guest.Connected() })
	stream, err := js.Stream(within(t), "DURABLE")
	if err != nil {
		t.Fatal(err)
	}
	info, err := stream.Info(within(t))
	if err != nil {
		t.Fatal(err)
	}
	if info.State.LastSeq < last || info.State.Msgs < last {
		t.Errorf("%d of %d acknowledged events are there", info.State.Msgs, last)
	}
	for _, seq := range []uint64{1, last / 2, last} {
		if _, err := stream.GetMsg(within(t), seq); err != nil {
			t.Errorf("event %d: %v", seq, err)
		}
	}
	if _, err := js.Publish(within(t), "durable.guest", []byte("after")); err != nil {
		t.Errorf("publishing after the takeover: %v", err)
	}
	t.Logf("%d events were acknowledged", last)
}

// A killed host that was also the target of calls: they end at once and say that they may have been done.
func TestKilledHostEndsItsCalls(t *testing.T) {
	dir := t.TempDir()
	host := spawn(t, "serve", dir, "h")
	guest, other := open(t, config(dir, "g", "g1")), open(t, config(dir, "o", "o1"))
	serve(t, other, handler{})
	target := fabric.Target{App: "h", Instance: "h1"}
	eventually(t, "the host is known", func() bool { return len(guest.Instances("h")) == 1 && len(guest.Instances("o")) == 1 })
	waiting := make(chan error, 1)
	go func() {
		_, err := guest.Call(context.Background(), target, &call.Request{Method: "hang"})
		waiting <- err
	}()
	host.await("hanging")
	s, err := guest.Stream(within(t), target, &call.Request{Method: "m"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	host.kill()
	_, err = s.Recv(within(t))
	wantReason(t, err, fault.StreamBroken)
	wantReason(t, <-waiting, fault.InstanceLost)
	eventually(t, "the dead host is dropped", func() bool { return len(guest.Instances("h")) == 0 })
	if len(guest.Instances("o")) != 1 {
		t.Error("a live instance was dropped with the host")
	}
	eventually(t, "calls pass", func() bool {
		_, err := guest.Call(within(t), fabric.Target{App: "o", Instance: "o1"}, &call.Request{Method: "m"})
		return err == nil
	})
}

// A killed guest: its calls end by presence or by asking, and the handlers that worked for it are cancelled.
func TestKilledGuest(t *testing.T) {
	dir := t.TempDir()
	host := open(t, config(dir, "h", "h1"))
	guest := spawn(t, "serve", dir, "g")
	target := fabric.Target{App: "g", Instance: "g1"}
	host.Settle(within(t))
	eventually(t, "the guest is known", func() bool { return len(host.Instances("g")) == 1 })
	waiting := make(chan error, 1)
	go func() {
		_, err := host.Call(context.Background(), target, &call.Request{Method: "hang"})
		waiting <- err
	}()
	guest.await("hanging")
	s, err := host.Stream(within(t), target, &call.Request{Method: "m"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Send(within(t), []byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Recv(within(t)); err != nil {
		t.Fatal(err)
	}
	guest.kill()
	wantReason(t, <-waiting, fault.InstanceLost)
	_, err = s.Recv(context.Background())
	wantReason(t, err, fault.InstanceLost)
	eventually(t, "it is dropped", func() bool { return len(host.Instances("g")) == 0 })
	eventually(t, "the server sees that the connection is gone", func() bool {
		_, err := host.Call(within(t), target, &call.Request{Method: "m"})
		if reason := fault.ReasonOf(err); reason != fault.InstanceLost { // which a call is told that was on its way there
			wantReason(t, err, fault.NoResponders)
			return true
		}
		return false
	})
}

// Takeovers one after the other: every host is killed in turn.
func TestTakeoverAgainAndAgain(t *testing.T) {
	dir, port := t.TempDir(), ports.Get(t)
	t.Setenv(childPort, strconv.Itoa(port))
	children := []*child{spawn(t, "serve", dir, "k0"), spawn(t, "serve", dir, "k1"), spawn(t, "serve", dir, "k2")}
	last := config(dir, "last", "l1")
	last.GuestOnly = true
	f := open(t, last)
	for i, c := range children[:2] {
		next := fabric.Target{App: fmt.Sprint("k", i+1), Instance: fmt.Sprint("k", i+1, "1")}
		c.kill()
		eventually(t, "another hosts", func() bool {
			_, err := f.Call(within(t), next, &call.Request{Method: "m"})
			return err == nil
		})
		if got := address(t, dir); got != fmt.Sprint("127.0.0.1:", port) {
			t.Errorf("the new host listens on %s, not on port %d", got, port)
		}
	}
}
