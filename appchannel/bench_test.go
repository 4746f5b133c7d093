//go:build unix

package appchannel_test

import (
	"context"
	"syscall"
	"testing"
	"time"

	"github.com/sidecast/sidecast/appchannel"
	"github.com/sidecast/sidecast/call"
	sidecast "github.com/sidecast/sidecast/sdk/go"
)

// cpu is what this process has used of all cores: on a busy machine it tells more than the clock.
func cpu() time.Duration {
	var used syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &used)
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// BenchmarkHubInvoke is 1 KiB to an app and back, both ends in this process, over loopback.
func BenchmarkHubInvoke(b *testing.B) {
	hub, address := serveHub(b, appchannel.Options{})
	client, err := sidecast.Connect(b.Context(), sidecast.Endpoint(address))
	if err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() {
		served <- client.Serve(ctx, sidecast.Handle("echo", func(_ context.Context, r *sidecast.Request) (*sidecast.Response, error) {
			return &sidecast.Response{Data: r.Data, ContentType: r.ContentType}, nil
		}))
	}()
	for hub.Ready() != nil {
		time.Sleep(time.Millisecond)
	}
	req := call.Request{
		Method: "echo", Caller: "bench", ContentType: "application/json", Body: make([]byte, 1024),
		Header: call.Header{{Key: "traceparent", Value: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}},
	}
	run := func(b *testing.B, one func(context.Context) error) {
		b.ReportAllocs()
		b.SetBytes(2 * 1024)
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		b.SetParallelism(8)
		before := cpu()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if err := one(ctx); err != nil {
					b.Error(err)
					return
				}
			}
		})
		b.ReportMetric(float64(cpu()-before)/float64(b.N), "cpu-ns/op")
	}
	b.Run("16 callers", func(b *testing.B) {
		run(b, func(ctx context.Context) error {
			_, err := hub.Invoke(ctx, &req)
			return err
		})
	})
	b.Run("1 caller", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := hub.Invoke(context.Background(), &req); err != nil {
				b.Fatal(err)
			}
		}
	})
	stop()
	<-served
	client.Close()
}
