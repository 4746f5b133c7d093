package access_test

import (
	"testing"

	"github.com/sidecast/sidecast/access"
)

func TestSecretScopes(t *testing.T) {
	scopes := access.SecretScopes{
		"open":    {Denied: []string{"b"}},
		"shut":    {DefaultAccess: "Deny"},
		"allowed": {DefaultAccess: "allow", Allowed: []string{"a"}, Denied: []string{"a"}},
	}
	for _, c := range []struct {
		store, secret string
		want          bool
	}{
		{"open", "a", true}, {"open", "b", false}, {"shut", "a", false}, {"allowed", "a", true}, {"allowed", "b", false}, {"other", "a", true},
	} {
		if got := scopes.Admits(c.store, c.secret); got != c.want {
			t.Errorf("%s of %s: %t", c.secret, c.store, got)
		}
	}
	if !access.SecretScopes(nil).Admits("any", "secret") {
		t.Error("without scopes nothing may be read")
	}
}
