package main

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/sidecast/sidecast/cmd/runtime/supervisor"
	"github.com/sidecast/sidecast/fault"
)

// parsed is the configuration that flags make.
func parsed(t *testing.T, args ...string) (*config, *pflag.FlagSet) {
	t.Helper()
	c := &config{}
	flags := pflag.NewFlagSet("run", pflag.ContinueOnError)
	flags.SetOutput(io.Discard)
	c.flags(flags)
	if err := flags.Parse(args); err != nil {
		t.Fatal(err)
	}
	return c, flags
}

func TestWithoutANamespaceFilesOfAllCount(t *testing.T) {
	t.Setenv("SIDECAST_DATA_DIR", t.TempDir())
	for want, args := range map[string][]string{"": {"--app-id", "a"}, "default": {"--app-id", "a", "--namespace", "default"}} {
		c, given := parsed(t, args...)
		if err := c.complete(); err != nil {
			t.Fatal(err)
		}
		if c.Namespace != "default" || c.readsOf() != want {
			t.Errorf("%v: in %q, reads files of %q", args, c.Namespace, c.readsOf())
		}
		passed := slices.Contains(sidecarArgs(given, c, supervisor.App{ID: "a"}), "--namespace")
		if passed != (want != "") {
			t.Errorf("%v: the sidecar of an app is told its namespace: %v", args, passed)
		}
	}
}

func TestFlagsThatCannotBe(t *testing.T) {
	t.Setenv("SIDECAST_DATA_DIR", t.TempDir())
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"no app id":                       {nil, "--app-id: every sidecar needs"},
		"credentials for no cluster":      {[]string{"--app-id", "a", "--fabric-creds", "x.creds"}, "--fabric-creds: the embedded fabric needs none"},
		"a key for no cluster":            {[]string{"--app-id", "a", "--fabric-key", "x.pem"}, "--fabric-key: the embedded fabric needs none"},
		"copies of the one server":        {[]string{"--app-id", "a", "--fabric-replicas", "3"}, "--fabric-replicas: the embedded fabric is one server"},
		"a port that is none":             {[]string{"--app-id", "a", "--app-port", "70000"}, "--app-port: 70000 is no port"},
		"an app id with a space":          {[]string{"--app-id", "a b"}, `--app-id: "a b" is no app id`},
		"a body without a size":           {[]string{"--app-id", "a", "--max-body", "big"}, `--max-body: "big" is no size`},
		"a log level that does not exist": {[]string{"--app-id", "a", "--log-level", "loud"}, `--log-level: "loud" is none of`},
	} {
		t.Run(name, func(t *testing.T) {
			config, _ := parsed(t, c.args...)
			err := config.complete()
			if fault.ReasonOf(err) != fault.FlagInvalid || !strings.HasPrefix(err.Error(), c.want) {
				t.Errorf("got %v, want %s…", err, c.want)
			}
		})
	}
}

func TestDefaultPortsGiveWay(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	taken := l.Addr().(*net.TCPAddr).Port

	c, flags := parsed(t)
	c.GRPCPort = taken // as if it were the default
	choosePorts(flags, c)
	if c.GRPCPort != 0 {
		t.Errorf("the default port %d is taken, and still insisted on", c.GRPCPort)
	}
	_, given, _ := net.SplitHostPort(l.Addr().String())
	c, flags = parsed(t, "--grpc-port", given)
	choosePorts(flags, c)
	if c.GRPCPort != taken {
		t.Errorf("port %d was asked for, %d is taken", taken, c.GRPCPort)
	}
}

func TestSocketLeftBehind(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.sock")
	left, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Skip("no Unix sockets here:", err)
	}
	if _, err := listenSocket("grpc-socket", path); fault.ReasonOf(err) != fault.PortInUse {
		t.Errorf("a socket in use: %v", err)
	}
	left.SetUnlinkOnClose(false)
	left.Close()
	again, err := listenSocket("grpc-socket", path)
	if err != nil {
		t.Fatal("the socket of a dead process is in the way:", err)
	}
	again.Close()

	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := listenSocket("grpc-socket", path); fault.ReasonOf(err) != fault.FlagInvalid {
		t.Errorf("a file that is no socket: %v", err)
	}
	if text, _ := os.ReadFile(path); string(text) != "precious" {
		t.Error("a file that is no socket was removed")
	}
}
