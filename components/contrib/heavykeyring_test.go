//go:build all_components

package contrib

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dapr/components-contrib/crypto/localstorage"
	"github.com/lestrrat-go/jwx/v2/jwk"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/keyring"
)

// What the crypto providers of all_others.go have in common, with one of the library's that needs no server.
func TestHeavyKeyring(t *testing.T) {
	dir, pair := t.TempDir(), heavyKeys(t)
	for name, key := range pair {
		if err := os.WriteFile(filepath.Join(dir, name), key, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c := plainKeyring("dapr.localstorage", localstorage.NewLocalStorageCrypto)
	if _, err := c.Open(t.Context(), components.Host{Log: discard}, map[string]string{"path": filepath.Join(dir, "none")}); err == nil || !strings.Contains(err.Error(), "none") {
		t.Errorf("a folder that is not there: %v", err)
	}
	b, err := c.Open(t.Context(), components.Host{Log: discard}, map[string]string{"path": dir})
	if err != nil {
		t.Fatal(err)
	}
	p := b.(*provider)

	key, own := bytes.Repeat([]byte("k"), 32), bytes.Repeat([]byte("k"), 32)
	wraps := keyring.With{Key: "aes.json", Algorithm: "A256KW"}
	wrapped, _, err := p.Wrap(t.Context(), key, wraps)
	if err != nil || bytes.Contains(wrapped, key) || !bytes.Equal(key, own) {
		t.Fatalf("%q, %v", wrapped, err)
	}
	if got, err := p.Unwrap(t.Context(), wrapped, nil, wraps); err != nil || !bytes.Equal(got, key) {
		t.Errorf("%q, %v", got, err)
	}
	wrapped[0] ^= 1
	if _, err := p.Unwrap(t.Context(), wrapped, nil, wraps); err == nil {
		t.Error("a key that was changed is unwrapped")
	}

	seals := keyring.With{Key: "aes.json", Algorithm: "A256GCM", Nonce: make([]byte, 12), Associated: []byte("with")}
	sealed, tag, err := p.Encrypt(t.Context(), []byte("plain"), seals)
	if err != nil || len(tag) != 16 || bytes.Equal(sealed, []byte("plain")) {
		t.Fatalf("%q, %q, %v", sealed, tag, err)
	}
	if plain, err := p.Decrypt(t.Context(), sealed, tag, seals); err != nil || string(plain) != "plain" {
		t.Errorf("%q, %v", plain, err)
	}
	seals.Associated = []byte("without")
	if _, err := p.Decrypt(t.Context(), sealed, tag, seals); err == nil {
		t.Error("what goes with a text is not looked at")
	}

	signs, digest := keyring.With{Key: "ec.json", Algorithm: "ES256"}, sha256.Sum256([]byte("text"))
	signature, err := p.Sign(t.Context(), digest[:], signs)
	if err != nil {
		t.Fatal(err)
	}
	if valid, err := p.Verify(t.Context(), digest[:], signature, signs); !valid || err != nil {
		t.Errorf("%v, %v", valid, err)
	}
	digest[0] ^= 1
	if valid, err := p.Verify(t.Context(), digest[:], signature, signs); valid || err != nil {
		t.Errorf("the signature of another text: %v, %v", valid, err)
	}

	public, err := p.PublicKey(t.Context(), "ec.json")
	if err != nil {
		t.Fatal(err)
	}
	var fields map[string]string
	if err := json.Unmarshal(public.JWK, &fields); err != nil || public.Name != "pair" || fields["kty"] != "EC" || fields["d"] != "" {
		t.Errorf("%s is %v, %v", public.Name, fields, err)
	}
	if _, ok := public.Key.(*ecdsa.PublicKey); !ok {
		t.Errorf("it is a %T", public.Key)
	}
	if got, err := p.PublicKey(t.Context(), "aes.json"); err == nil {
		t.Errorf("a symmetric key is given out: %s", got.JWK)
	}

	if err := p.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if _, _, err := p.Wrap(t.Context(), key, wraps); fault.ReasonOf(err) != fault.Shutdown {
		t.Errorf("after Close: %v", err)
	}
}

// heavyKeys are a symmetric key and a pair, as files.
func heavyKeys(t *testing.T) map[string][]byte {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := jwk.FromRaw(private)
	if err != nil {
		t.Fatal(err)
	}
	if err := pair.Set(jwk.KeyIDKey, "pair"); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(pair)
	if err != nil {
		t.Fatal(err)
	}
	return map[string][]byte{"ec.json": text, "aes.json": []byte(`{"kty":"oct","kid":"aes","k":"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY"}`)}
}
