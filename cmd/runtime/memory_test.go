package main

import (
	"context"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"testing"
	"time"
)

func TestMemoryLimit(t *testing.T) {
	before := debug.SetMemoryLimit(-1)
	defer debug.SetMemoryLimit(before)
	t.Setenv("GOMEMLIMIT", "")
	if got := limitMemory(64 << 20); got != softLimit {
		t.Errorf("a limit of %d", got)
	}
	if got := limitMemory(1 << 30); got != softBodies<<30 {
		t.Errorf("with bodies of a GiB a limit of %d", got)
	}
	debug.SetMemoryLimit(5 << 30)
	t.Setenv("GOMEMLIMIT", "5GiB")
	if got := limitMemory(64 << 20); got != 5<<30 {
		t.Errorf("the user's limit became %d", got)
	}
}

// percent is the collector's.
func percent() uint64 {
	sample := []metrics.Sample{{Name: "/gc/gogc:percent"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

// watched has the heap watched while the collector runs n times.
func watched(t *testing.T, n int) {
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- watchHeap(ctx) }()
	for range n {
		runtime.GC()
		time.Sleep(10 * time.Millisecond) // finalizers run behind it
	}
	cancel()
	<-ended
}

func TestTheUserPacesTheCollector(t *testing.T) {
	before := debug.SetGCPercent(70)
	defer func() { debug.SetGCPercent(before) }()
	t.Setenv("GOGC", "70")
	if watched(t, 20); percent() != 70 {
		t.Errorf("the collector runs at %d in spite of GOGC", percent())
	}
}

func TestTheCollectorIsPaced(t *testing.T) {
	before := debug.SetGCPercent(70)
	defer func() { debug.SetGCPercent(before) }()
	t.Setenv("GOGC", "")
	watched(t, 100)
	small := percent()
	if small <= 100 {
		t.Errorf("the collector of a small heap runs at %d", small)
	}
	lives := make([][]byte, 64)
	for i := range lives {
		lives[i] = make([]byte, 1<<20)
	}
	if watched(t, 100); percent() != leastPercent {
		t.Errorf("that of a large one runs at %d", percent())
	}
	runtime.KeepAlive(lives)
}
