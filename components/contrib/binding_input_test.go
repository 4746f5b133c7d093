//go:build linux

package contrib

import (
	"bufio"
	"context"
	varint "encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sidecast/sidecast/binding"
	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/tests/servers"
)

// reads reads a binding until stop is called.
func reads(t *testing.T, b components.Backend, handle binding.Handler) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.(binding.Input).Read(ctx, handle) }()
	stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("read: %v", err)
			}
		case <-time.After(hung):
			t.Error("reading does not end")
		}
	})
	t.Cleanup(stop)
	return stop
}

func TestRabbitBinding(t *testing.T) {
	t.Parallel()
	b := openBinding(t, rabbitBinding, map[string]string{"host": servers.RabbitMQ(t), "queueName": "bound", "durable": "true"})
	operate(t, b, "create", "one", "extra key", "value")
	operate(t, b, "create", "two")
	got := make(chan binding.Event, 100)
	failed := false
	stop := reads(t, b, func(e binding.Event) ([]byte, error) {
		got <- e
		if string(e.Data) == "one" && !failed {
			failed = true
			return nil, errors.New("not now")
		}
		return nil, nil
	})
	counts := map[string]int{}
	for range 3 {
		e := <-got
		counts[string(e.Data)]++
		if string(e.Data) == "one" && e.Metadata["extra+key"] != "value" {
			t.Errorf("the metadata is %v", e.Metadata)
		}
	}
	if counts["one"] != 2 || counts["two"] != 1 {
		t.Errorf("got %v", counts)
	}
	stop()
	operate(t, b, "create", "three") // stays until somebody reads again
	again := make(chan binding.Event, 100)
	reads(t, b, func(e binding.Event) ([]byte, error) { again <- e; return nil, nil })
	if e := <-again; string(e.Data) != "three" {
		t.Errorf("got %q: what was handled comes again", e.Data)
	}
}

func TestMQTTBinding(t *testing.T) {
	t.Parallel()
	b := openBinding(t, mqttBinding, map[string]string{"url": servers.MQTT(t), "topic": "bound/+", "consumerID": "bound"})
	got := make(chan binding.Event, 100)
	var mu sync.Mutex
	tries := map[string]int{}
	stop := reads(t, b, func(e binding.Event) ([]byte, error) {
		mu.Lock()
		defer mu.Unlock()
		if tries[string(e.Data)]++; tries[string(e.Data)] == 1 {
			return nil, errors.New("not now")
		}
		got <- e
		return nil, nil
	})
	for i := 0; len(got) == 0; i++ { // a subscription begins when the server says so
		operate(t, b, "create", fmt.Sprint("hello", i), "topic", "bound/hello")
		time.Sleep(10 * time.Millisecond)
	}
	operate(t, b, "create", "one", "topic", "bound/a")
	for e := <-got; string(e.Data) != "one"; e = <-got {
		continue
	}
	stop()
	operate(t, b, "create", "two", "topic", "bound/b") // the server keeps it for who comes back
	again := make(chan binding.Event, 100)
	reads(t, b, func(e binding.Event) ([]byte, error) { again <- e; return nil, nil })
	for e := range again {
		if string(e.Data) == "one" {
			t.Error("what was handled comes again")
		}
		if string(e.Data) == "two" {
			if e.Metadata["topic"] != "bound/b" {
				t.Errorf("the metadata is %v", e.Metadata)
			}
			break
		}
	}
}

// A server ends the connection of a client that publishes to what is no topic's name.
func TestMQTTBindingRefusesWhatIsNoTopic(t *testing.T) {
	t.Parallel()
	b := openBinding(t, mqttBinding, map[string]string{"url": servers.MQTT(t), "topic": "some/+", "consumerID": "names"})
	for _, topic := range []string{"", "a/#", "a\x00b", strings.Repeat("t", mostTopic+1)} {
		_, err := b.(binding.Output).Invoke(t.Context(), asked("create", "x", "topic", topic))
		if fault.ReasonOf(err) != fault.BadRequest {
			t.Errorf("to %.10q: %v", topic, err)
		}
		operate(t, b, "create", "x", "topic", "some/name") // it is still connected
	}
}

// dropper is an MQTT server that accepts clients and confirms nothing; it ends the first connection when a message comes. Later
// ones it keeps until the listener is closed.
func dropper(t *testing.T) (address string) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	var mu sync.Mutex
	var open []net.Conn
	serve := func(conn net.Conn, first bool) {
		defer conn.Close()
		in := bufio.NewReader(conn)
		for {
			kind, err := in.ReadByte()
			if err != nil {
				return
			}
			size, err := varint.ReadUvarint(in) // a length of MQTT is one
			if err != nil {
				return
			}
			if _, err := io.CopyN(io.Discard, in, int64(size)); err != nil {
				return
			}
			switch kind >> 4 {
			case 1: // CONNECT
				_, _ = conn.Write([]byte{0x20, 2, 0, 0})
			case 3: // PUBLISH
				if first {
					return
				}
			}
		}
	}
	serving.Go(func() {
		for n := 0; ; n++ {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open = append(open, conn)
			mu.Unlock()
			serving.Go(func() { serve(conn, n == 0) })
		}
	})
	t.Cleanup(func() {
		listener.Close()
		mu.Lock()
		for _, conn := range open {
			conn.Close()
		}
		mu.Unlock()
		serving.Wait()
	})
	return listener.Addr().String()
}

// The client sends a message again when it has another connection, and says that it was sent: that is not that the server has it.
func TestMQTTBindingDoesNotConfirmForTheServer(t *testing.T) {
	t.Parallel()
	b := openBinding(t, mqttBinding, map[string]string{"url": "mqtt://" + dropper(t), "topic": "t", "consumerID": "c"})
	_, err := b.(binding.Output).Invoke(patiently(t), asked("create", "x"))
	away(t, "create", err)
}

func TestMQTTBindingOutlivesItsServer(t *testing.T) {
	t.Parallel()
	server := servers.Own(t, servers.OfMQTT)
	b := openBinding(t, mqttBinding, map[string]string{"url": "mqtt://" + server.Address(), "topic": "t", "consumerID": "c"})
	got := make(chan string, 1000)
	reads(t, b, func(e binding.Event) ([]byte, error) { got <- string(e.Data); return nil, nil })
	send := func(ctx context.Context) error {
		_, err := b.(binding.Output).Invoke(ctx, asked("create", "x"))
		return err
	}
	arrives := func(ctx context.Context) error {
		if err := send(ctx); err != nil {
			return err
		}
		select {
		case <-got:
			return nil
		case <-time.After(time.Second):
			return errors.New("it does not arrive")
		}
	}
	eventually(t, "create", arrives)
	killed(t, server, func() { away(t, "create", attempt(t, send)) })
	eventually(t, "create", arrives)
	server.Kill()
	_, err := mqttBinding.Open(t.Context(), components.Host{Log: discard, Binding: components.Binding{Output: true}},
		map[string]string{"url": "mqtt://" + server.Address(), "topic": "t", "consumerID": "d"})
	away(t, "open", err)
	server.Start(t)
}

// An event that is at work when reading ends is acknowledged all the same.
func TestTheEndOfReadingWaitsForWhatIsAtWork(t *testing.T) {
	t.Parallel()
	b := openBinding(t, rabbitBinding, map[string]string{"host": servers.RabbitMQ(t), "queueName": "slow"})
	for _, data := range []string{"one", "two", "three"} {
		operate(t, b, "create", data)
	}
	begun, release := make(chan string, 10), make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- b.(binding.Input).Read(ctx, func(e binding.Event) ([]byte, error) {
			begun <- string(e.Data)
			<-release
			return nil, nil
		})
	}()
	first := <-begun
	cancel()
	select {
	case err := <-done:
		t.Fatalf("reading ended over a handler at work: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	close(release)
	if err := <-done; err != nil || len(begun) > 0 {
		t.Errorf("reading ended with %v, and %d more events", err, len(begun))
	}
	rest := make(chan string, 10)
	reads(t, b, func(e binding.Event) ([]byte, error) { rest <- string(e.Data); return nil, nil })
	if a, b := <-rest, <-rest; first != "one" || a != "two" || b != "three" {
		t.Errorf("%s was at work; then came %s and %s", first, a, b)
	}
}

// What a server would not give out again is repeated until it is handled, or nobody reads any more.
func TestAReadingRepeatsWhatFails(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	tries, handled := 0, 0
	r := newReading(func(binding.Event) ([]byte, error) {
		if tries++; tries < 3 {
			return nil, errors.New("again")
		}
		return []byte("answer"), nil
	}, true)
	if answer, err := r.pass(binding.Event{}, func() { handled++ }); string(answer) != "answer" || err != nil || tries != 3 || handled != 1 {
		t.Errorf("got %q and %v after %d tries, handled %d times", answer, err, tries, handled)
	}
	r.close()
	if _, err := r.pass(binding.Event{}, func() { handled++ }); err != errNotTaken || handled != 1 {
		t.Errorf("after the end an event is taken: %v", err)
	}

	failing := make(chan struct{}, 1)
	r = newReading(func(binding.Event) ([]byte, error) {
		select {
		case failing <- struct{}{}:
		default:
		}
		return nil, errors.New("never")
	}, true)
	ended := make(chan error, 1)
	go func() {
		_, err := r.pass(binding.Event{}, func() { t.Error("what failed is called handled") })
		ended <- err
	}()
	<-failing
	r.close()
	if err := <-ended; err == nil {
		t.Error("what failed has no error")
	}
}
