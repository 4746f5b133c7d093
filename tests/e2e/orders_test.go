package e2e

import (
	"testing"
	"time"
)

// patience is how long the example may take on a busy machine.
const patience = 3 * time.Minute

const (
	example = "../../examples/orders/sidecast.yaml"
	halfway = ` [3-7]\d% `
	right   = "The sums are right: nothing lost, nothing twice."
)

func TestOrdersAddUpWhenFulfilmentIsKilled(t *testing.T) {
	skipShort(t)
	killHalfway(t, "bin/fulfilment")
}

func TestOrdersAddUpWhenTheSidecarOfFulfilmentIsKilled(t *testing.T) {
	skipShort(t)
	killHalfway(t, "--app-id fulfilment")
}

func TestOrdersAddUpWhenEverythingIsKilledAndStartedAgain(t *testing.T) {
	skipShort(t)
	dir := t.TempDir()
	first := start(t, dir, "run", "-f", example)
	first.waitFor(halfway, patience)
	first.kill() // the children of a killed supervisor end by themselves
	second := start(t, dir, "run", "-f", example)
	second.waitFor(right, patience)
	if code := second.wait(patience); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
}

// killHalfway runs the example, kills the process whose command line holds text with SIGKILL half-way, and wants it back
// and the sums right.
func killHalfway(t *testing.T, text string) {
	run := start(t, t.TempDir(), "run", "-f", example)
	run.waitFor(halfway, patience)
	if err := run.child(text).Kill(); err != nil {
		t.Fatal(err)
	}
	run.waitFor("SIGKILL", patience)
	run.waitFor(right, patience)
	if code := run.wait(patience); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
}
