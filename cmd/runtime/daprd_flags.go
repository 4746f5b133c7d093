package main

import (
	"errors"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
)

// The defaults of daprd.
const (
	defaultMaxBody    = 4 << 20
	defaultReadBuffer = 4 << 10
)

// daprFlags is the command line of daprd, flag by flag: existing scripts, manifests and process managers start it.
type daprFlags struct {
	httpPort, grpcPort, publicPort, profilePort, metricsPort, appPort string
	listenAddresses, publicAddress, metricsAddress, appAddress        string
	appID, appProtocol, mode, allowedOrigins, socketDir               string
	logLevel, logFile, maxBody, readBuffer                            string
	resources, config, disabledEndpoints                              []string
	componentsPath, healthPath                                        string
	maxConcurrency, maxBodyMB, readBufferKB, graceSeconds             int
	maxBodyBytes, readBufferBytes                                     int64 // of the four that say it; 0 is no bound
	healthInterval, healthTimeout, healthThreshold                    int
	blockShutdown, bindingTimeout                                     time.Duration
	metrics, profiling, logJSON, apiLogging, appTLS, healthCheck      bool
	version, buildInfo, wait                                          bool
	builtIn                                                           bool
	host                                                              config // what hostFlags say
	hangups                                                           <-chan os.Signal
}

// hostFlags are flags of Sidecast's own that a supervisor starts a daprd with. They are hidden: daprd has none of them.
var hostFlags = []string{
	"exit-with-parent", "grpc-port", "data-dir", "fabric", "fabric-creds", "fabric-nkey", "fabric-ca", "fabric-cert", "fabric-key",
	"fabric-replicas", "fabric-sync",
}

// meaningless are daprd's flags for what Sidecast has no use for: the fabric takes the place of the control plane and of
// the port between sidecars. They are accepted, so that nobody has to change how a sidecar is started.
type meaningless struct{ name, kind string }

var meaninglessFlags = []meaningless{
	{"dapr-internal-grpc-port", "string"}, {"dapr-internal-grpc-listen-address", "string"},
	{"control-plane-address", "string"}, {"sentry-address", "string"},
	{"control-plane-trust-domain", "string"}, {"control-plane-namespace", "string"},
	{"sentry-request-jwt-audiences", "list"}, {"enable-mtls", "bool"},
	{"placement-host-address", "string"}, {"scheduler-host-address", "list"}, {"scheduler-job-streams", "uint"},
	{"actors-service", "string"}, {"reminders-service", "string"}, {"actors-disseminate-timeout", "duration"},
	{"hot-reload-reconcile-interval", "duration"},
	{"disable-builtin-k8s-secret-store", "bool"},
}

func (d *daprFlags) declare(f *pflag.FlagSet) {
	f.StringVar(&d.appID, "app-id", "", "A unique ID for the app, by which others invoke it; its state keys and consumer groups bear it")
	f.StringVar(&d.appPort, "app-port", "", "The port the application is listening on")
	f.StringVar(&d.appProtocol, "app-protocol", "http", "Protocol for the application: grpc, grpcs, http, https, h2c")
	f.BoolVar(&d.appTLS, "app-ssl", false, "The application's port speaks TLS")
	f.StringVar(&d.appAddress, "app-channel-address", "127.0.0.1", "The network address the application listens on")
	f.DurationVar(&d.bindingTimeout, "app-binding-options-timeout", 3*time.Second, "How long the application may take to say whether it wants the events of a binding")
	f.IntVar(&d.maxConcurrency, "app-max-concurrency", -1, "How many requests the application is given at once; -1 for the default")
	f.StringVar(&d.httpPort, "dapr-http-port", "3500", "HTTP port for the Dapr API to listen on")
	f.StringVar(&d.grpcPort, "dapr-grpc-port", "50001", "gRPC port for the Dapr API to listen on")
	f.StringVar(&d.listenAddresses, "dapr-listen-addresses", "", "One or more addresses for the Dapr API to listen on, comma separated; loopback when left out")
	f.StringVar(&d.publicPort, "dapr-public-port", "", "Public port for health and metadata to listen on")
	f.StringVar(&d.publicAddress, "dapr-public-listen-address", "", "Public listen address for health and metadata")
	f.StringVar(&d.socketDir, "unix-domain-socket", "", "Directory for Unix domain sockets that take the place of the API's ports")
	f.StringSliceVar(&d.resources, "resources-path", nil, "Path of a resources directory. Can be passed multiple times")
	f.StringVar(&d.componentsPath, "components-path", "", "Alias for --resources-path")
	f.StringSliceVar(&d.config, "config", nil, "Path of a file with a Configuration, or other resources. Can be passed multiple times")
	f.StringVar(&d.mode, "mode", "standalone", "Runtime mode; only standalone")
	f.StringVar(&d.allowedOrigins, "allowed-origins", "", "Allowed HTTP origins, comma separated")
	f.StringVar(&d.maxBody, "max-body-size", "4Mi", "Max size of a request's body for the HTTP and gRPC servers, as a resource quantity")
	f.IntVar(&d.maxBodyMB, "dapr-http-max-request-size", 4, "Max size of a request's body in MB")
	f.StringVar(&d.readBuffer, "read-buffer-size", "4Ki", "Max size of a request's headers, as a resource quantity")
	f.IntVar(&d.readBufferKB, "dapr-http-read-buffer-size", 4, "Max size of a request's headers in KB")
	f.IntVar(&d.graceSeconds, "dapr-graceful-shutdown-seconds", 5, "Graceful shutdown time in seconds")
	f.DurationVar(&d.blockShutdown, "dapr-block-shutdown-duration", 0, "How long a stop keeps serving first, unless the app reports unhealthy before")
	f.BoolVar(&d.healthCheck, "enable-app-health-check", false, "Ask the application whether it is well, with the protocol of app-protocol")
	f.StringVar(&d.healthPath, "app-health-check-path", "/healthz", "Path of the health check; HTTP only")
	f.IntVar(&d.healthInterval, "app-health-probe-interval", 5, "Seconds between two health checks")
	f.IntVar(&d.healthTimeout, "app-health-probe-timeout", 500, "Milliseconds that a health check may take")
	f.IntVar(&d.healthThreshold, "app-health-threshold", 3, "Consecutive failures that make the application unhealthy")
	f.StringSliceVar(&d.disabledEndpoints, "disable-init-endpoints", nil, "Endpoints of the application that are not asked at the start: config, subscribe")
	f.BoolVar(&d.metrics, "enable-metrics", true, "Serve Prometheus metrics")
	f.StringVar(&d.metricsPort, "metrics-port", "9090", "The port for the metrics server")
	f.StringVar(&d.metricsAddress, "metrics-listen-address", "127.0.0.1", "The address for the metrics server")
	f.BoolVar(&d.profiling, "enable-profiling", false, "Serve profiles")
	f.StringVar(&d.profilePort, "profile-port", "7777", "The port for the profile server")
	f.BoolVar(&d.apiLogging, "enable-api-logging", false, "Log each call of the API")
	f.StringVar(&d.logLevel, "log-level", "info", "Options are debug, info, warn, error, or fatal")
	f.StringVar(&d.logFile, "log-file", "", "Path to a file where logs will be written")
	f.BoolVar(&d.logJSON, "log-as-json", false, "Print the log as JSON")
	f.BoolVar(&d.version, "version", false, "Print the runtime version")
	f.BoolVar(&d.buildInfo, "build-info", false, "Print the build info")
	f.BoolVar(&d.wait, "wait", false, "Wait until the sidecar on --dapr-http-port can be used, then exit")
	f.BoolVar(&d.builtIn, "built-in-components", false, "Have the components of a sidecar that was given no files")
	own := pflag.NewFlagSet("", pflag.ContinueOnError)
	d.host.flags(own)
	for _, name := range hostFlags {
		f.AddFlag(own.Lookup(name))
	}
	for _, name := range append([]string{"built-in-components"}, hostFlags...) {
		_ = f.MarkHidden(name)
	}
	for _, m := range meaninglessFlags {
		const doc = "Accepted and without effect: the fabric needs none"
		switch m.kind {
		case "bool":
			f.Bool(m.name, false, doc)
		case "list":
			f.StringSlice(m.name, nil, doc)
		case "uint":
			f.Uint(m.name, 0, doc)
		case "duration":
			f.Duration(m.name, 0, doc)
		default:
			f.String(m.name, "", doc)
		}
	}
}

func meaninglessOf(given *pflag.FlagSet) []string {
	var names []string
	for _, m := range meaninglessFlags {
		if given.Changed(m.name) {
			names = append(names, m.name)
		}
	}
	return names
}

// doubleDashes lets single dashes stand for double ones, as daprd does: it has no short flags.
func doubleDashes(args []string) []string {
	all := make([]string, len(args))
	for i, a := range args {
		if len(a) > 2 && a[0] == '-' && a[1] != '-' {
			a = "-" + a
		}
		all[i] = a
	}
	return all
}

// options checks what daprd checks while it reads its flags, and reads the sizes. The deprecated flags count where the new
// ones are not given.
func (d *daprFlags) options(given *pflag.FlagSet) (err error) {
	size := func(name, text, old string, oldValue int, unit int64, fallback int64) (int64, error) {
		switch {
		case given.Changed(name):
			n, err := quantity(text)
			if err != nil {
				return 0, fmt.Errorf("invalid value for '%s' option: %w", name, err)
			}
			return n, nil
		case given.Changed(old):
			return max(0, int64(oldValue)) * unit, nil
		}
		return fallback, nil
	}
	if d.maxBodyBytes, err = size("max-body-size", d.maxBody, "dapr-http-max-request-size", d.maxBodyMB, 1<<20, defaultMaxBody); err != nil {
		return err
	}
	if d.readBufferBytes, err = size("read-buffer-size", d.readBuffer, "dapr-http-read-buffer-size", d.readBufferKB, 1<<10, defaultReadBuffer); err != nil {
		return err
	}
	const disseminate = "actors-disseminate-timeout"
	if most, _ := given.GetDuration(disseminate); given.Changed(disseminate) && most <= 0 {
		return fmt.Errorf("invalid value for '%s' option: must be positive, got %s", disseminate, most)
	}
	return nil
}

// config is what the flags and the environment say, as the sidecar's own configuration.
func (d *daprFlags) sidecar(given *pflag.FlagSet) (*config, error) {
	if err := validAppID(d.appID); err != nil {
		return nil, err
	}
	if d.mode != "standalone" {
		return nil, fmt.Errorf("invalid value for 'mode': %s: only standalone is supported", d.mode)
	}
	c := &config{
		AppID: d.appID, Namespace: os.Getenv("NAMESPACE"),
		AppHealth: d.healthCheck, AppHealthPath: "/" + strings.TrimPrefix(d.healthPath, "/"),
		ListenAddress: "127.0.0.1", MaxBody: "64MiB",
		ExitWithParent: d.host.ExitWithParent, DataDir: d.host.DataDir, FabricSync: d.host.FabricSync, Replicas: d.host.Replicas,
		NKey: d.host.NKey, CA: d.host.CA, Cert: d.host.Cert, CertKey: d.host.CertKey,
		LogFormat: "text", Resources: d.resources,
		AppAddress: d.appAddress, MetricsAddress: d.metricsAddress,
		Fabric: or(d.host.Fabric, os.Getenv("SIDECAST_FABRIC")), Credentials: or(d.host.Credentials, os.Getenv("SIDECAST_FABRIC_CREDS")),
		FabricPort: 0, // a data folder is a group: its members find the port in it, and those of two users have nothing to share
	}
	if given.Changed("grpc-port") {
		c.GRPCPort = d.host.GRPCPort
	}
	if d.logJSON {
		c.LogFormat = "json"
	}
	switch level := strings.ToLower(d.logLevel); level {
	case "debug", "info", "warn", "error":
		c.LogLevel = level
	case "fatal":
		c.LogLevel = "error"
	default:
		return nil, fmt.Errorf("invalid value for --log-level: %s", d.logLevel)
	}
	if len(c.Resources) == 0 && d.componentsPath != "" {
		c.Resources = []string{d.componentsPath}
	}
	c.Resources, c.configFiles = append(c.Resources, d.config...), d.config
	for _, complete := range []func(*config, *pflag.FlagSet) error{d.app, d.ports, d.limits} {
		if err := complete(c, given); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func validAppID(id string) error {
	switch {
	case id == "":
		return errors.New("parameter app-id cannot be empty")
	case strings.Contains(id, "."):
		return errors.New("parameter app-id cannot contain dots")
	}
	return nil
}

// app reads how the application is reached.
func (d *daprFlags) app(c *config, _ *pflag.FlagSet) (err error) {
	if d.appPort != "" {
		if c.AppPort, err = strconv.Atoi(d.appPort); err != nil {
			return fmt.Errorf("error parsing app-port: %w", err)
		}
	}
	switch c.AppProtocol = strings.ToLower(d.appProtocol); c.AppProtocol {
	case "":
		c.AppProtocol = "http"
	case "http", "https", "h2c", "grpc", "grpcs":
	default:
		return fmt.Errorf("invalid value for 'app-protocol': %v", d.appProtocol)
	}
	if d.appTLS && (c.AppProtocol == "http" || c.AppProtocol == "grpc") {
		c.AppProtocol += "s"
	}
	for _, endpoint := range d.disabledEndpoints {
		switch strings.ToLower(strings.TrimSpace(endpoint)) {
		case "":
		case "config":
			c.NoConfig = true
		case "subscribe":
			c.NoSubscribe = true
		default:
			return fmt.Errorf("invalid value for 'disable-init-endpoints': %v", endpoint)
		}
	}
	c.AppMaxConcurrency, c.BindingTimeout = max(0, d.maxConcurrency), d.bindingTimeout
	c.AppHealthInterval, c.AppHealthTimeout, c.AppHealthThreshold = 5*time.Second, 500*time.Millisecond, 3
	if d.healthInterval > 0 {
		c.AppHealthInterval = time.Duration(d.healthInterval) * time.Second
	}
	if d.healthTimeout > 0 {
		c.AppHealthTimeout = time.Duration(d.healthTimeout) * time.Millisecond
	}
	if d.healthThreshold > 0 && d.healthThreshold < math.MaxInt32 {
		c.AppHealthThreshold = d.healthThreshold
	}
	if c.AppHealthTimeout > c.AppHealthInterval {
		return errors.New("value for 'health-probe-timeout' must be smaller than 'health-probe-interval'")
	}
	return nil
}

// ports reads where the sidecar listens.
func (d *daprFlags) ports(c *config, given *pflag.FlagSet) error {
	c.dapr = &daprConfig{Meaningless: meaninglessOf(given), BuiltIn: d.builtIn, SocketDir: d.socketDir, PublicAddress: d.publicAddress, NoMetrics: !d.metrics}
	internal, _ := given.GetString("dapr-internal-grpc-port")
	for _, p := range []struct {
		text string
		port *int
		what string
	}{
		{d.httpPort, &c.dapr.HTTPPort, "dapr-http-port flag"}, {d.grpcPort, &c.dapr.GRPCPort, "dapr-grpc-port flag"},
		{d.profilePort, &c.dapr.ProfilePort, "profile-port flag"}, {or(internal, "0"), new(int), "dapr-internal-grpc-port"},
		{or(d.publicPort, "-1"), &c.dapr.PublicPort, "dapr-public-port"},
	} {
		var err error
		if *p.port, err = strconv.Atoi(p.text); err != nil {
			return fmt.Errorf("error parsing %s: %w", p.what, err)
		}
	}
	if d.metrics {
		var err error
		if c.MetricsPort, err = strconv.Atoi(d.metricsPort); err != nil {
			return fmt.Errorf("failed to parse metrics port: %w", err)
		}
	}
	c.dapr.Profiling = d.profiling
	for _, address := range strings.Split(or(d.listenAddresses, "127.0.0.1,[::1]"), ",") {
		c.dapr.Addresses = append(c.dapr.Addresses, strings.Trim(strings.TrimSpace(address), "[]"))
	}
	switch {
	case c.AppPort != 0 && c.AppPort == c.dapr.HTTPPort:
		return fmt.Errorf("the 'dapr-http-port' argument value %d conflicts with 'app-port'", c.AppPort)
	case c.AppPort != 0 && c.AppPort == c.dapr.GRPCPort:
		return fmt.Errorf("the 'dapr-grpc-port' argument value %d conflicts with 'app-port'", c.AppPort)
	}
	return nil
}

// limits reads sizes and times.
func (d *daprFlags) limits(c *config, given *pflag.FlagSet) error {
	c.dapr.MaxBody, c.dapr.ReadBuffer = d.maxBodyBytes, d.readBufferBytes
	if c.dapr.MaxBody > 64<<20 {
		c.MaxBody = strconv.FormatInt(min(c.dapr.MaxBody, 1<<30), 10)
	}
	c.GracePeriod = 5 * time.Second
	if d.graceSeconds >= 0 {
		c.GracePeriod = time.Duration(d.graceSeconds) * time.Second
	}
	c.dapr.BlockShutdown = d.blockShutdown
	c.dapr.AllowedOrigins = d.allowedOrigins
	if given.Changed("enable-api-logging") {
		c.dapr.APILogging = &d.apiLogging
	}
	c.dapr.Token = os.Getenv("DAPR_API_TOKEN")
	return nil
}

// quantity reads a size as Kubernetes writes it: a number, with k, M, G, T for powers of 1000 or Ki, Mi, Gi, Ti for powers
// of 1024. Negative ones and fractions of a byte are refused.
func quantity(text string) (int64, error) {
	units := []struct {
		suffix string
		factor float64
	}{
		{"Ki", 1 << 10}, {"Mi", 1 << 20}, {"Gi", 1 << 30}, {"Ti", 1 << 40}, {"k", 1e3}, {"M", 1e6}, {"G", 1e9}, {"T", 1e12}, {"", 1},
	}
	for _, u := range units {
		number, ok := strings.CutSuffix(text, u.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseFloat(number, 64)
		if err != nil || n != n {
			break
		}
		n *= u.factor
		if n < 0 || n != math.Trunc(n) || n > 1<<50 {
			return 0, fmt.Errorf("cannot get bytes from resource quantity value '%s'", text)
		}
		return int64(n), nil
	}
	return 0, errors.New("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")
}

func or(value, fallback string) string {
	if value == "" {
		return fallback
	}
	return value
}
