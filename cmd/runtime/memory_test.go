package main

import (
	"runtime/debug"
	"testing"
)

func TestMemoryLimit(t *testing.T) {
	before := debug.SetMemoryLimit(-1)
	defer debug.SetMemoryLimit(before)
	t.Setenv("GOMEMLIMIT", "")
	if got := limitMemory(64 << 20); got != softLimit {
		t.Errorf("a limit of %d", got)
	}
	if got := limitMemory(1 << 30); got != softBodies<<30 {
		t.Errorf("with bodies of a GiB a limit of %d", got)
	}
	debug.SetMemoryLimit(5 << 30)
	t.Setenv("GOMEMLIMIT", "5GiB")
	if got := limitMemory(64 << 20); got != 5<<30 {
		t.Errorf("the user's limit became %d", got)
	}
}

func TestTheUserPacesTheCollector(t *testing.T) {
	before := debug.SetGCPercent(70)
	defer func() { debug.SetGCPercent(before) }()
	t.Setenv("GOGC", "70")
	paceCollector()
	if got := debug.SetGCPercent(70); got != 70 {
		t.Errorf("the collector runs at %d in spite of GOGC", got)
	}
}
