package envsecrets

import (
	"context"
	"testing"

	"go.uber.org/goleak"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/fault"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestSecret(t *testing.T) {
	t.Setenv("ORDERS_DB", "hunter2")
	t.Setenv("SIDECAST_API_TOKEN", "hunter3")
	t.Setenv("EMPTY", "")
	for _, c := range []struct{ prefix, name, want string }{
		{"", "ORDERS_DB", "hunter2"}, {"ORDERS_", "DB", "hunter2"}, {"", "EMPTY", ""},
	} {
		s := store{c.prefix}
		got, err := s.Secret(context.Background(), c.name, nil)
		if err != nil || got[c.name] != c.want {
			t.Errorf("%s: got %v, %v", c.name, got, err)
		}
	}
	for _, c := range []struct{ prefix, name string }{
		{"", "NOT_SET"}, {"", "SIDECAST_API_TOKEN"}, {"SIDECAST_", "API_TOKEN"}, {"", "dapr_api_token"}, {"", "APP_API_TOKEN"},
	} {
		s := store{c.prefix}
		if got, err := s.Secret(context.Background(), c.name, nil); fault.ReasonOf(err) != fault.SecretNotFound {
			t.Errorf("%s: got %v, %v", c.name, got, err)
		}
	}
}

func TestSecrets(t *testing.T) {
	t.Setenv("ORDERS_DB", "hunter2")
	t.Setenv("ORDERS_", "alone")
	t.Setenv("SIDECAST_API_TOKEN", "hunter3")
	t.Setenv("DAPR_API_TOKEN", "hunter4")
	s := store{"ORDERS_"}
	if got, err := s.Secrets(t.Context(), nil); err != nil || len(got) != 1 || got["DB"]["DB"] != "hunter2" {
		t.Errorf("got %v, %v", got, err)
	}
	s = store{}
	got, err := s.Secrets(t.Context(), nil)
	if err != nil || got["ORDERS_DB"]["ORDERS_DB"] != "hunter2" || got["SIDECAST_API_TOKEN"] != nil || got["DAPR_API_TOKEN"] != nil {
		t.Errorf("got %v, %v", got, err)
	}
	s = store{"DAPR_"}
	if got, err := s.Secrets(t.Context(), nil); err != nil || len(got) != 0 {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestOpen(t *testing.T) {
	b, err := Component.Open(context.Background(), components.Host{}, map[string]string{"prefix": "X_"})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Close(context.Background()); err != nil {
		t.Error(err)
	}
}
