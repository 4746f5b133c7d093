//go:build all_components

package contrib

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"maps"

	contribcrypto "github.com/dapr/components-contrib/crypto"
	contribmetadata "github.com/dapr/components-contrib/metadata"
	"github.com/dapr/kit/logger"
	"github.com/lestrrat-go/jwx/v2/jwk"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/keyring"
)

// plainKeyring makes a component of a crypto provider of the library. The library's package for them starts goroutines that
// live as long as the process: that is why it is not in the default build.
func plainKeyring(name string, make func(logger.Logger) contribcrypto.SubtleCrypto) components.Component {
	d := described{block: components.CryptoBlock, product: name, own: func() any { return make(logs{log: unheard}) }}
	name = "crypto." + name
	return components.Described(d.block, d.product, d.doc, d.fields, func(ctx context.Context, host components.Host, s components.Settings) (keyring.Keyring, error) {
		p := &provider{name: name, inner: make(newLogs(host.Log, nil)), life: newLife(host.Log), slots: makeSlots()}
		err := initialize(ctx, p.life, p.inner, func() error {
			return p.inner.Init(ctx, contribcrypto.Metadata{Base: contribmetadata.Base{Name: host.Component, Properties: maps.Clone(s.Values)}})
		})
		if err != nil {
			return nil, badOpen(ctx, name+": open", s, err)
		}
		return p, nil
	})
}

// provider makes a crypto provider of the library one of ours.
type provider struct {
	name  string // the component's type
	inner contribcrypto.SubtleCrypto
	life  *life
	slots chan struct{}
}

var (
	_ keyring.Keyring   = (*provider)(nil)
	_ keyring.Cipher    = (*provider)(nil)
	_ keyring.Signer    = (*provider)(nil)
	_ keyring.Publisher = (*provider)(nil)
)

// tagged is what an encryption makes.
type tagged struct{ text, tag []byte }

// own is with, for a library that may be at it for longer than the caller waits.
func ownWith(with keyring.With) keyring.With {
	with.Nonce, with.Associated = bytes.Clone(with.Nonce), bytes.Clone(with.Associated)
	return with
}

// Wrap implements keyring.Keyring.
func (p *provider) Wrap(ctx context.Context, key []byte, with keyring.With) (wrapped, tag []byte, err error) {
	own, err := jwk.FromRaw(bytes.Clone(key))
	if err != nil {
		return nil, nil, fault.E(p.name+": wrap", fault.Invalid, fault.BadRequest, err)
	}
	w := ownWith(with)
	a, err := providerCall(ctx, p, "wrap", func(ctx context.Context) (a tagged, err error) {
		a.text, a.tag, err = p.inner.WrapKey(ctx, own, w.Algorithm, w.Key, w.Nonce, w.Associated)
		return a, err
	})
	return a.text, a.tag, err
}

// Unwrap implements keyring.Keyring.
func (p *provider) Unwrap(ctx context.Context, wrapped, tag []byte, with keyring.With) (key []byte, err error) {
	w, text, mark := ownWith(with), bytes.Clone(wrapped), bytes.Clone(tag)
	return providerCall(ctx, p, "unwrap", func(ctx context.Context) ([]byte, error) {
		own, err := p.inner.UnwrapKey(ctx, text, w.Algorithm, w.Key, w.Nonce, mark, w.Associated)
		if err != nil {
			return nil, err
		}
		var raw []byte
		if err := own.Raw(&raw); err != nil {
			return nil, errors.New("the unwrapped key is not symmetric")
		}
		return raw, nil
	})
}

// Encrypt implements keyring.Cipher.
func (p *provider) Encrypt(ctx context.Context, plain []byte, with keyring.With) (sealed, tag []byte, err error) {
	w, text := ownWith(with), bytes.Clone(plain)
	a, err := providerCall(ctx, p, "encrypt", func(ctx context.Context) (a tagged, err error) {
		a.text, a.tag, err = p.inner.Encrypt(ctx, text, w.Algorithm, w.Key, w.Nonce, w.Associated)
		return a, err
	})
	return a.text, a.tag, err
}

// Decrypt implements keyring.Cipher.
func (p *provider) Decrypt(ctx context.Context, sealed, tag []byte, with keyring.With) (plain []byte, err error) {
	w, text, mark := ownWith(with), bytes.Clone(sealed), bytes.Clone(tag)
	return providerCall(ctx, p, "decrypt", func(ctx context.Context) ([]byte, error) {
		return p.inner.Decrypt(ctx, text, w.Algorithm, w.Key, w.Nonce, mark, w.Associated)
	})
}

// Sign implements keyring.Signer.
func (p *provider) Sign(ctx context.Context, digest []byte, with keyring.With) (signature []byte, err error) {
	own := bytes.Clone(digest)
	return providerCall(ctx, p, "sign", func(ctx context.Context) ([]byte, error) {
		return p.inner.Sign(ctx, own, with.Algorithm, with.Key)
	})
}

// Verify implements keyring.Signer.
func (p *provider) Verify(ctx context.Context, digest, signature []byte, with keyring.With) (valid bool, err error) {
	own, mark := bytes.Clone(digest), bytes.Clone(signature)
	return providerCall(ctx, p, "verify", func(ctx context.Context) (bool, error) {
		return p.inner.Verify(ctx, own, mark, with.Algorithm, with.Key)
	})
}

// PublicKey implements keyring.Publisher.
func (p *provider) PublicKey(ctx context.Context, name string) (keyring.PublicKey, error) {
	return providerCall(ctx, p, "public key", func(ctx context.Context) (public keyring.PublicKey, err error) {
		key, err := p.inner.GetKey(ctx, name)
		if err != nil {
			return public, err
		}
		public.Name = cmp.Or(key.KeyID(), name)
		var raw any
		if err := key.Raw(&raw); err != nil {
			return public, err
		}
		public.Key = raw
		public.JWK, err = json.Marshal(key)
		return public, err
	})
}

func providerCall[T any](ctx context.Context, p *provider, what string, work func(context.Context) (T, error)) (T, error) {
	op := p.name + ": " + what
	var nothing T
	calling, leave, err := p.life.enter(ctx, op)
	if err != nil {
		return nothing, err
	}
	defer leave()
	answer, err := bounded(calling, p.life, p.slots, func() (T, error) { return work(calling) })
	if err != nil {
		return nothing, p.life.failure(ctx, op, err)
	}
	return answer, nil
}

// Close implements keyring.Keyring.
func (p *provider) Close(ctx context.Context) error {
	return p.life.close(ctx, p.name+": close", func() error {
		closeQuietly(p.inner)
		return nil
	})
}
