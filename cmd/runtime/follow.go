package main

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"reflect"
	"slices"
	"sync"
	"syscall"

	"go.uber.org/fx"

	"github.com/sidecast/sidecast/access"
	"github.com/sidecast/sidecast/actors"
	"github.com/sidecast/sidecast/api/daprapi"
	blocks "github.com/sidecast/sidecast/building_blocks"
	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/components/pluggable"
	"github.com/sidecast/sidecast/configuration"
	"github.com/sidecast/sidecast/governance"
	"github.com/sidecast/sidecast/pipeline"
	"github.com/sidecast/sidecast/telemetry"
)

// hangups has SIGHUP end nothing and be told to the follower, as soon as it is there.
func hangups() chan os.Signal {
	told := make(chan os.Signal, 1)
	signal.Notify(told, syscall.SIGHUP)
	return told
}

// follower takes changed files into use: components, subscriptions, endpoints, policies and Configurations. Files with a
// mistake change nothing at all. It follows them as they change, unless the feature HotReload is off, and on SIGHUP where
// there is somebody to send it.
type follower struct {
	fx.In

	C        *config
	Blocks   *blocks.Blocks
	Set      *components.Set
	Settings *configuration.Settings // those in use
	Seen     components.Seen
	Tracer   *telemetry.Tracer
	App      *pipeline.Client
	Plugins  *pluggable.Folder
	Dapr     *daprapi.Server // nil unless started as daprd
	Drainer  *drainer
	System   *actors.System
	Log      *slog.Logger
}

func followFiles(lc fx.Lifecycle, f follower) {
	if len(f.C.Resources) == 0 {
		return
	}
	var worker *actors.Worker
	lc.Append(fx.Hook{
		OnStart: func(context.Context) error {
			worker = f.System.Worker("resources", f.run)
			return nil
		},
		OnStop: func(ctx context.Context) error { return worker.Stop(ctx) },
	})
}

// run returns when ctx ends.
func (f *follower) run(ctx context.Context) error {
	var hangups <-chan os.Signal
	if f.C.dapr != nil {
		hangups = f.C.dapr.Hangups
	}
	changed := make(chan struct{}, 1)
	watching := func() {}
	defer func() { watching() }()
	var warming sync.WaitGroup
	defer warming.Wait()
	for on := false; ; {
		warming.Go(func() { f.warm(ctx) })
		if wanted := slices.Contains(f.Settings.Features, configuration.HotReload); wanted != on {
			watching()
			if watching, on = func() {}, wanted; on {
				watching = watch(ctx, f.Seen, changed)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-hangups:
			f.Log.Info("SIGHUP: all files are read again")
		}
		f.Seen = components.See(f.C.Resources)
		f.reload(ctx)
	}
}

// warm opens the middleware of both pipelines.
func (f *follower) warm(ctx context.Context) {
	f.App.Warm(ctx)
	if f.Dapr != nil {
		f.Dapr.Warm(ctx)
	}
}

// watch tells of changes until it is stopped; stop waits for it.
func watch(ctx context.Context, seen components.Seen, changed chan<- struct{}) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = components.Watch(ctx, seen, func() { // fails with ctx alone
			select {
			case changed <- struct{}{}:
			default: // the last one was not seen to yet
			}
		})
	}()
	return func() {
		cancel()
		<-ended
	}
}

// reload reads all files and, if they are right as a whole, takes them into use.
func (f *follower) reload(ctx context.Context) {
	docs, settings, err := readDocuments(ctx, f.C, f.Plugins, f.Log)
	var rules *governance.Rules
	if err == nil {
		rules, err = readRules(f.C, docs, f.Log)
	}
	var traces *telemetry.Traces
	if err == nil && !reflect.DeepEqual(settings.Tracing, f.Settings.Tracing) {
		traces, err = readyTraces(f.C, settings, f.Log)
	}
	if err != nil {
		if ctx.Err() == nil {
			f.Log.Error("the changed files are not taken into use, and what was read before stays: correct them and save again", "error", err)
			f.Blocks.Runtime.Warn("changed files are not taken into use, and what was read before stays: " + err.Error())
		}
		return
	}
	if traces != nil {
		f.Tracer.Use(*traces)
	}
	f.Blocks.App.SetAccess(access.NewList(settings.Access, f.C.httpApp()))
	f.Blocks.Secrets.SetScopes(settings.Secrets)
	f.Drainer.setTrustDomain(settings.Access.TrustDomain)
	if settings.Metrics != f.Settings.Metrics || !reflect.DeepEqual(settings.Measuring, f.Settings.Measuring) {
		f.Log.Warn("whether metrics are served, and how those with Dapr's names are made, changes with the next start of the sidecar")
	}
	f.Set.Reload(docs)
	f.Set.FollowSecrets(ctx, slices.Contains(settings.Features, configuration.HotReload))
	f.App.Set(settings.AppPipeline)
	if f.Dapr != nil {
		f.Dapr.Set(f.C.doorSettings(settings))
	}
	f.Blocks.Reloaded()
	f.Blocks.SetRules(rules)
	f.Blocks.Invocation.SetEndpoints(endpointsOf(docs, f.C))
	f.Blocks.PubSub.Declare(ctx, declared(docs, f.C))
	f.Settings = settings
	f.Blocks.Runtime.Warn()
	f.Log.Info("component, subscription, endpoint, configuration and policy files were read again")
}
