package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/sidecast/sidecast/api/daprapi"
	"github.com/sidecast/sidecast/appchannel"
	blocks "github.com/sidecast/sidecast/building_blocks"
	"github.com/sidecast/sidecast/cmd/runtime/commands"
	"github.com/sidecast/sidecast/fabric"
	"github.com/sidecast/sidecast/fault"
)

// daprConfig is what a sidecar that was started as daprd is told beyond its config.
type daprConfig struct {
	HTTPPort, GRPCPort, PublicPort, ProfilePort int // PublicPort is -1 for none
	Addresses                                   []string
	PublicAddress, SocketDir                    string
	MaxBody, ReadBuffer                         int64
	BlockShutdown                               time.Duration
	AllowedOrigins, Token                       string
	Profiling, NoMetrics, BuiltIn               bool  // BuiltIn: components that exist without a file do
	APILogging                                  *bool // nil leaves it to the Configuration
	Log                                         io.Writer
	Hangups                                     <-chan os.Signal // SIGHUP: all files are read again
	Meaningless                                 []string         // flags that were given and have no effect
}

// newDaprd is `sidecast daprd`: the sidecar with Dapr's API, started with daprd's flags and environment.
func newDaprd(exit func(code int)) *cobra.Command {
	var d daprFlags
	command := &cobra.Command{
		Use:   "daprd [flags]",
		Short: "Run a sidecar as daprd: with Dapr's flags, HTTP and gRPC API",
		Long: `Run a sidecar that takes daprd's place: the same flags and environment, the same HTTP and gRPC API, the same component
files. A program called daprd that is a copy of, or a link to, sidecast does the same.

Sidecars of one machine find each other without any name resolution; those with another SIDECAST_DATA_DIR are a group of
their own. SIDECAST_FABRIC takes the URLs of a NATS cluster that joins the sidecars of several machines, and
SIDECAST_FABRIC_CREDS its credentials file.`,
		Example:            `  sidecast daprd --app-id orders --app-port 8080 --resources-path ./components`,
		DisableFlagParsing: true,
		RunE: func(command *cobra.Command, args []string) error {
			flags := pflag.NewFlagSet("daprd", pflag.ContinueOnError)
			flags.Usage = func() {}
			d.declare(flags)
			switch err := flags.Parse(doubleDashes(args)); {
			case errors.Is(err, pflag.ErrHelp):
				return command.Help()
			case err != nil:
				fmt.Fprintf(os.Stderr, "%v\nUsage of daprd:\n%s", err, flags.FlagUsages())
				exit(commands.ExitUsage)
				return nil
			}
			outliveReaders()
			d.hangups = hangups()
			if err := d.options(flags); err != nil {
				fmt.Fprintln(os.Stderr, "Failed to parse flags:", err)
				exit(d.failed(err))
				return nil
			}
			if err := d.run(command.Context(), flags); err != nil {
				fmt.Fprintln(os.Stderr, "Fatal error from runtime:", err)
				exit(d.failed(err))
			}
			return nil
		},
	}
	d.declare(command.Flags()) // for help and the reference; the flags are read by a set of their own
	return command
}

// failed is the exit code for an error: that of daprd, but a supervisor is told what trying again does not help.
func (d *daprFlags) failed(err error) int {
	var known *fault.Error
	if d.host.ExitWithParent && (!errors.As(err, &known) || known.Kind == fault.Invalid) {
		return commands.ExitUsage
	}
	return commands.ExitFailed
}

func (d *daprFlags) run(ctx context.Context, flags *pflag.FlagSet) error {
	switch {
	case d.version:
		fmt.Println(daprapi.Version)
		return nil
	case d.buildInfo:
		fmt.Printf("Version: %s\nGit Commit: %s\nGit Version: sidecast %s\n", daprapi.Version, commit(), version)
		return nil
	case d.wait:
		return awaitOutbound(ctx, d.httpPort)
	}
	c, err := d.sidecar(flags)
	if err != nil {
		return err
	}
	c.dapr.Log, c.dapr.Hangups = os.Stdout, d.hangups
	if d.logFile != "" {
		file, err := os.OpenFile(d.logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
		if err != nil {
			return fmt.Errorf("failed to open the log file: %w", err)
		}
		defer file.Close()
		c.dapr.Log = file
	}
	return runSidecar(ctx, c)
}

func commit() string {
	info, _ := debug.ReadBuildInfo()
	if info != nil {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				return s.Value
			}
		}
	}
	return "unknown"
}

// awaitOutbound waits, as `daprd --wait` does, for the sidecar on that port to be usable by its app.
func awaitOutbound(ctx context.Context, port string) error {
	const patience, pause = 60 * time.Second, 50 * time.Millisecond
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1:"+port+"/v1.0/healthz/outbound", nil)
		if err != nil {
			return err
		}
		if response, err := http.DefaultClient.Do(request); err == nil {
			response.Body.Close()
			if response.StatusCode < 300 {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return errors.New("timeout waiting for dapr outbound to become ready")
		case <-time.After(pause):
		}
	}
}

// daprLogger writes lines with the fields of daprd's, by which collectors of logs find them: level in lower case, app_id,
// scope, type and ver. In the merged log of a run people read them, who see the name of the app before each.
func daprLogger(c *config, level slog.Level) *slog.Logger {
	if c.ExitWithParent && c.LogFormat == "text" {
		return slog.New(slog.NewTextHandler(c.dapr.Log, &slog.HandlerOptions{Level: level}))
	}
	options := &slog.HandlerOptions{Level: level, ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) > 0 || a.Key != slog.LevelKey {
			return a
		}
		word := strings.ToLower(a.Value.String())
		if word == "warn" {
			word = "warning"
		}
		return slog.String(slog.LevelKey, word)
	}}
	var handler slog.Handler = slog.NewTextHandler(c.dapr.Log, options)
	if c.LogFormat == "json" {
		handler = slog.NewJSONHandler(c.dapr.Log, options)
	}
	return slog.New(handler).With("app_id", c.AppID, "scope", "dapr.runtime", "type", "log", "ver", daprapi.Version)
}

// noteMeaningless says once which of the given flags change nothing.
func noteMeaningless(log *slog.Logger, given []string) {
	if len(given) > 0 {
		log.Info("some flags have no effect: the fabric takes the place of the control plane", "flags", given)
	}
}

// daprListeners are the ports or sockets of Dapr's API.
type daprListeners struct{ http, grpc, public, profile []net.Listener }

func (l *daprListeners) close() {
	for _, all := range [][]net.Listener{l.http, l.grpc, l.public, l.profile} {
		for _, listener := range all {
			_ = listener.Close()
		}
	}
}

// listenDapr takes the ports. One address of several may be missing on a machine, as ::1 often is; all must not.
func listenDapr(c *config) (l *daprListeners, err error) {
	l = &daprListeners{}
	defer func() {
		if err != nil {
			l.close()
		}
	}()
	d := c.dapr
	if d.SocketDir != "" {
		for name, to := range map[string]*[]net.Listener{"http": &l.http, "grpc": &l.grpc} {
			listener, err := listenSocket("unix-domain-socket", filepath.Join(d.SocketDir, fmt.Sprintf("dapr-%s-%s.socket", c.AppID, name)))
			if err != nil {
				return l, err
			}
			*to = append(*to, listener)
		}
	} else {
		if l.http, err = listenAll(d.Addresses, d.HTTPPort); err != nil {
			return l, fmt.Errorf("failed to start HTTP server: %w", err)
		}
		if l.grpc, err = listenAll(d.Addresses, d.GRPCPort); err != nil {
			return l, fmt.Errorf("failed to start API gRPC server: %w", err)
		}
	}
	if d.PublicPort >= 0 {
		if l.public, err = listenAll([]string{d.PublicAddress}, d.PublicPort); err != nil {
			return l, fmt.Errorf("failed to start the public HTTP server: %w", err)
		}
	}
	if d.Profiling {
		if l.profile, err = listenAll(d.Addresses, d.ProfilePort); err != nil {
			return l, fmt.Errorf("failed to start the profiling server: %w", err)
		}
	}
	return l, nil
}

func addressOf(all []net.Listener) string {
	if len(all) == 0 {
		return ""
	}
	return all[0].Addr().String()
}

// listenAll listens on one port of all addresses. Port 0 is the same free port on each.
func listenAll(addresses []string, port int) ([]net.Listener, error) {
	var all []net.Listener
	var errs []error
	for _, address := range addresses {
		listener, err := net.Listen("tcp", net.JoinHostPort(address, strconv.Itoa(port)))
		if errors.Is(err, syscall.EADDRINUSE) {
			for _, taken := range all {
				_ = taken.Close()
			}
			return nil, err
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if port == 0 {
			port = listener.Addr().(*net.TCPAddr).Port
		}
		all = append(all, listener)
	}
	if len(all) == 0 {
		return nil, errors.Join(append([]error{errors.New("could not listen on any endpoint")}, errs...)...)
	}
	return all, nil
}

// serveProfiles serves /debug/pprof/ on a port of its own, as daprd does.
func serveProfiles(listener net.Listener) error {
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	if err := server.Serve(listener); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// progress is how far a sidecar has come, as its health checks tell.
type progress struct {
	app     appchannel.Channel
	fabric  *fabric.Fabric
	arrived atomic.Bool
	open    atomic.Bool // the app's port has taken a connection

	stopEvents func(context.Context) error
	events     sync.WaitGroup  // those at work when a stop began to be blocked
	working    context.Context // of the wait for them
	cut        func()          // ends it
}

func newProgress(app appchannel.Channel, f *fabric.Fabric, b *blocks.Blocks) *progress {
	p := &progress{app: app, fabric: f, stopEvents: b.StopEvents}
	p.working, p.cut = context.WithCancel(context.Background())
	return p
}

// usable is nil when the app may use its sidecar.
func (p *progress) usable() error {
	if !p.arrived.Load() {
		return errors.New("runtime")
	}
	return nil
}

// ready is nil once the app has opened its port as well. From then on its health is its own affair, as with daprd: an app that
// restarts does not make its sidecar unwell.
func (p *progress) ready() error {
	if err := p.usable(); err != nil {
		return err
	}
	if p.open.Load() {
		return nil
	}
	switch err := p.app.Ready(); fault.ReasonOf(err) {
	case fault.AppNotConnected:
		return errors.New("runtime")
	}
	p.open.Store(true)
	return nil
}

// blockShutdown keeps serving for that long, or until the app is unwell or gone: all but events, of which no new ones come. A
// second signal ends the wait.
func (p *progress) blockShutdown(most time.Duration, log *slog.Logger) {
	const poll = 50 * time.Millisecond
	if most <= 0 {
		return
	}
	log.Info("Blocking graceful shutdown for " + most.String() + " or until app reports unhealthy...")
	p.events.Go(func() { _ = p.stopEvents(p.working) }) // the stop that follows cuts off what hangs, and tells
	again, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	over := time.NewTimer(most)
	defer over.Stop()
	ticker := time.NewTicker(poll)
	defer ticker.Stop()
	for p.app.Ready() == nil {
		select {
		case <-over.C:
			log.Info("Block shutdown period expired, entering shutdown...")
			return
		case <-again.Done():
			return
		case <-ticker.C:
		}
	}
	log.Info("App reported unhealthy, entering shutdown...")
}

// endEvents returns when the events have ended that were at work when a stop began to be blocked. When ctx ends first, they are
// cut off: the stop may have ended without having come to them.
func (p *progress) endEvents(ctx context.Context) {
	defer p.cut()
	defer context.AfterFunc(ctx, p.cut)()
	p.events.Wait()
}
