package natspubsub

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/pubsub"
	"github.com/sidecast/sidecast/tests/ports"
)

const patience = 30 * time.Second

// TestServerRestart stops and starts the server under publishers and two feeds. Every message whose Publish was answered
// with nil must arrive, and keyed ones in order.
func TestServerRestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	port := ports.Get(t)
	s, err := newServer(dir, port, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	nc := connect(t, s.ClientURL())
	b := openOn(t, hostOn(nc, "restart"), nil)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()

	const publishers, each = 4, 150
	var mu sync.Mutex
	stored, seen := map[string]bool{}, map[string]bool{}
	enough := func() bool {
		if len(stored) < publishers*each {
			return false
		}
		for id := range stored {
			if !seen[id] {
				return false
			}
		}
		return true
	}
	var work sync.WaitGroup
	progress := make(chan struct{}, publishers*each)
	for p := range publishers {
		work.Go(func() {
			for i := range each {
				m := pubsub.Message{ID: fmt.Sprintf("%d-%d", p, i)}
				if p%2 == 0 {
					m.Key = fmt.Sprint("key", p)
				}
				for b.Publish(ctx, "t", []pubsub.Message{m})[0] != nil && ctx.Err() == nil {
					time.Sleep(5 * time.Millisecond) // the caller's retry; the ID makes it harmless
				}
				mu.Lock()
				stored[m.ID] = true
				mu.Unlock()
				progress <- struct{}{}
			}
		})
	}
	for range 2 {
		work.Go(func() {
			consumeAcross(ctx, t, b, cancel, func(id string) bool { mu.Lock(); defer mu.Unlock(); seen[id] = true; return enough() })
		})
	}
	for range 2 {
		for range publishers * each / 4 {
			<-progress
		}
		stopServer(s)
		if s, err = newServer(dir, port, 1<<20); err != nil {
			t.Fatal(err)
		}
	}
	defer func() { stopServer(s) }()
	work.Wait()
	mu.Lock()
	defer mu.Unlock()
	for id := range stored {
		if !seen[id] {
			t.Errorf("%s was acknowledged to its publisher and never delivered", id)
		}
	}
	closeCtx, done := context.WithTimeout(context.Background(), patience)
	defer done()
	if err := b.Close(closeCtx); err != nil {
		t.Errorf("Close: %v", err)
	}
}

// consumeAcross consumes until handle says that it is enough, subscribing again when the feed asks for it.
func consumeAcross(ctx context.Context, t *testing.T, b pubsub.Broker, enough func(), handle func(id string) bool) {
	for ctx.Err() == nil {
		f, err := b.Subscribe(ctx, "t", pubsub.Group{Name: "g", AckWait: 2 * time.Second})
		if err != nil {
			if k := fault.KindOf(err); ctx.Err() == nil && k != fault.Unavailable {
				t.Errorf("Subscribe: %v", err)
			}
			time.Sleep(5 * time.Millisecond)
			continue
		}
		for {
			ds, err := f.Next(ctx, 4)
			if err != nil {
				if k := fault.KindOf(err); ctx.Err() == nil && k != fault.Unavailable {
					t.Errorf("Next: %v", err)
				}
				break
			}
			for _, d := range ds {
				_ = d.Ack(ctx) // a lost one means a redelivery
				if handle(d.Message().ID) {
					enough()
				}
			}
		}
		closeCtx, done := context.WithTimeout(context.Background(), patience)
		_ = f.Close(closeCtx) // the connection may be down
		done()
	}
}

const childEnv = "SIDECAST_NATSPUBSUB_CHILD"

// child hosts a server and publishes to it until it is killed, telling of each message that was answered.
func child(dir string) {
	s, err := newServer(dir, -1, 1<<20)
	if err != nil {
		fmt.Println("error", err)
		return
	}
	nc, err := dial(s.ClientURL())
	if err != nil {
		fmt.Println("error", err)
		return
	}
	opened, err := Component.Open(context.Background(), hostOn(nc, "killed"), nil)
	if err != nil {
		fmt.Println("error", err)
		return
	}
	b := opened.(pubsub.Broker)
	for i := 0; ; i++ {
		m := pubsub.Message{ID: fmt.Sprint("m", i), Data: make([]byte, 512)}
		if i%2 == 0 {
			m.Key = "key"
		}
		if err := b.Publish(context.Background(), "t", []pubsub.Message{m})[0]; err != nil {
			fmt.Println("error", err)
			return
		}
		fmt.Println(m.ID)
	}
}

// TestKill kills a process that hosts server and publisher, and opens what it left.
func TestKill(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	answered := map[string]bool{}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		id := lines.Text()
		if strings.HasPrefix(id, "error") {
			t.Errorf("child: %s", id)
			break
		}
		if answered[id] = true; len(answered) == 500 {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	_ = cmd.Wait() // it was killed

	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	nc := connect(t, startServer(t, dir, -1).ClientURL())
	b := openOn(t, hostOn(nc, "killed"), nil)
	defer b.Close(ctx)
	f, err := b.Subscribe(ctx, "t", pubsub.Group{Name: "g"})
	if err != nil {
		t.Fatal(err)
	}
	for len(answered) > 0 {
		ds, err := f.Next(ctx, 50)
		if err != nil {
			t.Fatalf("%d messages are lost: %v", len(answered), err)
		}
		for _, d := range ds {
			delete(answered, d.Message().ID)
			if err := d.Ack(ctx); err != nil {
				t.Error(err)
			}
		}
	}
}

// TestReconnect cuts the connection while a feed waits and while it holds a delivery; the feed heals.
func TestReconnect(t *testing.T) {
	t.Parallel()
	nc := connect(t, startServer(t, t.TempDir(), -1).ClientURL())
	b := openOn(t, hostOn(nc, "cut"), nil)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	defer b.Close(ctx)
	f, err := b.Subscribe(ctx, "t", pubsub.Group{Name: "g"})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		var m pubsub.Message
		if m.ID = fmt.Sprint("m", i); i%2 == 0 {
			m.Key = "key"
		}
		got := make(chan pubsub.Delivery)
		go func() {
			ds, err := f.Next(ctx, 2)
			if err != nil {
				t.Errorf("Next: %v", err)
				close(got)
				return
			}
			got <- ds[0]
		}()
		if i%3 == 0 {
			if err := nc.ForceReconnect(); err != nil {
				t.Fatal(err)
			}
		}
		for b.Publish(ctx, "t", []pubsub.Message{m})[0] != nil && ctx.Err() == nil {
			time.Sleep(time.Millisecond)
		}
		d := <-got
		if d == nil {
			break
		}
		if d.Message().ID != m.ID {
			t.Errorf("got %s, want %s", d.Message().ID, m.ID)
		}
		if i%3 == 1 {
			if err := nc.ForceReconnect(); err != nil {
				t.Fatal(err)
			}
		}
		if err := d.Ack(ctx); err != nil {
			t.Errorf("Ack: %v", err)
		}
	}
}
