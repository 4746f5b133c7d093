// Command intake reads a file of orders, has each priced, saves it, and places it. It follows what fulfilment decides,
// shows progress, and ends with a summary that must add up.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"os/signal"
	"strconv"
	"syscall"

	"golang.org/x/sync/errgroup"

	"github.com/sidecast/sidecast/examples/orders/shop"
	"github.com/sidecast/sidecast/fault"
	sidecast "github.com/sidecast/sidecast/sdk/go"
)

// workers is how many orders are placed at a time.
const workers = 16

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1]); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, path string) error {
	client, err := sidecast.Connect(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	book, err := openBook(ctx, client)
	if err != nil {
		return err
	}
	orders, err := readOrders(path, book.run)
	if err != nil {
		return err
	}
	progress := newProgress(orders)
	desk := &desk{client: client, book: book, progress: progress}

	ctx, cancel := context.WithCancel(ctx)
	work, ctx := errgroup.WithContext(ctx)
	work.Go(func() error { return client.Serve(ctx, sidecast.OnEvent(shop.Decided, desk.decided)) })
	work.Go(func() error {
		defer cancel() // when all is decided there is nothing left to serve
		if err := desk.placeAll(ctx, orders); err != nil {
			return err
		}
		if err := progress.wait(ctx); err != nil {
			return err
		}
		return summarize(ctx, client, book, len(orders))
	})
	return work.Wait()
}

func readOrders(path string, run int) ([]shop.Order, error) {
	var orders []shop.Order
	err := shop.ReadTable(path, func(columns map[string]string) error {
		quantity, err := strconv.Atoi(columns["quantity"])
		orders = append(orders, shop.Order{
			Run: run, ID: columns["order_id"], Customer: columns["customer"], SKU: columns["sku"], Quantity: quantity,
		})
		return err
	})
	return orders, err
}

// desk places orders and hears what became of them.
type desk struct {
	client   *sidecast.Client
	book     *book
	progress *progress
}

func (d *desk) placeAll(ctx context.Context, orders []shop.Order) error {
	placing, ctx := errgroup.WithContext(ctx)
	placing.SetLimit(workers)
	for _, order := range orders {
		if ctx.Err() != nil {
			break
		}
		placing.Go(func() error { return d.insist(ctx, order) })
	}
	return placing.Wait()
}

// insist places an order, trying again while the shop is not all there: each step may be repeated.
func (d *desk) insist(ctx context.Context, order shop.Order) error {
	for {
		err := d.place(ctx, order)
		switch fault.KindOf(err) {
		case fault.Unavailable, fault.Tripped, fault.Exhausted, fault.Timeout, fault.Conflict:
		default:
			return err
		}
		if err := pause(ctx); err != nil {
			return err
		}
	}
}

// place prices an order, saves it and publishes it.
func (d *desk) place(ctx context.Context, order shop.Order) error {
	entry, _, err := d.book.find(ctx, order)
	if err != nil {
		return err
	}
	if entry.Status == "" {
		var price shop.Price
		if price, err = sidecast.InvokeJSON[shop.Price](ctx, d.client, "pricing", "price", order, sidecast.Idempotent()); err != nil {
			return err
		}
		if entry, err = d.book.open(ctx, order, price); err != nil {
			return err
		}
	}
	d.progress.set(order.ID, entry.Status)
	if entry.Status != placed {
		return nil
	}
	_, err = d.client.PublishJSON(ctx, shop.Placed, order,
		sidecast.ID(fmt.Sprintf("%d/%s", order.Run, order.ID)), sidecast.Key(order.SKU))
	return err
}

// decided notes what fulfilment decided.
func (d *desk) decided(ctx context.Context, event *sidecast.Event) error {
	var decision shop.Decision
	if err := event.JSON(&decision); err != nil {
		return sidecast.Drop(err)
	}
	if decision.Order.Run != d.book.run {
		return nil // of a run that ended before its last event came
	}
	entry, err := d.book.decide(ctx, decision)
	if err != nil {
		return err
	}
	d.progress.set(decision.Order.ID, entry.Status)
	return nil
}

// summarize prints the sums of a run and fails when they are wrong.
func summarize(ctx context.Context, client *sidecast.Client, book *book, read int) error {
	sums, err := book.sum(ctx)
	if err != nil {
		return err
	}
	stock, err := sidecast.InvokeJSON[[]shop.Stock](ctx, client, "fulfilment", "stock", shop.StockRequest{Run: book.run}, sidecast.Idempotent())
	if err != nil {
		return err
	}
	before, left := 0, 0
	for _, s := range stock {
		before += s.Before
		left += s.Left
	}
	rejected := sums.orders[rejectedByPricing] + sums.orders[outOfStock]
	fmt.Printf("\nRun %d\n", book.run)
	fmt.Printf("  orders read       %7d\n", read)
	fmt.Printf("  shipped           %7d\n", sums.orders[shipped])
	fmt.Printf("  rejected          %7d   (%d by pricing, %d out of stock)\n", rejected, sums.orders[rejectedByPricing], sums.orders[outOfStock])
	fmt.Printf("  stock before      %7d\n", before)
	fmt.Printf("  units shipped     %7d\n", sums.units)
	fmt.Printf("  stock after       %7d\n", left)
	fmt.Printf("  turnover       %13.2f\n\n", float64(sums.cents)/100)

	var wrong []error
	if got := sums.orders[shipped] + rejected; got != read {
		wrong = append(wrong, fmt.Errorf("%d orders read, but %d shipped or rejected", read, got))
	}
	if before-sums.units != left {
		wrong = append(wrong, fmt.Errorf("stock before %d − shipped %d = %d, but %d is left", before, sums.units, before-sums.units, left))
	}
	if len(wrong) > 0 {
		return errors.Join(wrong...)
	}
	fmt.Println("The sums are right: nothing lost, nothing twice.")
	return book.close(ctx)
}
