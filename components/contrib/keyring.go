package contrib

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	kitcrypto "github.com/dapr/kit/crypto"
	"github.com/dapr/kit/jwkscache"
	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jwk"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/keyring"
)

// The crypto providers stand on Dapr's kit, as those of components-contrib do, and not on that library itself: whoever links
// its package crypto has two goroutines of a pool that wake all the time.
var keyrings = []components.Component{
	components.Foreign(components.CryptoBlock, "dapr.localstorage", "Keys in files of a folder, PEM or JSON (JWK); a key's name is its file's.",
		func() []components.Field {
			return []components.Field{field("path", "string", "The folder.", needed)}
		}, openFolder),
	components.Foreign(components.CryptoBlock, "dapr.jwks", "Keys of a JSON Web Key Set (RFC 7517); a key's name is its id.", func() []components.Field {
		return []components.Field{
			field("jwks", "string", "The set: in JSON, in JSON as Base64, the URL or the path of a file that holds it.", needed, hidden),
			field("requestTimeout", "duration", "How long fetching a URL may take.", standard("30s")),
			field("minRefreshInterval", "duration", "Least time between two times that a URL is fetched.", standard("10m")),
		}
	}, openSet),
}

// keys does what is asked with keys that find finds.
type keys struct {
	name string
	find func(name string) (jwk.Key, error)
	life *life
	also sync.WaitGroup // what follows the set
}

var (
	_ keyring.Keyring   = (*keys)(nil)
	_ keyring.Cipher    = (*keys)(nil)
	_ keyring.Signer    = (*keys)(nil)
	_ keyring.Publisher = (*keys)(nil)
)

// longestKey is the longest file of a key, in bytes.
const longestKey = 1 << 20

func openFolder(_ context.Context, host components.Host, s components.Settings) (keyring.Keyring, error) {
	folder := filepath.Clean(s.Values["path"])
	if info, err := os.Stat(folder); err != nil {
		return nil, s.Invalid("path", err)
	} else if !info.IsDir() {
		return nil, s.Invalid("path", fmt.Errorf("%s is no folder", folder))
	}
	return &keys{name: "crypto.dapr.localstorage", life: newLife(host.Log), find: func(name string) (jwk.Key, error) {
		if strings.Contains(name, "..") {
			return nil, errors.New("invalid key path: cannot contain '..'")
		}
		file, err := os.Open(filepath.Join(folder, name))
		if err != nil {
			return nil, fmt.Errorf("failed to load key '%s': %w", name, err)
		}
		defer file.Close()
		data, err := io.ReadAll(io.LimitReader(file, longestKey))
		if err != nil {
			return nil, fmt.Errorf("failed to load key '%s': %w", name, err)
		}
		key, err := kitcrypto.ParseKey(data, map[string]string{".json": "application/json", ".pem": "application/x-pem-file"}[strings.ToLower(filepath.Ext(name))])
		if err == nil && !slices.Contains([]jwa.KeyType{jwa.EC, jwa.RSA, jwa.OKP, jwa.OctetSeq}, key.KeyType()) {
			err = errors.New("invalid key type")
		}
		if err != nil {
			return nil, fmt.Errorf("failed to parse key from secret: %w", err)
		}
		return key, nil
	}}, nil
}

func openSet(ctx context.Context, host components.Host, s components.Settings) (keyring.Keyring, error) {
	set := jwkscache.NewJWKSCache(s.Values["jwks"], newLogs(host.Log, nil))
	if d := s.Duration("requestTimeout"); d >= time.Millisecond {
		set.SetRequestTimeout(d)
	}
	if d := s.Duration("minRefreshInterval"); d >= time.Second {
		set.SetMinRefreshInterval(d)
	}
	k := &keys{name: "crypto.dapr.jwks", life: newLife(host.Log), find: func(name string) (jwk.Key, error) {
		all := set.KeySet()
		if all == nil {
			return nil, errors.New("no JWKS loaded")
		}
		key, ok := all.LookupKeyID(name)
		if !ok {
			return nil, errors.New("key not found")
		}
		return key, nil
	}}
	k.also.Go(func() { _ = set.Start(k.life.ctx) }) // what it fails with is what WaitForCacheReady says
	if err := set.WaitForCacheReady(ctx); err != nil {
		k.life.cut()
		k.also.Wait()
		return nil, badOpen(ctx, k.name+": open", s, err)
	}
	return k, nil
}

// key is the kept key that with names, if it may be used so.
func (k *keys) key(with keyring.With, operation jwk.KeyOperation) (jwk.Key, error) {
	key, err := k.find(with.Key)
	switch {
	case err != nil && (operation == jwk.KeyOpWrapKey || operation == jwk.KeyOpUnwrapKey):
		return nil, fmt.Errorf("failed to retrieve the key encryption key: %w", err)
	case err != nil:
		return nil, fmt.Errorf("failed to retrieve the key: %w", err)
	}
	use := "enc"
	if operation == jwk.KeyOpSign || operation == jwk.KeyOpVerify {
		use = "sig"
	}
	operations, usage := key.KeyOps(), key.KeyUsage()
	if len(operations) > 0 && !slices.Contains(operations, operation) || usage != "" && usage != use {
		return nil, fmt.Errorf("key cannot perform the '%s' operation", operation)
	}
	if own := key.Algorithm().String(); own != "" && own != with.Algorithm {
		return nil, fmt.Errorf("key cannot be used with algorithm '%s'", with.Algorithm)
	}
	return key, nil
}

// Wrap implements keyring.Keyring.
func (k *keys) Wrap(ctx context.Context, key []byte, with keyring.With) (wrapped, tag []byte, err error) {
	return k.encrypt(ctx, "wrap", jwk.KeyOpWrapKey, key, with)
}

// Unwrap implements keyring.Keyring.
func (k *keys) Unwrap(ctx context.Context, wrapped, tag []byte, with keyring.With) (key []byte, err error) {
	return k.decrypt(ctx, "unwrap", jwk.KeyOpUnwrapKey, wrapped, tag, with)
}

// Encrypt implements keyring.Cipher.
func (k *keys) Encrypt(ctx context.Context, plain []byte, with keyring.With) (sealed, tag []byte, err error) {
	return k.encrypt(ctx, "encrypt", jwk.KeyOpEncrypt, plain, with)
}

// Decrypt implements keyring.Cipher.
func (k *keys) Decrypt(ctx context.Context, sealed, tag []byte, with keyring.With) (plain []byte, err error) {
	return k.decrypt(ctx, "decrypt", jwk.KeyOpDecrypt, sealed, tag, with)
}

func (k *keys) encrypt(ctx context.Context, what string, operation jwk.KeyOperation, plain []byte, with keyring.With) (sealed, tag []byte, err error) {
	err = k.do(ctx, what, func() error {
		own, err := k.key(with, operation)
		if err != nil {
			return err
		}
		if sealed, tag, err = kitcrypto.Encrypt(plain, with.Algorithm, own, with.Nonce, with.Associated); err != nil {
			return fmt.Errorf("failed to encrypt data: %w", err)
		}
		return nil
	})
	return sealed, tag, err
}

func (k *keys) decrypt(ctx context.Context, what string, operation jwk.KeyOperation, sealed, tag []byte, with keyring.With) (plain []byte, err error) {
	err = k.do(ctx, what, func() error {
		own, err := k.key(with, operation)
		if err != nil {
			return err
		}
		sealed := slices.Clip(sealed) // the library appends the tag to it
		if plain, err = kitcrypto.Decrypt(sealed, with.Algorithm, own, with.Nonce, tag, with.Associated); err != nil {
			return fmt.Errorf("failed to decrypt data: %w", err)
		}
		return nil
	})
	return plain, err
}

// Sign implements keyring.Signer.
func (k *keys) Sign(ctx context.Context, digest []byte, with keyring.With) (signature []byte, err error) {
	err = k.do(ctx, "sign", func() error {
		own, err := k.key(with, jwk.KeyOpSign)
		if err != nil {
			return err
		}
		if signature, err = kitcrypto.SignPrivateKey(digest, with.Algorithm, own); err != nil {
			return fmt.Errorf("failed to sign message: %w", err)
		}
		return nil
	})
	return signature, err
}

// Verify implements keyring.Signer.
func (k *keys) Verify(ctx context.Context, digest, signature []byte, with keyring.With) (valid bool, err error) {
	err = k.do(ctx, "verify", func() error {
		own, err := k.key(with, jwk.KeyOpVerify)
		if err != nil {
			return err
		}
		if valid, err = kitcrypto.VerifyPublicKey(digest, signature, with.Algorithm, own); err != nil {
			return fmt.Errorf("failed to validate the signature: %w", err)
		}
		return nil
	})
	return valid, err
}

// PublicKey implements keyring.Publisher.
func (k *keys) PublicKey(ctx context.Context, name string) (public keyring.PublicKey, err error) {
	err = k.do(ctx, "public key", func() error {
		own, err := k.find(name)
		if err != nil {
			return err
		}
		if own.KeyType() == jwa.OctetSeq {
			return errors.New("key not found") // as if there were none
		}
		part, err := own.PublicKey()
		if err != nil {
			return fmt.Errorf("failed to obtain public key: %w", err)
		}
		public.Name = name
		if err := part.Raw(&public.Key); err != nil {
			return fmt.Errorf("failed to obtain public key: %w", err)
		}
		if public.JWK, err = json.Marshal(part); err != nil {
			return fmt.Errorf("failed to marshal public key %s as JSON: %w", name, err)
		}
		return nil
	})
	return public, err
}

// do makes a call. What is wrong with a key, or that there is none, is not worth another try; what comes of the network is.
func (k *keys) do(ctx context.Context, what string, work func() error) error {
	op := k.name + ": " + what
	_, leave, err := k.life.enter(ctx, op)
	if err != nil {
		return err
	}
	defer leave()
	err = contained(work)
	var network net.Error
	var file *fs.PathError // whose cause would pass for one of the network's
	if err == nil || errors.As(err, &network) && !errors.As(err, &file) {
		return k.life.failure(ctx, op, err)
	}
	return fault.E(op, fault.Invalid, fault.BackendFailed, err)
}

// contained does work. The library panics over a wrapped key that is too short to be one.
func contained(work func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the library panicked: %v", p)
		}
	}()
	return work()
}

// Close implements keyring.Keyring.
func (k *keys) Close(ctx context.Context) error {
	return k.life.close(ctx, k.name+": close", func() error {
		k.also.Wait()
		return nil
	})
}
