package blocks

import (
	"context"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/keyring"
)

// publicKey is the operation that gives a key out; the others use one.
const publicKey = "getkey"

// PublicKey is the public part of a component's key.
func (c *Crypto) PublicKey(ctx context.Context, component, name string) (key keyring.PublicKey, err error) {
	err = doAs(ctx, c, component, publicKey, func(ctx context.Context, k keyring.Publisher) (err error) {
		key, err = k.PublicKey(ctx, name)
		return err
	})
	return key, err
}

// Seal encrypts a small message with a component's key itself. Its size is what the algorithm has room for.
func (c *Crypto) Seal(ctx context.Context, component string, plain []byte, with keyring.With) (sealed, tag []byte, err error) {
	err = doAs(ctx, c, component, "encrypt", func(ctx context.Context, k keyring.Cipher) (err error) {
		sealed, tag, err = k.Encrypt(ctx, plain, with)
		return err
	})
	return sealed, tag, err
}

// Open is the opposite of Seal.
func (c *Crypto) Open(ctx context.Context, component string, sealed, tag []byte, with keyring.With) (plain []byte, err error) {
	err = doAs(ctx, c, component, "decrypt", func(ctx context.Context, k keyring.Cipher) (err error) {
		plain, err = k.Decrypt(ctx, sealed, tag, with)
		return err
	})
	return plain, err
}

// Wrap encrypts a key with a component's.
func (c *Crypto) Wrap(ctx context.Context, component string, key []byte, with keyring.With) (wrapped, tag []byte, err error) {
	err = c.do(ctx, component, "wrap", func(ctx context.Context, k keyring.Keyring) (err error) {
		wrapped, tag, err = k.Wrap(ctx, key, with)
		return err
	})
	return wrapped, tag, err
}

// Unwrap is the opposite of Wrap.
func (c *Crypto) Unwrap(ctx context.Context, component string, wrapped, tag []byte, with keyring.With) (key []byte, err error) {
	err = c.do(ctx, component, "unwrap", func(ctx context.Context, k keyring.Keyring) (err error) {
		key, err = k.Unwrap(ctx, wrapped, tag, with)
		return err
	})
	return key, err
}

// Sign signs the digest of a message, or the message itself where the algorithm is EdDSA.
func (c *Crypto) Sign(ctx context.Context, component string, digest []byte, with keyring.With) (signature []byte, err error) {
	err = doAs(ctx, c, component, "sign", func(ctx context.Context, k keyring.Signer) (err error) {
		signature, err = k.Sign(ctx, digest, with)
		return err
	})
	return signature, err
}

// Verify says whether a signature is one of that digest.
func (c *Crypto) Verify(ctx context.Context, component string, digest, signature []byte, with keyring.With) (valid bool, err error) {
	err = doAs(ctx, c, component, "verify", func(ctx context.Context, k keyring.Signer) (err error) {
		valid, err = k.Verify(ctx, digest, signature, with)
		return err
	})
	return valid, err
}

// doAs has a component do what only some can.
func doAs[T any](ctx context.Context, c *Crypto, component, op string, work func(context.Context, T) error) error {
	return c.do(ctx, component, op, func(ctx context.Context, k keyring.Keyring) error {
		able, ok := k.(T)
		if !ok {
			return fault.New(op, fault.NotSupported, "the component %s cannot do that", component)
		}
		return work(ctx, able)
	})
}
