//go:build all_components

// Package everything tests a program with the tag all_components: that it has all that daprd has, and that a component that is
// told nothing says what it needs. It has no backend to talk to.
package everything

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/components/contrib"
	"github.com/sidecast/sidecast/components/datasheet"
	"github.com/sidecast/sidecast/components/standard"
	"github.com/sidecast/sidecast/fault"
)

// The types are those that daprd's source registers: package datasheet's own test compares them.
func TestNoTypeOfDaprIsMissing(t *testing.T) {
	all, count := standard.All(), 0
	for name := range datasheet.Names() {
		at := slices.IndexFunc(all, func(c components.Component) bool { return c.Type() == name.Type && c.Version() == name.Version })
		if at < 0 || all[at].NotLinked() != "" {
			t.Errorf("%s %s is not there", name.Type, name.Version)
		}
		count++
	}
	if count < 140 {
		t.Errorf("daprd has %d types", count)
	}
	t.Logf("%d types of daprd, %d components", count, len(all))
}

// A component of the default build takes the place of one that is linked under its name: that would be here for nothing.
func TestNothingIsLinkedInVain(t *testing.T) {
	used, linked := map[string]bool{}, map[string]bool{}
	for _, c := range contrib.Rest(contrib.All()) {
		used[c.Describe().Title()] = true
	}
	for _, c := range contrib.Rest(nil) {
		title := c.Describe().Title()
		if !used[title] {
			t.Errorf("%s is in the default build: take it out of the list of those that are linked", title)
		}
		if linked[title] {
			t.Errorf("%s is linked twice", title)
		}
		linked[title] = true
	}
}

// A library that is told nothing must neither panic nor hang, and what is missing is named.
func TestWhatIsToldNothingSaysWhatItNeeds(t *testing.T) {
	const patience = 30 * time.Second
	for _, c := range contrib.Rest(contrib.All()) {
		t.Run(c.Describe().Title(), func(t *testing.T) {
			t.Parallel()
			if c.Doc() == "" {
				t.Error("it says nothing of itself")
			}
			done := make(chan error, 1)
			go func() {
				ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
				defer cancel()
				host := components.Host{Log: slog.New(slog.DiscardHandler), Component: "nothing", AppID: "app", DataDir: t.TempDir(), Binding: components.Binding{Input: true, Output: true}}
				b, err := c.Open(ctx, host, nil)
				if err == nil {
					err = b.Close(ctx)
				}
				done <- err
			}()
			var err error
			select {
			case err = <-done:
			case <-time.After(patience):
				t.Fatal("it hangs")
			}
			t.Logf("%v", err)
			if err != nil && strings.Contains(err.Error(), string(fault.Panicked)) {
				t.Error(err)
			}
			for _, f := range c.Describe().Fields {
				if f.Required && (err == nil || !strings.Contains(err.Error(), f.Key) || fault.ReasonOf(err) != fault.BadManifest) {
					t.Errorf("%s is needed, and not named: %v", f.Key, err)
				}
				if f.Doc == "" || f.Type == "" {
					t.Errorf("key %s has no documentation", f.Key)
				}
			}
		})
	}
}
