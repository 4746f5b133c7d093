// Package rundir is how the processes of one machine find its sidecars: each running sidecar keeps a record in the run
// folder of the data directory, and the command line reads them.
//
// A record is the file `<data-dir>/run/<app-id>.<instance>.json`, readable by its owner alone. Beside it lies a `.lock`
// file that its sidecar holds locked while it runs, so a record whose sidecar died, however it died, is known to be stale
// even when its process id belongs to another process by now. Stale records are left out of every answer and removed.
//
// The package promises nothing about other machines (that is presence, on the fabric), nor that a sidecar whose record
// exists answers: only that its process is alive.
//
//	release, err := rundir.Register(rundir.DefaultDataDir(), rundir.Entry{AppID: "orders", Instance: id, …})
//	defer release()
package rundir

import (
	"cmp"
	"encoding/json"
	"errors"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gofrs/flock"

	"github.com/sidecast/sidecast/fault"
)

// Entry is the record of one running sidecar.
type Entry struct {
	// AppID is the app it stands beside.
	AppID string `json:"appId"`
	// Instance tells it from other sidecars of the same app.
	Instance string `json:"instance"`
	// PID is its process id; Register fills in the caller's when it is zero.
	PID int `json:"pid"`
	// GRPCAddress and AdminAddress are where it listens, as host:port, and DaprHTTPAddress and DaprGRPCAddress, which may be sockets,
	// where it serves Dapr's API; empty where it does not.
	GRPCAddress     string `json:"grpcAddress"`
	DaprHTTPAddress string `json:"daprHTTPAddress,omitempty"`
	DaprGRPCAddress string `json:"daprGRPCAddress,omitempty"`
	AdminAddress    string `json:"adminAddress,omitempty"`
	// Started is when it did.
	Started time.Time `json:"started"`
	// Version is the version of its runtime.
	Version string `json:"version"`
}

// Register writes the record of a running sidecar. The returned function removes it, and may be called more than once.
// Errors are of reason fault.DirectoryBad.
func Register(dataDir string, e Entry) (release func(), err error) {
	const op = "register sidecar"
	if e.AppID == "" || e.Instance == "" {
		return nil, fault.New(op, fault.Defect, "a record needs an app id and an instance")
	}
	if e.PID == 0 {
		e.PID = os.Getpid()
	}
	run := runDir(dataDir)
	if err := os.MkdirAll(run, 0o700); err != nil {
		return nil, fault.New(op, fault.DirectoryBad, "cannot create the run folder: %w", err)
	}
	file := filepath.Join(run, fileName(e))
	// The lock comes first: a record is only ever seen with its lock held.
	lock := flock.New(lockFile(file), flock.SetPermissions(0o600))
	if locked, err := lock.TryLock(); err != nil || !locked {
		if err == nil {
			err = errors.New("another process holds the record of this instance")
		}
		return nil, fault.New(op, fault.DirectoryBad, "cannot lock %s: %w", lock.Path(), err)
	}
	release = func() {
		_ = os.Remove(file)
		_ = os.Remove(lock.Path())
		_ = lock.Close()
	}
	if err := writeRecord(file, e); err != nil {
		release()
		return nil, fault.New(op, fault.DirectoryBad, "cannot write %s: %w", file, err)
	}
	return release, nil
}

// List returns the records of the sidecars that run, by app id and then by age, the oldest first. A directory that does
// not exist holds none.
func List(dataDir string) ([]Entry, error) {
	files, err := os.ReadDir(runDir(dataDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New("list sidecars", fault.DirectoryBad, "cannot read the run folder: %w", err)
	}
	var entries []Entry
	for _, file := range files {
		if filepath.Ext(file.Name()) != ".json" {
			continue
		}
		if e, ok := readLive(filepath.Join(runDir(dataDir), file.Name())); ok {
			entries = append(entries, e)
		}
	}
	slices.SortFunc(entries, func(a, b Entry) int {
		return cmp.Or(cmp.Compare(a.AppID, b.AppID), a.Started.Compare(b.Started), cmp.Compare(a.Instance, b.Instance))
	})
	return entries, nil
}

// Find returns the longest-running sidecar of an app on this machine, or an error of reason fault.SidecarNotFound that
// names those that run.
func Find(dataDir, appID string) (Entry, error) {
	entries, err := List(dataDir)
	if err != nil {
		return Entry{}, err
	}
	var others []string
	for _, e := range entries {
		if e.AppID == appID {
			return e, nil
		}
		others = append(others, e.AppID)
	}
	op := "find sidecar of " + appID
	if len(others) == 0 {
		return Entry{}, fault.New(op, fault.SidecarNotFound, "no sidecar runs on this machine (looked in %s)", runDir(dataDir))
	}
	return Entry{}, fault.New(op, fault.SidecarNotFound, "no sidecar of app %q runs on this machine; there are: %s",
		appID, strings.Join(slices.Compact(others), ", "))
}

func runDir(dataDir string) string { return filepath.Join(dataDir, "run") }

func lockFile(record string) string { return strings.TrimSuffix(record, ".json") + ".lock" }

// fileName keeps the ids readable and the name inside the folder.
func fileName(e Entry) string {
	return url.PathEscape(e.AppID) + "." + url.PathEscape(e.Instance) + ".json"
}

// writeRecord replaces the file in one step, so that a reader never sees half a record.
func writeRecord(file string, e Entry) error {
	text, err := json.MarshalIndent(e, "", "  ")
	if err != nil {
		return err
	}
	half := file + ".new"
	if err := os.WriteFile(half, append(text, '\n'), 0o600); err != nil {
		return err
	}
	if err := os.Rename(half, file); err != nil {
		_ = os.Remove(half)
		return err
	}
	return nil
}

// readLive reads a record whose sidecar is alive and removes one whose sidecar is not.
func readLive(file string) (Entry, bool) {
	if stale(file) {
		_ = os.Remove(file)
		_ = os.Remove(lockFile(file))
		return Entry{}, false
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return Entry{}, false
	}
	var e Entry
	if json.Unmarshal(text, &e) != nil || e.AppID == "" {
		return Entry{}, false
	}
	return e, true
}

// stale reports whether nobody holds the record's lock. A lock that cannot be tried (no permission, a file system without
// locks) says nothing, and the record is believed.
func stale(file string) bool {
	if _, err := os.Stat(lockFile(file)); errors.Is(err, fs.ErrNotExist) {
		return true
	}
	lock := flock.New(lockFile(file), flock.SetFlag(os.O_RDWR))
	free, err := lock.TryRLock() // shared, so that two readers do not take each other for the sidecar
	_ = lock.Close()
	return err == nil && free
}
