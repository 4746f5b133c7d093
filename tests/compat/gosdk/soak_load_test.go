package gosdk

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dapr/go-sdk/client"
)

// bound is how long one call may take. Whatever happens to sidecars and apps, it is answered by then.
const bound = 5 * time.Second

func listening(address string) bool {
	conn, err := net.DialTimeout("tcp", address, time.Second)
	if err == nil {
		_ = conn.Close()
	}
	return err == nil
}

// ledger is what publishers were told is stored, and what subscribers say they have handled.
type ledger struct {
	mu              sync.Mutex
	stored, handled map[string]map[string]int // of a topic, the events
}

func newLedger() *ledger {
	return &ledger{stored: map[string]map[string]int{}, handled: map[string]map[string]int{}}
}

func (l *ledger) note(book map[string]map[string]int, topic, id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if book[topic] == nil {
		book[topic] = map[string]int{}
	}
	book[topic][id]++
}

// ServeHTTP takes the word of an app.
func (l *ledger) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil { // the app died
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	l.note(l.handled, r.URL.Query().Get("topic"), string(body))
}

// missing is what was stored and not handled, in words; "" is nothing.
func (l *ledger) missing() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []string
	for topic, ids := range l.stored {
		var lost []string
		for id := range ids {
			if l.handled[topic][id] == 0 {
				lost = append(lost, id)
			}
		}
		if len(lost) > 0 {
			slices.Sort(lost)
			all = append(all, fmt.Sprintf("%d of %d events of %s, such as %s", len(lost), len(ids), topic, lost[0]))
		}
	}
	return strings.Join(all, "; ")
}

func (l *ledger) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []string
	for topic, ids := range l.stored {
		again := 0
		for _, n := range l.handled[topic] {
			again += n - 1
		}
		all = append(all, fmt.Sprintf("%s %d (%d again)", topic, len(ids), again))
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

// load is what goes on while things break. It rests while it is told to, and ends with the test.
type load struct {
	t       *testing.T
	gate    sync.RWMutex // held for reading by work, for writing by who wants it to rest
	workers sync.WaitGroup
	ctx     context.Context
	failed  atomic.Int64
	done    atomic.Int64
}

// goes does work again and again. An error is what a sidecar that is away gives, and is tried again after a pause.
func (l *load) goes(name string, pause time.Duration, work func(ctx context.Context, n int) error) {
	l.workers.Go(func() {
		for n := 0; l.ctx.Err() == nil; n++ {
			l.gate.RLock()
			began := time.Now()
			ctx, cancel := context.WithTimeout(context.Background(), bound)
			err := work(ctx, n)
			cancel()
			if took := time.Since(began); took > bound+2*patience/3 {
				l.t.Errorf("%s: no answer for %v: %v", name, took, err)
			}
			l.gate.RUnlock()
			if err != nil {
				l.failed.Add(1)
				time.Sleep(20 * time.Millisecond)
			} else {
				l.done.Add(1)
				time.Sleep(pause)
			}
		}
	})
}

// publish publishes to a topic, one by one or in bulk.
func (l *load) publish(of *sidecarNode, books *ledger, topic string, bulk int) {
	l.goes("publish "+topic, time.Millisecond, func(ctx context.Context, n int) error {
		name := of.name + " " + strconv.Itoa(n)
		if bulk == 0 {
			err := of.client.PublishEvent(ctx, "bus", topic, name, client.PublishEventWithContentType("text/plain"))
			if err == nil {
				books.note(books.stored, topic, name)
			}
			return err
		}
		events := make([]any, bulk)
		for i := range events {
			events[i] = client.PublishEventsEvent{EntryID: strconv.Itoa(i), Data: []byte(name + "/" + strconv.Itoa(i)), ContentType: "text/plain"}
		}
		answer := of.client.PublishEvents(ctx, "bus", topic, events)
		refused := map[string]bool{}
		for _, e := range answer.FailedEvents {
			if failed, ok := e.(client.PublishEventsEvent); ok {
				refused[failed.EntryID] = true
			}
		}
		if answer.Error != nil && len(refused) == 0 {
			return answer.Error
		}
		for i := range events {
			if !refused[strconv.Itoa(i)] {
				books.note(books.stored, topic, name+"/"+strconv.Itoa(i))
			}
		}
		return answer.Error
	})
}

// invoke calls an app over gRPC and HTTP.
func (l *load) invoke(of *sidecarNode, app string) {
	l.goes("invoke "+app, 2*time.Millisecond, func(ctx context.Context, n int) error {
		sent := []byte(strings.Repeat(strconv.Itoa(n)+" ", 1+rand.IntN(1000)))
		got, err := of.client.InvokeMethodWithContent(ctx, app, "echo", "post", &client.DataContent{ContentType: "text/plain", Data: sent})
		if err == nil && !bytes.Equal(got, sent) {
			l.t.Errorf("%s answers %.40q to %.40q", app, got, sent)
		}
		return err
	})
	l.goes("invoke "+app+" over HTTP", 2*time.Millisecond, func(ctx context.Context, n int) error {
		r, err := http.NewRequestWithContext(ctx, "POST", of.httpURL+"/v1.0/invoke/"+app+"/method/echo", strings.NewReader(strconv.Itoa(n)))
		if err != nil {
			return err
		}
		r.Header.Set("Content-Type", "text/plain")
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		got, err := io.ReadAll(response.Body)
		if err == nil && response.StatusCode == http.StatusOK && string(got) != strconv.Itoa(n) {
			l.t.Errorf("%s answers %.40q to %d", app, got, n)
		}
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("%d %s", response.StatusCode, got)
		}
		return err
	})
}

// written is what the keys of a store may have: the last value that was acknowledged, or one that was tried later.
type written struct {
	store string
	may   map[string][]string
	acked int
	// counted and tried bound a counter that is raised by its ETag.
	counted, tried int
}

// write writes to a store: values one by one, pairs in a transaction, and a counter by its ETag.
func (l *load) write(of *sidecarNode, store string) *written {
	w := &written{store: store, may: map[string][]string{}}
	l.goes("write "+store, time.Millisecond, func(ctx context.Context, n int) error {
		value := strconv.Itoa(n)
		keys := []string{"k" + strconv.Itoa(n%20)}
		var err error
		switch n % 10 {
		case 7:
			keys = []string{"left", "right"}
			ops := []*client.StateOperation{}
			for _, key := range keys {
				ops = append(ops, &client.StateOperation{Type: client.StateOperationTypeUpsert, Item: &client.SetStateItem{Key: key, Value: []byte(value)}})
			}
			err = of.client.ExecuteStateTransaction(ctx, store, nil, ops)
		case 8:
			return w.count(ctx, of.client)
		default:
			err = of.client.SaveState(ctx, store, keys[0], []byte(value), nil)
		}
		for _, key := range keys {
			if err == nil {
				w.may[key] = nil
				w.acked++
			}
			w.may[key] = append(w.may[key], value)
		}
		return err
	})
	return w
}

func (w *written) count(ctx context.Context, c client.Client) error {
	item, err := c.GetState(ctx, w.store, "counter", nil)
	if err != nil {
		return err
	}
	was, _ := strconv.Atoi(string(item.Value))
	w.tried++
	err = c.SaveStateWithETag(ctx, w.store, "counter", []byte(strconv.Itoa(was+1)), item.Etag, nil, client.WithConcurrency(client.StateConcurrencyFirstWrite))
	if err == nil {
		w.counted++
	}
	return err
}

// check reads everything back. The load has to rest.
func (w *written) check(t *testing.T, c client.Client) {
	t.Helper()
	got := map[string]string{}
	for key, may := range w.may {
		var item *client.StateItem
		until(t, w.store+" is read", func() (ok bool) {
			var err error
			item, err = c.GetState(t.Context(), w.store, key, nil)
			return err == nil
		})
		got[key] = string(item.Value)
		if !slices.Contains(may, got[key]) {
			t.Errorf("%s of %s is %q; one of %q was acknowledged last or tried since", key, w.store, got[key], may)
		}
	}
	if got["left"] != got["right"] {
		t.Errorf("half a transaction in %s: %s and %s", w.store, got["left"], got["right"])
	}
	item, err := c.GetState(t.Context(), w.store, "counter", nil)
	if err != nil {
		t.Fatal(err)
	}
	if n, _ := strconv.Atoi(string(item.Value)); n < w.counted || n > w.tried {
		t.Errorf("the counter of %s is %d after %d of %d attempts", w.store, n, w.counted, w.tried)
	}
}

// lock has two clients want one lock, of which no more than one may think that it has it.
func (l *load) lock(clients ...*sidecarNode) {
	const expiry = 5 * time.Second
	var mu sync.Mutex
	var holder string
	var since time.Time // when the lock was asked for that holder got
	for _, of := range clients {
		l.goes("lock", 10*time.Millisecond, func(ctx context.Context, n int) error {
			asked := time.Now()
			owner := of.name + strconv.Itoa(n)
			got, err := of.client.TryLockAlpha1(ctx, "locks", &client.LockRequest{ResourceID: "gate", LockOwner: owner, ExpiryInSeconds: int32(expiry / time.Second)})
			if err != nil || !got.Success {
				return err
			}
			mu.Lock()
			if holder != "" && time.Since(since) < expiry-time.Second/2 {
				l.t.Errorf("%s has the lock %v after %s was given it", owner, time.Since(since), holder)
			}
			holder, since = owner, asked
			mu.Unlock()
			time.Sleep(time.Duration(rand.IntN(10)) * time.Millisecond)
			mu.Lock()
			if holder == owner {
				holder = "" // from here on it may be free
			}
			mu.Unlock()
			_, err = of.client.UnlockAlpha1(ctx, "locks", &client.UnlockRequest{ResourceID: "gate", LockOwner: owner})
			return err
		})
	}
}

// stream subscribes by stream, as long as the test runs, and handles what comes. Now and then it goes and comes back.
func (l *load) stream(of *sidecarNode, books *ledger, topic string) {
	l.workers.Go(func() {
		for l.ctx.Err() == nil {
			sub, err := of.client.Subscribe(l.ctx, client.SubscriptionOptions{PubsubName: "bus", Topic: topic})
			if err != nil {
				time.Sleep(20 * time.Millisecond)
				continue
			}
			for range 500 {
				message, err := sub.Receive()
				if err != nil {
					break
				}
				if rand.IntN(20) == 0 {
					_ = message.Retry()
					continue
				}
				books.note(books.handled, topic, string(message.RawData))
				_ = message.Success()
			}
			_ = sub.Close()
		}
	})
}

// quiet has the SDK say nothing of streams that break.
func quiet() { client.SetLogger(log.New(io.Discard, "", 0)) }
