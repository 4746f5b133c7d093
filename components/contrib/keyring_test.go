package contrib

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

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
		wrapped, _, err := k.Wrap(t.Context(), plain, "A256KW", "aes", nil)
		if err != nil || bytes.Contains(wrapped, plain) {
			t.Errorf("%s: %q %v", from, wrapped, err)
		}
		if got, err := k.Unwrap(t.Context(), wrapped, "A256KW", "aes", nil, nil); err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%s: %q %v", from, got, err)
		}
		wrapped[0] ^= 1
		if _, err := k.Unwrap(t.Context(), wrapped, "A256KW", "aes", nil, nil); err == nil {
			t.Error("a key that was changed is unwrapped")
		}
		for name, want := range map[string]string{"signs": "cannot perform the 'wrapKey' operation", "nobody": "key not found"} {
			if _, _, err := k.Wrap(t.Context(), plain, "A256KW", name, nil); fault.KindOf(err) != fault.Invalid || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if _, _, err := k.Wrap(t.Context(), plain, "A128CBC", "wraps", nil); err == nil || !strings.Contains(err.Error(), "cannot be used with algorithm") {
			t.Errorf("got %v", err)
		}
		if _, err := k.Unwrap(t.Context(), plain, "A256KW", "wraps", nil, nil); err == nil || !strings.Contains(err.Error(), "cannot perform the 'unwrapKey' operation") {
			t.Errorf("got %v", err)
		}
		if err := k.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if _, _, err := k.Wrap(t.Context(), plain, "A256KW", "aes", nil); fault.ReasonOf(err) != fault.Shutdown {
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
