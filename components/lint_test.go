package components

import (
	"context"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/sidecast/sidecast/fault"
)

var update = flag.Bool("update", false, "write the golden files anew")

// Each folder of testdata/lint holds manifests and, in want.txt, all there is to say about them.
func TestLint(t *testing.T) {
	folders, err := os.ReadDir("testdata/lint")
	if err != nil {
		t.Fatal(err)
	}
	for _, folder := range folders {
		t.Run(folder.Name(), func(t *testing.T) {
			dir := filepath.Join("testdata/lint", folder.Name())
			var b strings.Builder
			findings, _ := Lint([]string{dir}, testComponents)
			for _, f := range findings {
				f.File = filepath.Base(f.File)
				b.WriteString(string(f.Severity) + " " + f.String() + "\n")
			}
			golden(t, filepath.Join(dir, "want.txt"), b.String())
			if strings.Contains(b.String(), "hunter") {
				t.Error("a secret is shown")
			}
		})
	}
}

func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got:\n%s\nwant (%s):\n%s", got, file, want)
	}
}

func TestLoadReportsEverythingAtOnce(t *testing.T) {
	docs, err := Load(context.Background(), []string{"testdata/lint/good", "testdata/lint/names", "testdata/lint/unknown-key"}, testComponents)
	if docs != nil || fault.ReasonOf(err) != fault.BadManifest || fault.KindOf(err) != fault.Invalid {
		t.Fatalf("got %v, %v", docs, err)
	}
	for _, want := range []string{"names/a.yaml:11: auth.secretStore", "unknown-key/store.yaml:9: spec.metadata.dirr", `did you mean "dir"?`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in:\n%v", want, err)
		}
	}
}

func TestLoad(t *testing.T) {
	paths := []string{"testdata/lint/good", "testdata/lint/others", "testdata/lint/good/../good/all.yaml"} // one file twice
	docs, err := Load(context.Background(), paths, testComponents)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join("testdata/lint/good/all.yaml")
	cart := Manifest{
		Name: "cart", Namespace: "test", Type: "state.test", Source: Source{File: file, Line: 3}, IgnoreErrors: true, InitTimeout: 10 * time.Second,
		SecretStore: "vault", Scopes: []string{"orders"},
		Metadata: []Entry{
			{Key: "Dir", Value: "/tmp/cart", Line: 16, valueLine: 16}, {Key: "size", Value: "1GB", Line: 17, valueLine: 18},
			{Key: "wait", Value: "30", Line: 19, valueLine: 20}, {Key: "keyprefix", Value: "name", Line: 21, valueLine: 22},
			{Key: "shards", Value: "16", Line: 23, valueLine: 24},
			{Key: "password", Secret: &SecretRef{"redis", "password"}, Line: 25, valueLine: 26},
			{Key: "token", Env: "TOKEN", Line: 27, valueLine: 28},
		},
	}
	vault := Manifest{Name: "vault", Type: "secretstores.test", Source: Source{File: file, Line: 36}}
	if want := []Manifest{cart, vault}; !reflect.DeepEqual(docs.Components, want) {
		t.Errorf("got  %#v\nwant %#v", docs.Components, want)
	}
	sub := SubscriptionManifest{
		Name: "orders", Source: Source{File: file, Line: 42}, PubSub: "pubsub", Topic: "orders.placed", Group: "shipping", Route: "/orders",
		DeadLetterTopic: "orders.dead", MaxDeliveries: 3, AckWait: 45 * time.Second, Raw: true, OnlyNew: true, Scopes: []string{"orders"},
		Metadata: map[string]string{"ackWait": "45", "group": "shipping", "maxDeliveries": "3", "onlyNew": "true", "rawPayload": "true"},
	}
	if want := []SubscriptionManifest{sub}; !reflect.DeepEqual(docs.Subscriptions, want) {
		t.Errorf("got  %+v\nwant %+v", docs.Subscriptions, want)
	}
	if !sub.For("prod", "orders") || sub.For("prod", "billing") {
		t.Error("the scopes of the subscription are not followed")
	}
	if len(docs.Policies) != 1 || docs.Policies[0].Kind != "Resiliency" || !strings.Contains(string(docs.Policies[0].YAML), "policies: {}") {
		t.Errorf("got %+v", docs.Policies)
	}
	if len(docs.Configurations) != 1 || docs.Configurations[0].Kind != "Configuration" || len(docs.Warnings) != 0 {
		t.Errorf("got %+v %v", docs.Configurations, docs.Warnings)
	}
}

// Dapr's values are JSON: a list or a mapping is taken as its text.
func TestValuesMayBeListsAndMappings(t *testing.T) {
	file := filepath.Join(t.TempDir(), "cart.yaml")
	text := "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: cart}\nspec:\n  type: state.test\n  version: v1\n  metadata:\n" +
		"  - {name: dir, value: {b: [1, x], a: true}}\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	docs, err := Load(context.Background(), []string{file}, testComponents)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := docs.Components[0].Metadata[0].Value, `{"a":true,"b":[1,"x"]}`; got != want {
		t.Errorf("the value is %s, not %s", got, want)
	}
}

func TestLoadOfMissingFolderFails(t *testing.T) {
	_, err := Load(context.Background(), []string{"testdata/nowhere"}, testComponents)
	if err == nil || !strings.Contains(err.Error(), "testdata/nowhere: no such file or directory") {
		t.Errorf("got %v", err)
	}
}

func TestLoadEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Load(ctx, []string{"testdata/lint/good"}, testComponents); fault.KindOf(err) != fault.Canceled {
		t.Errorf("got %v", err)
	}
}
