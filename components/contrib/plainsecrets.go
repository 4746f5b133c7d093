package contrib

import (
	"context"
	"maps"

	contribmetadata "github.com/dapr/components-contrib/metadata"
	"github.com/dapr/components-contrib/secretstores"
	"github.com/dapr/kit/logger"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/fault"
)

// plainSecrets makes a component of a secret store of the library.
func plainSecrets(name string, make func(logger.Logger) secretstores.SecretStore) components.Component {
	d := described{block: components.SecretBlock, product: name, own: func() any { return make(logs{log: unheard}) }}
	name = "secretstores." + name
	return components.Described(d.block, d.product, d.doc, d.fields, func(ctx context.Context, host components.Host, s components.Settings) (*secretStore, error) {
		v := &secretStore{name: name, inner: make(newLogs(host.Log, nil)), life: newLife(host.Log), slots: makeSlots()}
		err := initialize(ctx, v.life, v.inner, func() error {
			return v.inner.Init(ctx, secretstores.Metadata{Base: contribmetadata.Base{Name: host.Component, Properties: maps.Clone(s.Values)}})
		})
		if err != nil {
			return nil, badOpen(ctx, name+": open", s, err)
		}
		return v, nil
	})
}

// secretStore makes a secret store of the library one of ours.
type secretStore struct {
	name  string // the component's type
	inner secretstores.SecretStore
	life  *life
	slots chan struct{}
}

var (
	_ components.SecretStore = (*secretStore)(nil)
	_ components.Capable     = (*secretStore)(nil)
)

// Secret implements components.SecretStore. A secret without parts is none. Of one that is not there, each library says
// something else: it is an error of the store.
func (v *secretStore) Secret(ctx context.Context, name string, metadata map[string]string) (map[string]string, error) {
	op := v.name + ": get"
	calling, leave, err := v.life.enter(ctx, op)
	if err != nil {
		return nil, err
	}
	defer leave()
	answer, err := bounded(calling, v.life, v.slots, func() (secretstores.GetSecretResponse, error) {
		return v.inner.GetSecret(calling, secretstores.GetSecretRequest{Name: name, Metadata: ownMetadata(metadata)})
	})
	if err != nil {
		return nil, v.life.failure(ctx, op, err)
	}
	if len(answer.Data) == 0 {
		return nil, fault.New("secret "+name, fault.SecretNotFound, "%s does not have it", v.name)
	}
	return answer.Data, nil
}

// Secrets implements components.SecretStore.
func (v *secretStore) Secrets(ctx context.Context, metadata map[string]string) (map[string]map[string]string, error) {
	op := v.name + ": get all"
	calling, leave, err := v.life.enter(ctx, op)
	if err != nil {
		return nil, err
	}
	defer leave()
	answer, err := bounded(calling, v.life, v.slots, func() (secretstores.BulkGetSecretResponse, error) {
		return v.inner.BulkGetSecret(calling, secretstores.BulkGetSecretRequest{Metadata: ownMetadata(metadata)})
	})
	if err != nil {
		return nil, v.life.failure(ctx, op, err)
	}
	return answer.Data, nil
}

// ownMetadata is a copy for the library, which may write into it.
func ownMetadata(metadata map[string]string) map[string]string {
	own := make(map[string]string, len(metadata))
	maps.Copy(own, metadata)
	return own
}

// Capabilities implements components.Capable.
func (v *secretStore) Capabilities() []string {
	all := []string{}
	for _, feature := range v.inner.Features() {
		all = append(all, string(feature))
	}
	return all
}

// Close implements components.SecretStore.
func (v *secretStore) Close(ctx context.Context) error {
	return v.life.close(ctx, v.name+": close", func() error { return closeSafely(v.inner) })
}
