package contrib

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	kitcrypto "github.com/dapr/kit/crypto"
	"github.com/lestrrat-go/jwx/v2/jwk"
	"pgregory.net/rapid"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/keyring"
)

const keySet = `{"keys":[
	{"kty":"oct","kid":"aes","k":"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY"},
	{"kty":"oct","kid":"signs","use":"sig","k":"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY"},
	{"kty":"oct","kid":"wraps","key_ops":["wrapKey"],"alg":"A256KW","k":"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY"}]}`

func TestKeyrings(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/set" {
			_, _ = w.Write([]byte(keySet))
			return
		}
		w.WriteHeader(http.StatusNotFound)
	}))
	defer server.Close()
	defer http.DefaultClient.CloseIdleConnections()
	file := filepath.Join(t.TempDir(), "set.json")
	if err := os.WriteFile(file, []byte(keySet), 0o600); err != nil {
		t.Fatal(err)
	}
	open := func(component components.Component, key, value string) (keyring.Keyring, error) {
		b, err := component.Open(t.Context(), components.Host{Log: discard}, map[string]string{key: value})
		if err != nil {
			return nil, err
		}
		return b.(keyring.Keyring), nil
	}
	folder, set := keyrings[0], keyrings[1]
	plain := bytes.Repeat([]byte("k"), 32)
	for _, from := range []string{keySet, file, server.URL + "/set"} {
		k, err := open(set, "jwks", from)
		if err != nil {
			t.Fatal(from, err)
		}
		wrapped, _, err := k.Wrap(t.Context(), plain, keyring.With{Key: "aes", Algorithm: "A256KW"})
		if err != nil || bytes.Contains(wrapped, plain) {
			t.Errorf("%s: %q %v", from, wrapped, err)
		}
		if got, err := k.Unwrap(t.Context(), wrapped, nil, keyring.With{Key: "aes", Algorithm: "A256KW"}); err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%s: %q %v", from, got, err)
		}
		wrapped[0] ^= 1
		if _, err := k.Unwrap(t.Context(), wrapped, nil, keyring.With{Key: "aes", Algorithm: "A256KW"}); err == nil {
			t.Error("a key that was changed is unwrapped")
		}
		for name, want := range map[string]string{"signs": "cannot perform the 'wrapKey' operation", "nobody": "key not found"} {
			if _, _, err := k.Wrap(t.Context(), plain, keyring.With{Key: name, Algorithm: "A256KW"}); fault.KindOf(err) != fault.Invalid || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if _, _, err := k.Wrap(t.Context(), plain, keyring.With{Key: "wraps", Algorithm: "A128CBC"}); err == nil || !strings.Contains(err.Error(), "cannot be used with algorithm") {
			t.Errorf("got %v", err)
		}
		if _, err := k.Unwrap(t.Context(), plain, nil, keyring.With{Key: "wraps", Algorithm: "A256KW"}); err == nil || !strings.Contains(err.Error(), "cannot perform the 'unwrapKey' operation") {
			t.Errorf("got %v", err)
		}
		if err := k.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if _, _, err := k.Wrap(t.Context(), plain, keyring.With{Key: "aes", Algorithm: "A256KW"}); fault.ReasonOf(err) != fault.Shutdown {
			t.Errorf("after Close: %v", err)
		}
	}
	for _, c := range []struct {
		component  components.Component
		key, value string
	}{{set, "jwks", "no set"}, {set, "jwks", server.URL + "/none"}, {folder, "path", file}, {folder, "path", "/no/such/folder"}} {
		if _, err := open(c.component, c.key, c.value); err == nil {
			t.Errorf("%s is taken", c.value)
		}
	}
}

// pairs are keys of every type, as a set.
func pairs(t testing.TB) (set string, names []string) {
	t.Helper()
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p256, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	_, ed, _ := ed25519.GenerateKey(rand.Reader)
	all := jwk.NewSet()
	add := func(name string, raw any) {
		key, err := jwk.FromRaw(raw)
		if err != nil {
			t.Fatal(name, err)
		}
		_ = key.Set(jwk.KeyIDKey, name)
		_ = all.AddKey(key)
		names = append(names, name)
	}
	add("rsa", rsaKey)
	add("rsa-public", rsaKey.Public())
	add("p256", p256)
	add("p256-public", p256.Public())
	add("ed", ed)
	for _, size := range []int{16, 24, 32, 48, 64} {
		add("aes"+strconv.Itoa(8*size), bytes.Repeat([]byte{byte(size)}, size))
	}
	text, _ := json.Marshal(all)
	return string(text), names
}

func openPairs(t testing.TB) (vault *keys, names []string) {
	t.Helper()
	set, names := pairs(t)
	b, err := keyrings[1].Open(t.Context(), components.Host{Log: discard}, map[string]string{"jwks": set})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close(context.Background()) })
	return b.(*keys), names
}

func TestKeyringsEncryptAndSign(t *testing.T) {
	vault, _ := openPairs(t)
	ctx, message := t.Context(), []byte("a message, of no whole blocks")
	nonces := map[string]int{"A128CBC": 16, "A192CBC": 16, "A256CBC": 16, "C20P": 12, "XC20P": 24, "A128CBC-HS256": 16, "A192CBC-HS384": 16, "A256CBC-HS512": 16}
	for _, c := range []struct {
		key, algorithms string
		tagged          bool
	}{
		{"aes128", "A128GCM", true}, {"aes192", "A192GCM", true}, {"aes256", "A256GCM C20P XC20P A128CBC-HS256", true}, {"aes384", "A192CBC-HS384", true}, {"aes512", "A256CBC-HS512", true},
		{"aes128", "A128CBC", false}, {"aes192", "A192CBC", false}, {"aes256", "A256CBC", false}, {"rsa", "RSA1_5 RSA-OAEP RSA-OAEP-256 RSA-OAEP-384 RSA-OAEP-512", false},
	} {
		for _, algorithm := range strings.Fields(c.algorithms) {
			with := keyring.With{Key: c.key, Algorithm: algorithm}
			if n := nonces[algorithm]; n > 0 {
				with.Nonce = bytes.Repeat([]byte{1}, n)
			} else if c.tagged {
				with.Nonce = bytes.Repeat([]byte{1}, 12)
			}
			if c.tagged {
				with.Associated = []byte("whose")
			}
			sealed, tag, err := vault.Encrypt(ctx, message, with)
			if err != nil || bytes.Contains(sealed, message[:8]) || (len(tag) > 0) != c.tagged {
				t.Errorf("%s: %x %x %v", algorithm, sealed, tag, err)
				continue
			}
			roomy := append(make([]byte, 0, 1000), sealed...)
			if got, err := vault.Decrypt(ctx, roomy, tag, with); err != nil || !bytes.Equal(got, message) {
				t.Errorf("%s: %q %v", algorithm, got, err)
			}
			if rest := roomy[len(roomy):cap(roomy)]; slices.Max(rest) != 0 {
				t.Errorf("%s: what lies behind the ciphertext has changed", algorithm)
			}
			for what, worse := range map[string]func(sealed, tag []byte, with *keyring.With){
				"another tag":  func(_, tag []byte, _ *keyring.With) { tag[0] ^= 1 },
				"other data":   func(sealed, _ []byte, _ *keyring.With) { sealed[0] ^= 1 },
				"another name": func(_, _ []byte, with *keyring.With) { with.Associated = []byte("another's") },
			} {
				if !c.tagged {
					continue // what comes out then is not known to be wrong
				}
				sealed, tag, with := bytes.Clone(sealed), bytes.Clone(tag), with
				worse(sealed, tag, &with)
				if got, err := vault.Decrypt(ctx, sealed, tag, with); fault.KindOf(err) != fault.Invalid || got != nil {
					t.Errorf("%s with %s: %q %v", algorithm, what, got, err)
				}
			}
		}
	}
	for key, algorithms := range map[string]string{"rsa": "RS256 RS384 RS512 PS256 PS384 PS512", "p256": "ES256", "ed": "EdDSA"} {
		for _, algorithm := range strings.Fields(algorithms) {
			with := keyring.With{Key: key, Algorithm: algorithm}
			digest := map[string][]byte{"256": make([]byte, 32), "384": make([]byte, 48), "512": make([]byte, 64), "DSA": message}[algorithm[len(algorithm)-3:]]
			signature, err := vault.Sign(ctx, digest, with)
			if err != nil {
				t.Errorf("%s: %v", algorithm, err)
				continue
			}
			if valid, err := vault.Verify(ctx, digest, signature, with); err != nil || !valid {
				t.Errorf("%s: %t %v", algorithm, valid, err)
			}
			signature[len(signature)-1] ^= 1
			if valid, err := vault.Verify(ctx, digest, signature, with); err != nil || valid {
				t.Errorf("%s, changed: %t %v", algorithm, valid, err)
			}
		}
	}
	if _, err := vault.Sign(ctx, make([]byte, 32), keyring.With{Key: "rsa-public", Algorithm: "RS256"}); fault.KindOf(err) != fault.Invalid {
		t.Errorf("a public key signs: %v", err)
	}
	for name, want := range map[string]string{"rsa": "", "rsa-public": "", "p256": "", "ed": "", "aes256": "key not found", "none": "key not found"} {
		key, err := vault.PublicKey(ctx, name)
		if want != "" {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		var parts map[string]any
		if e := json.Unmarshal(key.JWK, &parts); err != nil || e != nil || key.Name != name || parts["kid"] != name || parts["d"] != nil {
			t.Errorf("%s: %+v %v", name, key, err)
		}
		if _, err := x509.MarshalPKIXPublicKey(key.Key); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Whatever is asked, of whatever key, there is an answer.
func TestKeyringsAnswerAnything(t *testing.T) {
	vault, names := openPairs(t)
	algorithms := slices.Concat(kitcrypto.SupportedSymmetricAlgorithms(), kitcrypto.SupportedAsymmetricAlgorithms(), kitcrypto.SupportedSignatureAlgorithms(),
		[]string{"", "A", "none", "ECDH-ES", "ECDH-ES+A128KW", "HS256", "ES384", "A128GCMKW"})
	rapid.Check(t, func(rt *rapid.T) {
		some := func(name string) []byte { return rapid.SliceOfN(rapid.Byte(), -1, 70).Draw(rt, name) }
		sized := func(name string) []byte {
			return make([]byte, rapid.SampledFrom([]int{0, 8, 12, 16, 24, 32, 48, 64}).Draw(rt, name))
		}
		with := keyring.With{Key: rapid.SampledFrom(names).Draw(rt, "key"), Algorithm: rapid.SampledFrom(algorithms).Draw(rt, "algorithm"), Nonce: sized("nonce"), Associated: some("associated")}
		data, tag := rapid.OneOf(rapid.Just(some("data")), rapid.Just(sized("data"))).Draw(rt, "which"), sized("tag")
		_, _, _ = vault.Encrypt(t.Context(), data, with)
		_, _ = vault.Decrypt(t.Context(), data, tag, with)
		_, _, _ = vault.Wrap(t.Context(), data, with)
		_, _ = vault.Unwrap(t.Context(), data, tag, with)
		_, _ = vault.Sign(t.Context(), data, with)
		_, _ = vault.Verify(t.Context(), data, tag, with)
	})
}
