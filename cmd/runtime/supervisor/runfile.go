package supervisor

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"time"

	"github.com/sidecast/sidecast/fault"
)

// fileNames are what a folder is searched for when Load is given one. A file with one of daprNames is Dapr's.
var (
	fileNames = append([]string{"sidecast.yaml", "sidecast.yml"}, daprNames...)
	daprNames = []string{"dapr.yaml", "dapr.yml"}
)

// runFile is the file of `sidecast run -f`: Dapr's multi-app run template. Each field's `run` tag holds its keys, ours
// first; `unit` is that of a bare number in a duration; `oneof` lists the values there are, `dapr` those in a file of Dapr's.
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
	LogLevel       string            `run:"logLevel" oneof:"debug|info|warn|error" dapr:"debug|info|warn|error|fatal"`
	Protocol       string            `run:"appProtocol" oneof:"http|grpc" dapr:"http|https|h2c|grpc|grpcs"`
	MaxConcurrency int               `run:"appMaxConcurrency"`
	Restart        string            `run:"restart" oneof:"on-failure|always|never"`
	ExitWhenDone   bool              `run:"exitWhenDone"`

	HealthCheck     bool          `run:"enableAppHealthCheck"`
	HealthPath      string        `run:"appHealthCheckPath"`
	HealthInterval  time.Duration `run:"appHealthProbeInterval" unit:"s"`
	HealthTimeout   time.Duration `run:"appHealthProbeTimeout" unit:"ms"`
	HealthThreshold int           `run:"appHealthThreshold"`

	daprSettings
}

// daprSettings are for sidecars with Dapr's API, which get most of them as the flag that the tag names.
type daprSettings struct {
	AppAddress  string `run:"appChannelAddress" flag:"app-channel-address"`
	AppTLS      bool   `run:"appSSL" flag:"app-ssl"`
	MaxBody     string `run:"maxBodySize" flag:"max-body-size"`
	ReadBuffer  string `run:"readBufferSize" flag:"read-buffer-size"`
	Addresses   string `run:"apiListenAddresses" flag:"dapr-listen-addresses"`
	APILogging  bool   `run:"enableApiLogging" flag:"enable-api-logging"`
	SocketDir   string `run:"unixDomainSocket" flag:"unix-domain-socket"`
	Profiling   bool   `run:"enableProfiling" flag:"enable-profiling"`
	ProfilePort string `run:"profilePort" flag:"profile-port"`
	SidecarLog  string `run:"daprdLogDestination" oneof:"console|file|fileAndConsole"`
	HTTPPort    int    `run:"daprHTTPPort"`
}

// daprKeys are theirs.
var daprKeys, _ = keysOf(reflect.TypeFor[daprSettings]())

// flags are those of daprd that say what the keys say.
func (s daprSettings) flags() (flags []string) {
	if s.Profiling && s.ProfilePort == "" {
		s.ProfilePort = "0" // any free one
	}
	values := reflect.ValueOf(s)
	for i := range values.NumField() {
		value, flag := values.Field(i), values.Type().Field(i).Tag.Get("flag")
		if flag != "" && !value.IsZero() {
			flags = append(flags, fmt.Sprintf("--%s=%v", flag, value))
		}
	}
	return flags
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
	"name":                     "the file needs none",
	"appLogDestination":        "output goes to the merged log",
	"placementHostAddress":     "there is no placement service",
	"schedulerHostAddress":     "there is no scheduler service",
	"daprInternalGRPCPort":     "sidecars talk over the fabric",
	"daprPath":                 "the sidecar is this program",
	"runtimePath":              "the sidecar is this program",
	"containerImage":           "it is for Kubernetes",
	"containerImagePullPolicy": "it is for Kubernetes",
	"createService":            "it is for Kubernetes",
}

// Load reads a run file, or that of a folder. Paths in it are relative to it. The error is of reason fault.RunFile and
// lists everything that is wrong with the file, each with line, key and, for a key that does not exist, the nearest one
// that does. Notes are for the user: keys without a meaning here.
//
// A file is Dapr's when dapr is true, or its name is dapr.yaml. Then the sidecars serve Dapr's API, and what Dapr's command
// line does with its template holds: paths of an app are relative to the folder of the app; resources and Configuration
// are, where the file names none for the app, those of the folder .dapr of the app, then those of `common`, then those of
// ~/.dapr.
func Load(path string, dapr bool) (plan Plan, notes []string, err error) {
	names := fileNames
	if dapr {
		names = daprNames
	}
	path, err = find(path, names)
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
	return parse(path, folder, text, dapr || slices.Contains(daprNames, filepath.Base(path)))
}

// find turns a folder into the run file in it.
func find(path string, names []string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", fault.New("run file", fault.RunFile, "%w", err)
	}
	if !info.IsDir() {
		return path, nil
	}
	for _, name := range names {
		if file := filepath.Join(path, name); isFile(file) {
			return file, nil
		}
	}
	return "", fault.New("run file", fault.RunFile, "%s holds none of %v", path, names)
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && !info.IsDir()
}

func isFolder(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

func parse(path, folder string, text []byte, dapr bool) (Plan, []string, error) {
	d := &decoder{file: path, dapr: dapr}
	var file runFile
	if root := d.parse(text); root != nil {
		d.decodeFile(root, folder, &file)
	}
	var plan Plan
	for i, entry := range file.Apps {
		plan.Apps = append(plan.Apps, entry.app(dapr))
		d.check(fmt.Sprintf("apps[%d]", i), entry)
	}
	d.checkPorts(file.Apps)
	if err := d.err(); err != nil {
		return Plan{}, nil, err
	}
	return plan, d.notes, nil
}

// resolve makes the paths, which are relative to folder, absolute, and one list of those with resources.
func (s *settings) resolve(folder string) {
	if s.ResourcesPath != "" {
		s.ResourcesPaths = append([]string{s.ResourcesPath}, s.ResourcesPaths...)
		s.ResourcesPath = ""
	}
	for i, path := range s.ResourcesPaths {
		s.ResourcesPaths[i] = absolute(folder, path)
	}
	s.ConfigFile = absolute(folder, s.ConfigFile)
}

// resolve makes the paths absolute, and takes from elsewhere what the entry does not say.
func (e *appEntry) resolve(folder string, common settings, dapr bool) {
	if e.Dir = absolute(folder, e.Dir); e.Dir == "" {
		e.Dir = folder
	}
	if !dapr {
		e.settings.resolve(folder)
		e.inherit(common.ResourcesPaths, common.ConfigFile)
		return
	}
	e.settings.resolve(e.Dir)
	e.inherit(daprFolder(filepath.Join(e.Dir, ".dapr"), "resources"))
	e.inherit(common.ResourcesPaths, common.ConfigFile)
	e.inherit(DaprHome())
}

func (e *appEntry) inherit(resources []string, config string) {
	if len(e.ResourcesPaths) == 0 {
		e.ResourcesPaths = resources
	}
	e.ConfigFile = cmp.Or(e.ConfigFile, config)
}

// DaprHome is what `dapr init` has put into ~/.dapr for apps that name no resources or no Configuration; nothing where it
// was never run.
func DaprHome() (resources []string, config string) {
	home, err := os.UserHomeDir()
	if err != nil {
		return nil, ""
	}
	return daprFolder(filepath.Join(home, ".dapr"), "components")
}

// daprFolder is what there is in a folder called .dapr.
func daprFolder(folder, name string) (resources []string, config string) {
	if path := filepath.Join(folder, name); isFolder(path) {
		resources = []string{path}
	}
	if path := filepath.Join(folder, "config.yaml"); isFile(path) {
		config = path
	}
	return resources, config
}

// app is the entry as the plan has it.
func (e appEntry) app(dapr bool) App {
	app := App{
		ID: e.ID, Dir: e.Dir, Command: e.Command, Build: e.Build,
		Port: e.Port, Protocol: e.Protocol, MaxConcurrency: e.MaxConcurrency,
		Health: HealthCheck{
			Enabled: e.HealthCheck, Path: e.HealthPath, Interval: e.HealthInterval, Timeout: e.HealthTimeout,
			Threshold: e.HealthThreshold,
		},
		GRPCPort: e.GRPCPort, MetricsPort: e.MetricsPort,
		Namespace: e.Namespace, LogLevel: e.LogLevel, ResourcesPaths: e.ResourcesPaths, ConfigFile: e.ConfigFile,
		Env: e.Env, Restart: Restart(e.Restart), Main: e.Main, ExitWhenDone: e.ExitWhenDone,
	}
	if app.ID == "" {
		app.ID = filepath.Base(e.Dir) // as Dapr has it
	}
	if dapr {
		app.Dapr, app.DaprHTTPPort, app.DaprGRPCPort, app.GRPCPort = true, e.HTTPPort, e.GRPCPort, 0
		app.DaprFlags = e.daprSettings.flags()
		if app.LogLevel == "" && (e.APILogging || e.SidecarLog != "" && e.SidecarLog != "file") {
			app.LogLevel = "info" // so that it is seen
		}
	}
	return app
}

// decodeFile decodes the file. An app starts with what is common to all.
func (d *decoder) decodeFile(root node, folder string, file *runFile) {
	fields := d.fields("", root, runFileKeys)
	if v, ok := fields["version"]; !ok {
		d.problem(root, "version", "is missing; write `version: 1`")
	} else if d.value("version", v, &file.Version); file.Version != 1 {
		d.problem(v, "version", "is not a version this program knows; write `version: 1`")
	}
	if v, ok := fields["common"]; ok {
		d.value("common", v, &file.Common)
	}
	file.Common.resolve(folder)
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
		entry.Env, entry.ResourcesPaths, entry.ConfigFile = maps.Clone(file.Common.Env), nil, ""
		at := fmt.Sprintf("apps[%d]", i)
		d.value(at, item, &entry)
		if entry.ID == "" && entry.Dir == "" {
			d.problemAt(at, "appID", "is missing")
		}
		entry.resolve(folder, file.Common, d.dapr)
		file.Apps = append(file.Apps, entry)
	}
}

// check looks for what the values say wrong, each being of the right type.
func (d *decoder) check(at string, e appEntry) {
	for key, port := range e.ports() {
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
	if !isFolder(e.Dir) {
		d.problemAt(at, "appDirPath", "there is no folder %s", e.Dir)
	}
	if e.ConfigFile != "" && !isFile(e.ConfigFile) {
		d.problemAt(at, "configFilePath", "there is no file %s", e.ConfigFile)
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

// ports are those that the entry says, by their keys.
func (e appEntry) ports() map[string]int {
	return map[string]int{"appPort": e.Port, "grpcPort": e.GRPCPort, "metricsPort": e.MetricsPort, "daprHTTPPort": e.HTTPPort}
}

// checkPorts looks for ports that two sidecars, or two apps, want.
func (d *decoder) checkPorts(apps []appEntry) {
	owners := make(map[int]string)
	for i, e := range apps {
		at, ports := fmt.Sprintf("apps[%d]", i), e.ports()
		for _, key := range slices.Sorted(maps.Keys(ports)) {
			port := ports[key]
			if other := owners[port]; port != 0 && other != "" {
				d.problemAt(at, key, "%d is the %s already", port, other)
			}
			owners[port] = key + " of " + at
		}
	}
}
