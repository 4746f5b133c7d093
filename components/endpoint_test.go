package components

import (
	"os"
	"strings"
	"testing"

	"github.com/sidecast/sidecast/manifest"
	"github.com/sidecast/sidecast/manifest/schematest"
)

// What the reader takes the schema of endpoints takes; of what the reader refuses for its shape, it refuses these.
func TestEndpointSchemaAgreesWithTheReader(t *testing.T) {
	schema, err := EndpointSchema()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("testdata/lint/endpoints/endpoints.yaml")
	if err != nil {
		t.Fatal(err)
	}
	good, bad := string(manifest.Split(text)[0].Text), string(manifest.Split(text)[1].Text)
	swap := func(old, by string) string {
		if !strings.Contains(good, old) {
			t.Fatalf("the document has no %q", old)
		}
		return strings.Replace(good, old, by, 1)
	}
	for text, allowed := range map[string]bool{
		good: true, bad: false,
		swap("value: en-US", "value: 7"):                                           true,
		swap("value: en-US", "envRef: LANGUAGE"):                                   true,
		swap("scopes: [cart]", "auth: {secretStore: vault}"):                       true,
		swap("  clientTLS:", "  clientTLS:\n    renegotiation: OnceAsClient"):      true,
		swap("  clientTLS:", "  clientTLS:\n    renegotiation: Sometimes"):         false,
		swap("https://api.example.com/v1", "ftp://api.example.com"):                false,
		swap("https://api.example.com/v1", "https://api.example.com/v1?a=b"):       false,
		swap("  baseUrl: https://api.example.com/v1\n", ""):                        false,
		swap("    value: en-US", "    values: en-US"):                              false,
		swap("  - name: Accept-Language\n    value: en-US", "  - value: en-US"):    false,
		swap("{secretKeyRef: {name: ca, key: pem}}", "{secretKeyRef: {key: pem}}"): false,
	} {
		r := &reader{}
		r.file("endpoints.yaml", []byte(text))
		said := schematest.Document(schema, []byte(text))
		if (said == nil) != allowed || (len(r.findings) == 0) != allowed {
			t.Errorf("%s\nthe schema says %v, the reader %v", text, said, r.findings)
		}
	}
}
