package contrib

import (
	"context"
	"errors"
	"maps"
	"slices"
	"testing"

	contribstate "github.com/dapr/components-contrib/state"
)

// forgetful is a store whose bulk read misses items, as the library's do when their connection breaks, or that are written
// while it reads.
type forgetful struct {
	contribstate.Store
	items  map[string]string
	misses [][]string // of the next bulk reads
	down   bool       // reads of one item fail
	bulks  int
}

func (f *forgetful) BulkGet(_ context.Context, requests []contribstate.GetRequest, _ contribstate.BulkGetOpts) ([]contribstate.BulkGetResponse, error) {
	var missing []string
	if f.bulks < len(f.misses) {
		missing = f.misses[f.bulks]
	}
	f.bulks++
	var all []contribstate.BulkGetResponse
	for _, r := range requests {
		a := contribstate.BulkGetResponse{Key: r.Key}
		if value, ok := f.items[r.Key]; ok && !slices.Contains(missing, r.Key) {
			a.Data, a.ETag = []byte(value), new("1")
		}
		all = append(all, a)
	}
	return all, nil
}

func (f *forgetful) Get(_ context.Context, r *contribstate.GetRequest) (*contribstate.GetResponse, error) {
	if f.down {
		return nil, errors.New("unexpected EOF")
	}
	if value, ok := f.items[r.Key]; ok {
		return &contribstate.GetResponse{Data: []byte(value), ETag: new("1")}, nil
	}
	return &contribstate.GetResponse{}, nil
}

func TestABulkReadThatBreaksHidesNothing(t *testing.T) {
	all := map[string]string{"a": "1", "b": "2", "c": "3"}
	for name, test := range map[string]struct {
		misses [][]string
		bulks  int
	}{
		"nothing is missing":       {nil, 1},
		"once":                     {[][]string{{"b", "c"}}, 2},
		"one item again and again": {[][]string{{"b"}, {"b"}, {"b"}}, 3},
	} {
		t.Run(name, func(t *testing.T) {
			inner := &forgetful{items: all, misses: test.misses}
			s := &store{name: "test", inner: inner, life: newLife(nil)}
			items, err := s.Get(t.Context(), []string{"c", "b", "none", "a", "b"})
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, item := range items {
				got = append(got, item.Key+string(item.Value))
			}
			if want := []string{"c3", "b2", "a1", "b2"}; !slices.Equal(got, want) || inner.bulks != test.bulks {
				t.Errorf("got %v after %d bulk reads, want %v after %d", got, inner.bulks, want, test.bulks)
			}
		})
	}
	s := &store{name: "test", inner: &forgetful{items: maps.Clone(all), misses: [][]string{{"b"}}, down: true}, life: newLife(nil)}
	if items, err := s.Get(t.Context(), []string{"a", "b"}); err == nil {
		t.Errorf("without a connection there is %v", items)
	}
}
