package appchannel

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"math"
	"net/http"
	"sync"
	"time"

	runtimev1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"github.com/google/uuid"

	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/fault"
)

// DefaultBulk is how many events a bulk holds when the subscription does not say, as in Dapr.
const DefaultBulk = 100

const (
	bulkWait = time.Second // for the others, when the subscription does not say
	bulkType = "com.dapr.event.sent.bulk"
)

// bulks gathers events that are delivered at the same time into one delivery to the app. Each event has its own answer, so
// that for everybody else they are single deliveries still: lanes, retries and dead letters are theirs.
type bulks struct {
	mu   sync.Mutex
	open map[bulkKey]*bulk
}

type bulkKey struct{ pubsub, topic, route string }

// bulk is one delivery that fills up.
type bulk struct {
	events   []*Event
	full     chan struct{} // closed when it may go
	sealed   bool
	done     chan struct{} // closed when outcomes or err is set
	outcomes []Outcome
	err      error
}

// deliver adds event to a bulk and waits for its answer. The first of a bulk waits for others, then calls send for all; its
// context bounds the delivery, which meter, if there is one, is told of.
func (b *bulks) deliver(ctx context.Context, meter Meter, event *Event, send func(context.Context, []*Event) ([]Outcome, error)) (Outcome, error) {
	most, wait := event.Bulk.Most, event.Bulk.Wait
	if most <= 0 {
		most = DefaultBulk
	}
	if wait <= 0 {
		wait = bulkWait
	}
	if end, ok := ctx.Deadline(); ok { // the app needs time as well
		wait = min(wait, time.Until(end)/2)
	}
	key := bulkKey{event.PubSub, event.Topic, event.Route}
	b.mu.Lock()
	into := b.open[key]
	first := into == nil
	if first {
		into = &bulk{full: make(chan struct{}), done: make(chan struct{})}
		if b.open == nil {
			b.open = map[bulkKey]*bulk{}
		}
		b.open[key] = into
	}
	at := len(into.events)
	into.events = append(into.events, event)
	if len(into.events) == most {
		b.seal(key, into)
	}
	b.mu.Unlock()
	if first {
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-into.full:
		case <-ctx.Done():
		}
		timer.Stop()
		b.mu.Lock()
		b.seal(key, into)
		b.mu.Unlock()
		into.send(ctx, meter, send)
	}
	select {
	case <-into.done:
	case <-ctx.Done():
		select {
		case <-into.done: // the answer came all the same
		default:
			return Outcome{}, fault.FromContext("deliver "+event.Topic, ctx, "the app's answer to several events")
		}
	}
	if into.err != nil {
		return Outcome{}, into.err
	}
	return into.outcomes[at], nil
}

// send delivers all. A send that panics leaves the others an error.
func (b *bulk) send(ctx context.Context, meter Meter, send func(context.Context, []*Event) ([]Outcome, error)) {
	b.err = fault.New("deliver "+b.events[0].Topic, fault.Panicked, "the delivery of several events panicked")
	defer close(b.done)
	if meter != nil {
		defer func(began time.Time) { meter.BulkDelivered(b.events[0].PubSub, b.events[0].Topic, time.Since(began)) }(time.Now())
	}
	b.outcomes, b.err = send(ctx, b.events)
}

// seal lets no more events in. b.mu is held.
func (b *bulks) seal(key bulkKey, into *bulk) {
	if into.sealed {
		return
	}
	into.sealed = true
	close(into.full)
	delete(b.open, key)
}

// verdicts are the outcomes of events by the status that the app gave each entry; one that it did not mention comes again.
func verdicts(ids []string, said map[string]string) []Outcome {
	outcomes := make([]Outcome, len(ids))
	for i, id := range ids {
		switch status := said[id]; status {
		case "SUCCESS":
			outcomes[i] = Outcome{Verdict: Success}
		case "DROP":
			outcomes[i] = Outcome{Verdict: Drop, Reason: "the app answered DROP"}
		case "RETRY":
			outcomes[i] = Outcome{Verdict: Retry, Reason: "the app answered RETRY"}
		case "":
			outcomes[i] = Outcome{Verdict: Retry, Reason: "the app gave no status for the event"}
		default:
			outcomes[i] = Outcome{Verdict: Retry, Reason: "the app answered with the unknown status " + status}
		}
	}
	return outcomes
}

func all(n int, o Outcome) []Outcome {
	outcomes := make([]Outcome, n)
	for i := range outcomes {
		outcomes[i] = o
	}
	return outcomes
}

func entryIDs(n int) []string {
	ids := make([]string, n)
	for i := range ids {
		ids[i] = uuid.NewString()
	}
	return ids
}

// deliverBulk posts several events at once, as Dapr does.
func (h *HTTP) deliverBulk(ctx context.Context, events []*Event) ([]Outcome, error) {
	type entry struct {
		EntryID     string            `json:"entryId"`
		Event       any               `json:"event"`
		Metadata    map[string]string `json:"metadata"`
		ContentType string            `json:"contentType,omitempty"`
	}
	first := events[0]
	op := "deliver " + needOf(first).name
	ids := entryIDs(len(events))
	entries := make([]entry, 0, len(events))
	failed := map[int]error{}
	for i, event := range events {
		one := entry{EntryID: ids[i], Metadata: daprMetadata(event), ContentType: entryType(event), Event: event.Data}
		if !event.Raw { // raw payloads go in base64, as encoding/json writes bytes
			envelope, err := daprEnvelope(event)
			if err != nil {
				failed[i] = err
				continue
			}
			one.Event = json.RawMessage(envelope)
		}
		entries = append(entries, one)
	}
	if len(entries) == 0 {
		return withFailed(verdicts(ids, nil), failed), nil
	}
	body, err := json.Marshal(map[string]any{
		"id": uuid.NewString(), "type": bulkType, "topic": first.Topic, "pubsubname": first.PubSub,
		"metadata": map[string]string{"pubsubName": first.PubSub}, "entries": entries,
	})
	if err != nil {
		return nil, fault.E(op, fault.Internal, fault.Defect, err)
	}
	req := &call.Request{
		Method: needOf(first).name, ContentType: "application/json", Body: body,
		Header: append(traceOfAll(events), call.Field{Key: "pubsubname", Value: first.PubSub}),
	}
	r, err := h.request(op, req, bytes.NewReader(body), int64(len(body)))
	if err != nil {
		return nil, err
	}
	response, done, err := h.send(ctx, op, r)
	if err != nil {
		return nil, err
	}
	defer done()
	answer, err := io.ReadAll(io.LimitReader(response.Body, maxControl))
	if err != nil {
		return nil, cutOff(ctx, op, err)
	}
	switch status := response.StatusCode; {
	case status == http.StatusNotFound:
		return withFailed(all(len(events), Outcome{Status: status, Verdict: Drop, Reason: NoRoute}), failed), nil
	case status < 200 || status > 299:
		delay := call.RetryAfter(response.Header.Get("Retry-After"), time.Now())
		return withFailed(all(len(events), Outcome{Status: status, Verdict: Retry, Delay: delay, Reason: "the app answered " + response.Status}), failed), nil
	}
	var given struct {
		Statuses []struct{ EntryID, Status string }
	}
	if err := json.Unmarshal(answer, &given); err != nil {
		return withFailed(all(len(events), Outcome{Verdict: Retry, Reason: "the app's answer to several events is no list of statuses"}), failed), nil
	}
	said := make(map[string]string, len(given.Statuses))
	for _, s := range given.Statuses {
		said[s.EntryID] = s.Status
	}
	return withFailed(verdicts(ids, said), failed), nil
}

// withFailed are the outcomes of events of which the app has not seen those that failed.
func withFailed(outcomes []Outcome, failed map[int]error) []Outcome {
	for i, err := range failed {
		outcomes[i] = unsayable(err)
	}
	return outcomes
}

// bulkRequest is several events as a gRPC app gets them. An event that cannot be said in the protocol is told in failed.
func bulkRequest(events []*Event, ids []string) (request *runtimev1.TopicEventBulkRequest, failed map[int]error) {
	first := events[0]
	request = &runtimev1.TopicEventBulkRequest{
		Id: uuid.NewString(), Type: bulkType, Topic: first.Topic, PubsubName: first.PubSub, Path: first.Route,
		Metadata: map[string]string{"pubsubName": first.PubSub},
	}
	for i, event := range events {
		entry, err := daprBulkEntry(event, ids[i])
		if err != nil {
			if failed == nil {
				failed = map[int]error{}
			}
			failed[i] = err
			continue
		}
		request.Entries = append(request.Entries, entry)
	}
	return request, failed
}

// bulkOf is what an app says of its bulks; what is below nothing, or overflows, counts as not said.
func bulkOf(most, millis int64) *Bulk {
	b := &Bulk{Most: int(min(max(0, most), math.MaxInt32))}
	if millis > 0 && millis <= math.MaxInt64/int64(time.Millisecond) {
		b.Wait = time.Duration(millis) * time.Millisecond
	}
	return b
}
