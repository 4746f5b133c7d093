package main

import (
	"context"
	"log/slog"

	"go.uber.org/fx"

	"github.com/sidecast/sidecast/actors"
	blocks "github.com/sidecast/sidecast/building_blocks"
	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/components/pluggable"
	"github.com/sidecast/sidecast/components/standard"
)

// followPlugins takes components into use whose programs come later than the sidecar.
func followPlugins(lc fx.Lifecycle, plugins *pluggable.Folder, set *components.Set, b *blocks.Blocks, system *actors.System) {
	var worker *actors.Worker
	lc.Append(fx.Hook{
		OnStart: func(context.Context) error {
			worker = system.Worker("plug-ins", func(ctx context.Context) error {
				return plugins.Follow(ctx, func() {
					set.SetKnown(plugins.Known(standard.All()))
					b.Reloaded()
				})
			})
			return nil
		},
		OnStop: func(ctx context.Context) error { return worker.Stop(ctx) },
	})
}

// discovered are the programs there are now, for commands that run no sidecar.
func discovered() *pluggable.Folder {
	plugins := pluggable.New(slog.New(slog.DiscardHandler))
	plugins.Discover(context.Background())
	return plugins
}
