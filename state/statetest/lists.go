package statetest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sidecast/sidecast/state"
)

func (s *suite) scan(t *testing.T) {
	store, scanner := s.scanner(t)
	etags := make(map[string]string)
	for _, key := range oddKeys {
		etags[key] = put(t, store, key, "value of "+key)
	}
	for _, prefix := range append([]string{"", "a.", "a|", "lon", "missing"}, oddKeys...) {
		var want []string
		for _, key := range slices.Sorted(slices.Values(oddKeys)) {
			if strings.HasPrefix(key, prefix) {
				want = append(want, key)
			}
		}
		for _, keysOnly := range []bool{false, true} {
			items, err := scanner.Scan(t.Context(), prefix, "", 1000, keysOnly)
			if err != nil {
				t.Fatalf("Scan(%q): %v", prefix, err)
			}
			if got := keysOf(items); !slices.Equal(got, want) {
				t.Fatalf("Scan(%q) = %q, want %q", prefix, got, want)
			}
			for _, item := range items {
				if item.ETag != etags[item.Key] {
					t.Errorf("Scan(%q): %q has ETag %q, want %q", prefix, item.Key, item.ETag, etags[item.Key])
				}
				if !keysOnly && string(item.Value) != "value of "+item.Key || keysOnly && item.Value != nil {
					t.Errorf("Scan(%q, keysOnly %v): %q = %q", prefix, keysOnly, item.Key, item.Value)
				}
			}
		}
	}
}

func (s *suite) scanPages(t *testing.T) {
	store, scanner := s.scanner(t)
	var want []string
	for i := range 23 {
		key := fmt.Sprintf("page/%02d", i)
		put(t, store, key, "v")
		want = append(want, key)
	}
	put(t, store, "other", "v")
	for _, limit := range []int{1, 7, 23, 24} {
		var got []string
		for after := ""; ; after = got[len(got)-1] {
			items, err := scanner.Scan(t.Context(), "page/", after, limit, true)
			if err != nil {
				t.Fatal(err)
			}
			if len(items) > limit {
				t.Fatalf("Scan returned %d items, the limit is %d", len(items), limit)
			}
			got = append(got, keysOf(items)...)
			if len(items) < limit {
				break
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("in pages of %d: %q", limit, got)
		}
	}
	items, err := scanner.Scan(t.Context(), "page/", "page/05x", 2, true)
	if got := keysOf(items); err != nil || !slices.Equal(got, []string{"page/06", "page/07"}) {
		t.Errorf("after a key that does not exist: %q, %v", got, err)
	}
	items, err = scanner.Scan(t.Context(), "page/", "zzz", 2, true)
	if err != nil || len(items) != 0 {
		t.Errorf("after the last key: %q, %v", keysOf(items), err)
	}
}

func (s *suite) scanHides(t *testing.T) {
	store, scanner := s.scanner(t)
	for _, key := range []string{"a", "b", "c", "d"} {
		put(t, store, key, "v")
	}
	remove(t, store, "b")
	apply(t, store, state.Op{Kind: state.Set, Key: "c", TTL: 50 * time.Millisecond})
	apply(t, store, state.Op{Kind: state.Set, Key: "d", TTL: time.Hour})
	eventually(t, "the expired item leaves the list", func() bool {
		items, err := scanner.Scan(t.Context(), "", "", 2, false)
		if err != nil {
			t.Fatal(err)
		}
		return slices.Equal(keysOf(items), []string{"a", "d"})
	})
	items, err := scanner.Scan(t.Context(), "d", "", 1, true)
	if err != nil || len(items) != 1 || items[0].Expires.Before(time.Now()) {
		t.Errorf("an item with a TTL is listed as %+v, %v", items, err)
	}
}

func keysOf(items []state.Item) []string {
	var keys []string
	for _, item := range items {
		keys = append(keys, item.Key)
	}
	return keys
}
