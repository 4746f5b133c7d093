package faults

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/shirou/gopsutil/v4/process"

	sidecastv1 "github.com/sidecast/sidecast/sdk/proto/sidecast/v1"
	"github.com/sidecast/sidecast/tests/machine"
)

// inFlight is how many calls the app of s works on.
func inFlight(s *machine.Sidecar) (int, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	tree, err := sidecastv1.NewRuntimeClient(s.Client().Conn()).Tree(ctx, &sidecastv1.TreeRequest{})
	if err != nil {
		return 0, err
	}
	lane := find(tree.GetRoot(), "app")
	if lane == nil {
		return 0, fmt.Errorf("there is no lane of the app")
	}
	return int(lane.GetLane().GetInFlight()), nil
}

func find(n *sidecastv1.TreeNode, name string) *sidecastv1.TreeNode {
	if n.GetName() == name {
		return n
	}
	for _, child := range n.GetChildren() {
		if found := find(child, name); found != nil {
			return found
		}
	}
	return nil
}

// sees tells how many instances of app a sidecar knows.
func sees(s *machine.Sidecar, app string) (int, error) {
	d, err := describe(s)
	if err != nil {
		return 0, err
	}
	n := 0
	for _, i := range d.GetInstances() {
		if i.GetAppId() == app && i.GetReady() {
			n++
		}
	}
	return n, nil
}

// meet waits until s knows n ready instances of app.
func meet(t *testing.T, s *machine.Sidecar, app string, n int) {
	t.Helper()
	machine.Until(t, fmt.Sprintf("%s knows %d of %s", s.App, n, app), func() error {
		got, err := sees(s, app)
		if err == nil && got != n {
			err = fmt.Errorf("it knows %d", got)
		}
		return err
	})
}

var total = regexp.MustCompile(`goroutine profile: total (\d+)`)

// goroutines counts those of a sidecar that was started with --pprof.
func goroutines(t *testing.T, s *machine.Sidecar) int {
	t.Helper()
	_, body, err := s.HTTP("/debug/pprof/goroutine?debug=1")
	if err != nil {
		t.Fatal(err)
	}
	found := total.FindStringSubmatch(body)
	if found == nil {
		t.Fatalf("no goroutine profile: %.200s", body)
	}
	n, _ := strconv.Atoi(found[1])
	return n
}

func files(t *testing.T, s *machine.Sidecar) int {
	t.Helper()
	p, err := process.NewProcess(int32(s.PID()))
	if err != nil {
		t.Fatal(err)
	}
	n, err := p.NumFDs()
	if err != nil {
		t.Skip("open files cannot be counted here: ", err)
	}
	return int(n)
}

// resident is the memory of a process in MiB.
func resident(t *testing.T, s *machine.Sidecar) int {
	t.Helper()
	p, err := process.NewProcess(int32(s.PID()))
	if err != nil {
		t.Fatal(err)
	}
	m, err := p.MemoryInfo()
	if err != nil {
		t.Skip("memory cannot be measured here: ", err)
	}
	return int(m.RSS >> 20)
}

func describe(s *machine.Sidecar) (*sidecastv1.DescribeResponse, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return sidecastv1.NewRuntimeClient(s.Client().Conn()).Describe(ctx, &sidecastv1.DescribeRequest{})
}

// component writes a component file; settings are names and values in turn.
func component(t *testing.T, folder, name, kind string, settings ...string) {
	t.Helper()
	text := "apiVersion: sidecast.dev/v1\nkind: Component\nmetadata:\n  name: " + name + "\nspec:\n  type: " + kind + "\n  version: v1\n"
	for i := 0; i+1 < len(settings); i += 2 {
		if i == 0 {
			text += "  metadata:\n"
		}
		text += "    - name: " + settings[i] + "\n      value: \"" + settings[i+1] + "\"\n"
	}
	if err := os.WriteFile(filepath.Join(folder, name+".yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
