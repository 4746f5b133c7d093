package rundir_test

import (
	"os"
	"os/user"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/sidecast/sidecast/cmd/runtime/rundir"
)

func TestDefaultDataDir(t *testing.T) {
	home := t.TempDir()
	// Without a usable HOME it is the home that the list of users names, so that whoever has no environment is found by others.
	own := func(otherwise string) string {
		me, err := user.LookupId(strconv.Itoa(os.Getuid()))
		if err != nil {
			return otherwise
		}
		if info, err := os.Stat(me.HomeDir); err != nil || int(info.Sys().(*syscall.Stat_t).Uid) != os.Getuid() {
			return otherwise
		}
		return me.HomeDir + "/.local/state/sidecast"
	}
	for _, c := range []struct {
		name string
		env  map[string]string
		want string
	}{
		{"named", map[string]string{"SIDECAST_DATA_DIR": "/data", "HOME": home}, "/data"},
		{"xdg", map[string]string{"XDG_STATE_HOME": "/xdg", "HOME": home}, "/xdg/sidecast"},
		{"relative xdg is not one", map[string]string{"XDG_STATE_HOME": "xdg", "HOME": home}, home + "/.local/state/sidecast"},
		{"home", map[string]string{"HOME": home}, home + "/.local/state/sidecast"},
		{"home that does not exist", map[string]string{"HOME": "/nonexistent", "TMPDIR": "/t"}, own("/t/sidecast-")},
		{"nothing", map[string]string{}, own(os.TempDir() + "/sidecast-")},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, name := range []string{"SIDECAST_DATA_DIR", "XDG_STATE_HOME", "HOME", "TMPDIR"} {
				t.Setenv(name, c.env[name])
			}
			if c.name == "nothing" {
				os.Unsetenv("TMPDIR")
			}
			if got := rundir.DefaultDataDir(); !strings.HasPrefix(got, c.want) {
				t.Errorf("DefaultDataDir = %s, want %s…", got, c.want)
			}
		})
	}
}
