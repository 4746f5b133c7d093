package pluggable

import (
	"context"
	"os"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// lookEvery finds what the system does not tell of; absentEvery is how often a folder is looked for that is not there.
	lookEvery   = 30 * time.Second
	absentEvery = 2 * time.Second
	// soon and late are between two looks at a program that did not say what it serves: it may just be starting.
	soon = 250 * time.Millisecond
	late = 15 * time.Second
)

// Follow discovers programs as they come, until ctx ends, and calls changed after each change of what is known, one call at
// a time.
func (f *Folder) Follow(ctx context.Context, changed func()) error {
	pause := soon
	for ctx.Err() == nil {
		w := f.watch()
		news, again := f.Discover(ctx)
		if news {
			changed()
		}
		wait := lookEvery
		switch {
		case again:
			wait, pause = pause, min(2*pause, late)
		case w == nil:
			wait = absentEvery
		default:
			pause = soon
		}
		if w.wait(ctx, wait) {
			pause = soon
		}
	}
	return nil
}

// watch listens to what happens in the folder; nil when it is not there.
func (f *Folder) watch() *watcher {
	if _, err := os.Stat(f.dir); err != nil {
		return nil
	}
	notify, err := fsnotify.NewWatcher()
	if err != nil {
		return nil
	}
	if notify.Add(f.dir) != nil {
		_ = notify.Close()
		return nil
	}
	return &watcher{notify}
}

type watcher struct{ *fsnotify.Watcher }

// wait returns after that time, or when something has happened, which it tells. It closes the watcher.
func (w *watcher) wait(ctx context.Context, most time.Duration) (told bool) {
	timer := time.NewTimer(most)
	defer timer.Stop()
	var events <-chan fsnotify.Event
	var errs <-chan error
	if w != nil {
		defer w.Close()
		events, errs = w.Events, w.Errors
	}
	for {
		select {
		case <-ctx.Done():
			return false
		case <-timer.C:
			return false
		case <-errs:
			return true
		case e := <-events:
			if e.Has(fsnotify.Create) || e.Has(fsnotify.Rename) || e.Has(fsnotify.Remove) {
				return true
			}
		}
	}
}
