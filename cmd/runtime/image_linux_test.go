package main

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// resident is how many kB of files this process has in its memory.
func resident(t *testing.T) (kB int) {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, line, _ := strings.Cut(string(status), "RssFile:")
	if _, err := fmt.Sscan(line, &kB); err != nil {
		t.Fatal(err)
	}
	return kB
}

func TestWhatTheStartTouchedIsReleased(t *testing.T) {
	before := resident(t)
	if err := releaseImage(); err != nil {
		t.Fatal(err)
	}
	if after := resident(t); after >= before {
		t.Errorf("%d kB of files are resident, before it were %d", after, before)
	}
	newRoot(func(int) {}) // the code is still there
}
