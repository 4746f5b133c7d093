package fabric

import (
	"context"
	"testing"
	"time"

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

// A disk without room: writes are refused with an answer, reads go on, and writes are accepted when there is room.
func TestFullDiskRefusesWrites(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	f, err := Open(ctx, Config{AppID: "a", Instance: "1", Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := f.Close(ctx); err != nil {
			t.Error(err)
		}
	}()
	js, err := jetstream.New(f.Conn())
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
	h := f.embedded.server
	h.setFull(true)
	if _, err := js.Publish(ctx, "s", []byte("refused")); err == nil {
		t.Error("a write to a full disk was acknowledged")
	}
	if _, err := s.GetMsg(ctx, 1); err != nil {
		t.Errorf("reading from a full disk: %v", err)
	}
	h.setFull(false)
	if ack, err := js.Publish(ctx, "s", []byte("after")); err != nil || ack.Sequence != 2 {
		t.Errorf("%+v, %v", ack, err)
	}
}
