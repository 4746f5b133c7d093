// Command bench measures what two sidecars cost beside a direct gRPC call, through the native API and through Dapr's, with
// real processes over loopback, all in one run so that figures can be compared as ratios: machines are noisy, ratios less so.
//
//	make bench
//	go run ./tests/bench -sidecast bin/sidecast -for 3s -only invoke
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"
	"strings"
	"sync"
	"time"
)

func main() {
	log.SetFlags(0)
	sidecast := flag.String("sidecast", "bin/sidecast", "the binary to measure")
	out := flag.String("json", "", "file for the figures as JSON")
	each := flag.Duration("for", 1500*time.Millisecond, "how long each cell is measured")
	only := flag.String("only", "", "measure only operations whose name holds this, or `overload`, or `isolation`")
	role := flag.String("role", "", "used by the benchmark itself")
	address := flag.String("sidecar", "", "used by the benchmark itself")
	flag.Parse()
	switch *role {
	case "app":
		if err := runApp(context.Background(), *address); err != nil {
			log.Fatal(err)
		}
		return
	case "web":
		log.Fatal(runWeb())
	}
	if err := run(*sidecast, *out, *each, *only); err != nil {
		log.Fatal(err)
	}
}

// report is all that one run measured.
type report struct {
	When          time.Time `json:"when"`
	StartMillis   float64   `json:"start_ms"`        // median from exec to healthy
	IdleRSSMiB    float64   `json:"idle_rss_mib"`    // one sidecar: embedded fabric, Badger open
	LoadedRSSMiB  []float64 `json:"loaded_rss_mib"`  // each sidecar right after all cells; mapped files count
	SettledRSSMiB []float64 `json:"settled_rss_mib"` // the same after a while of quiet
	Cells         []cell    `json:"cells"`
	Overload      []storm   `json:"overload"`
	Isolation     isolation `json:"isolation"`
}

// settling is how long the sidecars are left alone before they are looked at again.
const settling = 12 * time.Second

// cell is one operation at one size and number of callers.
type cell struct {
	Name    string  `json:"name"`
	Bytes   int     `json:"bytes"`
	Callers int     `json:"callers"`
	PerSec  float64 `json:"per_second"`
	P50     float64 `json:"p50_ms"`
	P99     float64 `json:"p99_ms"`
	// CPU is what the measured processes spent on one operation: both sidecars, the fabric's server among them, or for
	// `direct` client and server together.
	CPU float64 `json:"cpu_us"`
	// Ratio is CPU over that of `direct` at the same size and number of callers.
	Ratio  float64 `json:"ratio,omitempty"`
	Failed int     `json:"failed,omitempty"`
}

func run(binary, out string, each time.Duration, only string) error {
	switch only {
	case "overload":
		_, err := measureOverload(binary)
		return err
	case "isolation":
		_, err := measureIsolation(binary)
		return err
	}
	r := report{When: time.Now().UTC()}
	var err error
	if r.StartMillis, r.IdleRSSMiB, err = measureStart(binary); err != nil {
		return err
	}
	fmt.Printf("start to healthy %.0f ms (median)   idle, embedded fabric and Badger open: %.1f MiB\n\n", r.StartMillis, r.IdleRSSMiB)
	stage, err := newStage(binary)
	if err != nil {
		return err
	}
	defer stage.close()
	dapr, err := newDaprStage(binary)
	if err != nil {
		return err
	}
	closeDapr := sync.OnceFunc(dapr.close)
	defer closeDapr()
	fmt.Printf("%-17s %8s %8s %10s %9s %9s %10s %7s\n", "", "bytes", "callers", "per s", "p50 ms", "p99 ms", "CPU µs/op", "ratio")
	direct := map[[2]int]float64{}
	for _, bytes := range []int{1 << 10, 100 << 10} {
		for _, callers := range []int{1, 16, 128} {
			for _, op := range append(stage.operations(bytes), dapr.operations(bytes)...) {
				if op.bytes != bytes || !strings.Contains(op.name, only) && op.name != "direct" {
					continue
				}
				c, err := measure(op, callers, each)
				if err != nil {
					return err
				}
				at := [2]int{bytes, callers}
				if op.name == "direct" {
					direct[at] = c.CPU
				} else if direct[at] > 0 {
					c.Ratio = c.CPU / direct[at]
				}
				r.Cells = append(r.Cells, c)
				fmt.Printf("%-17s %8d %8d %10.0f %9.3f %9.3f %10.1f %7.2f%s\n",
					c.Name, c.Bytes, c.Callers, c.PerSec, c.P50, c.P99, c.CPU, c.Ratio, failures(c.Failed))
			}
		}
	}
	closeDapr()
	r.LoadedRSSMiB = stage.rss()
	time.Sleep(settling)
	r.SettledRSSMiB = stage.rss()
	fmt.Printf("\nresident after the load: %.1f MiB, %s later: %.1f MiB\n", r.LoadedRSSMiB, settling, r.SettledRSSMiB)
	if only == "" {
		if r.Overload, err = measureOverload(binary); err != nil {
			return err
		}
		if r.Isolation, err = measureIsolation(binary); err != nil {
			return err
		}
	}
	if out == "" {
		return nil
	}
	body, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(out, append(body, '\n'), 0o644)
}

func failures(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("   %d FAILED", n)
}
