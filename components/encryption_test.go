package components

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/state"
)

// shelf keeps what was last applied.
type shelf struct {
	fakeStore
	items map[string][]byte
}

func (s *shelf) Apply(_ context.Context, ops []state.Op) ([]string, error) {
	for _, op := range ops {
		s.items[op.Key] = op.Value
	}
	return make([]string, len(ops)), nil
}

func (s *shelf) Get(_ context.Context, keys []string) (items []state.Item, err error) {
	for _, key := range keys {
		items = append(items, state.Item{Key: key, Value: s.items[key]})
	}
	return items, nil
}

func TestValuesAreEncryptedWithTheKeysOfTheManifest(t *testing.T) {
	const old, young = "000102030405060708090a0b0c0d0e0f", "f0e0d0c0b0a090807060504030201000f0e0d0c0b0a090807060504030201000"
	store := &shelf{items: map[string][]byte{}}
	known := []Component{stateTest(func(context.Context, Host, testConfig) (state.Store, error) { return store, nil })}
	keys := map[string]string{"OLD": old, "YOUNG": young}
	lookup := func(name string) (string, bool) { text, ok := keys[name]; return text, ok }
	run := func(work func(state.Store), entries ...Entry) {
		t.Helper()
		s := NewSet(Options{Known: known, Documents: docs(cart(entries...)), LookupEnv: lookup})
		defer closeSet(t, s)
		use, err := s.State(t.Context(), "cart")
		if err != nil {
			t.Fatal(err)
		}
		defer use.Release()
		work(use.Backend)
	}
	put := func(key string) func(state.Store) {
		return func(s state.Store) {
			if _, err := s.Apply(t.Context(), []state.Op{{Key: key, Value: []byte("value of " + key)}}); err != nil {
				t.Fatal(err)
			}
		}
	}
	run(put("first"), Entry{Key: "PrimaryEncryptionKey", Secret: &SecretRef{Name: "OLD", Key: "OLD"}})
	rotated := []Entry{{Key: "primaryEncryptionKey", Env: "YOUNG"}, {Key: "secondaryEncryptionKey", Secret: &SecretRef{Name: "OLD", Key: "OLD"}}}
	run(put("second"), rotated...)
	for key, name := range map[string]string{"first": "||OLD", "second": "||YOUNG"} {
		if got := store.items[key]; !bytes.HasSuffix(got, []byte(name)) || bytes.Contains(got, []byte("value")) {
			t.Errorf("%s is stored as %q", key, got)
		}
	}
	run(func(s state.Store) {
		items, err := s.Get(t.Context(), []string{"first", "second"})
		if err != nil || string(items[0].Value) != "value of first" || string(items[1].Value) != "value of second" {
			t.Errorf("got %v, %v", items, err)
		}
	}, rotated...)
}

func TestBadEncryptionKeysAreErrorsWithTheirPlace(t *testing.T) {
	known := []Component{stateTest(func(context.Context, Host, testConfig) (state.Store, error) {
		t.Error("the store was opened")
		return &fakeStore{}, nil
	})}
	var log bytes.Buffer
	ref := func(key, name string) Entry {
		return Entry{Key: key, Secret: &SecretRef{Name: name, Key: name}, Line: 7}
	}
	for _, c := range []struct {
		entries []Entry
		want    string
	}{
		{[]Entry{ref("primaryEncryptionKey", "SHORT")}, "cart.yaml:7: spec.metadata.primaryEncryptionKey: the encryption key has 56 bits"},
		{[]Entry{ref("primaryEncryptionKey", "TEXT")}, "cart.yaml:7: spec.metadata.primaryEncryptionKey: the encryption key is not written in hex"},
		{[]Entry{ref("primaryEncryptionKey", "GOOD"), ref("secondaryEncryptionKey", "TEXT")}, "cart.yaml:7: spec.metadata.secondaryEncryptionKey: the encryption key is not written in hex"},
		{[]Entry{ref("secondaryEncryptionKey", "GOOD")}, "needs primaryEncryptionKey"},
		{[]Entry{{Key: "primaryEncryptionKey", Value: "00010203040506070809aabbccddeeff", Line: 7}}, "cart.yaml:7: spec.metadata.primaryEncryptionKey: the encryption key has no name"},
	} {
		m := cart(c.entries...)
		m.Source = Source{File: "cart.yaml", Line: 1}
		keys := map[string]string{"SHORT": "deadbeefdead22", "TEXT": "hunter22hunter22", "GOOD": strings.Repeat("0f", 16)}
		s := NewSet(Options{
			Known: known, Documents: docs(m), Log: slog.New(slog.NewTextHandler(&log, nil)),
			LookupEnv: func(name string) (string, bool) { text, ok := keys[name]; return text, ok },
		})
		_, err := s.State(t.Context(), "cart")
		closeSet(t, s)
		if fault.ReasonOf(err) != fault.ComponentDegraded || !strings.Contains(fmt.Sprint(err), c.want) {
			t.Errorf("got %v, want %s", err, c.want)
		}
		for _, secret := range []string{"deadbeef", "hunter22", "0001020304"} {
			if strings.Contains(fmt.Sprint(err)+log.String(), secret) {
				t.Errorf("%v shows a key; the log: %s", err, log.String())
			}
		}
	}
}
