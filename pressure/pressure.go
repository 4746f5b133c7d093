// Package pressure measures how loaded the container is that this process runs in, or the machine where there is none.
//
//	gauge := pressure.New()
//	p, err := gauge.Read(ctx) // p.CPU and p.Memory, 0 to 1
//
// CPU and memory are judged each by itself: a control group of Linux (v2 or v1) that limits one of them, this process's own
// or one above it, is what counts; without one it is the machine. Memory that the kernel can take back at once, as the files
// it has cached and nobody reads, is not counted as used. Reading costs some small files and starts nothing.
package pressure

import (
	"context"
	"io/fs"
	"os"
	"sync"
	"time"

	"github.com/shirou/gopsutil/v4/cpu"
	"github.com/shirou/gopsutil/v4/mem"

	"github.com/sidecast/sidecast/resiliency"
)

// Gauge reads the pressure. It is safe for concurrent use.
type Gauge struct {
	root    fs.FS
	machine machine
	clock   func() time.Time

	mu     sync.Mutex
	groups *groups           // nil before the first reading
	spent  map[string]sample // CPU time by directory
	cpu    float64           // smoothed
}

// sample is a reading of CPU time, in nanoseconds.
type sample struct {
	at   time.Time
	used float64
}

// machine reads the shares in use of the whole machine.
type machine struct {
	cpu, memory func(context.Context) (float64, error)
}

// New returns a gauge that has read nothing yet.
func New() *Gauge {
	return &Gauge{root: os.DirFS("/"), machine: machine{cpu: machineCPU, memory: machineMemory}, clock: time.Now,
		spent: make(map[string]sample)}
}

// Read measures. CPU is the mean since the last reading, which counts half, and what was measured before; it is 0 at the
// first one. An error is one of the machine's; a control group that cannot be read limits nothing.
func (g *Gauge) Read(ctx context.Context) (p resiliency.Pressure, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.groups == nil {
		g.groups = findGroups(g.root)
	}
	busy, limited := g.groupCPU()
	if !limited {
		if busy, err = g.machine.cpu(ctx); err != nil {
			return p, err
		}
	}
	g.cpu = (g.cpu + min(max(busy, 0), 1)) / 2
	p.CPU = g.cpu
	if p.Memory, limited = g.groups.memoryShare(g.root); !limited {
		p.Memory, err = g.machine.memory(ctx)
	}
	return p, err
}

// groupCPU is the share of its limit that the most pressed control group has used since the last reading.
func (g *Gauge) groupCPU() (share float64, limited bool) {
	now := g.clock()
	for _, level := range g.groups.cpu {
		cores, ok := level.cores(g.root)
		if !ok {
			continue
		}
		used, ok := level.used(g.root)
		if !ok {
			continue
		}
		limited = true
		before, known := g.spent[level.dir]
		g.spent[level.dir] = sample{now, used}
		if passed := now.Sub(before.at); known && passed > 0 {
			share = max(share, (used-before.used)/(float64(passed)*cores))
		}
	}
	return share, limited
}

func machineCPU(ctx context.Context) (float64, error) {
	all, err := cpu.PercentWithContext(ctx, 0, false) // since the last call
	if err != nil || len(all) == 0 {
		return 0, err
	}
	return all[0] / 100, nil
}

func machineMemory(ctx context.Context) (float64, error) {
	m, err := mem.VirtualMemoryWithContext(ctx)
	if err != nil || m.Total == 0 {
		return 0, err
	}
	return 1 - float64(m.Available)/float64(m.Total), nil
}
