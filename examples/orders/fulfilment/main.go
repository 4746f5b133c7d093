// Command fulfilment ships orders from stock. For each order it takes a lock on the SKU, decrements the stock and records
// its decision in one transaction, and says what it decided. An order that comes twice, as events may, is decided once.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/sidecast/sidecast/examples/orders/shop"
	sidecast "github.com/sidecast/sidecast/sdk/go"
)

// Lease and wait of the lock on a SKU.
const (
	lease = 5 * time.Second
	wait  = 20 * time.Second
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	initial, err := shop.ReadNumbers(os.Args[1], "quantity")
	if err != nil {
		log.Fatal(err)
	}
	client, err := sidecast.Connect(ctx)
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	w := &warehouse{initial: initial, client: client, state: client.State(""), locks: client.Lock("")}
	fmt.Printf("%d SKUs in stock\n", len(initial))
	err = client.Serve(ctx,
		sidecast.OnEvent(shop.Placed, w.fulfil),
		sidecast.HandleJSON("stock", w.stock),
	)
	if err != nil {
		log.Fatal(err)
	}
}

// warehouse holds the stock, in its sidecar's state store.
type warehouse struct {
	initial map[string]int
	client  *sidecast.Client
	state   *sidecast.State
	locks   *sidecast.Lock
}

func stockKey(run int, sku string) string { return fmt.Sprintf("run/%d/stock/%s", run, sku) }
func decisionKey(order shop.Order) string {
	return fmt.Sprintf("run/%d/decision/%s", order.Run, order.ID)
}

// fulfil decides one order. An error means that the event comes again.
func (w *warehouse) fulfil(ctx context.Context, event *sidecast.Event) error {
	var order shop.Order
	if err := event.JSON(&order); err != nil {
		return sidecast.Drop(err)
	}
	held, err := w.locks.Acquire(ctx, "sku/"+order.SKU, sidecast.TTL(lease), sidecast.Wait(wait))
	if err != nil {
		return err
	}
	decision, err := w.decide(ctx, order, held.Token)
	if err = errors.Join(err, w.locks.Release(ctx, held)); err != nil {
		return err
	}
	_, err = w.client.PublishJSON(ctx, shop.Decided, decision, sidecast.Key(order.ID))
	return err
}

// decide decrements the stock and records the decision, both or neither, once for each order.
func (w *warehouse) decide(ctx context.Context, order shop.Order, token uint64) (shop.Decision, error) {
	decision := shop.Decision{Order: order, Token: token}
	if _, made, err := w.read(ctx, decisionKey(order), &decision); err != nil || made {
		return decision, err
	}
	stock := shop.Stock{SKU: order.SKU, Before: w.initial[order.SKU], Left: w.initial[order.SKU]}
	etag, stored, err := w.read(ctx, stockKey(order.Run, order.SKU), &stock)
	if err != nil {
		return decision, err
	}
	if token < stock.Token {
		return decision, fmt.Errorf("fenced: token %d came after %d", token, stock.Token)
	}
	decision.Shipped = order.Quantity <= stock.Left
	if decision.Shipped {
		stock.Left -= order.Quantity
	} else {
		decision.Reason = fmt.Sprintf("%d wanted, %d left", order.Quantity, stock.Left)
	}
	stock.Token = token
	stockJSON, err := json.Marshal(stock)
	if err != nil {
		return decision, err
	}
	decisionJSON, err := json.Marshal(decision)
	if err != nil {
		return decision, err
	}
	unchanged := sidecast.IfAbsent()
	if stored {
		unchanged = sidecast.IfMatch(etag)
	}
	_, err = w.state.Transact(ctx,
		sidecast.Put(stockKey(order.Run, order.SKU), stockJSON, unchanged),
		sidecast.Put(decisionKey(order), decisionJSON, sidecast.IfAbsent()),
	)
	return decision, err
}

// read reads the JSON value of key into out, if there is one.
func (w *warehouse) read(ctx context.Context, key string, out any) (etag string, found bool, err error) {
	item, found, err := w.state.Get(ctx, key)
	if err != nil || !found {
		return "", false, err
	}
	return item.ETag, true, json.Unmarshal(item.Value, out)
}

// stock tells the stock of every SKU in a run.
func (w *warehouse) stock(ctx context.Context, request shop.StockRequest) ([]shop.Stock, error) {
	all := make([]shop.Stock, 0, len(w.initial))
	for sku, quantity := range w.initial {
		stock := shop.Stock{SKU: sku, Before: quantity, Left: quantity}
		if _, _, err := w.read(ctx, stockKey(request.Run, sku), &stock); err != nil {
			return nil, err
		}
		all = append(all, stock)
	}
	return all, nil
}
