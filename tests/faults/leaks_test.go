package faults

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sidecast/sidecast/fault"
	sidecast "github.com/sidecast/sidecast/sdk/go"
	"github.com/sidecast/sidecast/tests/machine"
)

// visit is what a client does in a short life: a little of everything, and it goes without a word.
func visit(ctx context.Context, address string, n int) error {
	c, err := sidecast.Connect(ctx, sidecast.Endpoint(address), sidecast.Logger(slog.New(slog.DiscardHandler)))
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.State("").Set(ctx, "k", []byte("v")); err != nil {
		return err
	}
	if _, err := c.Invoke(ctx, "target", "echo", []byte("x")); err != nil {
		return err
	}
	short, cancel := context.WithCancel(ctx)
	defer cancel()
	for change, err := range c.State("").Watch(short, "") {
		if err != nil {
			return err
		}
		if change.Current {
			break
		}
	}
	held, err := c.Lock("").Hold(short, fmt.Sprint("lock-", n%10), sidecast.Wait(soon))
	if err != nil {
		return err
	}
	_ = held // the sidecar lets go when the connection is gone
	stream, err := c.InvokeStream(short, "target", "count")
	if err != nil {
		return err
	}
	if _, err := stream.Write([]byte("half a request")); err != nil {
		return err
	}
	for range c.Lock("").Watch(short, "gate") {
		break
	}
	serving := make(chan error, 1)
	welcomed := sidecast.OnEvent(fmt.Sprint("topic-", n%3), func(context.Context, *sidecast.Event) error { return nil })
	go func() { serving <- c.Serve(short, welcomed, sidecast.DrainTimeout(0)) }()
	if _, err := c.Publish(ctx, fmt.Sprint("topic-", n%3), []byte("x")); err != nil {
		return err
	}
	cancel()
	<-serving
	return nil
}

// Clients come and go, and nothing of them stays.
func TestNothingIsLeftOfClientsThatCameAndWent(t *testing.T) {
	m := machine.New(t)
	target, s := m.Sidecar("target", "--pprof"), m.Sidecar("visited", "--pprof")
	target.Serve(append(handlers("target"), sidecast.HandleStream("count", func(_ context.Context, _ *sidecast.Request, stream *sidecast.Stream) error {
		var all bytes.Buffer
		_, err := all.ReadFrom(stream)
		return err
	}))...)
	meet(t, s, "target", 1)
	ctx, cancel := context.WithTimeout(t.Context(), 3*long)
	defer cancel()
	visits := func(n int) {
		for i := range n {
			if err := visit(ctx, s.GRPC, i); err != nil {
				t.Fatalf("visit %d: %v", i, err)
			}
		}
	}
	visits(10) // what is opened on first use is open now
	type size struct{ goroutines, files int }
	sizes := func() map[string]size {
		return map[string]size{
			"target":  {goroutines(t, target), files(t, target)},
			"visited": {goroutines(t, s), files(t, s)},
		}
	}
	const slack = 10 // connections that come and go by themselves
	time.Sleep(500 * time.Millisecond)
	before := sizes()
	visits(200)
	machine.Until(t, "as few goroutines and files as before", func() error {
		for name, now := range sizes() {
			was := before[name]
			if now.goroutines > was.goroutines+slack || now.files > was.files+slack {
				return fmt.Errorf("%s had %+v and has %+v", name, was, now)
			}
		}
		return nil
	})
	t.Logf("before %v, after %v", before, sizes())
}

// Many large bodies at once take no more memory than there is for them: the callers are served one after the other, or
// told to come back.
func TestMemoryOfManyLargeBodies(t *testing.T) {
	m := machine.New(t)
	target, s := m.Sidecar("target"), m.Sidecar("caller")
	target.Serve(handlers("target")...)
	meet(t, s, "target", 1)
	c := s.Client()
	body := bytes.Repeat([]byte("0123456789abcdef"), 4<<20) // 64 MiB
	var served, refused atomic.Int64
	var calls sync.WaitGroup
	for range 24 {
		calls.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), long)
			defer cancel()
			switch answer, err := c.Invoke(ctx, "target", "echo", body); {
			case err == nil && bytes.Equal(answer.Data, body):
				served.Add(1)
			case err == nil:
				t.Error("the body came back changed")
			case fault.KindOf(err) == fault.Exhausted && fault.RetryAfter(err) > 0:
				refused.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	done := make(chan struct{})
	go func() { calls.Wait(); close(done) }()
	largest := map[string]int{}
	for running := true; running; {
		select {
		case <-done:
			running = false
		case <-time.After(20 * time.Millisecond):
		}
		for _, side := range []*machine.Sidecar{target, s} {
			largest[side.App] = max(largest[side.App], resident(t, side))
		}
	}
	t.Logf("%d served, %d refused, at most %v MiB", served.Load(), refused.Load(), largest)
	if served.Load() == 0 {
		t.Error("nobody was served")
	}
	for name, most := range largest {
		if most > 2048 { // two dozen bodies and their answers are 3072 before anything is copied
			t.Errorf("%s took %d MiB", name, most)
		}
	}
}

// Large bodies pass, and the memory they took is not kept.
func TestMemoryOfLargeBodies(t *testing.T) {
	m := machine.New(t)
	target, s := m.Sidecar("target"), m.Sidecar("caller")
	target.Serve(handlers("target")...)
	meet(t, s, "target", 1)
	c := s.Client()
	body := bytes.Repeat([]byte("0123456789abcdef"), 4<<20) // 64 MiB
	call := func() {
		ctx, cancel := context.WithTimeout(t.Context(), long)
		defer cancel()
		answer, err := c.Invoke(ctx, "target", "echo", body)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(answer.Data, body) {
			t.Fatal("the body came back changed")
		}
	}
	largest := map[string]int{}
	for range 5 {
		call()
		for _, side := range []*machine.Sidecar{target, s} {
			largest[side.App] = max(largest[side.App], resident(t, side))
		}
	}
	t.Logf("at most %v MiB", largest)
	for name, most := range largest {
		if most > 1024 {
			t.Errorf("%s took %d MiB for one body of 64 MiB at a time", name, most)
		}
	}
	machine.Until(t, "the memory is given back", func() error {
		for _, side := range []*machine.Sidecar{target, s} {
			if now := resident(t, side); now > 300 {
				return fmt.Errorf("%s keeps %d MiB", side.App, now)
			}
		}
		return nil
	})
}
