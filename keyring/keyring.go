// Package keyring is the contract of a backend that keeps keys and never gives them out: others are wrapped with them, which
// are then the keys of data. The block Crypto stands on it. A keyring that can do more says so by its type: Cipher, Signer,
// Publisher.
package keyring

import (
	"context"
	"crypto"
)

// Keyring wraps keys with keys that it keeps. All methods may be called concurrently, and none changes or keeps what it is given.
type Keyring interface {
	// Wrap encrypts key. Tag is nil for algorithms that have none.
	Wrap(ctx context.Context, key []byte, with With) (wrapped, tag []byte, err error)
	// Unwrap is the opposite of Wrap.
	Unwrap(ctx context.Context, wrapped, tag []byte, with With) (key []byte, err error)
	// Close returns when nothing of the keyring is running any more.
	Close(ctx context.Context) error
}

// Cipher is a Keyring that encrypts small messages with the keys that it keeps.
type Cipher interface {
	// Encrypt encrypts a message. Tag is nil for algorithms that have none.
	Encrypt(ctx context.Context, plain []byte, with With) (sealed, tag []byte, err error)
	// Decrypt is the opposite of Encrypt.
	Decrypt(ctx context.Context, sealed, tag []byte, with With) (plain []byte, err error)
}

// Signer is a Keyring that signs with the private keys that it keeps.
type Signer interface {
	// Sign signs the digest of a message, or the message itself where the algorithm is EdDSA.
	Sign(ctx context.Context, digest []byte, with With) (signature []byte, err error)
	// Verify says whether a signature is one of that digest. It fails when that cannot be told.
	Verify(ctx context.Context, digest, signature []byte, with With) (valid bool, err error)
}

// Publisher is a Keyring that gives out the public part of keys.
type Publisher interface {
	// PublicKey is that of the kept key of that name. It fails for a symmetric key.
	PublicKey(ctx context.Context, name string) (PublicKey, error)
}

// With says which of the kept keys is used, and how.
type With struct {
	// Key is its name. Algorithm is one of JSON Web Algorithms (RFC 7518), such as RSA-OAEP-256, A256KW, A256GCM or ES256, or of
	// Dapr's: A256CBC, C20P and others.
	Key, Algorithm string
	// Nonce is for algorithms that need one.
	Nonce []byte
	// Associated is authenticated with what is encrypted, where the algorithm can do that.
	Associated []byte
}

// PublicKey is the public part of a key.
type PublicKey struct {
	// Name is the key's, with its version where it has one.
	Name string
	Key  crypto.PublicKey
	JWK  []byte // as a JSON Web Key (RFC 7517)
}
