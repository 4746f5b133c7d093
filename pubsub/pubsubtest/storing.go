package pubsubtest

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/pubsub"
)

func roundTrip(r *room) {
	if r.backend.OnlyEvents {
		eventRoundTrip(r)
		return
	}
	f := r.subscribe("t", pubsub.Group{Name: "g"})
	want := []pubsub.Message{
		{ID: "1", Key: "k: é\r\n %41", Data: []byte(`{"a":1}`), ContentType: "application/json; charset=utf-8"},
		{ID: "urn:uuid:ü/%2F", Data: []byte{0, 1, 255}, ContentType: "x/y", Header: map[string]string{
			"traceparent": "00-1-2-01", "Mixed-Case": " padded ", "with space": "line\r\nbreak", "empty": "", "": "no name", "Status": "503", "ü": "ö",
		}},
		{ID: "3"},
	}
	before := time.Now()
	r.publish("t", want...)
	after := time.Now()
	got := map[string]pubsub.Delivery{}
	for _, d := range r.take(f, len(want)) {
		got[d.Message().ID] = d
	}
	for _, w := range want {
		d := got[w.ID]
		if d == nil {
			r.Errorf("message %q did not arrive", w.ID)
			continue
		}
		m := d.Message()
		if m.Key != w.Key || string(m.Data) != string(w.Data) || m.ContentType != w.ContentType || !r.sameHeader(m.Header, w.Header) {
			r.Errorf("got %+v, want %+v", *m, w)
		}
		if d.Attempt() != 1 {
			r.Errorf("the first delivery of %q is attempt %d", w.ID, d.Attempt())
		}
		if s := d.Stored(); s.Before(before.Add(-time.Second)) || s.After(after.Add(time.Second)) {
			r.Errorf("%q was stored at %v, published between %v and %v", w.ID, s, before, after)
		}
	}
}

func (r *room) sameHeader(got, want map[string]string) bool {
	if !r.backend.Beside {
		return maps.Equal(got, want)
	}
	for name, value := range want {
		if there, ok := got[name]; !ok || there != value {
			return false
		}
	}
	return true
}

// eventRoundTrip is roundTrip where an event has all there is.
func eventRoundTrip(r *room) {
	f := r.subscribe("t", pubsub.Group{Name: "g"})
	for _, m := range []pubsub.Message{{ID: "1", Key: "k: é\r\n %41"}, {ID: "urn:uuid:ü/%2F"}} {
		want := r.backend.dressed([]pubsub.Message{m})[0]
		before := time.Now()
		r.publish("t", m)
		d := r.one(f)
		got := d.Message()
		if got.ID != want.ID || got.Key != want.Key || string(got.Data) != string(want.Data) || got.ContentType != want.ContentType {
			r.Errorf("got %+v, want %+v", *got, want)
		}
		if d.Attempt() != 1 || d.Stored().Before(before.Add(-time.Second)) || d.Stored().After(time.Now()) {
			r.Errorf("%q is attempt %d, stored at %v", m.ID, d.Attempt(), d.Stored())
		}
		r.ack(d)
	}
}

func anyNames(r *room) {
	topics := []string{"a.b", "a_b", "a b", "*", ">", "a.>", "ü", "a.b.free", "x/y\\z", "=41", "A"}
	if r.backend.Topics != nil {
		topics = r.backend.Topics
	}
	for _, topic := range topics {
		g := pubsub.Group{Name: "group of " + topic + ".*>"}
		f := r.subscribe(topic, g)
		r.publish(topic, pubsub.Message{ID: topic})
		r.sameOrder("topic "+topic, r.consume(f, 1), []string{topic})
		r.close(f)
	}
	r.keeps()
	for _, topic := range topics {
		r.sameOrder("another group of "+topic, r.consume(r.subscribe(topic, pubsub.Group{Name: "g"}), 1), []string{topic})
	}
}

func batch(r *room) {
	f := r.subscribe("t", pubsub.Group{Name: "g"})
	want := numbered("m", "one key", 0, 600)
	r.publish("t", want...)
	r.sameOrder("a keyed batch", r.consume(f, len(want)), ids(want))
	r.publish("t")
}

func canceledPublish(r *room) {
	ctx, cancel := context.WithCancel(r.ctx)
	cancel()
	errs := r.b.Publish(ctx, "t", numbered("m", "", 0, 3))
	if len(errs) != 3 {
		r.Fatalf("%d results for 3 messages", len(errs))
	}
	for _, err := range errs {
		r.kind("Publish with a canceled context", err, fault.Canceled)
	}
}

func groups(r *room) {
	a, b := r.subscribe("t", pubsub.Group{Name: "a"}), r.subscribe("t", pubsub.Group{Name: "b"})
	want := append(numbered("m", "", 0, 20), numbered("k", "key", 0, 20)...)
	r.publish("t", want...)
	r.sameSet("group a", r.consume(a, len(want)), ids(want))
	r.sameSet("group b", r.consume(b, len(want)), ids(want))
	r.publish("other", numbered("x", "", 0, 1)...)
	r.none(a, 200*time.Millisecond)
}

func members(r *room) {
	g := pubsub.Group{Name: "g"}
	feeds := []pubsub.Feed{r.subscribe("t", g), r.subscribe("t", g)}
	ctx, cancel := context.WithTimeout(r.ctx, patience)
	defer cancel()
	var mu sync.Mutex
	got := map[string]int{}
	share := make([]int, len(feeds))
	both := make(chan struct{})
	const total = 400
	var work sync.WaitGroup
	for i, f := range feeds {
		work.Go(func() {
			for {
				ds, err := f.Next(ctx, 5)
				if err != nil {
					return
				}
				mu.Lock()
				for _, d := range ds {
					got[d.Message().ID]++
					if share[i]++; share[i] == 1 && share[1-i] > 0 {
						close(both)
					}
				}
				done := len(got) == total
				mu.Unlock()
				if share[i] == len(ds) { // the first to be served leaves the others a chance
					select {
					case <-both:
					case <-ctx.Done():
					}
				}
				for _, d := range ds {
					if err := d.Ack(r.ctx); err != nil {
						r.Errorf("Ack: %v", err)
					}
				}
				if done {
					cancel()
				}
			}
		})
	}
	r.publish("t", numbered("m", "", 0, total)...)
	work.Wait()
	for id, n := range got {
		if n != 1 {
			r.Errorf("%s was delivered %d times", id, n)
		}
	}
	if len(got) != total || share[0] == 0 || share[1] == 0 {
		r.Errorf("%d of %d messages arrived, shared %v", len(got), total, share)
	}
}

func kept(r *room) {
	r.keeps()
	want := append(numbered("m", "", 0, 5), numbered("k", "key", 0, 5)...)
	r.publish("t", want...)
	r.sameSet("kept messages", r.consume(r.subscribe("t", pubsub.Group{Name: "g"}), len(want)), ids(want))
	r.sameSet("for a second group", r.consume(r.subscribe("t", pubsub.Group{Name: "h"}), len(want)), ids(want))
}

func onlyNew(r *room) {
	r.publish("t", append(numbered("old", "", 0, 3), numbered("oldk", "key", 0, 3)...)...)
	g := pubsub.Group{Name: "g", OnlyNew: true}
	f := r.subscribe("t", g)
	want := append(numbered("new", "", 0, 3), numbered("newk", "key", 0, 3)...)
	r.publish("t", want...)
	r.sameSet("new messages", r.consume(f, len(want)), ids(want))
	r.none(f, 200*time.Millisecond)
	r.close(f)
	later := numbered("later", "key", 0, 3)
	r.publish("t", later...)
	r.sameOrder("a group that exists goes on where it was", r.consume(r.subscribe("t", g), 3), ids(later))
}

func laterFeed(r *room) {
	g := pubsub.Group{Name: "g", OnlyNew: true}
	r.close(r.subscribe("t", g))
	want := append(numbered("m", "", 0, 3), numbered("k", "key", 0, 3)...)
	r.publish("t", want...)
	f := r.subscribe("t", g)
	r.sameSet("messages between two feeds", r.consume(f, len(want)), ids(want))
}

func aroundSubscribe(r *room) {
	r.keeps()
	for round := range 5 {
		topic := fmt.Sprintf("t%d", round)
		var work sync.WaitGroup
		for p := range 3 {
			work.Go(func() {
				for i := range 30 {
					key := ""
					if i%2 == 0 {
						key = fmt.Sprint(p)
					}
					message := r.backend.dressed(numbered(fmt.Sprintf("p%d-", p), key, i, i+1))
					if err := r.b.Publish(r.ctx, topic, message)[0]; err != nil {
						r.Errorf("Publish: %v", err)
					}
				}
			})
		}
		f := r.subscribe(topic, pubsub.Group{Name: "g"})
		got := map[string]bool{}
		for _, id := range r.consume(f, 90) {
			got[id] = true
		}
		if len(got) != 90 {
			r.Errorf("%d of 90 messages arrived", len(got))
		}
		work.Wait()
		r.close(f)
	}
}

func delay(r *room) {
	if r.backend.NoDelay {
		r.kind("a delay", r.b.Publish(r.ctx, "t", []pubsub.Message{{ID: "m", Delay: time.Second}})[0], fault.Unsupported)
		return
	}
	f := r.subscribe("t", pubsub.Group{Name: "g"})
	wait := time.Second
	var start time.Time
	var late, lateKey string
	for ; ; wait *= 2 { // until the machine is quick enough to take what is not delayed before the rest comes
		late, lateKey = fmt.Sprint("late", wait), fmt.Sprint("late key", wait)
		now := []string{fmt.Sprint("now", wait), fmt.Sprint("now key", wait)}
		start = time.Now()
		r.publish("t",
			pubsub.Message{ID: late, Delay: wait, Data: []byte("d"), ContentType: "c", Header: map[string]string{"h": "v"}},
			pubsub.Message{ID: lateKey, Key: "k", Delay: 2 * wait},
			pubsub.Message{ID: now[0]}, pubsub.Message{ID: now[1], Key: "k"})
		got := r.consume(f, 2)
		if time.Since(start) < wait {
			r.sameSet("messages without delay", got, now)
			break
		}
		r.consume(f, 2)
	}
	for range 2 {
		d := r.one(f)
		if since := time.Since(start); since < wait {
			r.Errorf("%s came after %v, before its delay of %v", d.Message().ID, since, wait)
		}
		switch m := d.Message(); m.ID {
		case late:
			if string(m.Data) != "d" || m.ContentType != "c" || m.Header["h"] != "v" || len(m.Header) != 1 {
				r.Errorf("a delayed message came as %+v", *m)
			}
		case lateKey:
			if m.Key != "k" {
				r.Errorf("a delayed message came as %+v", *m)
			}
		default:
			r.Errorf("unexpected message %s", m.ID)
		}
		if d.Attempt() != 1 {
			r.Errorf("the first delivery of a delayed message is attempt %d", d.Attempt())
		}
		r.ack(d)
	}
	r.none(f, 300*time.Millisecond)
}

func invalid(r *room) {
	r.kind("Publish to no topic", r.b.Publish(r.ctx, "", numbered("m", "", 0, 1))[0], fault.Invalid)
	r.kind("a negative delay", r.b.Publish(r.ctx, "t", []pubsub.Message{{ID: "m", Delay: -1}})[0], fault.Invalid)
	_, err := r.b.Subscribe(r.ctx, "", pubsub.Group{Name: "g"})
	r.kind("Subscribe to no topic", err, fault.Invalid)
	_, err = r.b.Subscribe(r.ctx, "t", pubsub.Group{})
	r.kind("Subscribe without a group", err, fault.Invalid)
	_, err = r.subscribe("t", pubsub.Group{Name: "g"}).Next(r.ctx, 0)
	r.kind("Next of nothing", err, fault.Invalid)
}

func reopen(r *room) {
	if !r.backend.Durable {
		r.Skip("this backend keeps nothing beyond its broker")
	}
	g := pubsub.Group{Name: "g"}
	f := r.subscribe("t", g)
	free, keyed := numbered("m", "", 0, 6), numbered("k", "key", 0, 6)
	r.publish("t", append(free, keyed...)...)
	last := pubsub.Message{ID: "last"}
	if !r.backend.NoDelay {
		last.Delay = 2 * time.Second
	}
	r.publish("t", last)
	seen := map[string]bool{}
	for len(seen) < 6 {
		d := r.one(f)
		seen[d.Message().ID] = true
		r.ack(d)
	}
	held := r.one(f)
	if err := r.b.Close(r.ctx); err != nil {
		r.Fatalf("Close: %v", err)
	}
	r.b = r.open()
	f = r.subscribe("t", g)
	var want []string
	for _, id := range append(ids(free), append(ids(keyed), "last")...) {
		if !seen[id] {
			want = append(want, id)
		}
	}
	var got []string
	for range want {
		d := r.one(f)
		got = append(got, d.Message().ID)
		if d.Message().ID == held.Message().ID && d.Attempt() != 2 && !r.backend.LocalAttempts {
			r.Errorf("the message held at Close is attempt %d", d.Attempt())
		}
		r.ack(d)
	}
	r.sameSet("what was not acknowledged", got, want)
}
