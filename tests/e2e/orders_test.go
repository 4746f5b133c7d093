package e2e

import (
	"sync"
	"testing"
	"time"

	"github.com/sidecast/sidecast/tests/machine"
)

// patience is how long the example may take on a busy machine.
const patience = 3 * time.Minute

const (
	example = "../../examples/orders/sidecast.yaml"
	halfway = ` [3-7]\d% `
	right   = "The sums are right: nothing lost, nothing twice."
)

// building is held by who runs the example, which builds its apps where they are.
var building sync.Mutex

func TestOrdersAddUpWhenFulfilmentIsKilled(t *testing.T) {
	killHalfway(t, "bin/fulfilment")
}

func TestOrdersAddUpWhenTheSidecarOfFulfilmentIsKilled(t *testing.T) {
	killHalfway(t, "--app-id fulfilment")
}

func TestOrdersAddUpWhenEverythingIsKilledAndStartedAgain(t *testing.T) {
	t.Parallel()
	building.Lock()
	defer building.Unlock()
	m := machine.New(t)
	first := m.Run("-f", example)
	first.WaitFor(halfway, patience)
	first.Kill() // the children of a killed supervisor end by themselves
	second := m.Run("-f", example)
	second.WaitFor(right, patience)
	if code := second.Wait(patience); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
}

// killHalfway runs the example, kills the process whose command line holds text with SIGKILL half-way, and wants it back
// and the sums right.
func killHalfway(t *testing.T, text string) {
	t.Parallel()
	building.Lock()
	defer building.Unlock()
	run := machine.New(t).Run("-f", example)
	run.WaitFor(halfway, patience)
	if err := run.Child(text).Kill(); err != nil {
		t.Fatal(err)
	}
	run.WaitFor("SIGKILL", patience)
	run.WaitFor(right, patience)
	if code := run.Wait(patience); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
}
