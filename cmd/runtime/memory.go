package main

import (
	"context"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"

	"go.uber.org/fx"

	"github.com/sidecast/sidecast/actors"
)

const (
	// memoryEvery is how often the heap is looked at.
	memoryEvery = 5 * time.Second
	// startOver is when what only the start has touched of the program's file can be let go.
	startOver = time.Second
	// spareMemory is what the heap may keep for itself in bytes.
	spareMemory = 24 << 20
	// softLimit is from how much memory in bytes on the collector works harder instead of letting garbage double it. What
	// lives stays well below, whatever is offered: see api/bodies. A larger --max-body moves it, in whole bodies.
	softLimit, softBodies = 1 << 30, 16
	// ballastSize is by how many bytes the collector takes the heap for larger than it is, and garbagePercent how much garbage
	// of all that it lets gather. With Go's own 100 % of what lives, which in a sidecar is a few MiB, it would run many times a
	// second and take a sixth of the CPU of a call; and in a burst, which lives in tens of MiB, would let as many of garbage
	// gather.
	ballastSize, garbagePercent = 24 << 20, 50
)

// limitMemory sets the collector's soft limit, unless the user has by GOMEMLIMIT. It returns the limit in force.
func limitMemory(maxBody int64) int64 {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(max(softLimit, softBodies*maxBody))
	}
	return debug.SetMemoryLimit(-1)
}

// paceCollector says how often the collector runs, unless the user has by GOGC. What it returns is to be kept alive; it is
// never touched, so no memory stands behind it. Of a limit by GOMEMLIMIT it would take its part all the same: then there is none.
func paceCollector() (ballast []byte) {
	if os.Getenv("GOGC") != "" {
		return nil
	}
	debug.SetGCPercent(garbagePercent)
	if os.Getenv("GOMEMLIMIT") != "" {
		return nil
	}
	return make([]byte, ballastSize)
}

// giveBackMemory returns to the system what a burst has left behind. Go's collector runs when the heap grows, so after a
// burst, when nothing grows, it would keep the burst's memory for minutes.
func giveBackMemory(lc fx.Lifecycle, c *config, system *actors.System) {
	limitMemory(c.maxBody)
	ballast := paceCollector()
	var keeper *actors.Worker
	lc.Append(fx.Hook{
		OnStart: func(context.Context) error {
			keeper = system.Worker("memory", func(ctx context.Context) error {
				defer runtime.KeepAlive(ballast)
				return watchHeap(ctx)
			})
			return nil
		},
		OnStop: func(ctx context.Context) error { return keeper.Stop(ctx) },
	})
}

// watchHeap looks for a heap that is quiet, as told by how much was allocated since the last look, and yet large.
func watchHeap(ctx context.Context) error {
	samples := []metrics.Sample{
		{Name: "/gc/heap/allocs:bytes"},
		{Name: "/gc/heap/live:bytes"},
		{Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/memory/classes/heap/free:bytes"},
		{Name: "/memory/classes/heap/unused:bytes"},
	}
	ticker := time.NewTicker(memoryEvery)
	defer ticker.Stop()
	var before, freedAt uint64
	started := time.NewTimer(startOver)
	defer started.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-started.C:
			_ = releaseImage() // a system that does not let it be done has the memory to spare
			continue
		case <-ticker.C:
		}
		metrics.Read(samples)
		allocated, live := samples[0].Value.Uint64(), samples[1].Value.Uint64()
		held := samples[2].Value.Uint64() + samples[3].Value.Uint64() + samples[4].Value.Uint64()
		quiet := allocated-before < spareMemory
		before = allocated
		if quiet && held > min(live, freedAt)+spareMemory {
			debug.FreeOSMemory()
			metrics.Read(samples)
			freedAt = samples[2].Value.Uint64() + samples[4].Value.Uint64() // what is in use cannot be given back
		}
	}
}
