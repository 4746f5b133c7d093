package fabric

import (
	"context"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

func TestENOSPCExperiment(t *testing.T) {
	dir := os.Getenv("TINY")
	if dir == "" {
		t.Skip()
	}
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Second)
	defer cancel()
	f, err := Open(ctx, Config{AppID: "a", Instance: "1", Dir: dir + "/d", Log: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close(ctx)
	js, _ := jetstream.New(f.Conn(), jetstream.WithDefaultTimeout(2*time.Second))
	_, err = js.CreateStream(ctx, jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}})
	t.Log("create", err)
	blob := make([]byte, 100<<10)
	var last uint64
	for n := 0; n < 1000; n++ {
		ack, err := js.Publish(ctx, "s", blob)
		if err != nil {
			t.Log("own fill: refused at", n, err)
			break
		}
		last = ack.Sequence
	}
	st, _ := js.Stream(ctx, "S")
	// Someone else fills the disk.
	fill := func() { file, _ := os.Create(dir + "/filler"); for { if _, err := file.Write(blob); err != nil { break } }; file.Close() }
	st.Purge(ctx)
	for range 20 { js.Publish(ctx, "s", blob) }
	fill()
	for i := range 8 {
		start := time.Now()
		ack, err := js.Publish(ctx, "s", blob)
		t.Log("others fill:", i, ack, err, time.Since(start).Round(time.Millisecond), "sick:", f.embedded.server.sick())
		time.Sleep(500*time.Millisecond)
	}
	os.Remove(dir + "/filler")
	for i := range 16 {
		start := time.Now()
		ack, err := js.Publish(ctx, "s", blob)
		sick := ""
		f.embedded.mu.Lock(); srv := f.embedded.server; f.embedded.mu.Unlock()
		if srv != nil { sick = srv.sick() }
		t.Log("freed:", i, ack, err, time.Since(start).Round(time.Millisecond), "sick:", sick)
		time.Sleep(time.Second)
	}
	info, err := st.Info(ctx)
	t.Log(last, info, err)
}
