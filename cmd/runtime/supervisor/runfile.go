package supervisor

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"time"

	"github.com/sidecast/sidecast/fault"
)

// fileNames are what a folder is searched for when Load is given one.
var fileNames = []string{"sidecast.yaml", "sidecast.yml", "dapr.yaml", "dapr.yml"}

// runFile is the file of `sidecast run -f`: Dapr's multi-app run template. Each field's `run` tag holds its keys, ours
// first; `unit` is that of a bare number in a duration; `oneof` lists the values there are.
type runFile struct {
	Version int        `run:"version"`
	Common  settings   `run:"common"`
	Apps    []appEntry `run:"apps"`
}

// settings may stand under `common` and be repeated for an app.
type settings struct {
	Env            map[string]string `run:"env"`
	ResourcesPath  string            `run:"resourcesPath"`
	ResourcesPaths []string          `run:"resourcesPaths"`
	ConfigFile     string            `run:"configFilePath"`
	Namespace      string            `run:"namespace"`
	LogLevel       string            `run:"logLevel" oneof:"debug|info|warn|error"`
	Protocol       string            `run:"appProtocol" oneof:"http|grpc"`
	MaxConcurrency int               `run:"appMaxConcurrency"`
	Restart        string            `run:"restart" oneof:"on-failure|always|never"`
	ExitWhenDone   bool              `run:"exitWhenDone"`

	HealthCheck     bool          `run:"enableAppHealthCheck"`
	HealthPath      string        `run:"appHealthCheckPath"`
	HealthInterval  time.Duration `run:"appHealthProbeInterval" unit:"s"`
	HealthTimeout   time.Duration `run:"appHealthProbeTimeout" unit:"ms"`
	HealthThreshold int           `run:"appHealthThreshold"`
}

// appEntry is one of `apps`.
type appEntry struct {
	settings
	ID          string   `run:"appID,appId"`
	Dir         string   `run:"appDirPath"`
	Port        int      `run:"appPort"`
	Command     []string `run:"command"`
	Build       []string `run:"build"`
	Main        bool     `run:"main"`
	GRPCPort    int      `run:"grpcPort,daprGRPCPort"`
	MetricsPort int      `run:"metricsPort"`
}

// meaningless are keys of Dapr's template for which there is nothing to do here: they are accepted, and Load says so.
var meaningless = map[string]string{
	"httpPort":                 "there is no HTTP API yet",
	"daprHTTPPort":             "there is no HTTP API yet",
	"appLogDestination":        "output goes to the merged log",
	"daprdLogDestination":      "output goes to the merged log",
	"placementHostAddress":     "there is no placement service",
	"schedulerHostAddress":     "there is no scheduler service",
	"daprInternalGRPCPort":     "sidecars talk over the fabric",
	"daprPath":                 "the sidecar is this program",
	"runtimePath":              "the sidecar is this program",
	"enableApiLogging":         "use logLevel: debug",
	"enableProfiling":          "start the sidecar with --pprof",
	"profilePort":              "start the sidecar with --pprof",
	"apiListenAddresses":       "the sidecar listens on loopback",
	"unixDomainSocket":         "the sidecar listens on loopback",
	"containerImage":           "it is for Kubernetes",
	"containerImagePullPolicy": "it is for Kubernetes",
	"createService":            "it is for Kubernetes",
}

// Load reads a run file, or that of a folder. Paths in it are relative to it. The error is of reason fault.RunFile and
// lists everything that is wrong with the file, each with line, key and, for a key that does not exist, the nearest one
// that does. Notes are for the user: keys without a meaning here.
func Load(path string) (plan Plan, notes []string, err error) {
	path, err = find(path)
	if err != nil {
		return Plan{}, nil, err
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return Plan{}, nil, fault.New("run file", fault.RunFile, "%w", err)
	}
	folder, err := filepath.Abs(filepath.Dir(path))
	if err != nil {
		return Plan{}, nil, fault.New("run file", fault.RunFile, "%w", err)
	}
	return parse(path, folder, text)
}

// find turns a folder into the run file in it.
func find(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", fault.New("run file", fault.RunFile, "%w", err)
	}
	if !info.IsDir() {
		return path, nil
	}
	for _, name := range fileNames {
		if file := filepath.Join(path, name); isFile(file) {
			return file, nil
		}
	}
	return "", fault.New("run file", fault.RunFile, "%s holds none of %v", path, fileNames)
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && !info.IsDir()
}

func parse(path, folder string, text []byte) (Plan, []string, error) {
	d := &decoder{file: path}
	var file runFile
	if root := d.parse(text); root != nil {
		d.decodeFile(root, &file)
	}
	var plan Plan
	for i, entry := range file.Apps {
		plan.Apps = append(plan.Apps, entry.app(folder))
		d.check(fmt.Sprintf("apps[%d]", i), folder, entry)
	}
	d.checkPorts(file.Apps)
	if err := d.err(); err != nil {
		return Plan{}, nil, err
	}
	return plan, d.notes, nil
}

// app is the entry with its paths made absolute.
func (e appEntry) app(folder string) App {
	dir := absolute(folder, e.Dir)
	if dir == "" {
		dir = folder
	}
	paths := e.ResourcesPaths
	if e.ResourcesPath != "" {
		paths = append([]string{e.ResourcesPath}, paths...)
	}
	resources := make([]string, len(paths))
	for i, path := range paths {
		resources[i] = absolute(folder, path)
	}
	id := e.ID
	if id == "" {
		id = filepath.Base(dir) // as Dapr has it
	}
	return App{
		ID: id, Dir: dir, Command: e.Command, Build: e.Build,
		Port: e.Port, Protocol: e.Protocol, MaxConcurrency: e.MaxConcurrency,
		Health: HealthCheck{
			Enabled: e.HealthCheck, Path: e.HealthPath, Interval: e.HealthInterval, Timeout: e.HealthTimeout,
			Threshold: e.HealthThreshold,
		},
		GRPCPort: e.GRPCPort, MetricsPort: e.MetricsPort,
		Namespace: e.Namespace, LogLevel: e.LogLevel, ResourcesPaths: resources, ConfigFile: absolute(folder, e.ConfigFile),
		Env: e.Env, Restart: Restart(e.Restart), Main: e.Main, ExitWhenDone: e.ExitWhenDone,
	}
}

// decodeFile decodes the file. An app starts with what is common to all.
func (d *decoder) decodeFile(root node, file *runFile) {
	fields := d.fields("", root, runFileKeys)
	if v, ok := fields["version"]; !ok {
		d.problem(root, "version", "is missing; write `version: 1`")
	} else if d.value("version", v, &file.Version); file.Version != 1 {
		d.problem(v, "version", "is not a version this program knows; write `version: 1`")
	}
	if v, ok := fields["common"]; ok {
		d.value("common", v, &file.Common)
	}
	apps, ok := fields["apps"]
	if !ok {
		d.problem(root, "apps", "is missing: the list of apps to run")
		return
	}
	items, ok := d.items("apps", apps)
	if ok && len(items) == 0 {
		d.problem(apps, "apps", "is empty: there is nothing to run")
	}
	for i, item := range items {
		entry := appEntry{settings: file.Common}
		entry.Env = maps.Clone(file.Common.Env)
		d.value(fmt.Sprintf("apps[%d]", i), item, &entry)
		file.Apps = append(file.Apps, entry)
	}
}

// check looks for what the values say wrong, each being of the right type.
func (d *decoder) check(at, folder string, e appEntry) {
	for key, port := range map[string]int{
		"appPort": e.Port, "grpcPort": e.GRPCPort, "metricsPort": e.MetricsPort,
	} {
		if port < 0 || port > 65535 {
			d.problemAt(at, key, "%d is not a port: 1 to 65535, or leave it out", port)
		}
	}
	if e.MaxConcurrency < 0 {
		d.problemAt(at, "appMaxConcurrency", "must not be negative")
	}
	if e.HealthInterval < 0 {
		d.problemAt(at, "appHealthProbeInterval", "must not be negative")
	}
	if e.HealthTimeout < 0 {
		d.problemAt(at, "appHealthProbeTimeout", "must not be negative")
	}
	if dir := absolute(folder, e.Dir); dir != "" {
		if info, err := os.Stat(dir); err != nil || !info.IsDir() {
			d.problemAt(at, "appDirPath", "there is no folder %s", dir)
		}
	} else if e.ID == "" {
		d.problemAt(at, "appID", "is missing")
	}
	if file := absolute(folder, e.ConfigFile); file != "" && !isFile(file) {
		d.problemAt(at, "configFilePath", "there is no file %s", file)
	}
	for key, command := range map[string][]string{"command": e.Command, "build": e.Build} {
		if len(command) > 0 && command[0] == "" {
			d.problemAt(at, key, "names no program")
		}
	}
	if e.Main && len(e.Command) == 0 {
		d.problemAt(at, "main", "an app without a command cannot end the run")
	}
}

// checkPorts looks for ports that two sidecars, or two apps, want.
func (d *decoder) checkPorts(apps []appEntry) {
	owners := make(map[int]string)
	for i, e := range apps {
		for _, want := range []struct {
			key  string
			port int
		}{{"appPort", e.Port}, {"grpcPort", e.GRPCPort}, {"metricsPort", e.MetricsPort}} {
			at := fmt.Sprintf("apps[%d]", i)
			if other := owners[want.port]; want.port != 0 && other != "" {
				d.problemAt(at, want.key, "%d is the %s already", want.port, other)
			}
			owners[want.port] = want.key + " of " + at
		}
	}
}
