package machine

import (
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"
)

// built is the folder of the binary, "" when no test needed one.
var built string

// Main runs the tests of a package and removes what they built. It returns the exit code. Tests that may run at once mostly wait:
// there are more of them than processors, unless the command line says otherwise.
func Main(m *testing.M) int {
	if err := flag.Set("test.parallel", strconv.Itoa(3*runtime.NumCPU())); err != nil {
		panic(err)
	}
	code := m.Run()
	if built != "" {
		_ = os.RemoveAll(built)
	}
	return code
}

// Binary is the path of the sidecast under test.
func Binary(t testing.TB) string {
	t.Helper()
	began := time.Now()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > time.Second { // with cold caches on a busy machine it is minutes, all of the first test's
		t.Logf("building the binary took %v of this test", took.Round(time.Second))
	}
	return path
}

// binary builds the sidecast under test, once, when the first test needs it. To link it takes seconds of the processor, so the
// packages of tests share what they link; what a package runs is its own all the same, whatever is built meanwhile.
var binary = sync.OnceValues(func() (string, error) {
	parent, shared := sharedFolder()
	dir, err := os.MkdirTemp(parent, "sidecast-tests-")
	if err != nil {
		return "", err
	}
	built = dir
	path := filepath.Join(dir, "sidecast")
	if shared && buildShared(parent, path) == nil {
		return path, nil
	}
	return path, build(path)
})

// sharedFolder is where the tests of this tree keep what they link, if they can: "" is the system's folder of temporary files.
func sharedFolder() (path string, ok bool) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", false
	}
	root, err := moduleRoot()
	if err != nil {
		return "", false
	}
	path = filepath.Join(cache, "sidecast-tests", fmt.Sprintf("binary-%x", sha256.Sum256([]byte(root)))[:23])
	if err := os.MkdirAll(path, 0o755); err != nil {
		return "", false
	}
	return path, true
}

// moduleRoot is the folder of go.mod: tests start in that of their package.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	for err == nil {
		if _, found := os.Stat(filepath.Join(dir, "go.mod")); found == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			err = errors.New("this is no module")
		}
		dir = filepath.Dir(dir)
	}
	return "", err
}

// buildShared brings the binary of folder up to date, which is quick when it is already, and makes it known as path too.
func buildShared(folder, path string) error {
	unlock, err := lock(filepath.Join(folder, "lock"))
	if err != nil {
		return err
	}
	defer unlock()
	sweep(folder)
	kept := filepath.Join(folder, "sidecast")
	if err := build(kept); err != nil {
		return err
	}
	return os.Link(kept, path)
}

// sweep removes what tests that were killed have left: no test runs for a day.
func sweep(folder string) {
	left, _ := filepath.Glob(filepath.Join(folder, "sidecast-tests-*"))
	for _, path := range left {
		if info, err := os.Stat(path); err == nil && time.Since(info.ModTime()) > 24*time.Hour {
			_ = os.RemoveAll(path) // the next one tries again
		}
	}
}

func build(path string) error {
	cmd := exec.Command("go", "build", "-o", path, "github.com/sidecast/sidecast/cmd/runtime")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("the binary does not build: %w\n%s", err, out)
	}
	return nil
}
