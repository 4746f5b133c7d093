package access

import (
	"slices"
	"strings"
)

// SecretScope says which secrets of a store the app may read. Where secrets are allowed by name, no others are; otherwise
// those are not that are denied by name, and of the rest DefaultAccess decides: allow unless it says deny.
type SecretScope struct {
	DefaultAccess   string
	Allowed, Denied []string
}

// SecretScopes are the scopes of secret stores, by the store's name. A store without one gives out all its secrets.
type SecretScopes map[string]SecretScope

// Admits says whether the app may read a secret of a store.
func (s SecretScopes) Admits(store, secret string) bool {
	scope := s[store]
	switch {
	case len(scope.Allowed) > 0:
		return slices.Contains(scope.Allowed, secret)
	case slices.Contains(scope.Denied, secret):
		return false
	}
	return !strings.EqualFold(scope.DefaultAccess, Deny)
}
