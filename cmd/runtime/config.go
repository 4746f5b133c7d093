package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/pflag"

	"github.com/sidecast/sidecast/cmd/runtime/rundir"
	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/fabric"
	"github.com/sidecast/sidecast/fault"
)

// tokenVariable holds the token that apps must send to their sidecar. It is no flag: command lines are public.
const tokenVariable = "SIDECAST_API_TOKEN"

// appTokenVariable holds the token by which an app with a port knows its sidecar.
const appTokenVariable = "APP_API_TOKEN"

// defaultFabricPort is where the sidecars of a machine find their fabric.
const defaultFabricPort = 4250

// config is what one sidecar is told. Flags set it, each with a default that works on a laptop.
type config struct {
	AppID, Instance, Namespace string
	AppPort                    int
	AppProtocol                string
	AppHealth                  bool
	AppHealthPath              string
	AppHealthInterval          time.Duration
	AppHealthTimeout           time.Duration
	AppHealthThreshold         int
	AppMaxConcurrency          int
	AppAddress                 string // "" is loopback
	NoSubscribe                bool   // the app is not asked what it subscribes to
	NoConfig                   bool   // nor for its configuration
	BindingTimeout             time.Duration

	ListenAddress         string
	GRPCPort, MetricsPort int
	MetricsAddress        string // "" is ListenAddress
	GRPCSocket            string
	Resources             []string
	DataDir               string
	MaxBody               string
	GracePeriod           time.Duration
	ExitWithParent        bool

	Fabric                               string
	FabricPort                           int
	FabricGuest                          bool
	FabricSync                           string
	Credentials, NKey, CA, Cert, CertKey string
	Replicas                             int

	LogLevel, LogFormat string
	Profiling           bool

	configFiles []string // the files whose Configuration counts; nil for all
	token       string
	maxBody     int64
	// anyNamespace: nobody said of which namespace the sidecar is, so files are read whatever namespace they name, as daprd
	// does without NAMESPACE.
	anyNamespace bool
	dapr         *daprConfig // nil unless started as daprd
}

// flags declares every flag of the sidecar.
func (c *config) flags(f *pflag.FlagSet) {
	f.StringVar(&c.AppID, "app-id", "", "name of the app: others call it by this, its consumer groups and state keys bear it")
	f.StringVar(&c.Instance, "instance", "", "name of this instance; made up when empty")
	f.StringVar(&c.Namespace, "namespace", "", "apps see only apps of their own namespace, and files of it; empty: default, with the files of all")
	f.IntVar(&c.AppPort, "app-port", 0, "port the app listens on; without it the app dials its sidecar (App.Serve)")
	f.StringVar(&c.AppProtocol, "app-protocol", "http", "how to speak to the app's port: http or grpc (service AppCallback)")
	f.BoolVar(&c.AppHealth, "enable-app-health-check", false, "ask the app whether it is well, and send it nothing while it is not")
	f.StringVar(&c.AppHealthPath, "app-health-check-path", "/healthz", "HTTP path that answers 2xx while the app is well (grpc apps are asked by grpc.health.v1)")
	f.DurationVar(&c.AppHealthInterval, "app-health-probe-interval", 5*time.Second, "time between two health checks")
	f.DurationVar(&c.AppHealthTimeout, "app-health-probe-timeout", 500*time.Millisecond, "how long a health check may take")
	f.IntVar(&c.AppHealthThreshold, "app-health-threshold", 3, "failed health checks in a row that make the app unwell")
	f.IntVar(&c.AppMaxConcurrency, "app-max-concurrency", 0, "most calls and events the app is given at once; 0: 1024")

	f.StringVar(&c.ListenAddress, "listen-address", "127.0.0.1", "address the sidecar's own ports listen on")
	f.IntVar(&c.GRPCPort, "grpc-port", 50001, "port of the native gRPC API; 0: any free one")
	f.StringVar(&c.GRPCSocket, "grpc-socket", "", "also serve the gRPC API on this Unix socket")
	f.IntVar(&c.MetricsPort, "metrics-port", 9090, "port of /healthz, /readyz, /metrics and /tree; 0: any free one")
	f.StringSliceVar(&c.Resources, "resources-path", nil, "folder with component, subscription and policy files (may be given more than once)")
	f.StringVar(&c.DataDir, "data-dir", "", "folder for everything Sidecast keeps on this machine (default $SIDECAST_DATA_DIR or your state folder)")
	f.StringVar(&c.MaxBody, "max-body", "64MiB", "largest body of a call or event")
	f.DurationVar(&c.GracePeriod, "grace-period", 10*time.Second, "how long a stop may take; running work has four fifths of it to end")
	f.BoolVar(&c.ExitWithParent, "exit-with-parent", false, "stop when standard input ends")
	_ = f.MarkHidden("exit-with-parent")

	f.StringVar(&c.Fabric, "fabric", "", "URLs of a NATS cluster (nats://a,nats://b or tls://…); empty: the fabric embedded in this binary")
	f.IntVar(&c.FabricPort, "fabric-port", defaultFabricPort, "loopback port of the embedded fabric; 0: any free one, written to the data folder")
	f.BoolVar(&c.FabricGuest, "fabric-guest", false, "never host the embedded fabric, only join it")
	_ = f.MarkHidden("fabric-guest")
	f.StringVar(&c.FabricSync, "fabric-sync", "interval", "when the embedded fabric writes through to the disk: interval (acknowledged data survives the death of every process) or always (and power loss)")
	f.StringVar(&c.Credentials, "fabric-creds", "", "credentials file for --fabric")
	f.StringVar(&c.NKey, "fabric-nkey", "", "nkey seed file for --fabric")
	f.StringVar(&c.CA, "fabric-ca", "", "CA certificates for --fabric")
	f.StringVar(&c.Cert, "fabric-cert", "", "client certificate for --fabric")
	f.StringVar(&c.CertKey, "fabric-key", "", "key of the client certificate for --fabric")
	f.IntVar(&c.Replicas, "fabric-replicas", 1, "copies that JetStream keeps of streams and buckets on --fabric")

	f.StringVar(&c.LogLevel, "log-level", "info", "debug, info, warn or error")
	f.StringVar(&c.LogFormat, "log-format", "text", "text or json")
	f.BoolVar(&c.Profiling, "pprof", false, "serve /debug/pprof/ on the metrics port")
}

// defaultNamespace is that of sidecars of which nobody says any.
const defaultNamespace = "default"

// readsOf is the namespace whose files count, "" for all.
func (c *config) readsOf() string {
	if c.anyNamespace {
		return ""
	}
	return c.Namespace
}

var appIDPattern = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$`)

// complete validates what the flags say and fills what they left out.
func (c *config) complete() error {
	if c.Namespace == "" {
		c.Namespace, c.anyNamespace = defaultNamespace, true
	}
	wrong := func(flag, format string, args ...any) error {
		return fault.New("--"+flag, fault.FlagInvalid, format, args...)
	}
	if err := c.requireAppID(); err != nil {
		return err
	}
	switch {
	case !appIDPattern.MatchString(c.Namespace):
		return wrong("namespace", "%q is no namespace: the rules of --app-id hold", c.Namespace)
	case c.Instance != "" && !appIDPattern.MatchString(c.Instance):
		return wrong("instance", "%q is no instance name: the rules of --app-id hold", c.Instance)
	case c.dapr == nil && c.AppProtocol != "http" && c.AppProtocol != "grpc":
		return wrong("app-protocol", "%q is neither http nor grpc", c.AppProtocol)
	case c.AppMaxConcurrency < 0:
		return wrong("app-max-concurrency", "%d is negative", c.AppMaxConcurrency)
	case c.FabricSync != "interval" && c.FabricSync != "always":
		return wrong("fabric-sync", "%q is neither interval nor always", c.FabricSync)
	case c.Replicas < 1 || c.Replicas > 5:
		return wrong("fabric-replicas", "%d is not between 1 and 5", c.Replicas)
	case c.Replicas > 1 && c.Fabric == "":
		return wrong("fabric-replicas", "the embedded fabric is one server; copies need a cluster (--fabric)")
	case c.Fabric == "" && c.remoteOnly() != "":
		return wrong(c.remoteOnly(), "the embedded fabric needs none; it is for a NATS cluster (--fabric)")
	case c.LogFormat != "text" && c.LogFormat != "json":
		return wrong("log-format", "%q is neither text nor json", c.LogFormat)
	case c.AppHealthInterval <= 0 || c.AppHealthTimeout <= 0 || c.AppHealthThreshold < 1:
		return wrong("app-health-probe-interval", "interval, timeout and threshold of the app's health check must be positive")
	case c.GracePeriod < 0:
		return wrong("grace-period", "%s is negative", c.GracePeriod)
	}
	for flag, port := range map[string]int{
		"app-port": c.AppPort, "grpc-port": c.GRPCPort, "metrics-port": c.MetricsPort, "fabric-port": c.FabricPort,
	} {
		if port < 0 || port > 65535 {
			return wrong(flag, "%d is no port; ports go from 0 to 65535", port)
		}
	}
	if _, err := c.level(); err != nil {
		return wrong("log-level", "%q is none of debug, info, warn and error", c.LogLevel)
	}
	size, err := components.ParseBytes(c.MaxBody)
	if err != nil || size <= 0 || size > 1<<30 {
		return wrong("max-body", "%q is no size between 1 and 1GiB, such as 16MiB", c.MaxBody)
	}
	c.maxBody = int64(size)
	if c.Instance == "" {
		c.Instance = strings.ReplaceAll(uuid.NewString(), "-", "")[:12]
	}
	if c.DataDir == "" {
		c.DataDir = rundir.DefaultDataDir()
	}
	if c.DataDir, err = filepath.Abs(c.DataDir); err != nil {
		return wrong("data-dir", "%w", err)
	}
	if c.token = os.Getenv(tokenVariable); c.dapr != nil {
		c.token = c.dapr.Token
	}
	return nil
}

// requireAppID checks the name that everything else hangs on.
func (c *config) requireAppID() error {
	switch {
	case c.AppID == "":
		return fault.New("--app-id", fault.FlagInvalid, "every sidecar needs the name of its app, such as --app-id orders")
	case !appIDPattern.MatchString(c.AppID):
		return fault.New("--app-id", fault.FlagInvalid,
			"%q is no app id: use 1 to 63 letters, digits, '.', '_' and '-', a letter or digit at both ends", c.AppID)
	}
	return nil
}

// remoteOnly is a flag that was given though only a remote fabric has a use for it, or "".
func (c *config) remoteOnly() string {
	switch {
	case c.Credentials != "":
		return "fabric-creds"
	case c.NKey != "":
		return "fabric-nkey"
	case c.CA != "":
		return "fabric-ca"
	case c.Cert != "":
		return "fabric-cert"
	case c.CertKey != "":
		return "fabric-key"
	}
	return ""
}

func (c *config) level() (slog.Level, error) {
	var level slog.Level
	err := level.UnmarshalText([]byte(c.LogLevel))
	return level, err
}

func (c *config) fabricConfig(log *slog.Logger) fabric.Config {
	return fabric.Config{
		Namespace: c.Namespace, AppID: c.AppID, Instance: c.Instance,
		URL: c.Fabric, Dir: filepath.Join(c.DataDir, "fabric"), Port: c.FabricPort, GuestOnly: c.FabricGuest,
		SyncAlways:  c.FabricSync == "always",
		Credentials: c.Credentials, NKeySeedFile: c.NKey, CAFile: c.CA, CertFile: c.Cert, KeyFile: c.CertKey,
		MaxBody: c.maxBody, Replicas: c.Replicas, Log: log,
	}
}

// openFabric joins the fabric. An error that flags can cure names them.
func (c *config) openFabric(ctx context.Context, log *slog.Logger) (*fabric.Fabric, error) {
	ctx, cancel := context.WithTimeout(ctx, fabricTimeout)
	defer cancel()
	f, err := fabric.Open(ctx, c.fabricConfig(log))
	var refused *fault.Error
	if !errors.As(err, &refused) {
		return f, err
	}
	cure := ""
	switch {
	case refused.Reason == fault.PortInUse:
		cure = "--fabric-port names another, 0 takes any free one"
	case refused.Reason == fault.FabricConfig && c.Fabric != "":
		cure = "--fabric-creds or --fabric-nkey say who this is, --fabric-ca whom to trust, --fabric-cert and --fabric-key are its own certificate"
	case refused.Reason == fault.FabricConfig:
		cure = "--data-dir names the directory to join it, --fabric-port another port to be apart"
	default:
		return nil, err
	}
	named := *refused
	named.Err = fmt.Errorf("%w (%s)", refused.Err, cure)
	return nil, &named
}

func (c *config) address(port int) string {
	return net.JoinHostPort(c.ListenAddress, strconv.Itoa(port))
}

func (c *config) loopback() bool {
	ip := net.ParseIP(c.ListenAddress)
	return c.ListenAddress == "localhost" || ip != nil && ip.IsLoopback()
}
