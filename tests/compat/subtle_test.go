package compat

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	library "github.com/dapr/components-contrib/crypto"
	"github.com/dapr/components-contrib/metadata"
	conformance "github.com/dapr/components-contrib/tests/conformance/crypto"
	runtimev1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	kitcrypto "github.com/dapr/kit/crypto"
	"github.com/lestrrat-go/jwx/v2/jwk"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/sidecast/sidecast/tests/machine"
)

// keyPairs are documents of crypto providers with the same keys, as files (files) and as a set (set). A key's name is that of its
// file in both.
type keyPairs struct {
	documents string
	rsa       *rsa.PrivateKey
}

const symmetricKey = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="

func newKeyPairs(t testing.TB) keyPairs {
	t.Helper()
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	curve, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	_, edwards, _ := ed25519.GenerateKey(rand.Reader)
	secret, _ := base64.StdEncoding.DecodeString(symmetricKey)
	folder, set := t.TempDir(), jwk.NewSet()
	write := func(name string, data []byte) {
		if err := os.WriteFile(filepath.Join(folder, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	add := func(name string, raw any, fields ...string) {
		key, err := jwk.FromRaw(raw)
		if err != nil {
			t.Fatal(err)
		}
		_ = key.Set(jwk.KeyIDKey, name)
		for _, f := range fields {
			field, value, _ := strings.Cut(f, "=")
			_ = key.Set(field, value)
		}
		_ = set.AddKey(key)
		text, _ := json.Marshal(key)
		switch {
		case strings.HasSuffix(name, ".json"):
			write(name, text)
		case strings.HasSuffix(name, ".b64"):
			write(name, []byte(symmetricKey+"\n"))
		case strings.Contains(name, "public"):
			der, _ := x509.MarshalPKIXPublicKey(raw)
			write(name, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
		default:
			der, _ := x509.MarshalPKCS8PrivateKey(raw)
			write(name, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
		}
	}
	add("rsa.pem", private)
	add("rsa-public.json", private.Public(), "alg=RSA-OAEP")
	add("p256.json", curve)
	add("p256-public.pem", curve.Public())
	add("ed.pem", edwards)
	add("ed-public.pem", edwards.Public())
	add("aes.b64", secret)
	add("signs.json", private, "use=sig")
	text, _ := json.Marshal(set)
	return keyPairs{component("files", "crypto.dapr.localstorage", "path: "+folder) + component("set", "crypto.dapr.jwks", "jwks: "+string(text)) +
		component("theirs", "crypto.dapr.localstorage", "path: "+folder) + "scopes: [other]\n", private}
}

// subtle has a sidecar do an operation, over one of the protocols; both take and give the same JSON. It returns the fields of
// the answer as text.
type subtle func(t testing.TB, vault, operation string, request map[string]any) (map[string]string, error)

// subtleOver are both ways to ask.
func subtleOver(d *daprd) map[string]subtle {
	conn := dial(d.t, d.grpc)
	flat := func(t testing.TB, data []byte) map[string]string {
		var all map[string]any
		if err := json.Unmarshal(data, &all); err != nil {
			t.Fatalf("%s: %v", data, err)
		}
		out := map[string]string{}
		for key, value := range all {
			out[key] = fmt.Sprint(value)
		}
		return out
	}
	return map[string]subtle{
		"HTTP": func(t testing.TB, vault, operation string, request map[string]any) (map[string]string, error) {
			t.Helper()
			body, _ := json.Marshal(request)
			got := d.do("POST", "/v1.0-alpha1/subtlecrypto/"+vault+"/"+operation, string(body))
			if got.status != 200 {
				told := flat(t, []byte(got.body))
				return nil, fmt.Errorf("%d %s %s", got.status, told["errorCode"], told["message"])
			}
			return flat(t, []byte(got.body)), nil
		},
		"gRPC": func(t testing.TB, vault, operation string, request map[string]any) (map[string]string, error) {
			t.Helper()
			body, _ := json.Marshal(request)
			call := subtleCalls[operation]
			in, out := call.in(), call.out()
			if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(body, in); err != nil {
				t.Fatal(err)
			}
			in.(runtimev1.SubtleCryptoRequests).SetComponentName(vault)
			if err := conn.Invoke(t.Context(), "/dapr.proto.runtime.v1.Dapr/"+call.method, in, out); err != nil {
				s := status.Convert(err)
				if len(s.Details()) != 0 {
					t.Errorf("details: %v", s.Details())
				}
				return nil, fmt.Errorf("%s %s", s.Code(), s.Message())
			}
			data, err := protojson.Marshal(out)
			if err != nil {
				t.Fatal(err)
			}
			return flat(t, data), nil
		},
	}
}

type subtleCall struct {
	method  string
	in, out func() proto.Message
}

var subtleCalls = map[string]subtleCall{
	"getkey":    {"SubtleGetKeyAlpha1", func() proto.Message { return &runtimev1.SubtleGetKeyRequest{} }, func() proto.Message { return &runtimev1.SubtleGetKeyResponse{} }},
	"encrypt":   {"SubtleEncryptAlpha1", func() proto.Message { return &runtimev1.SubtleEncryptRequest{} }, func() proto.Message { return &runtimev1.SubtleEncryptResponse{} }},
	"decrypt":   {"SubtleDecryptAlpha1", func() proto.Message { return &runtimev1.SubtleDecryptRequest{} }, func() proto.Message { return &runtimev1.SubtleDecryptResponse{} }},
	"wrapkey":   {"SubtleWrapKeyAlpha1", func() proto.Message { return &runtimev1.SubtleWrapKeyRequest{} }, func() proto.Message { return &runtimev1.SubtleWrapKeyResponse{} }},
	"unwrapkey": {"SubtleUnwrapKeyAlpha1", func() proto.Message { return &runtimev1.SubtleUnwrapKeyRequest{} }, func() proto.Message { return &runtimev1.SubtleUnwrapKeyResponse{} }},
	"sign":      {"SubtleSignAlpha1", func() proto.Message { return &runtimev1.SubtleSignRequest{} }, func() proto.Message { return &runtimev1.SubtleSignResponse{} }},
	"verify":    {"SubtleVerifyAlpha1", func() proto.Message { return &runtimev1.SubtleVerifyRequest{} }, func() proto.Message { return &runtimev1.SubtleVerifyResponse{} }},
}

// subtleError is the error of an operation, as one protocol tells it.
func subtleError(protocol string, status int, code codes.Code, tag, message string) string {
	if protocol == "HTTP" {
		return fmt.Sprintf("%d %s %s", status, tag, message)
	}
	return fmt.Sprintf("%s %s", code, message)
}

func base64Of(data []byte) string { return base64.StdEncoding.EncodeToString(data) }

// changed is text with another first letter.
func changed(text string) string {
	if text[0] == 'A' {
		return "B" + text[1:]
	}
	return "A" + text[1:]
}

func TestSubtleCrypto(t *testing.T) {
	t.Parallel()
	pairs := newKeyPairs(t)
	d := startWith(t, machine.New(t), pairs.documents, "app", "--log-level", "debug")
	for protocol, do := range subtleOver(d) {
		failed := func(what string) string {
			return subtleError(protocol, 500, codes.Internal, "ERR_CRYPTO", "failed to perform operation: failed to "+what)
		}
		for _, vault := range []string{"files", "set"} {
			t.Run(protocol+"/"+vault, func(t *testing.T) {
				must := func(operation string, request map[string]any) map[string]string {
					t.Helper()
					got, err := do(t, vault, operation, request)
					if err != nil {
						t.Errorf("%s %v: %v", operation, request, err)
					}
					return got
				}
				refused := func(what, operation string, request map[string]any) {
					t.Helper()
					if _, err := do(t, vault, operation, request); err == nil || err.Error() != failed(what) {
						t.Errorf("%s %v: %v", operation, request, err)
					}
				}
				with := func(request map[string]any, more ...any) map[string]any {
					all := map[string]any{}
					for key, value := range request {
						all[key] = value
					}
					for i := 0; i < len(more); i += 2 {
						all[more[i].(string)] = more[i+1]
					}
					return all
				}
				nonce := base64Of(make([]byte, 12))
				gcm := map[string]any{"keyName": "aes.b64", "algorithm": "A256GCM", "nonce": nonce, "associatedData": base64Of([]byte("whose"))}
				plain := base64Of([]byte("a message"))

				sealed := must("encrypt", with(gcm, "plaintext", plain))
				if sealed["ciphertext"] == "" || sealed["ciphertext"] == plain || len(sealed["tag"]) != 24 {
					t.Fatalf("got %v", sealed)
				}
				secret, tag := sealed["ciphertext"], sealed["tag"]
				if got := must("decrypt", with(gcm, "ciphertext", secret, "tag", tag)); got["plaintext"] != plain || len(got) != 1 {
					t.Errorf("got %v", got)
				}
				refused("decrypt", "decrypt", with(gcm, "ciphertext", secret, "tag", changed(tag)))
				refused("decrypt", "decrypt", with(gcm, "ciphertext", secret))
				refused("decrypt", "decrypt", with(gcm, "ciphertext", changed(secret), "tag", tag))
				refused("decrypt", "decrypt", with(gcm, "ciphertext", secret, "tag", tag, "associatedData", plain))
				refused("decrypt", "decrypt", with(gcm, "ciphertext", secret, "tag", tag, "nonce", base64Of([]byte("another, one"))))
				refused("decrypt", "decrypt", with(gcm, "ciphertext", secret, "tag", tag, "keyName", "nobody's"))
				refused("decrypt", "decrypt", with(gcm, "ciphertext", secret, "tag", tag, "keyName", "rsa.pem"))
				refused("decrypt", "decrypt", with(gcm, "ciphertext", secret, "tag", tag, "algorithm", "C20P"))
				refused("encrypt", "encrypt", with(gcm, "plaintext", plain, "algorithm", "ROT13"))
				refused("encrypt", "encrypt", with(gcm, "plaintext", plain, "nonce", ""))
				refused("encrypt", "encrypt", map[string]any{"keyName": "signs.json", "algorithm": "RSA-OAEP", "plaintext": plain})
				refused("encrypt", "encrypt", map[string]any{"keyName": "rsa-public.json", "algorithm": "RSA-OAEP-256", "plaintext": plain})
				if got := must("encrypt", map[string]any{"keyName": "rsa-public.json", "algorithm": "RSA-OAEP", "plaintext": plain}); len(got) != 1 || got["ciphertext"] == "" {
					t.Errorf("got %v", got)
				}

				// A key, in the forms that there are; it comes back as bytes.
				kek := map[string]any{"keyName": "aes.b64", "algorithm": "A256KW"}
				raw := []byte("0123456789!bcdef0123456789!bcdef")
				for _, key := range [][]byte{raw, []byte(base64Of(raw)), []byte(`{"kty":"oct","k":"` + base64.RawURLEncoding.EncodeToString(raw) + `"}`)} {
					wrapped := must("wrapkey", with(kek, "plaintextKey", base64Of(key)))
					if got := must("unwrapkey", with(kek, "wrappedKey", wrapped["wrappedKey"])); wrapped["tag"] != "" || got["plaintextKey"] != base64Of(raw) {
						t.Errorf("%s comes back as %v", key, got)
					}
					refused("unwrap key", "unwrapkey", with(kek, "wrappedKey", changed(wrapped["wrappedKey"])))
				}
				chacha := map[string]any{"keyName": "aes.b64", "algorithm": "C20PKW", "nonce": nonce, "associatedData": base64Of([]byte("whose"))}
				der, _ := x509.MarshalPKCS8PrivateKey(pairs.rsa)
				wrapped := must("wrapkey", with(chacha, "plaintextKey", base64Of(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))))
				if got := must("unwrapkey", with(chacha, "wrappedKey", wrapped["wrappedKey"], "tag", wrapped["tag"])); got["plaintextKey"] != base64Of(der) {
					t.Errorf("a private key comes back as %v", got)
				}
				refused("unwrap key", "unwrapkey", with(chacha, "wrappedKey", wrapped["wrappedKey"], "tag", changed(wrapped["tag"])))
				refused("unwrap key", "unwrapkey", with(kek, "wrappedKey", ""))
				refused("wrap key", "wrapkey", with(kek, "plaintextKey", base64Of(raw), "keyName", "ed.pem"))
				if _, err := do(t, vault, "wrapkey", kek); err == nil || err.Error() != failed("parse plaintext key: key is empty") {
					t.Errorf("without a key: %v", err)
				}

				digest := sha256.Sum256([]byte("a message"))
				for name, algorithm := range map[string]string{"rsa.pem": "PS256", "p256.json": "ES256", "ed.pem": "EdDSA", "signs.json": "RS256"} {
					signs := map[string]any{"keyName": name, "algorithm": algorithm, "digest": base64Of(digest[:])}
					signature := must("sign", signs)["signature"]
					if got := must("verify", with(signs, "signature", signature)); got["valid"] != "true" {
						t.Errorf("%s: %v", name, got)
					}
					data, _ := base64.StdEncoding.DecodeString(signature)
					data[len(data)-1] ^= 1
					for _, other := range []map[string]any{with(signs, "signature", base64Of(data)), with(signs, "signature", signature, "digest", base64Of(make([]byte, 32)))} {
						if got := must("verify", other); len(got) != 0 {
							t.Errorf("%s, changed: %v", name, got)
						}
					}
					refused("sign", "sign", with(signs, "algorithm", "ROT13"))
				}
				refused("sign", "sign", map[string]any{"keyName": "ed-public.pem", "algorithm": "EdDSA", "digest": base64Of(digest[:])})
				refused("sign", "sign", map[string]any{"keyName": "rsa.pem", "algorithm": "RS512", "digest": base64Of(digest[:])})
				refused("verify signature", "verify", map[string]any{"keyName": "aes.b64", "algorithm": "PS256", "digest": base64Of(digest[:]), "signature": nonce})
				refused("verify signature", "verify", map[string]any{"keyName": "nobody's", "algorithm": "PS256", "digest": base64Of(digest[:]), "signature": nonce})

				for _, name := range []string{"rsa.pem", "rsa-public.json", "p256.json", "ed.pem"} {
					got := must("getkey", map[string]any{"name": name})
					block, _ := pem.Decode([]byte(got["publicKey"]))
					if block == nil || block.Type != "PUBLIC KEY" || got["name"] != name {
						t.Errorf("%s: %v", name, got)
						continue
					}
					if key, err := x509.ParsePKIXPublicKey(block.Bytes); err != nil || strings.HasPrefix(name, "rsa") && !pairs.rsa.PublicKey.Equal(key) {
						t.Errorf("%s is %v %v", name, key, err)
					}
					var parts map[string]any
					text := must("getkey", map[string]any{"name": name, "format": "JSON"})["publicKey"]
					if err := json.Unmarshal([]byte(text), &parts); err != nil || parts["kty"] == nil || parts["d"] != nil {
						t.Errorf("%s: %s %v", name, text, err)
					}
				}
				bad := func(name, format, tag, message string, status int, code codes.Code) {
					t.Helper()
					request := map[string]any{"name": name}
					if format != "" {
						request["format"] = json.Number(format)
					}
					head, partly := strings.CutSuffix(subtleError(protocol, status, code, tag, message), "…")
					if _, err := do(t, vault, "getkey", request); err == nil || err.Error() != head && (!partly || !strings.HasPrefix(err.Error(), head)) {
						t.Errorf("%s %s: %v", name, format, err)
					}
				}
				bad("aes.b64", "", "ERR_CRYPTO_KEY", "failed to retrieve key aes.b64: key not found", 500, codes.Internal)
				bad("nobody's", "1", "ERR_CRYPTO_KEY", "failed to retrieve key nobody's: "+map[string]string{"set": "key not found", "files": "failed to load key 'nobody's': …"}[vault], 500, codes.Internal)
				bad("rsa.pem", "7", "ERR_BAD_REQUEST", "invalid request: invalid key format", 400, codes.InvalidArgument)
			})
		}
	}
	if !strings.Contains(d.Output(), "a crypto operation failed") || !strings.Contains(d.Output(), "message authentication failed") {
		t.Error("the log does not tell why operations fail")
	}
}

// What every operation has in common.
func TestSubtleCryptoThatIsNotThere(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	metrics := machine.Port(t)
	d := startWith(t, m, newKeyPairs(t).documents+subtlePolicies, "app", "--metrics-port", metrics)
	bare := start(t, m, "bare")
	none, nothing := subtleOver(bare), map[string]any{}
	for protocol, do := range subtleOver(d) {
		for operation := range subtleCalls {
			for vault, want := range map[string]string{
				"nobody": subtleError(protocol, 400, codes.InvalidArgument, "ERR_CRYPTO_PROVIDER_NOT_FOUND", "crypto provider nobody not found"),
				"theirs": subtleError(protocol, 400, codes.InvalidArgument, "ERR_CRYPTO_PROVIDER_NOT_FOUND", "crypto provider theirs not found"),
			} {
				if _, err := do(t, vault, operation, nothing); err == nil || err.Error() != want {
					t.Errorf("%s of %s: %v", operation, vault, err)
				}
			}
			if _, err := none[protocol](t, "files", operation, nothing); err == nil || err.Error() != subtleError(protocol, 500, codes.Internal, "ERR_CRYPTO_PROVIDERS_NOT_CONFIGURED", "crypto providers not configured") {
				t.Errorf("%s where there are none: %v", operation, err)
			}
			if protocol == "gRPC" {
				if _, err := do(t, "", operation, nothing); err == nil || err.Error() != "InvalidArgument invalid request: missing component name" {
					t.Errorf("%s of no component: %v", operation, err)
				}
			}
		}
	}
	const route = "/v1.0-alpha1/subtlecrypto/files/"
	d.expect(400, `{"errorCode":"ERR_MALFORMED_REQUEST","message":"failed deserializing HTTP body: …`, "POST", route+"encrypt", "{")
	d.expect(400, `{"errorCode":"ERR_MALFORMED_REQUEST","message":"failed deserializing HTTP body: …`, "POST", route+"verify", `{"digest":"no Base64!"}`)
	d.expect(200, "{…", "POST", route+"getkey", `{"name":"rsa.pem","unknown":1}`)
	if got := d.do("GET", route+"getkey", ""); got.status < 400 {
		t.Errorf("GET: %d %s", got.status, got.body)
	}
	const key = `{"name":"rsa.pem"}`
	d.expect(200, "{…", "POST", "/v1.0-alpha1/subtlecrypto/set/getkey", key)
	if got := d.do("POST", "/v1.0-alpha1/subtlecrypto/set/getkey", key); got.status != 429 || !strings.Contains(got.body, "ERR_CRYPTO_KEY") {
		t.Errorf("a limit answers %d %s", got.status, got.body)
	}
	page := metricsPage(t, metrics)
	for _, line := range []string{
		`dapr_component_crypto_count{app_id="app",component="files",namespace="",operation="get",success="true"} 1`,
		`dapr_component_crypto_count{app_id="app",component="set",namespace="",operation="get",success="false"} 1`,
	} {
		if !strings.Contains(page, line) {
			t.Errorf("metrics lack %s", line)
		}
	}
	if got := d.do("GET", "/v1.0/metadata", "").body; !strings.Contains(got, `"_SubtleCrypto"`) {
		t.Errorf("metadata tells of %s", got)
	}
}

const subtlePolicies = `---
apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: policies}
spec:
  policies:
    rateLimits:
      once: {limit: 1, per: 1h}
  targets:
    components:
      set:
        outbound: {rateLimit: once}
`

// metricsPage is what a sidecar tells on its port of metrics.
func metricsPage(t testing.TB, port string) string {
	t.Helper()
	response, err := http.Get("http://127.0.0.1:" + port + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	page, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(page)
}

// The conformance functions of components-contrib, which say what a crypto provider has to do for Dapr, through a sidecar.
func TestCryptoProvidersConform(t *testing.T) {
	t.Parallel()
	client := startWith(t, machine.New(t), newKeyPairs(t).documents, "app").client()
	key := func(kind, name, algorithms string) map[string]any {
		return map[string]any{"type": kind, "name": name, "algorithms": strings.Fields(algorithms)}
	}
	for _, vault := range []string{"files", "set"} {
		t.Run(vault, func(t *testing.T) {
			config, err := conformance.NewTestConfig(vault, []string{"public", "symmetric"}, map[string]any{"keys": []map[string]any{
				key("public", "ed-public.pem", "EdDSA"), key("private", "ed.pem", "EdDSA"), key("public", "p256-public.pem", "ES256"), key("private", "p256.json", "ES256"),
				key("public", "rsa-public.json", "RSA-OAEP"), key("private", "rsa.pem", "PS256 PS384 PS512 RS256 RS384 RS512 RSA1_5 RSA-OAEP RSA-OAEP-256 RSA-OAEP-384 RSA-OAEP-512"),
				key("symmetric", "aes.b64", "A256CBC A256GCM A256KW C20P XC20P C20PKW XC20PKW A128CBC-HS256"),
			}})
			if err != nil {
				t.Fatal(err)
			}
			conformance.ConformanceTests(t, nil, remoteVault{client, vault}, config)
		})
	}
}

// remoteVault is a sidecar's crypto provider as one of the library.
type remoteVault struct {
	dapr runtimev1.DaprClient
	name string
}

func (remoteVault) Init(context.Context, library.Metadata) error      { return nil }
func (remoteVault) Close() error                                      { return nil }
func (remoteVault) GetComponentMetadata() (none metadata.MetadataMap) { return none }
func (remoteVault) SupportedSignatureAlgorithms() []string {
	return kitcrypto.SupportedSignatureAlgorithms()
}
func (remoteVault) SupportedEncryptionAlgorithms() []string {
	return slices.Concat(kitcrypto.SupportedSymmetricAlgorithms(), kitcrypto.SupportedAsymmetricAlgorithms())
}

func (v remoteVault) GetKey(ctx context.Context, name string) (jwk.Key, error) {
	got, err := v.dapr.SubtleGetKeyAlpha1(ctx, &runtimev1.SubtleGetKeyRequest{ComponentName: v.name, Name: name, Format: runtimev1.SubtleGetKeyRequest_JSON})
	if err != nil {
		return nil, err
	}
	return jwk.ParseKey([]byte(got.GetPublicKey()))
}

func (v remoteVault) Encrypt(ctx context.Context, plain []byte, algorithm, key string, nonce, associated []byte) (sealed, tag []byte, err error) {
	got, err := v.dapr.SubtleEncryptAlpha1(ctx, &runtimev1.SubtleEncryptRequest{ComponentName: v.name, Plaintext: plain, Algorithm: algorithm, KeyName: key, Nonce: nonce, AssociatedData: associated})
	return got.GetCiphertext(), got.GetTag(), err
}

func (v remoteVault) Decrypt(ctx context.Context, sealed []byte, algorithm, key string, nonce, tag, associated []byte) ([]byte, error) {
	got, err := v.dapr.SubtleDecryptAlpha1(ctx, &runtimev1.SubtleDecryptRequest{ComponentName: v.name, Ciphertext: sealed, Algorithm: algorithm, KeyName: key, Nonce: nonce, Tag: tag, AssociatedData: associated})
	return got.GetPlaintext(), err
}

func (v remoteVault) WrapKey(ctx context.Context, plain jwk.Key, algorithm, key string, nonce, associated []byte) (wrapped, tag []byte, err error) {
	data, err := kitcrypto.SerializeKey(plain)
	if err != nil {
		return nil, nil, err
	}
	got, err := v.dapr.SubtleWrapKeyAlpha1(ctx, &runtimev1.SubtleWrapKeyRequest{ComponentName: v.name, PlaintextKey: data, Algorithm: algorithm, KeyName: key, Nonce: nonce, AssociatedData: associated})
	return got.GetWrappedKey(), got.GetTag(), err
}

func (v remoteVault) UnwrapKey(ctx context.Context, wrapped []byte, algorithm, key string, nonce, tag, associated []byte) (jwk.Key, error) {
	got, err := v.dapr.SubtleUnwrapKeyAlpha1(ctx, &runtimev1.SubtleUnwrapKeyRequest{ComponentName: v.name, WrappedKey: wrapped, Algorithm: algorithm, KeyName: key, Nonce: nonce, Tag: tag, AssociatedData: associated})
	if err != nil {
		return nil, err
	}
	return jwk.FromRaw(got.GetPlaintextKey())
}

func (v remoteVault) Sign(ctx context.Context, digest []byte, algorithm, key string) ([]byte, error) {
	got, err := v.dapr.SubtleSignAlpha1(ctx, &runtimev1.SubtleSignRequest{ComponentName: v.name, Digest: digest, Algorithm: algorithm, KeyName: key})
	return got.GetSignature(), err
}

func (v remoteVault) Verify(ctx context.Context, digest, signature []byte, algorithm, key string) (bool, error) {
	got, err := v.dapr.SubtleVerifyAlpha1(ctx, &runtimev1.SubtleVerifyRequest{ComponentName: v.name, Digest: digest, Signature: signature, Algorithm: algorithm, KeyName: key})
	return got.GetValid(), err
}
