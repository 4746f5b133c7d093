package compat

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/sidecast/sidecast/tests/machine"
	"github.com/sidecast/sidecast/tests/servers"
)

// The Go SDK's own tests are a module of their own, which knows no servers: this runs those that need one.
func TestGoSDKQueries(t *testing.T) {
	t.Parallel()
	machine.SkipShort(t)
	cmd := exec.Command("go", "test", "-C", "gosdk", "-count=1", "-run=^TestStateQueries$", "-v", ".")
	cmd.Env = append(os.Environ(), "GOWORK=off", "SIDECAST_BINARY="+machine.Binary(t), "SIDECAST_POSTGRES="+servers.Postgres(t))
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestStateQueries") {
		t.Fatalf("%v\n%s", err, out)
	}
}
