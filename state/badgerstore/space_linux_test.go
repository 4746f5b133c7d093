package badgerstore

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/state"
)

// TestARealFullDisk fills a small file system to the last byte, from outside and from inside.
func TestARealFullDisk(t *testing.T) {
	disk := mount(t, "160m")
	dir := filepath.Join(disk, "state")
	config := Config{Dir: dir, Sync: true, MinFree: 64 << 20}
	opened, err := open(t.Context(), components.Host{AppID: "test"}, config)
	if err != nil {
		t.Fatal(err)
	}
	s := opened.(*store)
	set := func(key string) error {
		_, err := s.Apply(t.Context(), []state.Op{{Kind: state.Set, Key: key, Value: make([]byte, 100<<10)}})
		return err
	}
	written := 0
	for ; err == nil; written++ {
		err = set(fmt.Sprint(written))
	}
	if fault.ReasonOf(err) != fault.DiskFull || written < 10 {
		t.Fatalf("after %d writes: %v", written, err)
	}
	filler := fill(t, disk)
	for range 100 {
		if err := set("x"); fault.ReasonOf(err) != fault.DiskFull {
			t.Fatalf("a write to a full disk: %v", err)
		}
	}
	if items, err := s.Get(t.Context(), []string{"0"}); err != nil || len(items) != 1 {
		t.Errorf("Get on a full disk = %d items, %v", len(items), err)
	}
	if _, err := open(t.Context(), components.Host{}, Config{Dir: filepath.Join(disk, "other"), MinFree: 64 << 20}); err == nil {
		t.Error("a store opens on a full disk")
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("", disk, "", syscall.MS_REMOUNT, "size=200m"); err != nil {
		t.Fatal(err)
	}
	if err := set("x"); err != nil {
		t.Errorf("a write when there is room again: %v", err)
	}
	shut(t, s)
	opened, err = open(t.Context(), components.Host{}, config)
	if err != nil {
		t.Fatal(err)
	}
	defer shut(t, opened.(*store))
	for i := range written - 1 {
		if items, err := opened.Get(t.Context(), []string{fmt.Sprint(i)}); err != nil || len(items) != 1 {
			t.Fatalf("%d is gone: %v", i, err)
		}
	}
}

// mount makes a file system in memory of that size.
func mount(t *testing.T, size string) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skipf("only root may mount a small disk; this is user %d", os.Getuid())
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("no small disk can be mounted here: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return dir
}

// fill writes a file until the disk is full.
func fill(t *testing.T, disk string) (path string) {
	t.Helper()
	path = filepath.Join(disk, "filler")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for err == nil {
		_, err = f.Write(make([]byte, 64<<10))
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	return path
}
