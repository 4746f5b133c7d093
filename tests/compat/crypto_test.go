package compat

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	commonv1 "github.com/dapr/dapr/pkg/proto/common/v1"
	runtimev1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sidecast/sidecast/tests/machine"
)

// vaults are documents of crypto providers: files with an RSA and an AES key, and a key set given as text and by URL.
func vaults(t testing.TB) string {
	t.Helper()
	folder := t.TempDir()
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	secret := make([]byte, 32)
	_, _ = rand.Read(secret)
	set := fmt.Sprintf(`{"keys":[{"kty":"oct","kid":"aes","k":%q}]}`, base64.RawURLEncoding.EncodeToString(secret))
	for name, data := range map[string][]byte{"rsa.pem": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), "aes": secret, "broken.json": []byte("{")} {
		if err := os.WriteFile(filepath.Join(folder, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	url := "http://127.0.0.1:" + serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, set) }))
	vault := func(name, kind, key, value string) string {
		return "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: " + name + "}\nspec: {type: crypto.dapr." + kind + ", version: v1, metadata: [" + entry(key, value) + "]}\n---\n"
	}
	return vault("files", "localstorage", "path", folder) + vault("set", "jwks", "jwks", set) + vault("remote", "jwks", "jwks", url)
}

func TestCryptoOverHTTP(t *testing.T) {
	t.Parallel()
	d := startWith(t, machine.New(t), vaults(t), "app")
	large := strings.Repeat("0123456789", 1<<16) // several segments
	const route = "/v1.0-alpha1/crypto/"
	for _, c := range []struct{ vault, key, algorithm, cipher, body string }{
		{"files", "rsa.pem", "RSA", "", "secret"}, {"files", "rsa.pem", "rsa-oaep-256", "chacha20-poly1305", large}, {"files", "aes", "AES", "aes-gcm", ""},
		{"set", "aes", "A256KW", "", large}, {"remote", "aes", "AES", "", "secret"},
	} {
		fields := []string{"dapr-key-name: " + c.key, "dapr-key-wrap-algorithm: " + c.algorithm}
		if c.cipher != "" {
			fields = append(fields, "dapr-data-encryption-cipher: "+c.cipher)
		}
		got := d.expect(200, "dapr.io/enc/v1…", "PUT", route+c.vault+"/encrypt", c.body, fields...)
		if kind := got.header.Get("Content-Type"); kind != "application/octet-stream" || c.body != "" && strings.Contains(got.body, c.body) {
			t.Errorf("%v: %s", c.vault, kind)
		}
		d.expect(200, c.body, "PUT", route+c.vault+"/decrypt", got.body)
		broken := []byte(got.body)
		broken[len(broken)-1] ^= 1
		if got := d.do("PUT", route+c.vault+"/decrypt", string(broken)); got.status != 500 {
			t.Errorf("a document that was changed: %d", got.status)
		}
	}
	// A document without the name of its key.
	aes := []string{"dapr-key-name: aes", "dapr-key-wrap-algorithm: AES"}
	unnamed := d.expect(200, "dapr…", "PUT", route+"set/encrypt", "x", append(aes, "dapr-omit-decryption-key-name: true")...)
	if strings.Contains(unnamed.body, `"k":"aes"`) {
		t.Errorf("the key is named: %s", unnamed.body)
	}
	d.expect(200, "x", "PUT", route+"set/decrypt", unnamed.body, "dapr-key-name: aes")
	failed := func(text string) string {
		return `{"errorCode":"ERR_CRYPTO","message":"failed to perform operation: ` + text
	}
	d.expect(500, failed("document's manifest does not contain a key name, and no key name was provided")+`"}`, "PUT", route+"set/decrypt", unnamed.body)
	d.expect(500, failed("failed to validate the document's signature")+`"}`, "PUT", route+"set/decrypt", unnamed.body, "dapr-key-name: other")
	d.expect(500, failed("invalid header: …"), "PUT", route+"set/decrypt", "no document")

	d.expect(400, `{"errorCode":"ERR_BAD_REQUEST","message":"invalid request: missing header 'dapr-key-name'"}`, "PUT", route+"set/encrypt", "x")
	d.expect(400, `{"errorCode":"ERR_BAD_REQUEST","message":"invalid request: missing header 'dapr-key-wrap-algorithm'"}`, "PUT", route+"set/encrypt", "x", aes[0])
	d.expect(400, `{"errorCode":"ERR_CRYPTO_PROVIDER_NOT_FOUND","message":"crypto provider nobody not found"}`, "PUT", route+"nobody/decrypt", "x")
	d.expect(500, failed("option Algorithm is not valid: …"), "PUT", route+"set/encrypt", "x", aes[0], "dapr-key-wrap-algorithm: ROT13")
	d.expect(500, failed("option Cipher is not valid: …"), "PUT", route+"set/encrypt", "x", append(aes, "dapr-data-encryption-cipher: ROT13")...)
	d.expect(500, failed("failed to wrap the file key: failed to …"), "PUT", route+"files/encrypt", "x", "dapr-key-name: none.pem", aes[1])
	d.expect(500, failed("failed to wrap the file key: failed to …"), "PUT", route+"files/encrypt", "x", "dapr-key-name: ../rsa.pem", aes[1])
	d.expect(500, failed("failed to wrap the file key: failed to …"), "PUT", route+"files/encrypt", "x", "dapr-key-name: broken.json", aes[1])
	bare := start(t, machine.New(t), "bare")
	bare.expect(500, `{"errorCode":"ERR_CRYPTO_PROVIDERS_NOT_CONFIGURED","message":"crypto providers not configured"}`, "PUT", route+"set/decrypt", "x")
	var told struct{ Components []struct{ Name, Type string } }
	if err := json.Unmarshal([]byte(d.do("GET", "/v1.0/metadata", "").body), &told); err != nil || len(told.Components) != 3 || told.Components[0].Type != "crypto.dapr.localstorage" {
		t.Errorf("metadata tells of %v %v", told, err)
	}
}

// sent sends messages and returns the data that comes back.
func sent[In any, Out interface {
	GetPayload() *commonv1.StreamPayload
}](stream interface {
	Send(In) error
	Recv() (Out, error)
	CloseSend() error
}, messages ...In) ([]byte, error) {
	go func() {
		for _, m := range messages {
			if stream.Send(m) != nil {
				return
			}
		}
		_ = stream.CloseSend()
	}()
	var all []byte
	for seq := uint64(0); ; seq++ {
		out, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return all, err
		}
		if out.GetPayload().GetSeq() != seq {
			return all, fmt.Errorf("message %d comes as %d", seq, out.GetPayload().GetSeq())
		}
		all = append(all, out.GetPayload().GetData()...)
	}
}

func TestCryptoStreams(t *testing.T) {
	t.Parallel()
	client := startWith(t, machine.New(t), vaults(t), "app").client()
	encrypt := func(messages ...*runtimev1.EncryptRequest) ([]byte, error) {
		stream, err := client.EncryptAlpha1(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		return sent(stream, messages...)
	}
	decrypt := func(messages ...*runtimev1.DecryptRequest) ([]byte, error) {
		stream, err := client.DecryptAlpha1(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		return sent(stream, messages...)
	}
	plain := bytes.Repeat([]byte("0123456789abcdef"), 1<<16) // 1 MiB in odd pieces
	options := &runtimev1.EncryptRequestOptions{ComponentName: "files", KeyName: "rsa.pem", KeyWrapAlgorithm: "RSA"}
	messages := []*runtimev1.EncryptRequest{{Options: options}}
	for seq, rest := uint64(0), plain; len(rest) > 0; seq++ {
		n := min(len(rest), 10007)
		messages = append(messages, &runtimev1.EncryptRequest{Payload: &commonv1.StreamPayload{Data: rest[:n], Seq: seq}})
		rest = rest[n:]
	}
	document, err := encrypt(messages...)
	if err != nil || len(document) <= len(plain) {
		t.Fatal(len(document), err)
	}
	got, err := decrypt(&runtimev1.DecryptRequest{
		Options: &runtimev1.DecryptRequestOptions{ComponentName: "files"}, Payload: &commonv1.StreamPayload{Data: document},
	})
	if err != nil || !bytes.Equal(got, plain) {
		t.Errorf("%d bytes of %d come back: %v", len(got), len(plain), err)
	}
	for _, c := range []struct {
		messages []*runtimev1.EncryptRequest
		code     codes.Code
		says     string
	}{
		{[]*runtimev1.EncryptRequest{{}}, codes.InvalidArgument, "invalid request: first message does not contain the required options"},
		{[]*runtimev1.EncryptRequest{{Options: &runtimev1.EncryptRequestOptions{}}}, codes.InvalidArgument, "invalid request: missing property 'keyName' in the options message"},
		{[]*runtimev1.EncryptRequest{{Options: &runtimev1.EncryptRequestOptions{KeyName: "k"}}}, codes.InvalidArgument, "invalid request: missing property 'keyWrapAlgorithm' in the options message"},
		{[]*runtimev1.EncryptRequest{{Options: &runtimev1.EncryptRequestOptions{KeyName: "k", KeyWrapAlgorithm: "AES"}}}, codes.InvalidArgument, "invalid request: missing component name"},
		{[]*runtimev1.EncryptRequest{{Options: &runtimev1.EncryptRequestOptions{ComponentName: "no", KeyName: "k", KeyWrapAlgorithm: "AES"}}}, codes.InvalidArgument, "crypto provider no not found"},
		{[]*runtimev1.EncryptRequest{{Options: options}, {Payload: &commonv1.StreamPayload{Data: []byte("x"), Seq: 1}}}, codes.Internal, "failed to perform operation: invalid sequence number received: 1 (expected: 0)"},
		{[]*runtimev1.EncryptRequest{{Options: options}, {Options: options}}, codes.Internal, "failed to perform operation: options found in non-leading message"},
		{nil, codes.Internal, "failed to perform operation: error receiving the first message: EOF"},
	} {
		_, err := encrypt(c.messages...)
		if s := status.Convert(err); s.Code() != c.code || s.Message() != c.says {
			t.Errorf("got %v\nwant %s", err, c.says)
		}
	}
}
