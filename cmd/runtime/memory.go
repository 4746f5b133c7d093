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
	// startOver is when what only the start has touched of the program's file can be let go, and what it has left on the heap.
	startOver = time.Second
	// idleMemory is more than a sidecar that does nothing allocates between two looks, in bytes.
	idleMemory = 1 << 20
	// spareMemory is what the heap may keep for itself in bytes.
	spareMemory = 24 << 20
	// softLimit is from how much memory in bytes on the collector works harder instead of letting garbage double it. What
	// lives stays well below, whatever is offered: see api/bodies. A larger --max-body moves it, in whole bodies.
	softLimit, softBodies = 1 << 30, 16
	// garbage is how much of it in bytes the collector lets gather, if that is not less than leastPercent of what it goes
	// through. With Go's own measure, as much as what lives, it would run many times a second in a sidecar, where little lives,
	// and in a burst, where more does, let as much again gather.
	garbage, leastPercent = 12 << 20, 25
)

// limitMemory sets the collector's soft limit, unless the user has by GOMEMLIMIT. It returns the limit in force.
func limitMemory(maxBody int64) int64 {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(max(softLimit, softBodies*maxBody))
	}
	return debug.SetMemoryLimit(-1)
}

// giveBackMemory returns to the system what a burst has left behind. Go's collector runs when the heap grows, so after a
// burst, when nothing grows, it would keep the burst's memory for minutes.
func giveBackMemory(lc fx.Lifecycle, c *config, system *actors.System) {
	limitMemory(c.maxBody)
	var keeper *actors.Worker
	lc.Append(fx.Hook{
		OnStart: func(context.Context) error {
			keeper = system.Worker("memory", watchHeap)
			return nil
		},
		OnStop: func(ctx context.Context) error { return keeper.Stop(ctx) },
	})
}

// collections tells after each run of the collector, until ctx ends: an object that nobody holds is let go of in each.
func collections(ctx context.Context) <-chan struct{} {
	type object struct{ _ *byte } // with a pointer, or else it shares its memory with others
	told := make(chan struct{}, 1)
	var again func(*object)
	again = func(*object) {
		select {
		case told <- struct{}{}:
		default:
		}
		if ctx.Err() == nil {
			runtime.SetFinalizer(new(object), again)
		}
	}
	again(nil)
	return told
}

// pacer keeps the collector to its garbage.
type pacer struct {
	samples []metrics.Sample
	percent int
}

func newPacer() *pacer {
	return &pacer{samples: []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/scan/stack:bytes"}, {Name: "/gc/scan/globals:bytes"}}}
}

// pace sets the collector's percentage, of what it goes through. A small change is not worth that the world stops for it.
func (p *pacer) pace() {
	metrics.Read(p.samples)
	gone := uint64(1)
	for _, s := range p.samples {
		gone += s.Value.Uint64()
	}
	percent := max(int(garbage*100/gone), leastPercent)
	if diff := percent - p.percent; diff > p.percent/8 || -diff > p.percent/8 {
		p.percent = percent
		debug.SetGCPercent(percent)
	}
}

// watchHeap paces the collector, unless the user does by GOGC, and looks for a heap that is quiet, as told by how much was
// allocated since the last look, and yet large. In one that is idle it lets go of the program's file each time that the collector
// has touched it.
func watchHeap(ctx context.Context) error {
	samples := []metrics.Sample{
		{Name: "/gc/heap/allocs:bytes"},
		{Name: "/gc/heap/live:bytes"},
		{Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/memory/classes/heap/free:bytes"},
		{Name: "/memory/classes/heap/unused:bytes"},
		{Name: "/gc/cycles/total:gc-cycles"},
	}
	ticker := time.NewTicker(memoryEvery)
	defer ticker.Stop()
	var collected <-chan struct{}
	pacer := newPacer()
	if os.Getenv("GOGC") == "" {
		collected = collections(ctx)
	}
	var before, freedAt, releasedAt uint64
	var program image
	started := time.NewTimer(startOver)
	defer started.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-collected:
			pacer.pace()
			continue
		case <-started.C:
			debug.FreeOSMemory()
			program, _ = loadedImage() // a system that does not let it be done has the memory to spare
			_ = program.release()
			continue
		case <-ticker.C:
		}
		metrics.Read(samples)
		allocated, live := samples[0].Value.Uint64(), samples[1].Value.Uint64()
		held := samples[2].Value.Uint64() + samples[3].Value.Uint64() + samples[4].Value.Uint64()
		quiet := allocated-before < spareMemory
		idle := allocated-before < idleMemory
		before = allocated
		if cycle := samples[5].Value.Uint64(); idle && cycle != releasedAt {
			_ = program.release()
			releasedAt = cycle
		}
		if quiet && held > min(live, freedAt)+spareMemory {
			debug.FreeOSMemory()
			metrics.Read(samples)
			freedAt = samples[2].Value.Uint64() + samples[4].Value.Uint64() // what is in use cannot be given back
		}
	}
}
