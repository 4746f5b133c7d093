package main

import (
	"context"
	"log/slog"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/sidecast/sidecast/access"
	"github.com/sidecast/sidecast/api/daprapi"
	blocks "github.com/sidecast/sidecast/building_blocks"
	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/components/pluggable"
	"github.com/sidecast/sidecast/components/standard"
	"github.com/sidecast/sidecast/configuration"
	"github.com/sidecast/sidecast/fabric"
	"github.com/sidecast/sidecast/manifest"
	"github.com/sidecast/sidecast/telemetry"
)

// newDocuments reads the files that the sidecar was told of. Of Configurations those count that stand in a file of --config,
// in the order of the files; a sidecar that has no such flag reads them wherever they stand.
func newDocuments(c *config, plugins *pluggable.Folder, log *slog.Logger) (*components.Documents, *configuration.Settings, components.Seen, error) {
	plugins.Discover(context.Background())
	seen := components.See(c.Resources)
	docs, settings, err := readDocuments(context.Background(), c, plugins, log)
	return docs, settings, seen, err
}

func readDocuments(ctx context.Context, c *config, plugins *pluggable.Folder, log *slog.Logger) (*components.Documents, *configuration.Settings, error) {
	docs, err := components.Load(ctx, c.Resources, plugins.Known(standard.All()))
	if err != nil {
		return nil, nil, err
	}
	counting, others := c.counting(docs.Configurations)
	settings, findings := configuration.Read(counting)
	if settings == nil {
		return nil, nil, manifest.AsError(findings)
	}
	for _, warning := range append(docs.Warnings, findings...) {
		log.Warn(warning.String())
	}
	for _, raw := range others {
		log.Warn(raw.Source.String() + ": a Configuration counts only in a file of --config")
	}
	for _, name := range docs.Deny(settings.DenyComponents) {
		log.Warn("a component is not loaded, because the Configuration denies its type", "component", name)
	}
	return docs, settings, nil
}

// counting are the Configurations that count, in the order of the files that hold them, and the others.
func (c *config) counting(all []manifest.Raw) (counting, others []manifest.Raw) {
	if c.dapr == nil {
		return all, nil
	}
	place := func(raw manifest.Raw) int {
		return slices.IndexFunc(c.configFiles, func(f string) bool { return sameFile(f, raw.Source.File) })
	}
	for _, raw := range all {
		if place(raw) >= 0 {
			counting = append(counting, raw)
		} else {
			others = append(others, raw)
		}
	}
	slices.SortStableFunc(counting, func(a, b manifest.Raw) int { return place(a) - place(b) })
	return counting, others
}

func sameFile(a, b string) bool {
	wholeA, errA := filepath.Abs(a)
	wholeB, errB := filepath.Abs(b)
	return errA == nil && errB == nil && wholeA == wholeB
}

// tracing is what settings say of traces. Where they name a collector and no rate, Dapr's rate counts.
func tracing(settings *configuration.Settings, log *slog.Logger) telemetry.Tracing {
	from := settings.Tracing
	t := telemetry.Tracing{
		Sampled: from.Sampled || from.Stdout || from.Zipkin != "" || from.OTLP.Endpoint != "", Rate: from.Rate,
		Zipkin: from.Zipkin, Endpoint: from.OTLP.Endpoint, HTTP: from.OTLP.Protocol == "http", Insecure: from.OTLP.Insecure,
		Headers: from.OTLP.Headers, Timeout: from.OTLP.Timeout,
	}
	if from.Stdout {
		t.Log = log
	}
	return t
}

// doorSettings are what settings say of Dapr's front door.
func (c *config) doorSettings(settings *configuration.Settings) daprapi.Settings {
	return daprapi.Settings{
		Logging: c.apiLogging(settings.Logging), APIs: access.NewAPIs(settings.Allowed, settings.Denied), Features: settings.Features, Pipeline: settings.Pipeline,
	}
}

// measuring is how metrics with Dapr's names are made.
func measuring(from configuration.Measuring) telemetry.DaprOptions {
	o := telemetry.DaprOptions{
		LowCardinality: from.LowCardinality, Paths: from.Paths, ExcludeVerbs: from.ExcludeVerbs, ErrorCodes: from.ErrorCodes, Rules: telemetry.LabelRules{},
	}
	for _, b := range from.Buckets {
		if b > 0 { // Dapr leaves out a bucket that nothing is below
			o.Buckets = append(o.Buckets, float64(b))
		}
	}
	for _, r := range from.Rules {
		o.Rules.Add(r.Metric, r.Label, telemetry.Replacement{Regex: regexp.MustCompile(r.Regex), With: r.With}) // checked when it was read
	}
	return o
}

// apiLogging is how calls of Dapr's API are logged: the flag counts before the Configuration.
func (c *config) apiLogging(from configuration.APILogging) daprapi.Logging {
	on := from.Enabled
	if c.dapr.APILogging != nil {
		on = *c.dapr.APILogging
	}
	return daprapi.Logging{Calls: on, HideURLs: from.ObfuscateURLs, OmitHealthChecks: from.OmitHealthChecks}
}

// httpApp says whether the app speaks HTTP.
func (c *config) httpApp() bool {
	return !strings.HasPrefix(c.AppProtocol, "grpc") && (c.AppPort != 0 || c.dapr != nil)
}

// joinNamespace is how a sidecar that was started as daprd calls into other namespaces; nil for others, whose apps see only
// apps of their own.
func (c *config) joinNamespace(log *slog.Logger) func(context.Context, string) (*fabric.Fabric, error) {
	if c.dapr == nil {
		return nil
	}
	return func(ctx context.Context, namespace string) (*fabric.Fabric, error) {
		other := c.fabricConfig(log)
		other.Namespace, other.AppID, other.GuestOnly = namespace, blocks.CallerName(c.AppID, c.Namespace), true
		return fabric.Open(ctx, other)
	}
}
