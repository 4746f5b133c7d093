package main

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"
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
	program, err := loadedImage()
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		newRoot(func(int) {}) // the code is still there
		before := resident(t)
		if err := program.release(); err != nil {
			t.Fatal(err)
		}
		if after := resident(t); after >= before {
			t.Errorf("%d kB of files are resident, before it were %d", after, before)
		}
	}
	newRoot(func(int) {})
}

func TestWhatTheCollectorTouchedIsReleasedInAnIdleSidecar(t *testing.T) {
	t.Setenv("GOGC", "100")
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- watchHeap(ctx) }()
		time.Sleep(startOver + 3*memoryEvery)
		synctest.Wait()
		for range 3 {
			runtime.GC()
			newRoot(func(int) {})
			before := resident(t)
			time.Sleep(2 * memoryEvery) // what newRoot has allocated is in the first look
			synctest.Wait()
			if after := resident(t); after >= before {
				t.Errorf("%d kB of files are resident, after the collector had run were %d", after, before)
			}
		}
		cancel()
		<-ended
	})
}

func TestThePagesOfTheProgramComeBackOneByOne(t *testing.T) {
	if _, err := os.Stat("/sys/kernel/mm/transparent_hugepage"); err != nil || os.Getpagesize() > off {
		t.Skip("the system has no huge pages, or none that are smaller than these pieces")
	}
	if _, err := loadedImage(); err != nil {
		t.Fatal(err)
	}
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	mappings := 0
	for line := range strings.Lines(string(maps)) {
		var start, end uintptr
		var mode string
		if _, err := fmt.Sscanf(line, "%x-%x %s", &start, &end, &mode); err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(line, " "+program+"\n") || strings.Contains(mode, "w") {
			continue
		}
		mappings++
		if end-start > 3*piece { // the last one has what is left over
			t.Errorf("%d KiB of the program are one mapping: %s", (end-start)>>10, line)
		}
	}
	if mappings < 100 {
		t.Errorf("the program has %d mappings", mappings)
	}
}
