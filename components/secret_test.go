package components

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/state"
)

func TestPasswordsOfConnectionStringsAreSecrets(t *testing.T) {
	for text, want := range map[string][]string{
		"amqp://guest:hunter22@host:5672":              {"hunter22"},
		"amqp://guest:hunt%er22@host:5672":             {"hunt%er22"}, // not a URL: what reads it says so, with its parts
		"postgres://me:hun%2Fter@host/db?sslmode=no":   {"hun/ter", "hun%2Fter"},
		"nats://a:hunter22@one:4222,nats://b@two":      {"hunter22@one:4222,nats://b", "hunter22"},
		"amqp://guest:hunt@er22@host":                  {"hunt@er22", "hunt"},
		"host=h user=me password=hunter22 port=5432":   {"hunter22"},
		"host=h password = 'hunt er' user=me":          {"hunt er"},
		"redis:6379":                                   nil,
		"amqp://host:5672/path":                        nil,
		"amqp://u:a@host, whose password is too short": nil,
	} {
		if got := passwords(text); !slices.Equal(got, want) {
			t.Errorf("passwords(%q) = %q, want %q", text, got, want)
		}
	}
}

func TestADriverMayShowThePasswordAlone(t *testing.T) {
	s := newScrubber([]string{"amqp://guest:hunter22@host:5672"})
	if got := s.scrub(`dial host as "guest" with "hunter22"`); got != `dial host as "guest" with "(secret)"` {
		t.Error(got)
	}
}

func TestAPasswordInAnAddressIsNotShown(t *testing.T) {
	known := []Component{stateTest(func(context.Context, Host, testConfig) (state.Store, error) { return nil, nil })}
	m := cart(Entry{Key: "token", Value: "nats://me:hunter22@host:4222"}, Entry{Key: "mode", Value: "nats://me:hunter22@host"})
	s := NewSet(Options{Known: known, Documents: docs(m)})
	defer closeSet(t, s)
	if _, err := s.State(t.Context(), "cart"); !strings.Contains(err.Error(), `"nats://me:(secret)@host" is not one of`) || strings.Contains(err.Error(), "hunter22") {
		t.Error(err)
	}
	if _, secrets, err := s.resolve(t.Context(), m, known[0]); err != nil || secrets.scrub("as hunter22") != "as (secret)" {
		t.Errorf("%v, %q", err, secrets.scrub("as hunter22"))
	}
}

// ailing is a store that shows its password when it says what is wrong with it.
type ailing struct {
	fakeStore
	password string
}

func (a *ailing) Ailment() error {
	return fault.New("dial", fault.BackendDown, "no welcome for %s", a.password)
}

func TestStatusShowsNoSecret(t *testing.T) {
	known := stateTest(func(_ context.Context, _ Host, c testConfig) (state.Store, error) {
		return &ailing{password: "open-sesame"}, nil
	})
	m := cart(Entry{Key: "password", Secret: &SecretRef{Name: "PASS", Key: "PASS"}})
	s := NewSet(Options{Known: []Component{known}, Documents: docs(m), LookupEnv: func(string) (string, bool) { return "open-sesame", true }})
	defer closeSet(t, s)
	use, err := s.State(t.Context(), "cart")
	if err != nil {
		t.Fatal(err)
	}
	use.Release()
	if got := s.Statuses()[0]; got.State != "degraded" || !strings.Contains(got.Error, "no welcome for (secret)") {
		t.Errorf("status %+v", got)
	}
}
