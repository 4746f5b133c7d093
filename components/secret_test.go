package components

import (
	"context"
	"slices"
	"strings"
	"testing"

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
	if text := Explain(m, known); !strings.Contains(text, `token is "nats://me:(secret)@host:4222"`) || strings.Contains(text, "hunter22") {
		t.Error(text)
	}
	s := NewSet(Options{Known: known, Documents: docs(m)})
	defer closeSet(t, s)
	if _, err := s.State(t.Context(), "cart"); !strings.Contains(err.Error(), `"nats://me:(secret)@host" is not one of`) || strings.Contains(err.Error(), "hunter22") {
		t.Error(err)
	}
	if _, secrets, err := s.resolve(t.Context(), m, known[0]); err != nil || secrets.scrub("as hunter22") != "as (secret)" {
		t.Errorf("%v, %q", err, secrets.scrub("as hunter22"))
	}
}
