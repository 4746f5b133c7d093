package fabric

import (
	"maps"
	"slices"
	"strconv"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// The roster against a map: what is there, what changed, what expires, and that snapshots stay as they were.
func TestRosterAgainstModel(t *testing.T) {
	type known struct {
		version string
		seen    time.Time
	}
	rapid.Check(t, func(t *rapid.T) {
		const most = 6
		r := newRoster(most)
		r.pinned = Target{"a", "0"}
		model := map[Target]known{}
		now := time.Unix(0, 0)
		type snapshot struct{ given, copied []Instance }
		var snapshots []snapshot
		target := func() Target {
			return Target{rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "app"), strconv.Itoa(rapid.IntRange(0, 3).Draw(t, "id"))}
		}
		t.Repeat(map[string]func(*rapid.T){
			"time": func(*rapid.T) { now = now.Add(time.Duration(rapid.IntRange(0, 2000).Draw(t, "ms")) * time.Millisecond) },
			"upsert": func(t *rapid.T) {
				at, version := target(), strconv.Itoa(rapid.IntRange(0, 1).Draw(t, "version"))
				old, there := model[at]
				changed, full := r.upsert(Instance{App: at.App, ID: at.Instance, Version: version}, now)
				if wantFull := !there && len(model) == most; full != wantFull {
					t.Fatalf("full is %v with %d", full, len(model))
				}
				if full {
					return
				}
				if want := !there || old.version != version; changed != want {
					t.Fatalf("changed is %v, want %v", changed, want)
				}
				model[at] = known{version, now}
			},
			"touch": func(t *rapid.T) {
				at := target()
				old, there := model[at]
				if r.touch(at, now) != there {
					t.Fatalf("touch of %v does not tell whether it is known", at)
				}
				if there {
					model[at] = known{old.version, now}
				}
			},
			"remove": func(t *rapid.T) {
				at := target()
				_, there := model[at]
				if r.remove(at) != there {
					t.Fatalf("remove of %v does not tell whether it was known", at)
				}
				delete(model, at)
			},
			"expire": func(t *rapid.T) {
				before := now.Add(-missedAfter)
				lively := func(at Target) bool { return at.App == "c" }
				for _, gone := range r.expire(before, now, lively) {
					if k, there := model[gone]; !there || !k.seen.Before(before) || gone == r.pinned || lively(gone) {
						t.Fatalf("%v expired", gone)
					}
					delete(model, gone)
				}
				for at, k := range model {
					if k.seen.Before(before) && lively(at) {
						model[at] = known{k.version, now}
					} else if k.seen.Before(before) && at != r.pinned {
						t.Fatalf("%v did not expire", at)
					}
				}
			},
			"refresh": func(*rapid.T) {
				r.refresh(now)
				for at, k := range model {
					model[at] = known{k.version, now}
				}
			},
			"snapshot": func(t *rapid.T) {
				given := r.byApp[rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "app")]
				snapshots = append(snapshots, snapshot{given, slices.Clone(given)})
			},
			"": func(t *rapid.T) {
				got := map[Target]string{}
				for _, i := range r.all() {
					got[Target{i.App, i.ID}] = i.Version
				}
				want := map[Target]string{}
				for at, k := range model {
					want[at] = k.version
				}
				if !maps.Equal(got, want) {
					t.Fatalf("the roster holds %v, want %v", got, want)
				}
				for app, instances := range r.byApp {
					if len(instances) == 0 || !slices.IsSortedFunc(instances, func(a, b Instance) int { return compareID(a, b.ID) }) {
						t.Fatalf("%s has %v", app, instances)
					}
				}
				for _, s := range snapshots {
					if !slices.EqualFunc(s.given, s.copied, Instance.equal) {
						t.Fatal("a snapshot changed")
					}
				}
			},
		})
	})
}
