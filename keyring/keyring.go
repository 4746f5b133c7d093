// Package keyring is the contract of a backend that keeps keys and never gives them out: others are wrapped with them, which
// are then the keys of data. The block Crypto stands on it.
package keyring

import "context"

// Keyring wraps keys with keys that it keeps. All methods may be called concurrently.
type Keyring interface {
	// Wrap encrypts key with the kept key of that name, by an algorithm of JSON Web Algorithms (RFC 7518) such as RSA-OAEP-256 or
	// A256KW. Nonce is for algorithms that need one; tag is nil for those that have none.
	Wrap(ctx context.Context, key []byte, algorithm, name string, nonce []byte) (wrapped, tag []byte, err error)
	// Unwrap is the opposite of Wrap.
	Unwrap(ctx context.Context, wrapped []byte, algorithm, name string, nonce, tag []byte) (key []byte, err error)
	// Close returns when nothing of the keyring is running any more.
	Close(ctx context.Context) error
}
