package components

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// quiet is how long nothing must happen before files are read again: an editor or a copy writes in several steps.
	quiet = 100 * time.Millisecond
	// restless is when they are read all the same.
	restless = time.Second
	// pollEvery finds what the system does not tell of: network file systems, a link far up in the path.
	pollEvery = 15 * time.Second
)

// Seen is what Load would have read from paths at one moment.
type Seen struct {
	paths []string
	bytes [sha256.Size]byte
}

// See looks at paths.
func See(paths []string) Seen {
	paths = absolute(paths)
	return Seen{paths, fingerprint(paths)}
}

// Watch calls onChange after each change of what Load would read from the paths that were seen, one call at a time, until ctx
// ends; then it returns nil. It follows files that are replaced by renaming, links that are swapped as Kubernetes does with
// mounted volumes, and folders that come and go. Bytes decide: a file that was only touched is no change. What has changed
// since they were seen is told, so See before Load.
func Watch(ctx context.Context, seen Seen, onChange func()) error {
	paths, last := seen.paths, seen.bytes
	for ctx.Err() == nil {
		// A fresh watcher each round: folders may have been replaced by others of the same name.
		w := newWatcher(paths)
		if now := fingerprint(paths); now != last {
			last = now
			onChange()
		}
		w.wait(ctx)
		w.close()
	}
	return nil
}

// absolute makes paths independent of the working directory where that can be.
func absolute(paths []string) []string {
	all := make([]string, len(paths))
	for i, path := range paths {
		all[i] = filepath.Clean(path)
		if abs, err := filepath.Abs(path); err == nil {
			all[i] = abs
		}
	}
	return all
}

// fingerprint is the same for the same files with the same bytes.
func fingerprint(paths []string) [sha256.Size]byte {
	h := sha256.New()
	for _, path := range paths {
		var r reader
		for _, name := range r.files(path) {
			data, err := readFile(name)
			fmt.Fprintf(h, "%q %d %v\n", name, len(data), err)
			h.Write(data)
		}
		fmt.Fprintf(h, "%q %v\n", path, r.findings)
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// watcher listens once. Without the system's help (no inotify left) it only polls.
type watcher struct {
	paths   []string
	folders []string // in which every event counts
	events  <-chan fsnotify.Event
	errors  <-chan error
	notify  *fsnotify.Watcher
}

func newWatcher(paths []string) *watcher {
	w := &watcher{paths: paths}
	notify, err := fsnotify.NewWatcher()
	if err != nil {
		return w
	}
	w.notify, w.events, w.errors = notify, notify.Events, notify.Errors
	for _, path := range paths {
		w.folders = append(w.folders, contentFolders(path)...)
		_ = notify.Add(existing(filepath.Dir(path))) // polling stands in for what cannot be watched
	}
	for _, folder := range w.folders {
		_ = notify.Add(folder)
	}
	return w
}

// contentFolders lists the folder at path and those that its links lead to.
func contentFolders(path string) []string {
	info, err := os.Stat(path)
	if err != nil {
		return nil
	}
	names := []string{path}
	folders := []string{}
	if info.IsDir() {
		folders = append(folders, path)
		var r reader
		names = append(names, r.files(path)...)
	}
	for _, name := range names {
		real, err := filepath.EvalSymlinks(name)
		if err != nil {
			continue
		}
		if name != path || !info.IsDir() {
			real = filepath.Dir(real)
		}
		if !slices.Contains(folders, real) {
			folders = append(folders, real)
		}
	}
	return folders
}

// existing is the nearest folder above path that exists, path included.
func existing(path string) string {
	for {
		if info, err := os.Stat(path); err == nil && info.IsDir() {
			return path
		}
		parent := filepath.Dir(path)
		if parent == path {
			return path
		}
		path = parent
	}
}

// wait returns when something may have changed and has come to rest, when it is time to look anyway, or when ctx ends.
func (w *watcher) wait(ctx context.Context) {
	poll := time.NewTimer(pollEvery)
	defer poll.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-poll.C:
			return
		case <-w.errors: // events were lost
			w.settle(ctx)
			return
		case e := <-w.events:
			if w.concerns(e.Name) {
				w.settle(ctx)
				return
			}
		}
	}
}

// settle waits until it has been quiet for a while.
func (w *watcher) settle(ctx context.Context) {
	latest := time.NewTimer(restless)
	defer latest.Stop()
	for {
		still := time.NewTimer(quiet)
		select {
		case <-w.events:
			still.Stop()
		case <-w.errors:
			still.Stop()
		case <-still.C:
			return
		case <-latest.C:
			still.Stop()
			return
		case <-ctx.Done():
			still.Stop()
			return
		}
	}
}

// concerns says whether an event about name can change what the paths hold: it is in one of their folders, or one of the
// folders above them.
func (w *watcher) concerns(name string) bool {
	if slices.Contains(w.folders, filepath.Dir(name)) {
		return true
	}
	for _, path := range append(w.paths, w.folders...) {
		if path == name || strings.HasPrefix(path, name+string(filepath.Separator)) {
			return true
		}
	}
	return false
}

func (w *watcher) close() {
	if w.notify != nil {
		_ = w.notify.Close()
	}
}
