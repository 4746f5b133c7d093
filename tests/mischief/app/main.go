// Command app is an app that misbehaves as it is told to, to see what its sidecar makes of it:
//
//	sidecast run --app-id unruly --app-port 8080 -- go run ./tests/mischief/app -http :8080 -harm '10%:hang 5%:cut 3:panic'
package main

import (
	"context"
	"flag"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"time"

	"github.com/sidecast/sidecast/tests/mischief"
)

func main() {
	log.SetFlags(0)
	web := flag.String("http", "", "address to serve HTTP on")
	rpc := flag.String("grpc", "", "address to serve gRPC on")
	harm := flag.String("harm", "", "what happens to which call: rules as 3:panic 5-7:error=STORE_FULL 10%:delay=20ms seed=42")
	work := flag.Duration("work", 0, "how long each call takes beside that")
	flag.Parse()
	plan, err := mischief.Parse(*harm)
	if err != nil {
		log.Fatal(err)
	}
	if *web == "" && *rpc == "" {
		log.Fatal("say -http or -grpc, and the address")
	}
	log.Printf("the harm's seed is %d", plan.Seed)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	app := &mischief.App{Plan: plan, Work: *work}
	failed := make(chan error, 2)
	if *web != "" {
		server := &http.Server{Addr: *web, Handler: app, ReadHeaderTimeout: 10 * time.Second}
		go func() { failed <- server.ListenAndServe() }()
		defer server.Close()
	}
	if *rpc != "" {
		listener, err := net.Listen("tcp", *rpc)
		if err != nil {
			log.Fatal(err)
		}
		server := app.GRPC()
		go func() { failed <- server.Serve(listener) }()
		defer server.Stop()
	}
	select {
	case err := <-failed:
		log.Fatal(err)
	case <-ctx.Done():
		log.Printf("at most %d calls at once", app.Most())
	}
}
