package blocks

import (
	"context"
	"sync/atomic"

	"github.com/sidecast/sidecast/access"
	"github.com/sidecast/sidecast/actors"
	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/governance"
	"github.com/sidecast/sidecast/resiliency"
)

// Secrets reads secrets for the app, as far as its scopes let it. What components refer to passes no scope.
type Secrets struct {
	components *components.Set
	scopes     atomic.Pointer[access.SecretScopes]
	lanes      *componentLanes
}

func newSecrets(d Deps, rules *rulebook) *Secrets {
	s := &Secrets{components: d.Components, lanes: newComponentLanes(d, rules, "secrets", governance.Secretstore)}
	s.SetScopes(d.Secrets)
	return s
}

// SetScopes says which secrets the app may read from now on.
func (s *Secrets) SetScopes(scopes access.SecretScopes) { s.scopes.Store(&scopes) }

// Get returns the parts of the secret called name; one with a single value has it under its own name. It fails with reason
// SECRET_DENIED when the app may not read it, and SECRET_NOT_FOUND when there is none. Metadata goes to the store as it is.
func (s *Secrets) Get(ctx context.Context, component, name string, metadata map[string]string) (map[string]string, error) {
	if !s.scopes.Load().Admits(component, name) {
		return nil, fault.New("secret "+name, fault.SecretDenied, "the secret scopes of %s do not let the app read it", component)
	}
	return readSecrets(ctx, s, component, "get", func(ctx context.Context, store components.SecretStore) (map[string]string, error) {
		return store.Secret(ctx, name, metadata)
	})
}

// All returns the parts of all secrets that the app may read, by name. Metadata goes to the store as it is.
func (s *Secrets) All(ctx context.Context, component string, metadata map[string]string) (map[string]map[string]string, error) {
	all, err := readSecrets(ctx, s, component, "bulk_get", func(ctx context.Context, store components.SecretStore) (map[string]map[string]string, error) {
		return store.Secrets(ctx, metadata)
	})
	for name := range all {
		if !s.scopes.Load().Admits(component, name) {
			delete(all, name)
		}
	}
	return all, err
}

func readSecrets[T any](ctx context.Context, s *Secrets, component, op string,
	read func(context.Context, components.SecretStore) (T, error)) (found T, err error) {
	use, err := s.components.Secrets(ctx, component)
	if err != nil {
		return found, err
	}
	defer use.Release()
	ctx, record := s.lanes.begin(ctx, use.Name, op)
	defer record.end(&err)
	return pass(ctx, s.lanes.of(use.Name), "", resiliency.Call{Op: op, Idempotent: true},
		func(ctx context.Context, _ actors.Grant) (T, error) { return read(ctx, use.Backend) }, asItIs)
}

// asItIs is for calls that no fallback answers.
func asItIs[T any](_ context.Context, _ *actors.Lane, value T, err error) (T, error) {
	return value, err
}
