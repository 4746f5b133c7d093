package statetest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/state"
)

func (s *suite) get(t *testing.T) {
	store := s.store(t)
	for _, key := range []string{"b", "a", "c"} {
		put(t, store, key, "value of "+key)
	}
	items, err := store.Get(t.Context(), []string{"c", "missing", "a", "b"})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, item := range items {
		got = append(got, item.Key+"="+string(item.Value))
	}
	if want := []string{"c=value of c", "a=value of a", "b=value of b"}; !slices.Equal(got, want) {
		t.Errorf("Get returned %q, want %q", got, want)
	}
	if items, err := store.Get(t.Context(), nil); err != nil || len(items) != 0 {
		t.Errorf("Get of no keys = %v, %v", items, err)
	}
}

func (s *suite) set(t *testing.T) {
	store := s.store(t)
	etag := put(t, store, "k", "1")
	holds(t, store, "k", "1", etag)
	switch item := read(t, store, "k"); {
	case !item.Expires.IsZero():
		t.Errorf("an item without TTL expires at %v", item.Expires)
	case (item.ETag == "") != s.Plain:
		t.Errorf("an item has the ETag %q", item.ETag)
	}
	etag = put(t, store, "k", "2")
	holds(t, store, "k", "2", etag)
	etag = put(t, store, "k", "")
	holds(t, store, "k", "", etag)
	if etags, err := store.Apply(t.Context(), nil); err != nil || len(etags) != 0 {
		t.Errorf("Apply of no ops = %v, %v", etags, err)
	}
}

func (s *suite) delete(t *testing.T) {
	store := s.store(t)
	put(t, store, "k", "1")
	if etags := apply(t, store, state.Op{Kind: state.Delete, Key: "k"}); etags[0] != "" {
		t.Errorf("a Delete returned the ETag %q", etags[0])
	}
	lacks(t, store, "k")
	remove(t, store, "k")
	remove(t, store, "never was")
	put(t, store, "k", "2")
	holds(t, store, "k", "2", "")
}

func (s *suite) check(t *testing.T) {
	store := s.store(t)
	etag := put(t, store, "k", "1")
	for _, op := range []state.Op{
		{Kind: state.Check, Key: "k"},
		{Kind: state.Check, Key: "k", Match: state.Exact, ETag: etag},
		{Kind: state.Check, Key: "missing", Match: state.Absent},
		{Kind: state.Check, Key: "missing"},
	} {
		if etags := apply(t, store, op); etags[0] != "" {
			t.Errorf("a Check returned the ETag %q", etags[0])
		}
	}
	refuses(t, store, fault.Conflict, fault.ETagMismatch, state.Op{Kind: state.Check, Key: "k", Match: state.Absent})
	refuses(t, store, fault.Conflict, fault.ETagMismatch, state.Op{Kind: state.Check, Key: "missing", Match: state.Exact, ETag: etag})
	holds(t, store, "k", "1", etag)
	lacks(t, store, "missing")
}

// oddKeys are keys that a backend with a syntax of its own may trip over.
var oddKeys = []string{
	"a", "a.b", "a..b", ".", "..", "*", ">", "a.*", "a.>", "=", "=41", "a=b", " ", "a b", "\x00", "\x00\x00", "a\x00b", "\n", "\r\n", "/", "a/b/", "\\", "\xff", "\xff\xfe",
	"||", "|", "|||", "app||k", "||k", "k||", "a||||b", "%41", "$KV.x", "!badger!x", "ключ", "鍵", "\xc3\x28", "_", "-", strings.Repeat("long", 200),
}

// json: a value that is said to be JSON comes back with the same meaning, whatever a backend makes of it.
func (s *suite) json(t *testing.T) {
	store := s.store(t)
	for i, value := range []string{
		`{"b":1,"a":[1.50,-0,1e3,null,true,"é"]}`, `"text"`, `null`, `12345678901234567890`, `""`, `{}`,
		`"nul \u0000"`, `"half \ud800"`, `"whole \ud83d\ude00"`, `"bytes ` + "\xff" + `"`, `not JSON`, ``,
		`{"n":1e200000}`, `[1e-200000]`, `1e400`, `1e-400`, strings.Repeat("7", 400), `0.` + strings.Repeat("7", 20000), `1e99999999999999999999`,
		strings.Repeat("[", 9000) + strings.Repeat("]", 9000),
	} {
		key := fmt.Sprint("j", i)
		etags, err := store.Apply(t.Context(), []state.Op{{Key: key, Value: []byte(value), JSON: true}})
		if err != nil {
			t.Errorf("%s: %v", value, err)
			continue
		}
		items, err := store.Get(t.Context(), []string{key})
		if err != nil || len(items) != 1 || items[0].ETag != etags[0] {
			t.Errorf("%s: Get = %v, %v; it was set at %s", value, items, err, etags[0])
			continue
		}
		var want, got any
		if json.Unmarshal([]byte(value), &want) != nil {
			want, got = value, string(items[0].Value)
		} else if err := json.Unmarshal(items[0].Value, &got); err != nil {
			t.Errorf("%s came back as %s: %v", value, items[0].Value, err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s came back as %s", value, items[0].Value)
		}
	}
}

func (s *suite) bytes(t *testing.T) {
	store := s.store(t)
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	for i, key := range oddKeys {
		put(t, store, key, fmt.Sprint(i, string(every)))
	}
	items, err := store.Get(t.Context(), oddKeys)
	if err != nil || len(items) != len(oddKeys) {
		t.Fatalf("Get of %d odd keys returned %d items, %v", len(oddKeys), len(items), err)
	}
	for i, item := range items {
		if item.Key != oddKeys[i] || string(item.Value) != fmt.Sprint(i, string(every)) {
			t.Errorf("%q: got key %q, value %q", oddKeys[i], item.Key, item.Value)
		}
	}
	for _, key := range oddKeys {
		remove(t, store, key)
		lacks(t, store, key)
	}
}

func (s *suite) aliasing(t *testing.T) {
	store := s.store(t)
	value := []byte("before")
	apply(t, store, state.Op{Kind: state.Set, Key: "k", Value: value})
	copy(value, "AFTER!")
	holds(t, store, "k", "before", "")
	copy(read(t, store, "k").Value, "AFTER!")
	holds(t, store, "k", "before", "")
}

func (s *suite) etagChanges(t *testing.T) {
	store := s.store(t)
	seen := make(map[string]bool)
	for range 5 {
		for range 3 {
			etag := put(t, store, "k", "same")
			if etag == "" || seen[etag] {
				t.Fatalf("the ETag %q was used before", etag)
			}
			seen[etag] = true
		}
		remove(t, store, "k")
	}
	for etag := range seen {
		refuses(t, store, fault.Conflict, fault.ETagMismatch, state.Op{Kind: state.Set, Key: "k", Match: state.Exact, ETag: etag})
	}
	put(t, store, "k", "last")
	for etag := range seen {
		refuses(t, store, fault.Conflict, fault.ETagMismatch, state.Op{Kind: state.Set, Key: "k", Match: state.Exact, ETag: etag})
	}
}

func (s *suite) exact(t *testing.T) {
	store := s.store(t)
	first := put(t, store, "k", "1")
	second := apply(t, store, state.Op{Kind: state.Set, Key: "k", Value: []byte("2"), Match: state.Exact, ETag: first})[0]
	err := refuses(t, store, fault.Conflict, fault.ETagMismatch, state.Op{Kind: state.Set, Key: "k", Value: []byte("3"), Match: state.Exact, ETag: first})
	names(t, err, "k")
	holds(t, store, "k", "2", second)
	refuses(t, store, fault.Conflict, fault.ETagMismatch, state.Op{Kind: state.Delete, Key: "k", Match: state.Exact, ETag: first})
	holds(t, store, "k", "2", second)
	apply(t, store, state.Op{Kind: state.Delete, Key: "k", Match: state.Exact, ETag: second})
	lacks(t, store, "k")
	refuses(t, store, fault.Conflict, fault.ETagMismatch, state.Op{Kind: state.Delete, Key: "k", Match: state.Exact, ETag: second})
	refuses(t, store, fault.Conflict, fault.ETagMismatch, state.Op{Kind: state.Set, Key: "k", Match: state.Exact, ETag: second})
	lacks(t, store, "k")
}

func (s *suite) absent(t *testing.T) {
	store := s.store(t)
	for range 2 { // the second time the key was deleted
		etag := apply(t, store, state.Op{Kind: state.Set, Key: "k", Value: []byte("1"), Match: state.Absent})[0]
		names(t, refuses(t, store, fault.Conflict, fault.ETagMismatch, state.Op{Kind: state.Set, Key: "k", Value: []byte("2"), Match: state.Absent}), "k")
		refuses(t, store, fault.Conflict, fault.ETagMismatch, state.Op{Kind: state.Delete, Key: "k", Match: state.Absent})
		holds(t, store, "k", "1", etag)
		remove(t, store, "k")
	}
	apply(t, store, state.Op{Kind: state.Delete, Key: "k", Match: state.Absent})
}

func (s *suite) malformed(t *testing.T) {
	if s.AnyETag {
		t.Skip("any text may be an ETag")
	}
	store := s.store(t)
	etag := put(t, store, "k", "1")
	for _, bad := range []string{"", "nonsense", "-1", "*", "\"" + etag + "\"", etag + " ", "\x00", strings.Repeat("9", 100)} {
		for _, kind := range []state.OpKind{state.Set, state.Delete, state.Check} {
			if kind == state.Check && s.BlindChecks && bad != "" {
				refuses(t, store, fault.Conflict, fault.ETagMismatch, state.Op{Kind: kind, Key: "k", Match: state.Exact, ETag: bad})
				continue
			}
			refuses(t, store, fault.Invalid, fault.ETagMalformed, state.Op{Kind: kind, Key: "k", Value: []byte("2"), Match: state.Exact, ETag: bad})
		}
	}
	holds(t, store, "k", "1", etag)
}

// names fails the test unless err carries the key.
func names(t *testing.T, err error, key string) {
	t.Helper()
	var f *fault.Error
	if !errors.As(err, &f) || f.Meta["key"] != key {
		t.Errorf(`%v does not carry Meta["key"] %q`, err, key)
	}
}

func (s *suite) batch(t *testing.T) {
	if s.SingleOps {
		t.Skip("single ops only")
	}
	store := s.store(t)
	a, b, c := put(t, store, "a", "1"), put(t, store, "b", "1"), put(t, store, "c", "1")
	ops := []state.Op{
		{Kind: state.Set, Key: "a", Value: []byte("2"), Match: state.Exact, ETag: a},
		{Kind: state.Delete, Key: "b", Match: state.Exact, ETag: b},
		{Kind: state.Check, Key: "c", Match: state.Exact, ETag: c},
		{Kind: state.Set, Key: "d", Value: []byte("2"), Match: state.Absent},
		{Kind: state.Set, Key: "e", Value: []byte("2")},
		{Kind: state.Check, Key: "f", Match: state.Absent},
		{Kind: state.Delete, Key: "g"},
	}
	if s.NoChecks {
		ops[2].Match, ops[5].Match = state.Any, state.Any
	}
	etags := apply(t, store, ops...)
	for i, kind := range "sxxssxx" {
		if (kind == 's') != (etags[i] != "") {
			t.Errorf("op %d has the ETag %q", i, etags[i])
		}
	}
	holds(t, store, "a", "2", etags[0])
	lacks(t, store, "b")
	holds(t, store, "c", "1", c)
	holds(t, store, "d", "2", etags[3])
	holds(t, store, "e", "2", etags[4])
	for _, key := range []string{"f", "g"} {
		lacks(t, store, key)
	}
	apply(t, store, // checks alone
		state.Op{Kind: state.Check, Key: "c", Match: state.Exact, ETag: c},
		state.Op{Kind: state.Check, Key: "f", Match: state.Absent})

	var many []state.Op
	for i := range 1000 {
		many = append(many, state.Op{Kind: state.Set, Key: fmt.Sprintf("many/%03d", i), Value: bytes.Repeat([]byte("v"), 512)})
	}
	apply(t, store, many...)
	holds(t, store, "many/999", strings.Repeat("v", 512), "")
}

// each does ops that do not belong together, whether the store has batches or not.
func (s *suite) each(t *testing.T) {
	store := s.store(t)
	put(t, store, "gone", "1")
	ops := []state.Op{{Kind: state.Delete, Key: "gone"}, {Kind: state.Delete, Key: "never"}}
	for i := range 100 {
		ops = append(ops, state.Op{Kind: state.Set, Key: fmt.Sprint("k", i), Value: fmt.Append(nil, i)})
	}
	if err := state.ApplyEach(t.Context(), store, ops); err != nil {
		t.Fatal(err)
	}
	lacks(t, store, "gone")
	for i := range 100 {
		holds(t, store, fmt.Sprint("k", i), fmt.Sprint(i), "")
	}
}

func (s *suite) batchConflict(t *testing.T) {
	if s.SingleOps {
		t.Skip("single ops only")
	}
	store := s.store(t)
	old := put(t, store, "a", "1")
	now := put(t, store, "a", "2")
	writes := []state.Op{{Kind: state.Set, Key: "x", Value: []byte("1")}, {Kind: state.Delete, Key: "a", Match: state.Exact, ETag: now}}
	for _, fails := range []state.Op{
		{Kind: state.Set, Key: "y", Match: state.Exact, ETag: old},
		{Kind: state.Check, Key: "y", Match: state.Exact, ETag: old},
		{Kind: state.Check, Key: "z", Match: state.Absent},
		{Kind: state.Delete, Key: "z", Match: state.Exact, ETag: old},
		{Kind: state.Set, Key: "z", Match: state.Absent},
	} {
		if s.NoChecks && fails.Kind == state.Check {
			continue
		}
		put(t, store, "z", "there")
		for _, ops := range [][]state.Op{append(slices.Clone(writes), fails), append([]state.Op{fails}, writes...)} {
			names(t, refuses(t, store, fault.Conflict, fault.ETagMismatch, ops...), fails.Key)
			holds(t, store, "a", "2", now)
			lacks(t, store, "x")
		}
	}
	if s.AnyETag {
		return
	}
	refuses(t, store, fault.Invalid, fault.ETagMalformed, append(slices.Clone(writes), state.Op{Kind: state.Set, Key: "y", Match: state.Exact, ETag: "?"})...)
	holds(t, store, "a", "2", now)
	lacks(t, store, "x")
}

func (s *suite) noChecks(t *testing.T) {
	if !s.NoChecks {
		t.Skip("batches may check and write")
	}
	store := s.store(t)
	etag := put(t, store, "k", "1")
	for _, check := range []state.Op{
		{Kind: state.Check, Key: "k", Match: state.Exact, ETag: etag},
		{Kind: state.Check, Key: "missing", Match: state.Absent},
		{Kind: state.Delete, Key: "missing", Match: state.Absent},
	} {
		refuses(t, store, fault.Unsupported, fault.NotSupported, state.Op{Kind: state.Set, Key: "a"}, check)
		lacks(t, store, "a")
	}
}

func (s *suite) singleOps(t *testing.T) {
	store := s.store(t)
	if got := state.Transacts(store); got == s.SingleOps {
		t.Errorf("that batches are applied is %t, says the store", got)
	}
	if !s.SingleOps {
		return
	}
	refuses(t, store, fault.Unsupported, fault.NotSupported, state.Op{Kind: state.Set, Key: "a"}, state.Op{Kind: state.Set, Key: "b"})
	lacks(t, store, "a")
	lacks(t, store, "b")
}

// plain: what a store without ETags refuses, and that its items live as long as they should.
func (s *suite) plain(t *testing.T) {
	if !s.Plain {
		t.Skip("items have ETags")
	}
	store := s.store(t)
	if etag := put(t, store, "k", "1"); etag != "" {
		t.Errorf("a Set returned the ETag %q", etag)
	}
	for _, kind := range []state.OpKind{state.Set, state.Delete, state.Check} {
		for _, match := range []state.Match{state.Exact, state.Absent} {
			for _, key := range []string{"k", "missing"} {
				refuses(t, store, fault.Unsupported, fault.NotSupported, state.Op{Kind: kind, Key: key, Value: []byte("2"), Match: match, ETag: "1"})
			}
		}
	}
	holds(t, store, "k", "1", "")
	lacks(t, store, "missing")

	const ttl = 1300 * time.Millisecond
	written := time.Now()
	apply(t, store, state.Op{Kind: state.Set, Key: "goes", TTL: ttl})
	apply(t, store, state.Op{Kind: state.Set, Key: "stays", TTL: ttl})
	put(t, store, "stays", "2")
	eventually(t, "the item expires", func() bool { return read(t, store, "goes") == nil })
	if lived := time.Since(written); lived < ttl {
		t.Errorf("an item with a TTL of %v lived %v", ttl, lived)
	}
	holds(t, store, "stays", "2", "")
}

// tick is by how much a backend's clock may lag behind the one of the test.
const tick = 5 * time.Millisecond

func (s *suite) ttl(t *testing.T) {
	store := s.store(t)
	unit := max(s.TTLUnit, time.Millisecond)
	const ttl = 1300 * time.Millisecond
	longest := (ttl + unit - 1) / unit * unit
	var before, after time.Time
	var etag string
	var item *state.Item
	for slow := true; slow; slow = item == nil && time.Since(before) >= ttl-unit { // the machine, to read it in time
		before = time.Now()
		etag = apply(t, store, state.Op{Kind: state.Set, Key: "k", Value: []byte("1"), TTL: ttl})[0]
		after = time.Now()
		item = read(t, store, "k")
	}
	if item == nil || item.ETag != etag {
		t.Fatalf("an item with a TTL of %v reads as %+v", ttl, item)
	}
	// A backend keeps whole units.
	if item.Expires.Before(before.Add(ttl).Add(-unit)) || item.Expires.After(after.Add(longest).Add(unit)) {
		t.Errorf("written between %v and %v for %v, expires at %v", before, after, ttl, item.Expires)
	}
	for { // It is there until it expires, and not a moment longer.
		began := time.Now()
		found := read(t, store, "k") != nil
		ended := time.Now()
		if found && began.After(item.Expires.Add(max(s.TTLUnit, tick))) {
			t.Fatalf("read %v after it expired", began.Sub(item.Expires))
		}
		if !found {
			if ended.Before(item.Expires.Add(-max(s.TTLUnit, tick))) {
				t.Fatalf("gone %v before it expires", item.Expires.Sub(ended))
			}
			break
		}
		time.Sleep(time.Millisecond)
	}
	put(t, store, "k", "2")
	holds(t, store, "k", "2", "")
}

func (s *suite) ttlAndMatch(t *testing.T) {
	store := s.store(t)
	etag := apply(t, store, state.Op{Kind: state.Set, Key: "k", Value: []byte("1"), TTL: 50 * time.Millisecond})[0]
	eventually(t, "the item expires", func() bool { return read(t, store, "k") == nil })
	refuses(t, store, fault.Conflict, fault.ETagMismatch, state.Op{Kind: state.Set, Key: "k", Match: state.Exact, ETag: etag})
	refuses(t, store, fault.Conflict, fault.ETagMismatch, state.Op{Kind: state.Check, Key: "k", Match: state.Exact, ETag: etag})
	apply(t, store, state.Op{Kind: state.Check, Key: "k", Match: state.Absent})
	apply(t, store, state.Op{Kind: state.Set, Key: "k", Value: []byte("2"), Match: state.Absent})
	holds(t, store, "k", "2", "")
}

func (s *suite) ttlReplaced(t *testing.T) {
	store := s.store(t)
	apply(t, store, state.Op{Kind: state.Set, Key: "stays", Value: []byte("1"), TTL: 100 * time.Millisecond})
	apply(t, store, state.Op{Kind: state.Set, Key: "goes", Value: []byte("1"), TTL: 100 * time.Millisecond})
	apply(t, store, state.Op{Kind: state.Set, Key: "longer", Value: []byte("1"), TTL: 100 * time.Millisecond})
	put(t, store, "stays", "2")
	apply(t, store, state.Op{Kind: state.Set, Key: "longer", Value: []byte("2"), TTL: time.Hour})
	eventually(t, "the item expires", func() bool { return read(t, store, "goes") == nil })
	holds(t, store, "stays", "2", "")
	holds(t, store, "longer", "2", "")
	if item := read(t, store, "stays"); !item.Expires.IsZero() {
		t.Errorf("a write without TTL expires at %v", item.Expires)
	}
}

func (s *suite) largeValue(t *testing.T) {
	store := s.store(t)
	for _, size := range []int{1 << 10, 64 << 10, s.MaxValue} {
		value := make([]byte, size)
		for i := range value {
			value[i] = byte(i * 7)
		}
		apply(t, store, state.Op{Kind: state.Set, Key: "large", Value: value})
		if item := read(t, store, "large"); item == nil || !bytes.Equal(item.Value, value) {
			t.Fatalf("a value of %d bytes does not come back", size)
		}
	}
	remove(t, store, "large")
	lacks(t, store, "large")
}

func (s *suite) tooLarge(t *testing.T) {
	store := s.store(t)
	etag := put(t, store, "large", "small")
	refuses(t, store, fault.Invalid, fault.ValueTooLarge, state.Op{Kind: state.Set, Key: "large", Value: make([]byte, s.MaxValue+1)})
	holds(t, store, "large", "small", etag)
}
