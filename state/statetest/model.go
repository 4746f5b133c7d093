package statetest

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/state"
)

// model is what a store should hold: a map.
type model struct {
	items map[string]state.Item
	used  map[string]bool // key and ETag
}

// apply does what Apply should and returns the key of the op that does not hold.
func (m *model) apply(ops []state.Op) (conflict string) {
	for _, op := range ops {
		item, found := m.items[op.Key]
		if op.Match == state.Exact && (!found || item.ETag != op.ETag) || op.Match == state.Absent && found {
			return op.Key
		}
	}
	for _, op := range ops {
		switch op.Kind {
		case state.Set:
			m.items[op.Key] = state.Item{Key: op.Key, Value: op.Value}
		case state.Delete:
			delete(m.items, op.Key)
		}
	}
	return ""
}

// model applies random batches, lists and reopenings to a store and a map, and compares them after each.
func (s *suite) model(t *testing.T) {
	store := s.open(t)
	defer func() { shut(t, store) }()
	run := 0
	rapid.Check(t, func(r *rapid.T) {
		run++
		space := fmt.Sprintf("run%d||", run) // keys of its own, so that one store serves all runs
		m := &model{items: make(map[string]state.Item), used: make(map[string]bool)}
		var known []string // ETags seen, to be wrong with
		key := rapid.Map(rapid.SampledFrom([]string{"a", "a.b", "a||b", "b", "\x00", "\xff"}), func(k string) string { return space + k })
		most := 4
		if s.SingleOps {
			most = 1
		}
		actions := map[string]func(*rapid.T){
			"apply": func(r *rapid.T) {
				keys := rapid.SliceOfNDistinct(key, 1, most, rapid.ID[string]).Draw(r, "keys")
				ops := make([]state.Op, len(keys))
				for i, key := range keys {
					ops[i] = drawOp(r, key, m.items[key].ETag, known)
					if s.Plain {
						ops[i].Match, ops[i].ETag = state.Any, ""
					}
				}
				if s.NoChecks && mixed(ops) {
					return // see NoChecks
				}
				etags, err := store.Apply(t.Context(), ops)
				if conflict := m.apply(ops); conflict != "" {
					if fault.ReasonOf(err) != fault.ETagMismatch {
						r.Fatalf("Apply(%s) = %v, want a conflict", show(ops), err)
					}
					return
				}
				if err != nil {
					r.Fatalf("Apply(%s) = %v", show(ops), err)
				}
				for i, op := range ops {
					if op.Kind != state.Set || s.Plain {
						continue
					}
					if m.used[op.Key+etags[i]] {
						r.Fatalf("%q has the ETag %q again", op.Key, etags[i])
					}
					m.used[op.Key+etags[i]] = true
					known = append(known, etags[i])
					item := m.items[op.Key]
					item.ETag = etags[i]
					m.items[op.Key] = item
				}
			},
			"": func(r *rapid.T) { s.compare(r, t, store, space, m) },
		}
		if s.Reopen != nil && run%20 == 0 {
			actions["reopen"] = func(*rapid.T) { store = s.Reopen(t, store) }
		}
		r.Repeat(actions)
	})
}

// mixed says whether some of ops only look and others write.
func mixed(ops []state.Op) bool {
	var looks, writes bool
	for _, op := range ops {
		if op.Kind == state.Check || op.Kind == state.Delete && op.Match == state.Absent {
			looks = looks || op.Match != state.Any
		} else {
			writes = true
		}
	}
	return looks && writes
}

func drawOp(r *rapid.T, key, etag string, known []string) state.Op {
	op := state.Op{
		Kind:  rapid.SampledFrom([]state.OpKind{state.Set, state.Set, state.Delete, state.Check}).Draw(r, "kind"),
		Key:   key,
		Match: rapid.SampledFrom([]state.Match{state.Any, state.Exact, state.Absent}).Draw(r, "match"),
	}
	if op.Kind == state.Set {
		op.Value = rapid.SliceOfN(rapid.Byte(), 0, 3000).Draw(r, "value")
	}
	if op.Match == state.Exact {
		op.ETag = etag
		if etag == "" || rapid.IntRange(0, 3).Draw(r, "wrong") == 0 {
			if len(known) == 0 {
				op.Match, op.ETag = state.Any, ""
			} else {
				op.ETag = rapid.SampledFrom(known).Draw(r, "etag")
			}
		}
	}
	return op
}

// compare reads and lists everything under space and compares it with the model.
func (s *suite) compare(r *rapid.T, t *testing.T, store state.Store, space string, m *model) {
	keys := slices.Sorted(maps.Keys(m.items))
	items, err := store.Get(t.Context(), keys)
	if err != nil {
		r.Fatalf("Get: %v", err)
	}
	same(r, "Get", items, keys, m)
	scanner, ok := store.(state.Scanner)
	if !ok {
		return
	}
	after := rapid.SampledFrom(append([]string{"", space + "a.b"}, keys...)).Draw(r, "after")
	limit := rapid.IntRange(1, 8).Draw(r, "limit")
	if items, err = scanner.Scan(t.Context(), space, after, limit, false); err != nil {
		r.Fatalf("Scan: %v", err)
	}
	keys = slices.DeleteFunc(keys, func(key string) bool { return key <= after || !strings.HasPrefix(key, space) })
	same(r, "Scan", items, keys[:min(limit, len(keys))], m)
}

func same(r *rapid.T, what string, items []state.Item, keys []string, m *model) {
	if got := keysOf(items); !slices.Equal(got, keys) {
		r.Fatalf("%s returned %q, want %q", what, got, keys)
	}
	for _, item := range items {
		if want := m.items[item.Key]; string(item.Value) != string(want.Value) || item.ETag != want.ETag {
			r.Fatalf("%s: %q is %q (%s), want %q (%s)", what, item.Key, item.Value, item.ETag, want.Value, want.ETag)
		}
	}
}
