package blocks

import (
	"context"
	"errors"
	"io"
	"strings"
	"time"

	encv1 "github.com/dapr/kit/schemes/enc/v1"

	"github.com/sidecast/sidecast/actors"
	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/governance"
	"github.com/sidecast/sidecast/keyring"
	"github.com/sidecast/sidecast/resiliency"
)

// Crypto encrypts data with keys that never leave their component: each document has a key of its own, which the
// component's wraps. Documents are of the scheme dapr.io/enc/v1, which Dapr's sidecars read and write.
type Crypto struct {
	components *components.Set
	lanes      *componentLanes
}

func newCrypto(d Deps, rules *rulebook) *Crypto {
	return &Crypto{components: d.Components, lanes: newComponentLanes(d, rules, "crypto", governance.Crypto)}
}

// Encryption says how a document is encrypted.
type Encryption struct {
	// Component is the crypto component, KeyName its key, Algorithm how the document's key is wrapped: AES (A256KW), A128CBC, A192CBC,
	// A256CBC or RSA (RSA-OAEP-256).
	Component, KeyName, Algorithm string
	// Cipher is that of the data: AES-GCM when empty, or CHACHA20-POLY1305.
	Cipher string
	// DecryptionKeyName is the key that the document names for its decryption, KeyName when empty; OmitKeyName names none.
	DecryptionKeyName string
	OmitKeyName       bool
}

// Encrypt returns the encrypted document of what is read. What fails once it has begun is an error of a read. The document must
// be closed; from is read in another goroutine until it ends or fails.
func (c *Crypto) Encrypt(ctx context.Context, e Encryption, from io.Reader) (io.ReadCloser, error) {
	options := encv1.EncryptOptions{
		KeyName: e.KeyName, Algorithm: encv1.KeyAlgorithm(strings.ToUpper(e.Algorithm)), OmitKeyName: e.OmitKeyName, DecryptionKeyName: e.DecryptionKeyName,
		WrapKeyFn: func(key []byte, algorithm, name string, nonce []byte) (wrapped, tag []byte, err error) {
			err = c.do(ctx, e.Component, "wrap", func(ctx context.Context, k keyring.Keyring) (err error) {
				wrapped, tag, err = k.Wrap(ctx, key, keyring.With{Key: name, Algorithm: algorithm, Nonce: nonce})
				return err
			})
			return wrapped, tag, bare(err)
		},
	}
	if e.Cipher != "" {
		cipher := encv1.Cipher(strings.ToUpper(e.Cipher))
		options.Cipher = &cipher
	}
	return closable(encv1.Encrypt(from, options))
}

// Decrypt returns what an encrypted document holds. KeyName is the key to use in place of that which the document names. As long
// as the last part has not been read it is not known that nothing is missing. See Encrypt.
func (c *Crypto) Decrypt(ctx context.Context, component, keyName string, from io.Reader) (io.ReadCloser, error) {
	var refused error
	plain, err := encv1.Decrypt(from, encv1.DecryptOptions{
		KeyName: keyName,
		UnwrapKeyFn: func(wrapped []byte, algorithm, name string, nonce, tag []byte) (key []byte, err error) {
			err = c.do(ctx, component, "unwrap", func(ctx context.Context, k keyring.Keyring) (err error) {
				key, err = k.Unwrap(ctx, wrapped, tag, keyring.With{Key: name, Algorithm: algorithm, Nonce: nonce})
				return err
			})
			refused = err
			return key, err
		},
	})
	switch fault.KindOf(refused) { // the scheme does not tell whether there is a key; that nobody could look is no secret
	case fault.Unavailable, fault.Tripped, fault.Exhausted, fault.Timeout, fault.Canceled:
		if refused != nil && err != nil {
			return nil, refused
		}
	}
	return closable(plain, err)
}

func (c *Crypto) do(ctx context.Context, component, op string, work func(context.Context, keyring.Keyring) error) (err error) {
	use, err := c.components.Keyring(ctx, component)
	if err != nil {
		return err
	}
	defer use.Release()
	ctx, record := c.lanes.begin(ctx, use.Name, op)
	defer record.end(&err)
	counted := "crypto_op"
	if op == publicKey {
		counted = "get"
	}
	defer func(began time.Time) { record.metrics.Dapr().CryptoDone(use.Name, counted, began, err) }(time.Now())
	return c.lanes.of(use.Name).Do(ctx, resiliency.Call{Op: op, Idempotent: true},
		func(ctx context.Context, _ actors.Grant) error { return work(ctx, use.Backend) })
}

// bare is what a component has said, in its own words where it is the component that failed.
func bare(err error) error {
	for f := (*fault.Error)(nil); errors.As(err, &f) && f.Reason == fault.BackendFailed && f.Err != nil; {
		err = f.Err
	}
	return err
}

// closable is the scheme's stream, whose goroutine ends when it is closed.
func closable(r io.Reader, err error) (io.ReadCloser, error) {
	if err != nil {
		return nil, err
	}
	return r.(io.ReadCloser), nil
}
