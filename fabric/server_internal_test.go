package fabric

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

func TestServerSettings(t *testing.T) {
	for _, always := range []bool{false, true} {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		f, err := Open(ctx, Config{AppID: "a", Instance: "1", Dir: t.TempDir(), SyncAlways: always})
		if err != nil {
			t.Fatal(err)
		}
		config := f.embedded.server.nats.JetStreamConfig()
		if config.SyncAlways != always || config.SyncInterval != syncEvery {
			t.Errorf("SyncAlways %v gave %+v", always, config)
		}
		if err := f.Close(ctx); err != nil {
			t.Error(err)
		}
		cancel()
	}
}

// embeddedHost is a host without the goroutine that looks after it.
func embeddedHost(t *testing.T) (*embedded, *nats.Conn) {
	t.Helper()
	e, err := newEmbedded(Config{Dir: t.TempDir()}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.leave)
	if err := e.elect(true); err != nil {
		t.Fatal(err)
	}
	public, err := e.key.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	nc, err := nats.Connect("", nats.SetCustomDialer(e), nats.Nkey(public, e.key.Sign), nats.ReconnectWait(time.Millisecond), nats.MaxReconnects(-1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return e, nc
}

// A disk without room: writes are refused with an answer, reads go on, and writes are accepted when there is room.
func TestFullDiskRefusesWrites(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	e, nc := embeddedHost(t)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	s, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(ctx, "s", []byte("before")); err != nil {
		t.Fatal(err)
	}
	e.server.setFull(true)
	if _, err := js.Publish(ctx, "s", []byte("refused")); err == nil {
		t.Error("a write to a full disk was acknowledged")
	}
	if _, err := s.GetMsg(ctx, 1); err != nil {
		t.Errorf("reading from a full disk: %v", err)
	}
	if roomy := e.server.guardDisk(); !roomy {
		t.Skip("the disk of this test is really full")
	}
	if ack, err := js.Publish(ctx, "s", []byte("after")); err != nil || ack.Sequence != 2 {
		t.Errorf("%+v, %v", ack, err)
	}
}

// A server that is restarted to heal it keeps its port, its data and its connections.
func TestRestartKeepsEverything(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	e, nc := embeddedHost(t)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	kv, err := js.CreateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: "b"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kv.PutString(ctx, "k", "v"); err != nil {
		t.Fatal(err)
	}
	if sick := e.server.sick(); sick != "" {
		t.Errorf("a healthy server says %q", sick)
	}
	e.restart("test")
	for {
		entry, err := kv.Get(ctx, "k")
		if err == nil && string(entry.Value()) == "v" {
			break
		}
		if ctx.Err() != nil {
			t.Fatalf("the value is gone: %v", err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// A request that still waits for the connection is not asked for: the probe would overtake it.
func TestProbesDoNotOvertakeTheirRequests(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	f, err := Open(ctx, Config{AppID: "a", Instance: "1", Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close(ctx)
	to := Target{App: "b", Instance: "1"}
	probes, err := f.Conn().SubscribeSync(f.route(to).subject)
	if err != nil {
		t.Fatal(err)
	}
	defer probes.Unsubscribe()
	seen := func() int {
		if err := f.Conn().Flush(); err != nil {
			t.Fatal(err)
		}
		n, _, err := probes.Pending()
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	w := &waiting{f: f, to: to, route: f.route(to), answer: make(chan answer, 1)}
	s := f.newStream("stream", to, f.route(to))
	s.sending.Lock() // the stream is being opened
	for pulse := range int64(10 * quietPulses) {
		w.probe(1, f.clock.Load()+pulse)
		s.probe(2, f.clock.Load()+pulse)
	}
	if n := seen(); n > 0 {
		t.Errorf("%d probes for what was not sent", n)
	}
	w.sent.Store(f.clock.Load() + 1)
	w.probe(1, f.clock.Load()+2*quietPulses)
	if seen() == 0 {
		t.Error("no probe for what was sent")
	}
}
