package supervisor

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sidecast/sidecast/fault"
)

// Plan is what to run and how.
type Plan struct {
	// Apps in the order of the file. At least one.
	Apps []App
	// Grace is how long an app may take to end after it was asked to; 0 means 10 s.
	Grace time.Duration
	// Kill, once closed, ends everything at once. May be nil.
	Kill <-chan struct{}

	// Executable is the program of the sidecars; "" means this one.
	Executable string
	// SidecarArgs makes the arguments of a sidecar, with the ports of the App filled in. Required unless NoSidecars.
	SidecarArgs func(App) []string
	// NoSidecars says that the caller itself is the sidecar: only apps are started. Set Ready and Drain then.
	NoSidecars bool
	// Ready returns nil when the sidecar of the app answers; it is asked until it does. Nil means gRPC health on GRPCPort.
	Ready func(context.Context, App) error
	// Drain makes a sidecar leave presence and returns when the calls of others have ended; ctx bounds it. Nil means by
	// the pipe to the sidecar, see FollowParent.
	Drain func(context.Context, App)

	// Env is what the children inherit; nil means the environment of this process.
	Env []string
	// Out takes the merged output; nil means standard output.
	Out io.Writer
	// Voice, if there is one, speaks in Out while the run lasts.
	Voice *Voice
	// Format is how lines are written.
	Format Format
	// Color paints the names of the apps.
	Color bool
	// SidecarLogs asks sidecars for their whole log instead of warnings and errors.
	SidecarLogs bool
}

// App is one app and the sidecar beside it.
type App struct {
	// ID is the app id. Required. Several Apps of one id are instances of it.
	ID string
	// Dir is the working directory of Command and Build; "" means that of this process.
	Dir string
	// Command is the program and its arguments; empty means a sidecar alone.
	Command []string
	// Build runs once before anything starts.
	Build []string
	// Stdin is the standard input of the app; nil means none, and so does a terminal: a process outside its foreground
	// group would be stopped for reading it.
	Stdin *os.File

	// Port is where the app listens; 0 means that it dials its sidecar. Protocol is `http` or `grpc`.
	Port     int
	Protocol string
	// MaxConcurrency is the most calls the sidecar sends it at a time; 0 means no limit.
	MaxConcurrency int
	// Health says how the sidecar checks the app.
	Health HealthCheck

	// GRPCPort and MetricsPort are where the sidecar listens; 0 means any free port, chosen once.
	GRPCPort, MetricsPort int
	// Dapr says that the sidecar serves Dapr's API as well, as daprd does, on DaprHTTPPort and DaprGRPCPort; 0 means any free
	// port. DaprFlags are flags of daprd's that it is started with.
	Dapr                       bool
	DaprHTTPPort, DaprGRPCPort int
	DaprFlags                  []string
	// Namespace, LogLevel and ResourcesPaths are passed to the sidecar; empty means its defaults. ConfigFile holds more
	// resources, a Configuration among them; "" means none.
	Namespace, LogLevel, ConfigFile string
	ResourcesPaths                  []string
	// Env is added to the environment of the app and of its sidecar.
	Env map[string]string

	// Restart says after which ends the app is started again; "" means OnFailure, for a main app and one of Dapr's Never.
	Restart Restart
	// Main ends the run when this app ends, with its exit code.
	Main bool
	// ExitWhenDone stops the sidecar when its app is done; otherwise it stays so that the app's state can be looked at.
	ExitWhenDone bool
}

// HealthCheck says how a sidecar checks its app.
type HealthCheck struct {
	// Enabled turns the check on.
	Enabled bool
	// Path is what is asked over HTTP; "" means the sidecar's default.
	Path string
	// Interval and Timeout are of one probe, Threshold is how many in a row must fail; 0 means the sidecar's default.
	Interval, Timeout time.Duration
	Threshold         int
}

// Restart says after which ends an app is started again.
type Restart string

// The restart policies.
const (
	OnFailure Restart = "on-failure" // after any end but status 0
	Always    Restart = "always"     // after any end
	Never     Restart = "never"      // after none
)

// again reports whether an app that ended this way is to be started again.
func (r Restart) again(e Exit) bool {
	return r == Always || r == OnFailure && e.Code() != 0
}

// prepared is the plan with every default and port filled in, or what makes it impossible.
func (plan Plan) prepared() (Plan, error) {
	const op = "run"
	if len(plan.Apps) == 0 {
		return plan, fault.New(op, fault.RunFile, "there is no app to run")
	}
	if plan.Grace <= 0 {
		plan.Grace = defaultGrace
	}
	if plan.Ready == nil {
		plan.Ready = answers
	}
	if plan.Out == nil {
		plan.Out = os.Stdout
	}
	if plan.Env == nil {
		plan.Env = os.Environ()
	}
	if plan.Executable == "" && !plan.NoSidecars {
		self, err := os.Executable()
		if err != nil {
			return plan, fault.New(op, fault.Defect, "cannot find the program to run sidecars with: %w", err)
		}
		plan.Executable = self
	}
	plan.Apps = slices.Clone(plan.Apps)
	for i := range plan.Apps {
		if err := plan.Apps[i].prepare(plan); err != nil {
			return plan, err
		}
	}
	if plan.NoSidecars {
		return plan, nil
	}
	return plan, plan.assignPorts()
}

func (a *App) prepare(plan Plan) error {
	if a.ID == "" {
		return fault.New("run", fault.RunFile, "an app has no app id")
	}
	if a.Dir != "" {
		if info, err := os.Stat(a.Dir); err != nil || !info.IsDir() {
			return fault.New("run "+a.ID, fault.RunFile, "its directory %s does not exist", a.Dir)
		}
	}
	if a.LogLevel == "" {
		a.LogLevel = "warn"
		if plan.SidecarLogs {
			a.LogLevel = "info"
		}
	}
	if a.Restart == "" {
		a.Restart = OnFailure
		if a.Main || a.Dapr { // as Dapr has it
			a.Restart = Never
		}
	}
	return nil
}

// label names app i in output: its id, with a number when others have the same id.
func (plan Plan) label(i int) string {
	id, nth, count := plan.Apps[i].ID, 0, 0
	for j, other := range plan.Apps {
		if other.ID == id {
			if count++; j == i {
				nth = count
			}
		}
	}
	if count == 1 {
		return id
	}
	return fmt.Sprintf("%s#%d", id, nth)
}

// environment is what an app and its sidecar find in their environment: what this process has, what the plan adds, and
// where the sidecar listens.
func (plan Plan) environment(a App) []string {
	added := maps.Clone(a.Env)
	if added == nil {
		added = make(map[string]string)
	}
	added["APP_ID"] = a.ID
	if a.Port != 0 {
		added["APP_PORT"] = strconv.Itoa(a.Port)
	}
	if a.GRPCPort != 0 {
		port := strconv.Itoa(a.GRPCPort)
		added["SIDECAST_GRPC_PORT"], added["DAPR_GRPC_PORT"] = port, port
		added["SIDECAST_GRPC_ENDPOINT"] = "127.0.0.1:" + port
	}
	if a.Dapr {
		for name, port := range map[string]int{
			"DAPR_HTTP_PORT": a.DaprHTTPPort, "DAPR_GRPC_PORT": a.DaprGRPCPort, "DAPR_METRICS_PORT": a.MetricsPort,
		} {
			added[name] = strconv.Itoa(port)
		}
		added["APP_PROTOCOL"] = cmp.Or(a.Protocol, "http")
		if a.Namespace != "" {
			added["NAMESPACE"] = a.Namespace
		}
	}
	env := slices.Clone(plan.Env)
	token := added["SIDECAST_API_TOKEN"]
	for _, entry := range env {
		if value, ok := strings.CutPrefix(entry, "SIDECAST_API_TOKEN="); ok && token == "" {
			token = value
		}
	}
	if token != "" {
		added["SIDECAST_API_TOKEN"], added["DAPR_API_TOKEN"] = token, token
	}
	env = slices.DeleteFunc(env, func(entry string) bool {
		name, _, _ := strings.Cut(entry, "=")
		_, replaced := added[name]
		return replaced
	})
	for _, name := range slices.Sorted(maps.Keys(added)) {
		env = append(env, name+"="+added[name])
	}
	return env
}

// absolute makes a path of the run file, which is relative to a folder, independent of where we are. ~ is the user's home.
func absolute(folder, path string) string {
	if rest, ok := strings.CutPrefix(path, "~"); ok && (rest == "" || os.IsPathSeparator(rest[0])) {
		if home, err := os.UserHomeDir(); err == nil {
			path = filepath.Join(home, rest)
		}
	}
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(folder, path)
}
