package faultgrpc_test

import (
	"errors"
	"testing"
	"time"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/fault/faultgrpc"
)

func BenchmarkErr(b *testing.B) {
	b.ReportAllocs()
	sent := fault.E("invoke pricing/price", fault.Exhausted, fault.QueueFull, errors.New("16 calls run and 256 wait for app pricing")).
		With("lane", "app/pricing").With("policy", "default-app").With("attempts", "0").After(3 * time.Second)
	for b.Loop() {
		_ = faultgrpc.Err(sent)
	}
}
