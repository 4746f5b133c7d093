package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"go.uber.org/dig"
	"go.uber.org/fx"

	"github.com/sidecast/sidecast/appchannel"
	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/components/standard"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/governance"
	"github.com/sidecast/sidecast/pipeline"
	"github.com/sidecast/sidecast/telemetry"
)

// startTime is when this sidecar began to start.
type startTime time.Time

// runSidecar runs one sidecar until ctx ends, its process is told to stop, or something it needs breaks.
func runSidecar(ctx context.Context, c *config) error {
	began := time.Now()
	if err := c.complete(); err != nil {
		return err
	}
	log := newLogger(c)
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, shutdown := context.WithCancel(ctx)
	defer shutdown()

	var own *listeners
	var came *progress
	app := fx.New(wiring(c, log, shutdown), fx.Supply(startTime(began)), fx.Populate(&own, &came))
	if err := app.Err(); err != nil {
		return rootCause(err)
	}
	starting, cancel := context.WithTimeout(ctx, app.StartTimeout())
	defer cancel()
	if err := app.Start(starting); err != nil {
		if ctx.Err() != nil { // told to stop before it was up; fx has taken back what had begun
			return nil
		}
		return rootCause(err)
	}
	if c.dapr != nil {
		noteMeaningless(log, c.dapr.Meaningless)
		log.Info("dapr initialized. Status: Running", "http", addressOf(own.dapr.http), "grpc", addressOf(own.dapr.grpc))
	}
	log.Info("sidecar is up", "app", c.AppID, "instance", c.Instance, "grpc", own.grpc.Addr().String(),
		"metrics", own.admin.Addr().String(), "version", version, "took", time.Since(began).Round(time.Millisecond).String())

	<-ctx.Done()
	if c.dapr != nil {
		came.blockShutdown(c.dapr.BlockShutdown, log)
	}
	stop() // a second signal ends the process at once
	log.Info("stopping, within "+c.GracePeriod.String(), "app", c.AppID)
	stopping, cancel := context.WithTimeout(context.Background(), c.GracePeriod)
	defer cancel()
	err := app.Stop(stopping)
	came.endEvents(stopping)
	switch {
	case err != nil && c.dapr != nil && cutOff(err):
		log.Error("Graceful shutdown timeout exceeded, forcing shutdown", "error", err)
		return errNotGraceful
	case err != nil:
		log.Warn("stopped, but not everything ended in time", "error", err)
	case c.dapr != nil:
		log.Info("Daprd shutdown gracefully", "app", c.AppID)
	default:
		log.Info("stopped", "app", c.AppID)
	}
	return nil
}

// cutOff tells whether a stop says that something had no time to end.
func cutOff(err error) bool {
	switch e := err.(type) { // by type, because it goes through all that err is made of
	case *fault.Error:
		if e.Kind == fault.Timeout {
			return true
		}
		return cutOff(e.Err)
	case interface{ Unwrap() []error }:
		return slices.ContainsFunc(e.Unwrap(), cutOff)
	case interface{ Unwrap() error }:
		return cutOff(e.Unwrap())
	}
	return errors.Is(err, context.DeadlineExceeded)
}

// errNotGraceful makes daprd's exit code 1 where work was cut off.
var errNotGraceful = errors.New("the time for a graceful shutdown is over, and not everything had ended")

// rootCause takes an error out of what fx wraps around it: users know no constructors.
func rootCause(err error) error {
	var e *fault.Error
	if errors.As(err, &e) {
		return e
	}
	return dig.RootCause(err)
}

func newLogger(c *config) *slog.Logger {
	level, _ := c.level() // complete has checked it
	if c.dapr != nil {
		return daprLogger(c, level)
	}
	options := &slog.HandlerOptions{Level: level}
	if c.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(os.Stderr, options))
	}
	return slog.New(slog.NewTextHandler(os.Stderr, options))
}

// waiter owns goroutines that serve listeners.
type waiter struct{ group sync.WaitGroup }

func (w *waiter) run(log *slog.Logger, what string, serve func() error) {
	w.group.Go(func() {
		if err := serve(); err != nil {
			log.Error(what+" ended", "error", err)
		}
	})
}

func (w *waiter) wait(ctx context.Context) error {
	done := make(chan struct{})
	go func() {
		w.group.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// newCallback reaches the app on its port.
func newCallback(c *config, through *pipeline.Client, m *telemetry.Metrics, log *slog.Logger) (appchannel.Channel, error) {
	callback := appchannel.Callback{
		Address: net.JoinHostPort(or(c.AppAddress, "127.0.0.1"), strconv.Itoa(c.AppPort)),
		AppID:   c.AppID, Namespace: c.Namespace, Dapr: c.dapr != nil, NoSubscribe: c.NoSubscribe, NoConfig: c.NoConfig, BindingTimeout: c.BindingTimeout,
		TLS: c.AppProtocol == "https" || c.AppProtocol == "grpcs", H2C: c.AppProtocol == "h2c", MaxBody: c.maxBody, Concurrency: c.AppMaxConcurrency,
		Token: os.Getenv(appTokenVariable), Pipeline: through, Log: log,
		Health: appchannel.Health{
			Enabled: c.AppHealth, Path: c.AppHealthPath, Interval: c.AppHealthInterval, Timeout: c.AppHealthTimeout,
			Threshold: c.AppHealthThreshold,
		},
	}
	if dapr := m.Dapr(); dapr != nil {
		callback.Meter = dapr
	}
	switch grpc := strings.HasPrefix(c.AppProtocol, "grpc"); {
	case grpc && c.dapr != nil:
		return appchannel.OpenDapr(callback)
	case grpc:
		return appchannel.OpenGRPC(callback)
	}
	return appchannel.OpenHTTP(callback), nil
}

// builtIn are the components that exist without a file: daprd has none, unless its supervisor says so.
func (c *config) builtIn() []components.Manifest {
	if c.dapr != nil && !c.dapr.BuiltIn {
		return nil
	}
	return standard.Defaults()
}

// readRules reads what documents say about resiliency, for this sidecar.
func readRules(c *config, docs *components.Documents, log *slog.Logger) (*governance.Rules, error) {
	known := knownComponents(c.builtIn(), docs)
	rules, findings := governance.Read(docs.Policies, governance.Who{AppID: c.AppID, Namespace: c.readsOf()}, known...)
	if rules == nil {
		return nil, governance.Error(findings)
	}
	for _, warning := range findings {
		log.Warn(warning.String())
	}
	return rules, nil
}

// endpointsOf are the HTTP servers outside that manifests let this app invoke.
func endpointsOf(docs *components.Documents, c *config) []components.EndpointManifest {
	var all []components.EndpointManifest
	for _, m := range docs.Endpoints {
		if m.For(c.readsOf(), c.AppID) {
			all = append(all, m)
		}
	}
	return all
}

// declared are the subscriptions that manifests declare for this app.
func declared(docs *components.Documents, c *config) []appchannel.Subscription {
	var subs []appchannel.Subscription
	for _, m := range docs.Subscriptions {
		if !m.For(c.readsOf(), c.AppID) {
			continue
		}
		subs = append(subs, appchannel.Subscription{
			PubSub: m.PubSub, Topic: m.Topic, Group: m.Group, Route: m.Route, DeadLetterTopic: m.DeadLetterTopic,
			MaxDeliveries: m.MaxDeliveries, AckWait: m.AckWait, Raw: m.Raw, OnlyNew: m.OnlyNew,
			Routes: m.Routes, Metadata: m.Metadata, Declared: true,
		})
		if m.Bulk != nil {
			subs[len(subs)-1].Bulk = &appchannel.Bulk{Most: m.Bulk.Most, Wait: m.Bulk.Wait}
		}
	}
	return subs
}
