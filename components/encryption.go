package components

import (
	"cmp"
	"fmt"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/manifest"
	"github.com/sidecast/sidecast/state"
	"github.com/sidecast/sidecast/state/sealed"
)

// The keys with which the values of a state store are encrypted, with Dapr's names and meaning.
const (
	primaryKey   = "primaryEncryptionKey"
	secondaryKey = "secondaryEncryptionKey"
)

var encryptionFields = []Field{
	{Key: primaryKey, Type: "string", Secret: true, index: -1,
		Doc: "Key that values are encrypted with, AES-GCM in Dapr's format: 32, 48 or 64 digits of hex. Only as a secretKeyRef or envRef, whose name is stored with each value and must stay."},
	{Key: secondaryKey, Type: "string", Secret: true, index: -1,
		Doc: "Key that values are still decrypted with: the primary one before it was changed, under its name. Needs primaryEncryptionKey."},
}

// encryptionEntries are those that give keys.
func encryptionEntries(m Manifest) (primary, secondary *Entry) {
	for i := range m.Metadata {
		switch e := &m.Metadata[i]; manifest.FoldKey(e.Key) {
		case manifest.FoldKey(primaryKey):
			primary = e
		case manifest.FoldKey(secondaryKey):
			secondary = e
		}
	}
	return primary, secondary
}

// keyName is what the values encrypted with a key are marked with: as a daprd does it, the name of its secret.
func (e *Entry) keyName() string {
	if e.Secret != nil {
		return e.Secret.Name
	}
	return e.Env
}

// checkEncryption reports keys without a name, and a secondary one alone, with which nothing would be encrypted.
func checkEncryption(d *manifest.Document, m Manifest) {
	primary, secondary := encryptionEntries(m)
	for _, e := range []*Entry{primary, secondary} {
		if e != nil && e.Secret == nil && e.Env == "" {
			d.Fail(cmp.Or(e.valueLine, e.Line), e.path(), "must be a secretKeyRef or an envRef: the name of the secret tells which key a value was encrypted with")
		}
	}
	if primary == nil && secondary != nil {
		d.Fail(secondary.Line, secondary.path(), "needs %s beside it", primaryKey)
	}
}

// encryption returns the keys of a state store, nil if it has none. md is that of m with its references resolved.
func encryption(m Manifest, md metadata) (*sealed.Keys, error) {
	primary, secondary := encryptionEntries(m)
	if primary == nil && secondary == nil {
		return nil, nil
	}
	var keys [2]sealed.Key
	for i, e := range []*Entry{primary, secondary} {
		if e == nil {
			continue
		}
		keys[i] = sealed.Key{Name: e.keyName(), Hex: md.values[manifest.FoldKey(e.Key)].text}
		if err := sealed.Check(keys[i]); err != nil {
			at := Source{File: m.Source.File, Line: cmp.Or(e.valueLine, e.Line)}
			return nil, fault.E(fmt.Sprintf("%s: %s", at, e.path()), fault.None, fault.BadManifest, err)
		}
	}
	if primary == nil {
		return nil, fault.New(m.Source.String(), fault.BadManifest, "%s needs %s beside it", secondaryKey, primaryKey)
	}
	return sealed.NewKeys(keys[0], keys[1])
}

// encrypted is b with its values encrypted, if there are keys.
func encrypted(b Backend, keys *sealed.Keys) Backend {
	if keys == nil {
		return b
	}
	return sealed.Wrap(b.(state.Store), keys)
}
