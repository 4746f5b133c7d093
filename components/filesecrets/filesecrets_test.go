package filesecrets

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/fault"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const secrets = `{
  "password": "hunter2", "port": 6379, "big": 12345678901234567890, "on": true, "none": null,
  "redis": {"user": "me", "tls": {"key": "k"}}, "list": ["a", {"b": "c"}]
}`

func write(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "secrets.json")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestSecret(t *testing.T) {
	file := write(t, secrets)
	for _, c := range []struct {
		settings map[string]string
		name     string
		want     map[string]string
	}{
		{nil, "password", map[string]string{"password": "hunter2"}},
		{nil, "port", map[string]string{"port": "6379"}},
		{nil, "big", map[string]string{"big": "12345678901234567890"}},
		{nil, "on", map[string]string{"on": "true"}},
		{nil, "none", nil},
		{nil, "redis", nil},
		{nil, "redis:tls:key", map[string]string{"redis:tls:key": "k"}},
		{nil, "list:1:b", map[string]string{"list:1:b": "c"}},
		{map[string]string{"nestedSeparator": "."}, "redis.user", map[string]string{"redis.user": "me"}},
		{map[string]string{"multiValued": "true"}, "redis", map[string]string{"user": "me", "tls:key": "k"}},
		{map[string]string{"multiValued": "true"}, "password", map[string]string{"password": "hunter2"}},
	} {
		settings := map[string]string{"secretsFile": file}
		maps.Copy(settings, c.settings)
		b, err := Component.Open(context.Background(), components.Host{}, settings)
		if err != nil {
			t.Fatal(err)
		}
		got, err := b.(components.SecretStore).Secret(context.Background(), c.name, nil)
		if !maps.Equal(got, c.want) || (c.want == nil) != (fault.ReasonOf(err) == fault.SecretNotFound) {
			t.Errorf("%s %v: got %v, %v", c.name, c.settings, got, err)
		}
		if err := b.Close(context.Background()); err != nil {
			t.Error(err)
		}
	}
}

func TestSecretsAreAllThereAre(t *testing.T) {
	file := write(t, secrets)
	for multi, want := range map[string]map[string]map[string]string{
		"false": {"password": {"password": "hunter2"}, "port": {"port": "6379"}, "big": {"big": "12345678901234567890"}, "on": {"on": "true"},
			"redis:user": {"redis:user": "me"}, "redis:tls:key": {"redis:tls:key": "k"}, "list:0": {"list:0": "a"}, "list:1:b": {"list:1:b": "c"}},
		"true": {"password": {"password": "hunter2"}, "port": {"port": "6379"}, "big": {"big": "12345678901234567890"}, "on": {"on": "true"},
			"redis": {"user": "me", "tls:key": "k"}, "list:0": {"list:0": "a"}, "list:1:b": {"list:1:b": "c"}},
	} {
		b, err := Component.Open(t.Context(), components.Host{}, map[string]string{"secretsFile": file, "multiValued": multi})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := b.(components.SecretStore).Secrets(t.Context(), nil); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("multiValued %s: got %v, %v", multi, got, err)
		}
	}
}

func TestWatchTellsWhatChangedSinceOpen(t *testing.T) {
	file := write(t, secrets)
	b, err := Component.Open(t.Context(), components.Host{}, map[string]string{"secretsFile": file})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(`{"password": "hunter3"}`), 0o600); err != nil { // before anybody watches
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	seen := false
	if err := b.(components.SecretWatcher).Watch(ctx, func() { seen = true; cancel() }); err != nil || !seen {
		t.Errorf("seen: %t, %v", seen, err)
	}
}

func TestBadFiles(t *testing.T) {
	for text, want := range map[string]string{
		"{\n\"a\": \"hunter2\n}": "line 2 cannot be read", "[1]": "is not a JSON object", "": "is not a JSON object", "{\n\n\"a\" hunter2}": "line 3",
	} {
		_, err := Component.Open(context.Background(), components.Host{}, map[string]string{"secretsFile": write(t, text)})
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter") {
			t.Errorf("%q: got %v", text, err)
		}
	}
	_, err := Component.Open(context.Background(), components.Host{}, map[string]string{"secretsFile": "/nowhere/secrets.json"})
	if fault.KindOf(err) != fault.Unavailable || !strings.Contains(err.Error(), "/nowhere/secrets.json: no such file") {
		t.Errorf("got %v", err)
	}
}
