//go:build linux

package contrib

import (
	"testing"
	"time"

	contribmetadata "github.com/dapr/components-contrib/metadata"
	contribstate "github.com/dapr/components-contrib/state"
	"github.com/dapr/kit/logger"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/state"
)

// libraryStore is a store as a daprd has it.
func libraryStore(t *testing.T, make func(logger.Logger) contribstate.Store, settings map[string]string) contribstate.Store {
	t.Helper()
	inner := make(logs{log: discard})
	if err := inner.Init(t.Context(), contribstate.Metadata{Base: contribmetadata.Base{Name: "daprd", Properties: settings}}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = inner.Close() })
	return inner
}

// sharesItems writes with theirs, reads and writes over it with ours, and the other way round. ours is closed.
func sharesItems(t *testing.T, ours state.Store, theirs contribstate.Store) {
	t.Helper()
	defer ours.Close(t.Context())
	read := func(key, value string) string {
		t.Helper()
		items, err := ours.Get(t.Context(), []string{key})
		if err != nil || len(items) != 1 || string(items[0].Value) != value {
			t.Fatalf("we read %v (%v), want %s", items, err, value)
		}
		return items[0].ETag
	}
	set := func(value, etag string, ttl string) {
		t.Helper()
		r := &contribstate.SetRequest{Key: "app||k", Value: []byte(value)}
		if etag != "" {
			r.ETag = &etag
		}
		if ttl != "" {
			r.Metadata = map[string]string{"ttlInSeconds": ttl}
		}
		if err := theirs.Set(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	set(`{"a":1}`, "", "")
	tag := read("app||k", `{"a":1}`)
	tags, err := ours.Apply(t.Context(), []state.Op{{Key: "app||k", Value: []byte("2"), Match: state.Exact, ETag: tag}})
	if err != nil {
		t.Fatal(err)
	}
	answer, err := theirs.Get(t.Context(), &contribstate.GetRequest{Key: "app||k"})
	if err != nil || string(answer.Data) != "2" || answer.ETag == nil || *answer.ETag != tags[0] {
		t.Fatalf("Dapr reads %+v (%v), want 2 with the ETag %s", answer, err, tags[0])
	}
	set("3", tags[0], "")
	read("app||k", "3")
	if _, err := ours.Apply(t.Context(), []state.Op{{Key: "app||k", Value: []byte("4"), Match: state.Exact, ETag: tags[0]}}); fault.ReasonOf(err) != fault.ETagMismatch {
		t.Errorf("over what Dapr has written: %v", err)
	}
	before := time.Now()
	set("5", "", "3600")
	items, err := ours.Get(t.Context(), []string{"app||k"})
	if err != nil || len(items) != 1 || items[0].Expires.Sub(before.Add(time.Hour)).Abs() > time.Minute {
		t.Errorf("what Dapr gives an hour reads as %v (%v)", items, err)
	}
}

func setRequest(key, value string) *contribstate.SetRequest {
	return &contribstate.SetRequest{Key: key, Value: []byte(value)}
}

func getRequest(key string) *contribstate.GetRequest { return &contribstate.GetRequest{Key: key} }
