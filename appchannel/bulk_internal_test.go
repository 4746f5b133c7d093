package appchannel

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// deliverOne delivers an event that wants company and tells how many went together.
func deliverOne(ctx context.Context, b *bulks, wait time.Duration) (together int, err error) {
	event := &Event{PubSub: "bus", Topic: "t", Route: "/t", Bulk: &Bulk{Most: 3, Wait: wait}}
	_, err = b.deliver(ctx, nil, event, func(ctx context.Context, events []*Event) ([]Outcome, error) {
		together = len(events)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return all(len(events), Outcome{Verdict: Success}), nil
	})
	return together, err
}

func TestABulkGoesWhenItIsFullOrItsTimeIsUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, began := &bulks{}, time.Now()
		sizes := make(chan int, 4)
		for range 4 {
			go func() {
				n, err := deliverOne(t.Context(), b, time.Minute)
				if err != nil {
					t.Error(err)
				}
				sizes <- n
			}()
			synctest.Wait()
		}
		if took := time.Since(began); len(sizes) != 3 || took != 0 {
			t.Errorf("%d of 4 events were answered when a bulk of 3 was full, after %s", len(sizes), took)
		}
		sum := 0
		for range 4 {
			sum += <-sizes
		}
		if took := time.Since(began); sum != 4 || took != time.Minute {
			t.Errorf("%d events went, the last after %s", sum, took)
		}
		if len(b.open) != 0 {
			t.Errorf("%d bulks stay open", len(b.open))
		}
	})
}

// A policy's timeout that is shorter than the wait for company must leave the app time to answer.
func TestABulkDoesNotWaitItsTimeoutAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		began := time.Now()
		if n, err := deliverOne(ctx, &bulks{}, time.Minute); n != 1 || err != nil {
			t.Errorf("%d events went: %v", n, err)
		}
		if took := time.Since(began); took != time.Second {
			t.Errorf("the event waited %s of its 2s", took)
		}
		ended, end := context.WithCancel(t.Context())
		end()
		if _, err := deliverOne(ended, &bulks{}, time.Minute); !errors.Is(err, context.Canceled) {
			t.Errorf("a delivery that was over: %v", err)
		}
	})
}
