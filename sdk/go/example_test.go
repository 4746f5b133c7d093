package sidecast_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"time"

	"github.com/sidecast/sidecast/fault"
	sidecast "github.com/sidecast/sidecast/sdk/go"
)

type Item struct{ SKU string }

type Price struct{ Cents int }

// An app that answers calls and handles events until it is interrupted. It opens no port.
func ExampleServe() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	err := sidecast.Serve(ctx,
		sidecast.HandleJSON("price", func(ctx context.Context, in Item) (Price, error) {
			if in.SKU == "" {
				return Price{}, fault.New("price", fault.BadRequest, "an item without a SKU")
			}
			return Price{Cents: 499}, nil
		}),
		sidecast.OnEvent("orders.placed", func(ctx context.Context, event *sidecast.Event) error {
			var item Item
			if err := event.JSON(&item); err != nil {
				return sidecast.Drop(err) // it will be no better next time
			}
			return nil
		}, sidecast.DeadLetter("orders.dead", 5)),
		sidecast.Concurrency(64),
	)
	if err != nil {
		log.Fatal(err)
	}
}

// A call of another app.
func ExampleInvokeJSON() {
	ctx := context.Background()
	client, err := sidecast.Connect(ctx)
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	price, err := sidecast.InvokeJSON[Price](ctx, client, "pricing", "price", Item{SKU: "A1"}, sidecast.Idempotent())
	switch sidecast.KindOf(err) {
	case fault.None:
		fmt.Println(price.Cents)
	case fault.Exhausted:
		fmt.Println("busy; again in", fault.RetryAfter(err))
	default:
		log.Fatal(err)
	}
}

// A handler that gives an event back for a while.
func ExampleRetryAfter() {
	var warming bool
	sidecast.OnEvent("orders.placed", func(ctx context.Context, event *sidecast.Event) error {
		if warming {
			return sidecast.RetryAfter(30*time.Second, errors.New("the cache is still cold"))
		}
		return nil
	})
}

// A counter that many may add to: read, write only over what was read, and again if someone was faster.
func ExampleSetJSON() {
	add := func(ctx context.Context, state *sidecast.State) error {
		for {
			n, etag, err := sidecast.GetJSON[int](ctx, state, "visits")
			if err != nil {
				return err
			}
			only := sidecast.IfMatch(etag)
			if etag == "" {
				only = sidecast.IfAbsent()
			}
			if _, err = sidecast.SetJSON(ctx, state, "visits", n+1, only); sidecast.KindOf(err) != fault.Conflict {
				return err
			}
		}
	}
	_ = add
}

// Walking through keys.
func ExampleState_List() {
	ctx := context.Background()
	client, err := sidecast.Connect(ctx)
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	for item, err := range client.State("").List(ctx, "orders/", sidecast.KeysOnly()) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(item.Key)
	}
}

// Leading for as long as the lock holds.
func ExampleLock_Hold() {
	ctx := context.Background()
	client, err := sidecast.Connect(ctx)
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	held, err := client.Lock("").Hold(ctx, "leader", sidecast.Wait(time.Hour))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("leading with fencing token", held.Token)
	select {
	case <-held.Lost():
		fmt.Println("no longer leading:", held.Err())
	case <-time.After(time.Minute):
		_ = held.Release(ctx)
	}
}

// Bytes both ways.
func ExampleHandleStream() {
	sidecast.HandleStream("echo", func(ctx context.Context, r *sidecast.Request, stream *sidecast.Stream) error {
		_, err := io.Copy(stream, stream)
		return err
	})
}
