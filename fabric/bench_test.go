//go:build unix

package fabric_test

import (
	"context"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/sidecast/sidecast/call"
)

func cpuTime(b *testing.B) time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// BenchmarkCall is a call from host to guest and back, both in this process: 1 KiB and a usual set of metadata each way.
func BenchmarkCall(b *testing.B) {
	for _, callers := range []int{1, 16} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			x, _ := pair(b, handler{})
			req := &call.Request{Method: "price", ContentType: "application/json", Body: body(1024), Header: call.Header{
				{Key: "traceparent", Value: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}, {Key: "user-agent", Value: "bench"}}}
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			before := cpuTime(b)
			b.ReportAllocs()
			b.SetParallelism(max(callers/2, 1))
			b.ResetTimer()
			run := func() {
				if _, err := x.Call(ctx, b1, req); err != nil {
					b.Error(err)
				}
			}
			if callers == 1 {
				for range b.N {
					run()
				}
			} else {
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						run()
					}
				})
			}
			b.StopTimer()
			b.ReportMetric(float64((cpuTime(b)-before).Nanoseconds())/1000/float64(b.N), "cpu-µs/op")
		})
	}
}

// BenchmarkLargeBody is a call with 8 MiB each way.
func BenchmarkLargeBody(b *testing.B) {
	x, _ := pair(b, handler{})
	req := &call.Request{Method: "m", Body: body(8 << 20)}
	b.SetBytes(16 << 20)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := x.Call(context.Background(), b1, req); err != nil {
			b.Fatal(err)
		}
	}
}
