package fabric

import (
	"context"
	"time"

	"github.com/sidecast/sidecast/fault"
)

const (
	// pulseEvery is the interval of the fabric's one ticker: heartbeats, missed heartbeats and probes.
	pulseEvery = time.Second
	// quietPulses is after how many pulses without a word an exchange is probed.
	quietPulses = 2
	// patience is how long unary calls that were under way wait for the fabric to come back.
	patience = 3500 * time.Millisecond
)

// pulse keeps every exchange honest: whatever was lost on the way, in a server that died or a peer that vanished, is
// found out by asking, so that nothing waits for ever.
func (f *Fabric) pulse(ctx context.Context) {
	tick := time.NewTicker(pulseEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		f.clock.Add(1)
		if f.link.downFor() > patience {
			f.outbound.failAll(func(e entry) bool { _, unary := e.(*waiting); return unary }, fault.New("", fault.InstanceLost, "the fabric went away while the call was under way, and did not come back"))
			continue
		}
		if !f.link.fresh() {
			f.probe()
		}
	}
}

// probe asks the peers of quiet exchanges.
func (f *Fabric) probe() {
	if !f.link.up.Load() {
		return
	}
	now := f.clock.Load()
	f.outbound.each(func(e entry) bool { _, called := e.(*running); return !called },
		func(token uint64, e entry) { e.probe(token, now) })
	for _, r := range f.inbound.snapshot() {
		r.probe(0, now)
	}
}
