package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/sidecast/sidecast/examples/orders/shop"
	sidecast "github.com/sidecast/sidecast/sdk/go"
)

// Statuses of an order.
const (
	placed            = "placed"
	shipped           = "shipped"
	rejectedByPricing = "rejected by pricing"
	outOfStock        = "out of stock"
)

// entry is what the book holds of an order.
type entry struct {
	Order  shop.Order `json:"order"`
	Status string     `json:"status"`
	Reason string     `json:"reason,omitempty"`
	Cents  int        `json:"cents"`
}

// book keeps the orders of a run in the sidecar's state store, so that a run goes on where it was when intake died.
type book struct {
	state *sidecast.State
	run   int
}

// runRecord tells which run is the latest, and whether it has ended.
type runRecord struct {
	Run  int  `json:"run"`
	Done bool `json:"done"`
}

const runKey = "run"

// openBook goes on with the run that did not end, or begins the next.
func openBook(ctx context.Context, client *sidecast.Client) (*book, error) {
	state := client.State("")
	item, found, err := state.Get(ctx, runKey)
	if err != nil {
		return nil, err
	}
	latest := runRecord{Done: true}
	if found {
		if err := json.Unmarshal(item.Value, &latest); err != nil {
			return nil, err
		}
	}
	b := &book{state: state, run: latest.Run}
	if latest.Done {
		b.run++
		return b, b.record(ctx, false)
	}
	return b, nil
}

func (b *book) close(ctx context.Context) error { return b.record(ctx, true) }

func (b *book) record(ctx context.Context, done bool) error {
	body, err := json.Marshal(runRecord{Run: b.run, Done: done})
	if err != nil {
		return err
	}
	_, err = b.state.Set(ctx, runKey, body)
	return err
}

func (b *book) prefix() string              { return fmt.Sprintf("run/%d/order/", b.run) }
func (b *book) key(order shop.Order) string { return b.prefix() + order.ID }

// find reads the entry of an order and its ETag; the entry's Status is empty when there is none.
func (b *book) find(ctx context.Context, order shop.Order) (e entry, etag string, err error) {
	item, found, err := b.state.Get(ctx, b.key(order))
	if err != nil || !found {
		return e, "", err
	}
	return e, item.ETag, json.Unmarshal(item.Value, &e)
}

// open saves an order that is not in the book yet.
func (b *book) open(ctx context.Context, order shop.Order, price shop.Price) (entry, error) {
	e := entry{Order: order, Status: placed, Cents: price.TotalCents}
	if !price.Accepted {
		e.Status, e.Reason = rejectedByPricing, price.Reason
	}
	return e, b.save(ctx, e, sidecast.IfAbsent())
}

// decide notes a decision, unless it is noted already.
func (b *book) decide(ctx context.Context, decision shop.Decision) (entry, error) {
	e, etag, err := b.find(ctx, decision.Order)
	if err != nil || e.Status != placed {
		return e, err
	}
	e.Status, e.Reason = shipped, decision.Reason
	if !decision.Shipped {
		e.Status = outOfStock
	}
	return e, b.save(ctx, e, sidecast.IfMatch(etag))
}

func (b *book) save(ctx context.Context, e entry, expected sidecast.WriteOption) error {
	body, err := json.Marshal(e)
	if err != nil {
		return err
	}
	_, err = b.state.Set(ctx, b.key(e.Order), body, expected)
	return err
}

// sums is what a run came to.
type sums struct {
	orders       map[string]int // by status
	units, cents int            // of what was shipped
}

func (b *book) sum(ctx context.Context) (sums, error) {
	total := sums{orders: map[string]int{}}
	for item, err := range b.state.List(ctx, b.prefix()) {
		if err != nil {
			return total, err
		}
		var e entry
		if err := json.Unmarshal(item.Value, &e); err != nil {
			return total, err
		}
		total.orders[e.Status]++
		if e.Status == shipped {
			total.units += e.Order.Quantity
			total.cents += e.Cents
		}
	}
	return total, nil
}

// pause waits a little before a step is repeated.
func pause(ctx context.Context) error {
	timer := time.NewTimer(200 * time.Millisecond)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
