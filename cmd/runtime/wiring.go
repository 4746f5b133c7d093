package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel"
	"go.uber.org/fx"
	"go.uber.org/fx/fxevent"
	"golang.org/x/time/rate"

	"github.com/sidecast/sidecast/access"
	"github.com/sidecast/sidecast/actors"
	"github.com/sidecast/sidecast/api/admin"
	"github.com/sidecast/sidecast/api/bodies"
	"github.com/sidecast/sidecast/api/daprapi"
	"github.com/sidecast/sidecast/api/grpcapi"
	"github.com/sidecast/sidecast/appchannel"
	blocks "github.com/sidecast/sidecast/building_blocks"
	"github.com/sidecast/sidecast/cmd/runtime/commands"
	"github.com/sidecast/sidecast/cmd/runtime/rundir"
	"github.com/sidecast/sidecast/cmd/runtime/supervisor"
	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/components/pluggable"
	"github.com/sidecast/sidecast/components/standard"
	"github.com/sidecast/sidecast/configuration"
	"github.com/sidecast/sidecast/fabric"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/governance"
	"github.com/sidecast/sidecast/pipeline"
	"github.com/sidecast/sidecast/pressure"
	"github.com/sidecast/sidecast/quota"
	"github.com/sidecast/sidecast/telemetry"
)

// wiring is the whole graph of one sidecar. Constructors allocate; the hooks acquire in this order and let go in the
// opposite one: leave the run directory and presence, let calls and events end, close the app's channel and the API, stop
// the actors, close components, leave NATS. What waits for others to end has its share of the grace period: a handler that
// hangs must not keep the rest from closing.
func wiring(c *config, log *slog.Logger, shutdown func()) fx.Option {
	return fx.Options(
		fx.WithLogger(func() fxevent.Logger { return fxevent.NopLogger }),
		fx.StopTimeout(c.GracePeriod+5*time.Second),
		fx.Supply(c, log, shutdownFunc(shutdown)),
		fx.Provide(newSelf, pluggable.New, newDocuments, newListeners, newTracer, newMetrics, newFabric, newSystem, newComponents,
			newPipeline, newChannel, newBlocks, newBodies, newGRPC, newDapr, newAdmin, newDrainer, newProgress),
		fx.Invoke(serveAPI, serveDapr, serveAdmin, giveBackMemory, startBlocks, announce, followFiles, followPlugins, followParent, register, arrive),
	)
}

type shutdownFunc func()

// runningShare is what running work has of the grace period; the rest is for letting go.
const runningShare = .8

// by bounds a stop that waits for others: it ends when that share of the grace period is over, counted from the beginning
// of the whole stop.
func (c *config) by(share float64, stop func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		if end, ok := ctx.Deadline(); ok {
			var cancel context.CancelFunc
			ctx, cancel = context.WithDeadline(ctx, end.Add(-time.Duration((1-share)*float64(c.GracePeriod))))
			defer cancel()
		}
		return stop(ctx)
	}
}

func newSelf(c *config) blocks.Self {
	return blocks.Self{AppID: c.AppID, Instance: c.Instance, Namespace: c.Namespace, Version: version}
}

// listeners are the sidecar's own ports, taken first so that a port in use is known before anything has begun.
type listeners struct {
	grpc, admin net.Listener
	socket      net.Listener   // nil without --grpc-socket
	dapr        *daprListeners // nil unless started as daprd
}

func newListeners(c *config, settings *configuration.Settings) (*listeners, error) {
	l := &listeners{}
	var err error
	if l.grpc, err = listen(c, "grpc-port", c.GRPCPort); err != nil {
		return nil, err
	}
	if l.admin, err = listenAdmin(c, settings.Metrics); err != nil {
		return nil, errors.Join(err, l.grpc.Close())
	}
	if c.dapr != nil {
		if l.dapr, err = listenDapr(c); err != nil {
			return nil, errors.Join(err, l.grpc.Close(), l.admin.Close())
		}
	}
	if c.GRPCSocket != "" {
		if l.socket, err = listenSocket("grpc-socket", c.GRPCSocket); err != nil {
			return nil, errors.Join(err, l.grpc.Close(), l.admin.Close())
		}
	}
	return l, nil
}

// listenAdmin opens the port of metrics. A daprd that serves none has one all the same, which the commands find.
func listenAdmin(c *config, metrics bool) (net.Listener, error) {
	if c.dapr == nil {
		return listen(c, "metrics-port", c.MetricsPort)
	}
	if c.dapr.NoMetrics || !metrics {
		return net.Listen("tcp", "127.0.0.1:0")
	}
	all, err := listenAll([]string{c.MetricsAddress}, c.MetricsPort)
	if err != nil {
		return nil, fmt.Errorf("failed to listen for metrics: %w", err)
	}
	return all[0], nil
}

func listen(c *config, flag string, port int) (net.Listener, error) {
	listener, err := net.Listen("tcp", c.address(port))
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fault.New("--"+flag, fault.PortInUse,
			"another process listens on %s; stop it, or give another port with --%s (0 takes any free one)", c.address(port), flag)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return nil, fault.New("--listen-address", fault.FlagInvalid, "%s is no address of this machine", c.ListenAddress)
	case err != nil:
		return nil, fault.New("--"+flag, fault.FlagInvalid, "cannot listen on %s: %w", c.address(port), err)
	}
	return listener, nil
}

// listenSocket takes the place of a socket that a sidecar left behind when it was killed, never that of one in use.
func listenSocket(flag, path string) (net.Listener, error) {
	listener, err := net.Listen("unix", path)
	if info, e := os.Lstat(path); errors.Is(err, syscall.EADDRINUSE) && e == nil && info.Mode().Type() == os.ModeSocket {
		other, dialed := net.DialTimeout("unix", path, time.Second)
		switch {
		case dialed == nil:
			_ = other.Close()
			return nil, fault.New("--"+flag, fault.PortInUse, "another process listens on %s; stop it, or name another socket", path)
		case errors.Is(dialed, syscall.ECONNREFUSED) && os.Remove(path) == nil:
			listener, err = net.Listen("unix", path)
		}
	}
	if err != nil {
		return nil, fault.New("--"+flag, fault.FlagInvalid, "cannot listen on %s: %w", path, err)
	}
	return listener, nil
}

// lastSpans bounds how long a stop waits for a collector: one that does not answer must not keep stores from closing.
const lastSpans = 500 * time.Millisecond

func newTracer(lc fx.Lifecycle, c *config, settings *configuration.Settings, log *slog.Logger) (*telemetry.Tracer, error) {
	otel.SetErrorHandler(tracesLog(log))
	traces, err := readyTraces(c, settings, log)
	if err != nil {
		return nil, err
	}
	tracer := telemetry.NewTracer(*traces)
	lc.Append(fx.Hook{OnStop: func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, lastSpans)
		defer cancel()
		if err := tracer.Close(ctx); err != nil {
			log.Warn("the last spans did not reach the collector", "error", err)
		}
		return nil
	}})
	return tracer, nil
}

// tracesLog writes what goes wrong with traces, once a minute: a collector that is away fails every few seconds.
func tracesLog(log *slog.Logger) otel.ErrorHandlerFunc {
	rarely := rate.Sometimes{Interval: time.Minute}
	return func(err error) {
		rarely.Do(func() { log.Warn("spans do not reach the collector", "error", err) })
	}
}

// readyTraces are those that settings and the environment name.
func readyTraces(c *config, settings *configuration.Settings, log *slog.Logger) (*telemetry.Traces, error) {
	traces, err := tracing(settings, log).Ready(context.Background(), c.AppID, c.Instance, version, c.dapr != nil)
	return &traces, err
}

func newFabric(lc fx.Lifecycle, c *config, log *slog.Logger, _ *listeners) (*fabric.Fabric, error) {
	f, err := c.openFabric(context.Background(), log)
	if err != nil {
		return nil, err
	}
	lc.Append(fx.Hook{OnStop: f.Close})
	return f, nil
}

// fabricTimeout bounds how long a sidecar looks for its fabric at the start.
const fabricTimeout = 15 * time.Second

// newMetrics are the metrics of this process; those with Dapr's names only where somebody may ask for them.
func newMetrics(c *config, self blocks.Self, settings *configuration.Settings) *telemetry.Metrics {
	m := telemetry.NewMetrics()
	if c.dapr != nil && !c.dapr.NoMetrics {
		m.EnableDapr(self.AppID, os.Getenv("NAMESPACE"), measuring(settings.Measuring))
	}
	return m
}

// newSystem makes the actors and has their lanes share global rate limits from the first call on.
func newSystem(f *fabric.Fabric, log *slog.Logger, tracer *telemetry.Tracer) *actors.System {
	system := actors.NewSystem(actors.Options{Log: log, Pressure: pressure.New().Read, Observe: func(ctx context.Context, d actors.Decided) {
		if tracer.Records() {
			blocks.Trace(ctx, d)
		}
	}})
	quota.Start(quota.Options{System: system, Fabric: f, Log: log})
	return system
}

func newComponents(lc fx.Lifecycle, c *config, self blocks.Self, f *fabric.Fabric, system *actors.System, docs *components.Documents, plugins *pluggable.Folder, settings *configuration.Settings, log *slog.Logger) (*components.Set, *governance.Rules, error) {
	rules, err := readRules(c, docs, log)
	if err != nil {
		return nil, nil, err
	}
	set := components.NewSet(components.Options{
		Host: components.Host{
			Log: log, AppID: self.AppID, Namespace: self.Namespace, Instance: self.Instance, DataDir: c.DataDir,
			NATS:     func(context.Context) (*nats.Conn, error) { return f.Conn(), nil },
			Replicas: c.Replicas, Local: c.Fabric == "",
		},
		Known: plugins.Known(standard.All()), BuiltIn: c.builtIn(), Documents: docs, Log: log, AnyNamespace: c.anyNamespace,
		FollowSecrets: slices.Contains(settings.Features, configuration.HotReload),
		Supervise: func(name string, run func(context.Context) error) func(context.Context) error {
			return system.Worker("component/"+name, run).Stop
		},
	})
	lc.Append(fx.Hook{OnStart: set.Start, OnStop: c.by(.96, set.Close)})
	lc.Append(fx.Hook{OnStop: c.by(.92, system.Close)}) // stops before the components its workers open
	return set, rules, nil
}

// newPipeline is the middleware before an HTTP app.
func newPipeline(lc fx.Lifecycle, c *config, set *components.Set, settings *configuration.Settings, log *slog.Logger) *pipeline.Client {
	through := pipeline.NewClient("the app's pipeline", set.Middleware, log)
	through.Set(settings.AppPipeline)
	lc.Append(fx.Hook{OnStop: c.by(.91, func(ctx context.Context) error {
		through.Set(nil)
		return through.Wait(ctx)
	})})
	return through
}

// newChannel decides how the app is reached: by the stream it opens, or on its port. The hub is nil for an app with a port.
func newChannel(c *config, self blocks.Self, through *pipeline.Client, m *telemetry.Metrics, log *slog.Logger) (appchannel.Channel, *appchannel.Hub, error) {
	if c.AppPort == 0 && c.dapr != nil {
		return appchannel.None, nil, nil // an app of Dapr's dials in to no hub; its subscriptions are streams of their own
	}
	if c.AppPort == 0 {
		hub := appchannel.NewHub(appchannel.Options{
			AppID: self.AppID, Instance: self.Instance, Namespace: self.Namespace, Version: version, Log: log,
		})
		return hub, hub, nil
	}
	channel, err := newCallback(c, through, m, log)
	return channel, nil, err
}

func newBlocks(lc fx.Lifecycle, self blocks.Self, c *config, log *slog.Logger, system *actors.System, f *fabric.Fabric, set *components.Set,
	rules *governance.Rules, settings *configuration.Settings, app appchannel.Channel, through *pipeline.Client, m *telemetry.Metrics, t *telemetry.Tracer, shutdown shutdownFunc) *blocks.Blocks {
	deliveries := 0
	if c.dapr != nil {
		deliveries = 1 // of an event with a dead-letter topic: Dapr tries again only where a policy says so
	}
	b := blocks.New(blocks.Deps{
		MaxDeliveries: deliveries,
		Self:          self, Log: log, System: system, Fabric: f, Components: set, App: app, Metrics: m, Tracer: t,
		AppMaxConcurrency: c.AppMaxConcurrency, Rules: rules, Shutdown: shutdown,
		Access:        access.NewList(settings.Access, c.httpApp()),
		Secrets:       settings.Secrets,
		JoinNamespace: c.joinNamespace(log),
		Pipeline:      through,
		AsDaprd:       c.dapr != nil,
	})
	lc.Append(fx.Hook{OnStop: b.Close})
	return b
}

// newBodies is what the front doors share: memory is bounded in sum, whichever door the bodies come through.
func newBodies(c *config) *bodies.Budget { return bodies.NewBudget(c.doorBody()) }

// doorBody is the largest request that the front doors take, in bytes: one limit for all, for the budget counts on it.
func (c *config) doorBody() int64 {
	switch {
	case c.dapr == nil:
		return c.maxBody
	case c.dapr.MaxBody == 0: // no bound but that of what is needed in one piece
		return daprapi.MostWhole
	}
	return min(c.dapr.MaxBody, daprapi.MostWhole)
}

func newGRPC(c *config, b *blocks.Blocks, hub *appchannel.Hub, budget *bodies.Budget, log *slog.Logger) *grpcapi.Server {
	return grpcapi.New(grpcapi.Options{
		Blocks: b, Hub: hub, Token: c.token, MaxBody: c.doorBody(), Bodies: budget, Reflection: c.loopback(), Log: log,
	})
}

// newDapr is Dapr's front door; nil unless started as daprd.
func newDapr(c *config, self blocks.Self, b *blocks.Blocks, set *components.Set, p *progress, budget *bodies.Budget, settings *configuration.Settings, m *telemetry.Metrics, log *slog.Logger) *daprapi.Server {
	if c.dapr == nil {
		return nil
	}
	app := daprapi.AppConnection{
		Port: c.AppPort, Protocol: c.AppProtocol, Address: c.AppAddress, MaxConcurrency: c.AppMaxConcurrency, HealthPath: c.AppHealthPath,
	}
	if c.AppHealth {
		app.HealthInterval, app.HealthTimeout, app.HealthThreshold = c.AppHealthInterval, c.AppHealthTimeout, c.AppHealthThreshold
	}
	if m.Dapr() != nil {
		m.Registry().MustRegister(daprapi.NewCollector(b, m.Dapr().Rules(), self.AppID, os.Getenv("NAMESPACE")))
	}
	return daprapi.New(daprapi.Options{
		Blocks: b, AppID: self.AppID, Namespace: self.Namespace, App: app, Token: c.dapr.Token,
		MaxBody: c.dapr.MaxBody, MaxHeader: c.dapr.ReadBuffer, AllowedOrigins: c.dapr.AllowedOrigins, Settings: c.doorSettings(settings), Middleware: set.Middleware, Bodies: budget,
		Ready: p.ready, Usable: p.usable, Metrics: m.Dapr(), Log: log,
		Abort: func() { os.Exit(commands.ExitFailed) },
	})
}

// serveDapr opens Dapr's API, and closes it with the native one.
func serveDapr(lc fx.Lifecycle, c *config, l *listeners, server *daprapi.Server, log *slog.Logger) {
	if server == nil {
		return
	}
	var serving waiter
	lc.Append(fx.Hook{
		OnStart: func(context.Context) error {
			for _, group := range []struct {
				what      string
				listeners []net.Listener
				serve     func(net.Listener) error
			}{
				{"dapr http api", l.dapr.http, server.ServeHTTP}, {"dapr public api", l.dapr.public, server.ServePublic},
				{"dapr grpc api", l.dapr.grpc, server.ServeGRPC}, {"profiles", l.dapr.profile, serveProfiles},
			} {
				for _, listener := range group.listeners {
					serving.run(log, group.what, func() error { return group.serve(listener) })
				}
			}
			return nil
		},
		OnStop: c.by(.9, func(ctx context.Context) error {
			server.Close(ctx)
			server.Set(daprapi.Settings{}) // lets its middleware go
			l.dapr.close()
			return serving.wait(ctx)
		}),
	})
}

// arrive marks the end of the start: all that comes before is up.
func arrive(lc fx.Lifecycle, p *progress) {
	lc.Append(fx.Hook{
		OnStart: func(context.Context) error { p.arrived.Store(true); return nil },
		OnStop:  func(context.Context) error { p.arrived.Store(false); return nil },
	})
}

func newAdmin(c *config, b *blocks.Blocks, m *telemetry.Metrics, log *slog.Logger) *admin.Server {
	return admin.New(admin.Options{
		Runtime: b.Runtime, Registry: m.Registry(), Token: c.token, Profiling: c.Profiling, MetricsEverywhere: c.dapr != nil, Log: log,
	})
}

// serveAPI opens the API before the app is looked for, so that neither waits for the other.
func serveAPI(lc fx.Lifecycle, c *config, l *listeners, server *grpcapi.Server, log *slog.Logger) {
	all := []net.Listener{l.grpc}
	if l.socket != nil {
		all = append(all, l.socket)
	}
	var serving waiter
	lc.Append(fx.Hook{
		OnStart: func(context.Context) error {
			for _, listener := range all {
				serving.run(log, "grpc api", func() error { return server.Serve(listener) })
			}
			return nil
		},
		OnStop: c.by(.9, func(ctx context.Context) error {
			server.Close(ctx)
			return serving.wait(ctx)
		}),
	})
}

func serveAdmin(lc fx.Lifecycle, c *config, l *listeners, server *admin.Server, log *slog.Logger) {
	var serving waiter
	lc.Append(fx.Hook{
		OnStart: func(context.Context) error {
			serving.run(log, "admin api", func() error { return server.Serve(l.admin) })
			return nil
		},
		OnStop: c.by(.87, func(ctx context.Context) error { return errors.Join(server.Close(ctx), serving.wait(ctx)) }),
	})
}

func startBlocks(lc fx.Lifecycle, c *config, b *blocks.Blocks, docs *components.Documents, app appchannel.Channel) {
	lc.Append(fx.Hook{
		OnStart: func(ctx context.Context) error {
			b.Invocation.SetEndpoints(endpointsOf(docs, c))
			return b.Start(ctx, declared(docs, c))
		},
		OnStop: c.by(.85, app.Close),
	})
}

// announce tells the fabric that this sidecar is here and whether its app takes calls, until it drains.
func announce(lc fx.Lifecycle, c *config, d *drainer) {
	lc.Append(fx.Hook{
		OnStart: func(context.Context) error {
			d.announce()
			return nil
		},
		OnStop: c.by(runningShare, d.drain),
	})
}

// followParent obeys the supervisor that started this sidecar, if one did.
func followParent(lc fx.Lifecycle, c *config, d *drainer, shutdown shutdownFunc) {
	if !c.ExitWithParent {
		return
	}
	lc.Append(fx.Hook{OnStart: func(context.Context) error {
		go supervisor.FollowParent(os.Stdin, c.GracePeriod, d.begin, shutdown) // ends with the process, like its pipe
		return nil
	}})
}

// register lets the commands of this machine find the sidecar.
func register(lc fx.Lifecycle, c *config, self blocks.Self, l *listeners, started startTime) {
	var release func()
	lc.Append(fx.Hook{
		OnStart: func(context.Context) (err error) {
			e := rundir.Entry{
				AppID: self.AppID, Instance: self.Instance, PID: os.Getpid(), Version: version, Started: time.Time(started),
				GRPCAddress: l.grpc.Addr().String(), AdminAddress: l.admin.Addr().String(),
			}
			if l.dapr != nil {
				e.DaprHTTPAddress, e.DaprGRPCAddress = addressOf(l.dapr.http), addressOf(l.dapr.grpc)
			}
			release, err = rundir.Register(c.DataDir, e)
			return err
		},
		OnStop: func(context.Context) error {
			release()
			return nil
		},
	})
}
