package contrib

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	pgauth "github.com/dapr/components-contrib/common/authentication/postgresql"
	"github.com/dapr/components-contrib/configuration"
	"github.com/dapr/components-contrib/configuration/postgres"
	contribmetadata "github.com/dapr/components-contrib/metadata"
	kitmetadata "github.com/dapr/kit/metadata"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/configstore"
	"github.com/sidecast/sidecast/fault"
)

// postgresConfiguration, under both names that Dapr has for it.
var (
	postgresConfiguration = components.Foreign(components.ConfigurationBlock, "postgresql",
		"Settings in a table of PostgreSQL (columns key, value, version, metadata), whose trigger notifies a channel of changes.", postgresConfigurationFields, openPostgresConfiguration)
	postgresConfigurationShort = postgresConfiguration.As("postgres")
)

// postgresConfig reads by the library's store. It listens itself: the library's listener ends with its first lost
// connection, keeps one of the pool, and panics at a notification of another form.
type postgresConfig struct {
	inner   configuration.Store
	connect *pgxpool.Config // of listeners
	channel string
	life    *life
}

var _ configstore.Store = (*postgresConfig)(nil)

func openPostgresConfiguration(ctx context.Context, host components.Host, s components.Settings) (configstore.Store, error) {
	const op = "configuration.postgresql: open"
	inner := postgres.NewPostgresConfigurationStore(newLogs(host.Log, nil))
	if err := inner.Init(ctx, configuration.Metadata{Base: contribmetadata.Base{Name: host.Component, Properties: maps.Clone(s.Values)}}); err != nil {
		closeQuietly(inner)
		return nil, badOpen(ctx, op, s, err)
	}
	config, err := listenerConfig(s.Values)
	if err != nil {
		closeQuietly(inner)
		return nil, badOpen(ctx, op, s, err)
	}
	return &postgresConfig{inner: inner, connect: config, channel: s.Values["notifyChannel"], life: newLife(host.Log)}, nil
}

// listenerConfig is how the library connects.
func listenerConfig(values map[string]string) (*pgxpool.Config, error) {
	var auth pgauth.PostgresAuthMetadata
	if err := kitmetadata.DecodeMetadata(values, &auth); err != nil {
		return nil, err
	}
	if err := auth.InitWithMetadata(values, pgauth.InitWithMetadataOpts{AzureADEnabled: true}); err != nil {
		return nil, err
	}
	return auth.GetPgxPoolConfig()
}

// Get implements configstore.Store. The library makes conditions of metadata that no row can meet: it gets none.
func (p *postgresConfig) Get(ctx context.Context, keys []string, _ map[string]string) (map[string]configstore.Item, error) {
	const op = "configuration.postgresql: get"
	calling, leave, err := p.life.enter(ctx, op)
	if err != nil {
		return nil, err
	}
	defer leave()
	if at := slices.IndexFunc(keys, func(key string) bool { return !validSetting().MatchString(key) }); at >= 0 {
		return nil, fault.New(op, fault.BadRequest, "invalid key : '%s'", keys[at])
	}
	keys = slices.Clone(keys)
	answer, err := detached(calling, p.life, func() (*configuration.GetResponse, error) {
		return p.inner.Get(calling, &configuration.GetRequest{Keys: keys})
	})
	if err != nil {
		return nil, p.life.failure(ctx, op, err)
	}
	items := make(map[string]configstore.Item, len(answer.Items))
	for key, item := range answer.Items {
		items[key] = configstore.Item{Value: item.Value, Version: item.Version, Metadata: item.Metadata}
	}
	return items, nil
}

// What the library takes for a key and the name of a channel, and the longest of those.
var (
	validSetting = onFirstUse(`^[a-zA-Z0-9./_]*$`)
	validChannel = onFirstUse(`^[a-z0-9./_]+$`)
)

const longestChannel = 64

// Watch implements configstore.Store, with a connection of its own. Metadata pgNotifyChannel names the channel where the
// manifest does not.
func (p *postgresConfig) Watch(ctx context.Context, _ []string, metadata map[string]string, changed func(keys []string)) error {
	const op = "configuration.postgresql: watch"
	calling, leave, err := p.life.enter(ctx, op)
	if err != nil {
		return err
	}
	defer leave()
	channel := p.channel
	for name, value := range metadata {
		if channel == "" && strings.EqualFold(name, "pgNotifyChannel") {
			channel = value
		}
	}
	if len(channel) > longestChannel || !validChannel().MatchString(channel) {
		return fault.New(op, fault.BadRequest, "notifyChannel must be set in component metadata or request metadata, to at most %d of a-z, 0-9, and ./_; it is %q", longestChannel, channel)
	}
	return p.life.failure(ctx, op, p.listen(calling, channel, changed))
}

func (p *postgresConfig) listen(ctx context.Context, channel string, changed func(keys []string)) error {
	config := p.connect.ConnConfig.Copy()
	if before := p.connect.BeforeConnect; before != nil {
		if err := before(ctx, config); err != nil {
			return err
		}
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return err
	}
	defer func() {
		ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
		defer cancel()
		_ = conn.Close(ending) // the server notices by itself, too
	}()
	if _, err := conn.Exec(ctx, "LISTEN "+pgx.Identifier{channel}.Sanitize()); err != nil {
		return err
	}
	changed(nil)
	for {
		note, err := conn.WaitForNotification(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return fault.E("", fault.None, fault.BackendDown, fmt.Errorf("the connection that listens to %s is lost: %w", channel, err))
		}
		changed(keyOf(note.Payload))
	}
}

// keyOf is the key that a notification is about, or nil where it does not say: any may have changed.
func keyOf(payload string) []string {
	var note struct{ Data map[string]any }
	if json.Unmarshal([]byte(payload), &note) != nil {
		return nil
	}
	for name, value := range note.Data {
		if key, ok := value.(string); ok && strings.EqualFold(name, "key") {
			return []string{key}
		}
	}
	return nil
}

// Close implements configstore.Store.
func (p *postgresConfig) Close(ctx context.Context) error {
	return p.life.close(ctx, "configuration.postgresql: close", p.inner.Close)
}
