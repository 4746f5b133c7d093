// Package sealed keeps the values of any state store encrypted, in the format of Dapr's automatic encryption: what a daprd
// wrote with the same keys is read here, and the other way round.
//
// A value is stored as the text
//
//	base64(nonce ‖ AES-GCM(value)) || name
//
// with a random nonce of 12 bytes, AES by the length of the key (128, 192 or 256 bits), no additional data, and the name of
// the key behind `||`. The primary key encrypts; both decrypt, so that a key is changed by making it the secondary. A value
// that neither key opens, or that was never encrypted, fails its read with VALUE_UNDECRYPTABLE.
//
// Keys of items, their ETags and times to live are not encrypted, and a value can be told from another by its length alone. A
// value can be moved to another key by whoever can write to the store. AES-GCM with random nonces wants a new key after four
// thousand million writes (NIST SP 800-38D, 8.3).
//
//	keys, err := sealed.NewKeys(sealed.Key{Name: "billing", Hex: secret}, sealed.Key{})
//	store = sealed.Wrap(store, keys)
package sealed

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/state"
)

// Key is an encryption key: its bytes in hex, and the name that marks the values encrypted with it.
type Key struct{ Name, Hex string }

// separator stands before the name of the key.
const separator = "||"

// Keys encrypt and decrypt values. They may be used concurrently.
type Keys struct {
	seal opener
	open []opener // the primary first
}

type opener struct {
	name string
	aead cipher.AEAD
}

// NewKeys returns the keys of a store; without a secondary one it is the zero Key. No error of it shows a key.
func NewKeys(primary, secondary Key) (*Keys, error) {
	k := &Keys{}
	for _, key := range []Key{primary, secondary} {
		if key == (Key{}) && len(k.open) > 0 {
			continue
		}
		o, err := newOpener(key)
		if err != nil {
			return nil, err
		}
		k.open = append(k.open, o)
	}
	k.seal = k.open[0]
	return k, nil
}

// Check says what is wrong with a key. It does not show its bytes.
func Check(key Key) error {
	_, err := newOpener(key)
	return err
}

func newOpener(key Key) (opener, error) {
	switch {
	case key.Name == "":
		return opener{}, errors.New("the encryption key has no name")
	case strings.Contains("|"+key.Name, separator): // or else a value's name begins elsewhere
		return opener{}, fmt.Errorf("the name of the encryption key must not hold %q or begin with its half", separator)
	}
	raw, err := hex.DecodeString(key.Hex)
	if err != nil {
		return opener{}, errors.New("the encryption key is not written in hex")
	}
	block, err := aes.NewCipher(raw)
	if err != nil {
		return opener{}, fmt.Errorf("the encryption key has %d bits, not 128, 192 or 256: 32, 48 or 64 digits of hex", 8*len(raw))
	}
	aead, err := cipher.NewGCM(block)
	return opener{key.Name, aead}, err
}

// Seal returns value as it is stored.
func (k *Keys) Seal(value []byte) []byte {
	aead := k.seal.aead
	raw := make([]byte, aead.NonceSize(), aead.NonceSize()+len(value)+aead.Overhead())
	_, _ = rand.Read(raw) // never fails
	raw = aead.Seal(raw, raw, value, nil)
	n := base64.StdEncoding.EncodedLen(len(raw))
	stored := make([]byte, n, n+len(separator)+len(k.seal.name))
	base64.StdEncoding.Encode(stored, raw)
	return append(append(stored, separator...), k.seal.name...)
}

// Open returns the value of what is stored. An empty value is taken for one that is empty, as daprd takes it.
func (k *Keys) Open(stored []byte) ([]byte, error) {
	if len(stored) == 0 {
		return []byte{}, nil
	}
	at := bytes.LastIndex(stored, []byte(separator))
	if at < 0 {
		return nil, errors.New("the stored value is not encrypted: it names no encryption key")
	}
	name := string(stored[at+len(separator):])
	raw := make([]byte, base64.StdEncoding.DecodedLen(at))
	n, err := base64.StdEncoding.Decode(raw, stored[:at])
	if err != nil {
		return nil, errors.New("the stored value is not encrypted: it is not in base64")
	}
	known := false
	for _, o := range k.open {
		if o.name != name {
			continue
		}
		known = true
		size := o.aead.NonceSize()
		if n < size {
			return nil, errors.New("the stored value is cut off")
		}
		if value, err := o.aead.Open(nil, raw[:size], raw[size:n], nil); err == nil {
			if value == nil {
				value = []byte{}
			}
			return value, nil
		}
	}
	if !known {
		return nil, fmt.Errorf("the stored value was encrypted with a key named %.64q, which is neither the primary nor the secondary one", name)
	}
	return nil, fmt.Errorf("the stored value does not open with the key named %q: it was encrypted with another one, or is damaged", name)
}

// Wrap returns s with the values encrypted. It scans and watches where s does, and answers no query.
func Wrap(s state.Store, keys *Keys) state.Store {
	w := &store{s, keys}
	scanner, scans := s.(state.Scanner)
	watcher, watches := s.(state.Watcher)
	switch {
	case scans && watches:
		return struct {
			*store
			scan
			watch
		}{w, scan{keys, scanner}, watch{keys, watcher}}
	case scans:
		return struct {
			*store
			scan
		}{w, scan{keys, scanner}}
	case watches:
		return struct {
			*store
			watch
		}{w, watch{keys, watcher}}
	}
	return w
}

// store is a store with encrypted values.
type store struct {
	state.Store
	keys *Keys
}

// Get implements state.Store.
func (s *store) Get(ctx context.Context, keys []string) ([]state.Item, error) {
	return s.GetWith(ctx, keys, nil)
}

// GetWith implements state.Guided.
func (s *store) GetWith(ctx context.Context, keys []string, metadata map[string]string) ([]state.Item, error) {
	items, err := state.GetWith(ctx, s.Store, keys, metadata)
	if err != nil {
		return nil, err
	}
	return s.keys.items("state: get", items)
}

// Unwrap is the store beneath.
func (s *store) Unwrap() state.Store { return s.Store }

// Apply implements state.Store.
func (s *store) Apply(ctx context.Context, ops []state.Op) ([]string, error) {
	return s.Store.Apply(ctx, s.sealed(ops))
}

// ApplyEach implements state.Bulker.
func (s *store) ApplyEach(ctx context.Context, ops []state.Op) error {
	return state.ApplyEach(ctx, s.Store, s.sealed(ops))
}

func (s *store) sealed(ops []state.Op) []state.Op {
	own := make([]state.Op, len(ops))
	for i, op := range ops {
		if op.Kind == state.Set {
			op.Value, op.JSON = s.keys.Seal(op.Value), false
		}
		own[i] = op
	}
	return own
}

// Query implements state.Querier: what is encrypted cannot be queried.
func (s *store) Query(context.Context, state.Query) (state.Found, error) {
	if _, queries := s.Store.(state.Querier); !queries {
		return state.Found{}, fault.New("state: query", fault.NotSupported, "the store cannot be queried")
	}
	return state.Found{}, fault.New("state: query", fault.QueryInvalid, "cannot query encrypted store")
}

func (k *Keys) items(op string, items []state.Item) ([]state.Item, error) {
	for i := range items {
		if err := k.item(op, &items[i]); err != nil {
			return nil, err
		}
	}
	return items, nil
}

func (k *Keys) item(op string, item *state.Item) error {
	value, err := k.Open(item.Value)
	if err != nil {
		return fault.New(op, fault.ValueUndecryptable, "%q: %w", item.Key, err).With("key", item.Key)
	}
	item.Value = value
	return nil
}

type scan struct {
	keys  *Keys
	inner state.Scanner
}

// Scan implements state.Scanner.
func (s scan) Scan(ctx context.Context, prefix, after string, limit int, keysOnly bool) ([]state.Item, error) {
	items, err := s.inner.Scan(ctx, prefix, after, limit, keysOnly)
	if err != nil || keysOnly {
		return items, err
	}
	return s.keys.items("state: scan", items)
}

type watch struct {
	keys  *Keys
	inner state.Watcher
}

// Watch implements state.Watcher.
func (w watch) Watch(ctx context.Context, prefix string, onlyChanges bool, fn func(state.Event) error) error {
	return w.inner.Watch(ctx, prefix, onlyChanges, func(e state.Event) error {
		if e.Kind == state.Written {
			if err := w.keys.item("state: watch", &e.Item); err != nil {
				return err
			}
		}
		return fn(e)
	})
}
