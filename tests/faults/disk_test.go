//go:build linux

package faults

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/tests/machine"
)

// smallDisk is a folder on a disk of its own.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can mount a small disk")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skip("a small disk cannot be mounted here: ", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	return dir
}

// fill takes all the room that is left and returns how to give it back.
func fill(t *testing.T, dir string) (free func()) {
	t.Helper()
	name := filepath.Join(dir, "ballast of somebody else")
	file, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	block := make([]byte, 1<<20)
	for err == nil {
		_, err = file.Write(block)
	}
	for small := block[:4096]; ; {
		if _, err := file.Write(small); err != nil {
			break
		}
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
}

// filledUnderPublishers fills the disk while messages are published. In the moment in which the disk fills up the server
// answers nothing to a write that fails: each publisher is told all the same, and not by the end of its time.
func filledUnderPublishers(t *testing.T, dir string, publish func(id string) error) (free func()) {
	var publishers sync.WaitGroup
	var refused atomic.Int64
	stop := make(chan struct{})
	for p := range 4 {
		publishers.Go(func() {
			for n := 0; ; n++ {
				err := publish(fmt.Sprintf("while/%d/%d", p, n))
				switch kind := fault.KindOf(err); {
				case kind == fault.Exhausted:
					refused.Add(1)
				case kind == fault.Timeout || kind == fault.Canceled || kind == fault.Internal:
					t.Errorf("a publish while the disk fills: %v (%v)", err, kind)
				}
				select {
				case <-stop:
					return
				case <-time.After(time.Millisecond):
				}
			}
		})
	}
	free = fill(t, dir)
	machine.Until(t, "publishers are refused", func() error {
		if n := refused.Load(); n < 8 {
			return fmt.Errorf("%d so far", n)
		}
		return nil
	})
	close(stop)
	publishers.Wait()
	return free
}

func TestFullDisk(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	m.Dir = smallDisk(t, "384m")
	s := m.Sidecar("writer")
	events := newLedger()
	c := s.Client()
	ctx, cancel := context.WithTimeout(t.Context(), 3*long)
	defer cancel()
	wrote := map[string]string{}
	set := func(key string) error {
		bounded, done := context.WithTimeout(ctx, soon)
		defer done()
		value := key + string(make([]byte, 8<<10))
		_, err := c.State("").Set(bounded, key, []byte(value))
		if err == nil {
			wrote[key] = value
		}
		return err
	}
	publish := func(id string) error {
		_, err := c.Publish(ctx, "jobs", []byte(id)) // no deadline of its own: the answer may not take the lane's
		if err == nil {
			events.note(events.stored, id)
		}
		return err
	}
	for n := range 50 {
		if err := set(fmt.Sprintf("before/%d", n)); err != nil {
			t.Fatal(err)
		}
		if err := publish(fmt.Sprintf("before/%d", n)); err != nil {
			t.Fatal(err)
		}
	}
	free := filledUnderPublishers(t, m.Dir, publish)
	for what, write := range map[string]func(string) error{"state": set, "publish": publish} {
		n := 0
		machine.Until(t, what+" is refused", func() error {
			n++
			switch err := write(fmt.Sprintf("during/%d", n)); {
			case err == nil:
				return fmt.Errorf("write %d was accepted", n)
			case fault.KindOf(err) == fault.Exhausted:
				return nil
			default:
				return err
			}
		})
		for range 5 {
			n++
			if err := write(fmt.Sprintf("during/%d", n)); fault.KindOf(err) != fault.Exhausted {
				t.Errorf("%s on a full disk: %v (%v)", what, err, fault.KindOf(err))
			}
		}
	}
	if _, found, err := c.State("").Get(ctx, "before/0"); err != nil || !found {
		t.Errorf("a read on a full disk: %v, %v", found, err)
	}
	free()
	for what, write := range map[string]func(string) error{"state": set, "publish": publish} {
		began := time.Now()
		machine.UntilWithin(t, 2*machine.Patience, what+" resumes", func() error { return write("after") })
		t.Logf("%s resumed after %s", what, time.Since(began).Round(time.Millisecond))
	}
	readBack(t, c.State(""), wrote)
	s.Serve(events.handler("jobs"))
	events.balanced(t)

	s.Kill()
	again := m.Sidecar("writer")
	readBack(t, again.Client().State(""), wrote)
}

// A sidecar on a disk that is full already starts, serves calls and says why it stores nothing.
func TestStartOnAFullDisk(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	m.Dir = smallDisk(t, "128m")
	free := fill(t, m.Dir)
	run := m.Run("--app-id", "late", "--grpc-port", "0", "--metrics-port", "0")
	select {
	case <-run.Done():
		if !strings.Contains(run.Output(), "space") {
			t.Errorf("the error does not tell that the disk is full: %s", run.Output())
		}
		free()
		m.Sidecar("late")
		return
	case <-time.After(2 * time.Second):
	}
	free()
	s := m.Await("late", run)
	machine.UntilWithin(t, 2*machine.Patience, "it stores when there is room", func() error {
		ctx, cancel := context.WithTimeout(t.Context(), soon)
		defer cancel()
		if _, err := s.Client().State("").Set(ctx, "k", []byte("v")); err != nil {
			return err
		}
		_, err := s.Client().Publish(ctx, "jobs", []byte("x"))
		return err
	})
}
