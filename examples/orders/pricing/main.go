// Command pricing answers what an order costs, or why it cannot be taken.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"os/signal"
	"syscall"

	"github.com/sidecast/sidecast/examples/orders/shop"
	sidecast "github.com/sidecast/sidecast/sdk/go"
)

// most is the largest quantity of one order.
const most = 1000

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	prices, err := shop.ReadNumbers(os.Args[1], "unit_price_cents")
	if err != nil {
		log.Fatal(err)
	}
	price := func(_ context.Context, order shop.Order) (shop.Price, error) {
		unit, known := prices[order.SKU]
		switch {
		case !known:
			return shop.Price{Reason: fmt.Sprintf("no such SKU: %s", order.SKU)}, nil
		case order.Quantity < 1 || order.Quantity > most:
			return shop.Price{Reason: fmt.Sprintf("quantity %d is not between 1 and %d", order.Quantity, most)}, nil
		}
		return shop.Price{Accepted: true, TotalCents: unit * order.Quantity}, nil
	}
	fmt.Printf("%d prices\n", len(prices))
	if err := sidecast.Serve(ctx, sidecast.HandleJSON("price", price)); err != nil {
		log.Fatal(err)
	}
}
