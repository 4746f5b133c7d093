package pubsubtest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/pubsub"
)

// shortWait is an ack wait that a test lets run out.
const shortWait = 500 * time.Millisecond

func ackWait(r *room) {
	for _, key := range []string{"", "key"} {
		topic := "t" + key
		g := pubsub.Group{Name: "g", AckWait: shortWait}
		first, second := r.subscribe(topic, g), r.subscribe(topic, g)
		r.publish(topic, pubsub.Message{ID: "m", Key: key})
		got := time.Now()
		r.one(first)
		d := r.one(second)
		if since := time.Since(got); since < shortWait/2 {
			r.Errorf("delivered again after %v of an ack wait of %v", since, shortWait)
		}
		if d.Attempt() != 2 {
			r.Errorf("the second delivery is attempt %d", d.Attempt())
		}
		for err := d.Ack(r.ctx); err != nil; err = d.Ack(r.ctx) {
			if d.Attempt() > 10 {
				r.Fatalf("Ack of attempt %d: %v", d.Attempt(), err)
			}
			d = r.one(second) // the machine was too slow to answer in time
		}
		r.close(second)
		r.none(first, 2*shortWait)
	}
}

func feedClose(r *room) {
	g := pubsub.Group{Name: "g"}
	first := r.subscribe("t", g)
	r.publish("t", pubsub.Message{ID: "m"}, pubsub.Message{ID: "k", Key: "key"})
	r.take(first, 2)
	second := r.subscribe("t", g)
	r.close(first)
	for range 2 {
		d := r.one(second)
		if d.Attempt() != 2 {
			r.Errorf("the second delivery of %s is attempt %d", d.Message().ID, d.Attempt())
		}
		r.ack(d)
	}
}

func retry(r *room) {
	f := r.subscribe("t", pubsub.Group{Name: "g"})
	r.publish("t", pubsub.Message{ID: "m"}, pubsub.Message{ID: "k", Key: "key"})
	const wait = 700 * time.Millisecond
	for _, d := range r.take(f, 2) {
		r.retry(d, 0)
	}
	out := r.take(f, 2)
	given := time.Now()
	for _, d := range out {
		r.retry(d, wait)
	}
	for range 2 {
		d := r.one(f)
		if since := time.Since(given); since < wait-100*time.Millisecond {
			r.Errorf("%s was delivered again after %v, before %v", d.Message().ID, since, wait)
		}
		if d.Attempt() != 3 {
			r.Errorf("the third delivery of %s is attempt %d", d.Message().ID, d.Attempt())
		}
		r.ack(d)
	}
	r.none(f, 300*time.Millisecond)
}

func attempts(r *room) {
	h := r.subscribe("t", pubsub.Group{Name: "h"})
	f := r.subscribe("t", pubsub.Group{Name: "g"})
	for _, key := range []string{"", "key"} {
		r.publish("t", pubsub.Message{ID: "m" + key, Key: key})
		for want := 1; want <= 5; want++ {
			d := r.one(f)
			if d.Attempt() != want {
				r.Errorf("delivery %d is attempt %d", want, d.Attempt())
			}
			if want < 5 {
				r.retry(d, 0)
			} else {
				r.ack(d)
			}
		}
	}
	other := r.one(h)
	if other.Attempt() != 1 {
		r.Errorf("the first delivery to another group is attempt %d", other.Attempt())
	}
}

func extend(r *room) {
	const pauses = 10 // together they are longer than the ack wait, and each is so short that a busy machine is in time
	var out []pubsub.Delivery
	var others []pubsub.Feed
	for _, key := range []string{"", "key"} {
		topic := "t" + key
		g := pubsub.Group{Name: "g" + key, AckWait: 8 * shortWait} // of its own: who joins one may move what its members have
		slow, other := r.subscribe(topic, g), r.subscribe(topic, g)
		r.publish(topic, pubsub.Message{ID: "m", Key: key})
		out, others = append(out, r.one(slow)), append(others, other)
	}
	for range pauses {
		for i, d := range out {
			r.none(others[i], shortWait/2)
			if err := d.Extend(r.ctx); err != nil {
				r.Fatalf("Extend: %v", err)
			}
		}
	}
	for i, d := range out {
		r.ack(d)
		r.none(others[i], shortWait/2)
	}
}

func acked(r *room) {
	g := pubsub.Group{Name: "g", AckWait: shortWait}
	f := r.subscribe("t", g)
	r.publish("t", append(numbered("m", "", 0, 5), numbered("k", "key", 0, 5)...)...)
	r.consume(f, 10)
	r.none(f, 3*shortWait)
	r.close(f)
	r.none(r.subscribe("t", g), shortWait)
}

func settledOnce(r *room) {
	f := r.subscribe("t", pubsub.Group{Name: "g"})
	r.publish("t", pubsub.Message{ID: "m"})
	d := r.one(f)
	r.retry(d, 0)
	r.kind("Ack after Retry", d.Ack(r.ctx), fault.Invalid)
	d = r.one(f)
	r.ack(d)
	r.kind("a second Ack", d.Ack(r.ctx), fault.Invalid)
	r.kind("Retry after Ack", d.Retry(r.ctx, 0), fault.Invalid)
	r.kind("Extend after Ack", d.Extend(r.ctx), fault.Invalid)
	r.publish("t", pubsub.Message{ID: "m2"})
	d = r.one(f)
	r.close(f)
	r.kind("Ack after Close of the feed", d.Ack(r.ctx), fault.Invalid)
}

func lateAnswer(r *room) {
	r.ordered()
	g := pubsub.Group{Name: "g", AckWait: 4 * shortWait}
	f := r.subscribe("t", g)
	r.publish("t", numbered("m", "key", 0, 2)...)
	late := r.one(f)
	again := r.one(r.subscribe("t", g))
	if again.Message().ID != "m0" || again.Attempt() != 2 {
		r.Fatalf("got %s, attempt %d, instead of the redelivery", again.Message().ID, again.Attempt())
	}
	r.kind("Ack after the ack wait", late.Ack(r.ctx), fault.Invalid)
	if err := again.Extend(r.ctx); err != nil {
		r.Fatalf("Extend: %v", err)
	}
	r.none(f, shortWait/5)
	r.ack(again)
	if d := r.one(f); d.Message().ID != "m1" {
		r.Errorf("got %s, want m1", d.Message().ID)
	}
}

// keyOrder lets several feeds work on several keys with random answers and checks each key's history.
func keyOrder(r *room) {
	r.ordered()
	const keys, each, feeds = 8, 20, 3
	ctx, cancel := context.WithTimeout(r.ctx, 2*patience)
	defer cancel()
	var mu sync.Mutex
	done := make([]int, keys) // messages of the key that were acknowledged
	out := make([]bool, keys)
	left := keys * each
	handle := func(d pubsub.Delivery) {
		var k, i int
		if _, err := fmt.Sscanf(d.Message().ID, "%d/%d", &k, &i); err != nil {
			r.Errorf("ID %q: %v", d.Message().ID, err)
			return
		}
		mu.Lock()
		if out[k] {
			r.Errorf("key %d has two deliveries out", k)
		}
		if i != done[k] {
			r.Errorf("key %d: message %d was delivered when %d was due", k, i, done[k])
		}
		out[k] = true
		mu.Unlock()
		pause, answer := time.Duration(rand.IntN(3))*time.Millisecond, rand.IntN(4)
		select {
		case <-time.After(pause): // a handler takes its time
		case <-ctx.Done():
		}
		mu.Lock()
		defer mu.Unlock()
		out[k] = false
		var err error
		if answer == 0 {
			err = d.Retry(ctx, time.Duration(rand.IntN(20))*time.Millisecond)
		} else {
			err = d.Ack(ctx)
			if done[k]++; err == nil {
				left--
			}
		}
		if err != nil {
			r.Errorf("settling %s: %v", d.Message().ID, err)
		}
		if left == 0 {
			cancel()
		}
	}
	var work sync.WaitGroup
	for range feeds {
		f := r.subscribe("t", pubsub.Group{Name: "g"})
		credits := make(chan struct{}, 4)
		work.Go(func() {
			for {
				credits <- struct{}{}
				free := cap(credits) - len(credits) + 1
				ds, err := f.Next(ctx, free)
				if err != nil {
					return
				}
				for i, d := range ds {
					if i > 0 {
						credits <- struct{}{}
					}
					work.Go(func() {
						handle(d)
						<-credits
					})
				}
			}
		})
	}
	var all []pubsub.Message
	for i := range each {
		for k := range keys {
			all = append(all, pubsub.Message{ID: fmt.Sprintf("%d/%d", k, i), Key: fmt.Sprint("key", k)})
		}
	}
	r.publish("t", all...)
	work.Wait()
	if left != 0 {
		r.Errorf("%d messages were not delivered", left)
	}
}

func keyRetry(r *room) {
	r.ordered()
	g := pubsub.Group{Name: "g"}
	a, b := r.subscribe("t", g), r.subscribe("t", g)
	r.publish("t", numbered("m", "key", 0, 3)...)
	d := r.one(a)
	r.retry(d, shortWait)
	var got []string
	for _, f := range []pubsub.Feed{b, a, b} {
		d := r.one(f)
		got = append(got, d.Message().ID)
		r.ack(d)
	}
	r.sameOrder("a key with a retry", got, []string{"m0", "m1", "m2"})
}

func keysParallel(r *room) {
	f := r.subscribe("t", pubsub.Group{Name: "g"})
	for i := range 40 {
		r.publish("t", numbered(fmt.Sprintf("%d/", i), fmt.Sprint("key", i), 0, 2)...)
	}
	keys := map[string]bool{}
	for _, d := range r.take(f, 4) { // unsettled
		if keys[d.Message().Key] && !r.backend.NoOrder {
			r.Errorf("key %s has two deliveries out", d.Message().Key)
		}
		keys[d.Message().Key] = true
	}
}

func parallel(r *room) {
	f := r.subscribe("t", pubsub.Group{Name: "g"})
	r.publish("t", numbered("m", "", 0, 30)...)
	for range 10 {
		r.one(f)
	}
	r.take(f, 20)
}

func oneCredit(r *room) {
	f := r.subscribe("t", pubsub.Group{Name: "g"})
	for i := range 40 {
		key := ""
		if i%2 == 1 {
			key = fmt.Sprint("key", i)
		}
		want := fmt.Sprint("m", i)
		if i%4 < 2 {
			r.publish("t", pubsub.Message{ID: want, Key: key})
			r.sameOrder("one at a time", r.consume(f, 1), []string{want})
			continue
		}
		got := make(chan pubsub.Delivery)
		go func() {
			ds, err := f.Next(r.ctx, 1)
			if err != nil {
				r.Errorf("Next: %v", err)
				close(got)
				return
			}
			got <- ds[0]
		}()
		r.publish("t", pubsub.Message{ID: want, Key: key})
		if d := <-got; d != nil {
			if d.Message().ID != want {
				r.Errorf("got %s, want %s", d.Message().ID, want)
			}
			r.ack(d)
		}
	}
}

func neverMore(r *room) {
	f := r.subscribe("t", pubsub.Group{Name: "g"})
	for i := range 10 {
		r.publish("t", append(numbered(fmt.Sprint("m", i), "", 0, 3), numbered(fmt.Sprint("k", i), fmt.Sprint("key", i), 0, 1)...)...)
	}
	for got, n := 0, 1; got < 40; n = n%7 + 1 {
		for _, d := range r.next(f, n) { // next checks the number
			r.ack(d)
			got++
		}
	}
}

func nothingHeld(r *room) {
	g := pubsub.Group{Name: "g"}
	a, b := r.subscribe("t", g), r.subscribe("t", g)
	want := numbered("m", "", 0, 30)
	for i := range 10 {
		want = append(want, numbered(fmt.Sprint("k", i, "/"), fmt.Sprint("key", i), 0, 1)...)
	}
	r.publish("t", want...)
	held := r.one(a)
	got := append(r.consume(b, len(want)-1-keyMates(held, want)), held.Message().ID)
	if held.Message().Key == "" {
		r.sameSet("all but what was asked for", got, ids(want))
	}
}

// keyMates is how many messages a held delivery may keep back: a backend may let keys share an order.
func keyMates(held pubsub.Delivery, all []pubsub.Message) (n int) {
	if held.Message().Key == "" {
		return 0
	}
	for _, m := range all {
		if m.Key != "" && m.ID != held.Message().ID {
			n++
		}
	}
	return n
}

func unclaimed(r *room) {
	g := pubsub.Group{Name: "g"}
	a, b := r.subscribe("t", g), r.subscribe("t", g)
	r.publish("t", pubsub.Message{ID: "first"})
	r.ack(r.next(a, 10)[0])
	var want []pubsub.Message
	for i := range 20 {
		want = append(want, numbered("m", "", i, i+1)...)
		want = append(want, numbered("k", fmt.Sprint("key", i), i, i+1)...)
	}
	r.publish("t", want...)
	r.sameSet("messages while the other feed does not come back", r.consume(b, len(want)), ids(want))
	r.none(b, 300*time.Millisecond)
}

func maxInFlight(r *room) {
	for _, most := range []int{1, 2, 3, 7} {
		topic := fmt.Sprint("t", most)
		g := pubsub.Group{Name: "g", MaxInFlight: most}
		feeds := []pubsub.Feed{r.subscribe(topic, g), r.subscribe(topic, g)}
		r.publish(topic, numbered("m", "", 0, 2*most)...)
		var out []pubsub.Delivery
		for len(out) < most {
			out = append(out, r.next(feeds[len(out)%2], most)...)
		}
		r.none(feeds[0], 100*time.Millisecond)
		for i := range 20 {
			r.publish(topic, pubsub.Message{ID: fmt.Sprint("k", i), Key: fmt.Sprint("key", i)})
		}
		for settled := 0; settled < 2*most+20; {
			if len(out) > most {
				r.Fatalf("%d deliveries are out with MaxInFlight %d", len(out), most)
			}
			if len(out) == most {
				r.none(feeds[settled%2], 20*time.Millisecond)
			}
			if len(out) > 0 {
				r.ack(out[0])
				out, settled = out[1:], settled+1
			}
			ctx, cancel := context.WithTimeout(r.ctx, 50*time.Millisecond)
			got, err := feeds[settled%2].Next(ctx, 10)
			cancel()
			switch {
			case r.ctx.Err() != nil:
				r.Fatalf("MaxInFlight %d: %d of %d messages were settled, %d are out, and no more come", most, settled, 2*most+20, len(out))
			case err != nil && fault.KindOf(err) != fault.Timeout:
				r.Fatalf("Next: %v", err)
			}
			out = append(out, got...)
		}
	}
}

func contextEnd(r *room) {
	f := r.subscribe("t", pubsub.Group{Name: "g"})
	ctx, cancel := context.WithCancel(r.ctx)
	go cancel()
	_, err := f.Next(ctx, 5)
	r.kind("Next with a canceled context", err, fault.Canceled)
	r.none(f, 10*time.Millisecond)
	r.publish("t", pubsub.Message{ID: "m"}, pubsub.Message{ID: "k", Key: "key"})
	r.sameSet("after a context ended", r.consume(f, 2), []string{"m", "k"})
}

func closed(r *room) {
	g := pubsub.Group{Name: "g", AckWait: longWait}
	f, other := r.subscribe("t", g), r.subscribe("t", g)
	waiting := make(chan error)
	go func() {
		_, err := f.Next(r.ctx, 1)
		waiting <- err
	}()
	r.close(f)
	r.kind("a Next that waits at Close", <-waiting, fault.Unavailable)
	_, err := f.Next(r.ctx, 1)
	r.kind("Next after Close", err, fault.Unavailable)
	r.close(f)

	go func() {
		_, err := other.Next(r.ctx, 1)
		waiting <- err
	}()
	if err := r.b.Close(r.ctx); err != nil {
		r.Errorf("Close: %v", err)
	}
	r.kind("a Next that waits at Close of the broker", <-waiting, fault.Unavailable)
	errs := r.b.Publish(r.ctx, "t", numbered("m", "", 0, 2))
	if len(errs) != 2 {
		r.Fatalf("%d results for 2 messages", len(errs))
	}
	r.kind("Publish after Close", errs[1], fault.Unavailable)
	_, err = r.b.Subscribe(r.ctx, "t", g)
	r.kind("Subscribe after Close", err, fault.Unavailable)
}
