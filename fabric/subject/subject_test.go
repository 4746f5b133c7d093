package subject_test

import (
	"strings"
	"testing"

	"github.com/sidecast/sidecast/fabric/subject"
	"pgregory.net/rapid"
)

func TestTokenIsOneReadableToken(t *testing.T) {
	for in, want := range map[string]string{
		"orders":    "orders",
		"Orders_1-": "Orders_1-",
		"orders.v2": "orders=2Ev2",
		"":          "=",
		"=":         "=3D",
		"*":         "=2A",
		">":         "=3E",
		"a b":       "a=20b",
		"ü":         "=C3=BC",
		"\x00":      "=00",
	} {
		if got := subject.Token(in); got != want {
			t.Errorf("Token(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestUntokenRefusesWhatTokenDoesNotWrite(t *testing.T) {
	for _, bad := range []string{"", "a.b", "a b", "=4", "a=", "=zz", "=2e", "=41", "*", "a=2E="} {
		if s, err := subject.Untoken(bad); err == nil {
			t.Errorf("Untoken(%q) = %q, want an error", bad, s)
		}
	}
}

func TestTokenIsReversible(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := string(rapid.SliceOf(rapid.Byte()).Draw(t, "s"))
		token := subject.Token(s)
		if token == "" || strings.ContainsAny(token, ".*> \t\r\n") {
			t.Fatalf("Token(%q) = %q is not one token", s, token)
		}
		if back, err := subject.Untoken(token); err != nil || back != s {
			t.Fatalf("Untoken(%q) = %q, %v, want %q", token, back, err, s)
		}
	})
}

func FuzzUntoken(f *testing.F) {
	for _, seed := range []string{"orders", "=", "=2E", "a=2", "=zz", "a.b"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, token string) {
		s, err := subject.Untoken(token)
		if err == nil && subject.Token(s) != token {
			t.Fatalf("Untoken(%q) = %q, whose token is %q", token, s, subject.Token(s))
		}
	})
}
