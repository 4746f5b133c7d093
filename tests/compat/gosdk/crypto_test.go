package gosdk

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/dapr/go-sdk/client"
)

const keys = `
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: keys}
spec:
  type: crypto.dapr.jwks
  version: v1
  metadata:
  - {name: jwks, value: '{"keys":[{"kty":"oct","kid":"aes","k":"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY"}]}'}
`

func TestCrypto(t *testing.T) {
	file := filepath.Join(t.TempDir(), "keys.yaml")
	if err := os.WriteFile(file, []byte(keys), 0o600); err != nil {
		t.Fatal(err)
	}
	c := sidecar(t, t.TempDir(), "app", "--resources-path", file)
	for _, plain := range [][]byte{[]byte("a secret"), bytes.Repeat([]byte("0123456789"), 1<<17)} {
		encrypted, err := c.Encrypt(t.Context(), bytes.NewReader(plain), client.EncryptOptions{ComponentName: "keys", KeyName: "aes", KeyWrapAlgorithm: "A256KW"})
		if err != nil {
			t.Fatal(err)
		}
		document, err := io.ReadAll(encrypted)
		if err != nil || bytes.Contains(document, plain[:8]) {
			t.Fatal(len(document), err)
		}
		decrypted, err := c.Decrypt(t.Context(), bytes.NewReader(document), client.DecryptOptions{ComponentName: "keys"})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(decrypted); err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%d of %d bytes: %v", len(got), len(plain), err)
		}
	}
}
