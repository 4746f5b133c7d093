package main

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sidecast/sidecast/access"
	"github.com/sidecast/sidecast/actors"
	"github.com/sidecast/sidecast/api/grpcapi"
	"github.com/sidecast/sidecast/appchannel"
	blocks "github.com/sidecast/sidecast/building_blocks"
	"github.com/sidecast/sidecast/cmd/runtime/supervisor"
	"github.com/sidecast/sidecast/configuration"
	"github.com/sidecast/sidecast/fabric"
)

// drainer keeps the sidecar in presence until it is told to drain: then it leaves, refuses new calls and events, and lets
// those that run end, while the app can still use its sidecar.
type drainer struct {
	config *config
	log    *slog.Logger
	fabric *fabric.Fabric
	system *actors.System
	app    appchannel.Channel
	blocks *blocks.Blocks
	api    *grpcapi.Server
	self   fabric.Instance
	tags   atomic.Pointer[map[string]string] // of self, from the next announcement on

	presence *actors.Worker
	once     sync.Once
	err      error
}

func newDrainer(c *config, log *slog.Logger, f *fabric.Fabric, system *actors.System, app appchannel.Channel,
	b *blocks.Blocks, api *grpcapi.Server, self blocks.Self, settings *configuration.Settings, started startTime) *drainer {
	host, _ := os.Hostname() // shown to people only
	api.SetHealth(supervisor.DrainedService, false)
	d := &drainer{
		config: c, log: log, fabric: f, system: system, app: app, blocks: b, api: api,
		self: fabric.Instance{
			App: self.AppID, ID: self.Instance, Version: version, Host: host, PID: os.Getpid(), Weight: 1,
			Started: time.Time(started),
		},
	}
	d.setTrustDomain(settings.Access.TrustDomain)
	return d
}

// setTrustDomain has presence tell of another trust domain.
func (d *drainer) setTrustDomain(domain string) {
	tags := map[string]string{}
	if domain != access.PublicDomain {
		tags[blocks.TrustDomainTag] = domain
	}
	d.tags.Store(&tags)
}

// readinessPoll is how often presence looks whether the app takes calls.
const readinessPoll = 50 * time.Millisecond

// announce starts to tell the fabric of this sidecar, and again at once when the readiness of its app changes, how much it
// takes or its trust domain; heartbeats are the fabric's own.
func (d *drainer) announce() {
	d.presence = d.system.Worker("presence", func(ctx context.Context) error {
		ticker := time.NewTicker(readinessPoll)
		defer ticker.Stop()
		for first := true; ; first = false {
			ready, room, tags := d.app.Ready() == nil, d.blocks.App.Room(), *d.tags.Load()
			if first || ready != d.self.Ready || room != d.self.Room || !maps.Equal(tags, d.self.Tags) {
				d.self.Ready, d.self.Room, d.self.Tags = ready, room, tags
				d.fabric.Announce(d.self)
			}
			select {
			case <-ctx.Done():
				return nil
			case <-ticker.C:
			}
		}
	})
}

// begin drains in the background, for a supervisor that asks and then watches the health of DrainedService.
func (d *drainer) begin() {
	go func() { // ends within the grace period; drain at the stop waits for it
		ctx, cancel := context.WithTimeout(context.Background(), d.config.GracePeriod)
		defer cancel()
		if err := d.config.by(runningShare, d.drain)(ctx); err != nil {
			d.log.Warn("not everything ended while draining", "error", err)
		}
	}()
}

// drain drains once and returns when it has.
func (d *drainer) drain(ctx context.Context) error {
	d.once.Do(func() {
		left := d.presence.Stop(ctx)
		// Both at once: while a call hangs, no more events may come, and those that run have all the time there is.
		var intake error
		var stopping sync.WaitGroup
		stopping.Go(func() { intake = d.blocks.StopIntake(ctx) })
		calls := d.fabric.Leave(ctx)
		stopping.Wait()
		d.err = errors.Join(left, calls, intake)
		d.api.SetHealth(supervisor.DrainedService, true)
	})
	return d.err
}
