package sealed_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/state"
	"github.com/sidecast/sidecast/state/memorystore"
	"github.com/sidecast/sidecast/state/sealed"
	"github.com/sidecast/sidecast/state/statetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	key128 = "000102030405060708090a0b0c0d0e0f"
	key192 = key128 + "1011121314151617"
	key256 = key192 + "18191a1b1c1d1e1f"
)

func keys(t testing.TB, primary, secondary sealed.Key) *sealed.Keys {
	t.Helper()
	k, err := sealed.NewKeys(primary, secondary)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func memory(t testing.TB) state.Store {
	t.Helper()
	backend, err := memorystore.Component.Open(t.Context(), components.Host{}, map[string]string{"maxBytes": "64MiB"})
	if err != nil {
		t.Fatal(err)
	}
	return backend.(state.Store)
}

// capped takes stored values of up to a MiB.
type capped struct {
	state.Store
	state.Scanner
	state.Watcher
}

const room = 1 << 20

func (c capped) Apply(ctx context.Context, ops []state.Op) ([]string, error) {
	for _, op := range ops {
		if len(op.Value) > room {
			return nil, fault.New("apply", fault.ValueTooLarge, "%d bytes", len(op.Value))
		}
	}
	return c.Store.Apply(ctx, ops)
}

func TestConformance(t *testing.T) {
	const most = (room-len("||k"))/4*3 - 12 - 16 // base64, nonce and tag
	statetest.Run(t, func(t *testing.T) state.Store {
		store := memory(t)
		return sealed.Wrap(capped{store, store.(state.Scanner), store.(state.Watcher)}, keys(t, sealed.Key{"k", key256}, sealed.Key{}))
	}, statetest.Traits{MaxValue: most})
}

// What AES-GCM gives for these keys and this nonce was computed by another library.
func TestFormat(t *testing.T) {
	for _, c := range []struct{ key, stored string }{
		{key128, "ZGVmZ2hpamtsbW5vYUAvh+EzxXdnCEcTOWSshEHB0rzw2hM="},
		{key192, "ZGVmZ2hpamtsbW5vkkraXmiec0El5Wqv/9Km4dFxl0UTteY="},
		{key256, "ZGVmZ2hpamtsbW5vMzm/REPYK0fl52RVqE4Cl5UfOVAssNE="},
		{key256, "jUoyWbLRQV9pxo9JlkCFz/W8GPqVU4R8j51n7OXHTMU3tW8="}, // by the code of a daprd
	} {
		k := keys(t, sealed.Key{"billing", c.key}, sealed.Key{})
		if got, err := k.Open([]byte(c.stored + "||billing")); err != nil || string(got) != `{"a":1}` {
			t.Errorf("%s: %q, %v", c.stored, got, err)
		}
		stored := string(k.Seal([]byte(`{"a":1}`)))
		text, found := strings.CutSuffix(stored, "||billing")
		if !found || len(text) != len(c.stored) || stored == string(k.Seal([]byte(`{"a":1}`))) {
			t.Errorf("sealed as %s", stored)
		}
	}
}

func TestKeysTakeTurns(t *testing.T) {
	old, young := sealed.Key{"old", key128}, sealed.Key{"young", key256}
	before := keys(t, old, sealed.Key{}).Seal([]byte("v"))
	turned := keys(t, young, old)
	if got, err := turned.Open(before); err != nil || string(got) != "v" {
		t.Errorf("with the key as the secondary: %q, %v", got, err)
	}
	if after := turned.Seal([]byte("v")); !bytes.HasSuffix(after, []byte("||young")) {
		t.Errorf("sealed as %s", after)
	}
	// Two parts of one secret: the name does not tell them apart, the tag does.
	same := keys(t, sealed.Key{"old", key256}, old)
	if got, err := same.Open(before); err != nil || string(got) != "v" {
		t.Errorf("with two keys of one name: %q, %v", got, err)
	}
}

func TestWhatCannotBeOpened(t *testing.T) {
	k := keys(t, sealed.Key{"a", key256}, sealed.Key{})
	damaged := k.Seal([]byte("v"))
	damaged[3] = map[bool]byte{true: 'B', false: 'A'}[damaged[3] == 'A'] // another digit of base64
	for stored, want := range map[string]string{
		"plain":         "names no encryption key",
		"x|y||a":        "not in base64",
		"AAAA||a":       "cut off",
		"AAAA||other":   `named "other"`,
		"AAAA||":        `named ""`,
		string(damaged): "does not open",
		string(keys(t, sealed.Key{"a", key128}, sealed.Key{}).Seal(nil)): "does not open",
	} {
		if _, err := k.Open([]byte(stored)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", stored, err)
		}
	}
	if got, err := k.Open(nil); err != nil || got == nil || len(got) != 0 {
		t.Errorf("an empty value: %v, %v", got, err)
	}
	store := memory(t)
	defer store.Close(context.Background())
	if _, err := store.Apply(t.Context(), []state.Op{{Key: "k", Value: []byte("plain")}}); err != nil {
		t.Fatal(err)
	}
	wrapped := sealed.Wrap(store, k)
	_, err := wrapped.Get(t.Context(), []string{"k"})
	watching := wrapped.(state.Watcher).Watch(t.Context(), "", false, func(state.Event) error { return nil })
	_, scanning := wrapped.(state.Scanner).Scan(t.Context(), "", "", 10, false)
	for _, err := range []error{err, watching, scanning} {
		if fault.ReasonOf(err) != fault.ValueUndecryptable || !strings.Contains(err.Error(), `"k"`) {
			t.Errorf("got %v", err)
		}
	}
	if items, err := wrapped.(state.Scanner).Scan(t.Context(), "", "", 10, true); err != nil || len(items) != 1 {
		t.Errorf("keys alone: %v, %v", items, err)
	}
}

func TestBadKeys(t *testing.T) {
	for _, c := range []struct {
		primary, secondary sealed.Key
		want               string
	}{
		{sealed.Key{"a", "zz" + key128[2:]}, sealed.Key{}, "not written in hex"},
		{sealed.Key{"a", key128[1:]}, sealed.Key{}, "not written in hex"},
		{sealed.Key{"a", key128 + "00"}, sealed.Key{}, "136 bits"},
		{sealed.Key{"a", ""}, sealed.Key{}, "0 bits"},
		{sealed.Key{"", key128}, sealed.Key{}, "no name"},
		{sealed.Key{"a||b", key128}, sealed.Key{}, "must not hold"},
		{sealed.Key{"|b", key128}, sealed.Key{}, "must not hold"},
		{sealed.Key{"a", key128}, sealed.Key{"b", "1234"}, "16 bits"},
	} {
		_, err := sealed.NewKeys(c.primary, c.secondary)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v %v: %v", c.primary, c.secondary, err)
		}
	}
}

// bare is a store that can do nothing else.
type bare struct{ state.Store }

type scans struct {
	state.Store
	state.Scanner
}

type watches struct {
	state.Store
	state.Watcher
}

func TestAbilitiesStay(t *testing.T) {
	store := memory(t)
	defer store.Close(context.Background())
	k := keys(t, sealed.Key{"a", key256}, sealed.Key{})
	for _, c := range []struct {
		store        state.Store
		scan, watchs bool
	}{
		{store, true, true}, {bare{store}, false, false}, {scans{store, store.(state.Scanner)}, true, false}, {watches{store, store.(state.Watcher)}, false, true},
	} {
		wrapped := sealed.Wrap(c.store, k)
		_, scan := wrapped.(state.Scanner)
		_, watch := wrapped.(state.Watcher)
		if scan != c.scan || watch != c.watchs {
			t.Errorf("%T: scans %v, watches %v", c.store, scan, watch)
		}
	}
}

func TestApplyLeavesTheCallersValues(t *testing.T) {
	store := memory(t)
	defer store.Close(context.Background())
	ops := []state.Op{{Key: "k", Value: []byte("v")}, {Kind: state.Check, Key: "c", Match: state.Absent}}
	if _, err := sealed.Wrap(store, keys(t, sealed.Key{"a", key256}, sealed.Key{})).Apply(t.Context(), ops); err != nil {
		t.Fatal(err)
	}
	if string(ops[0].Value) != "v" {
		t.Errorf("the caller's value is %q", ops[0].Value)
	}
	items, err := store.Get(t.Context(), []string{"k"})
	if err != nil || bytes.Contains(items[0].Value, []byte("v")) && len(items[0].Value) == 1 {
		t.Errorf("stored as %q, %v", items[0].Value, errors.Join(err))
	}
}

func FuzzOpen(f *testing.F) {
	k := keys(f, sealed.Key{"a", key256}, sealed.Key{"b", key128})
	f.Add(k.Seal([]byte("v")))
	f.Add([]byte("AAAA||a"))
	f.Add([]byte("||||"))
	f.Fuzz(func(t *testing.T, stored []byte) {
		if value, err := k.Open(stored); err == nil && value == nil {
			t.Error("no value and no error")
		}
	})
}

func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		k := keys(t, sealed.Key{rapid.StringMatching(`[a-z]+[|]?[a-z]+`).Draw(r, "name"), rapid.SampledFrom([]string{key128, key192, key256}).Draw(r, "key")}, sealed.Key{})
		value := rapid.SliceOf(rapid.Byte()).Draw(r, "value")
		got, err := k.Open(k.Seal(value))
		if err != nil || !bytes.Equal(got, value) {
			r.Fatalf("%q became %q, %v", value, got, err)
		}
	})
}
