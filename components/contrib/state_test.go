//go:build linux

package contrib

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	postgresconfig "github.com/dapr/components-contrib/configuration/postgres"
	redisconfig "github.com/dapr/components-contrib/configuration/redis"
	redislock "github.com/dapr/components-contrib/lock/redis"
	contribmetadata "github.com/dapr/components-contrib/metadata"
	"github.com/dapr/components-contrib/pubsub/jetstream"
	"github.com/dapr/components-contrib/pubsub/rabbitmq"
	redispubsub "github.com/dapr/components-contrib/pubsub/redis"
	"github.com/dapr/components-contrib/state/etcd"
	"github.com/dapr/components-contrib/state/memcached"
	"github.com/dapr/components-contrib/state/mongodb"
	"github.com/dapr/components-contrib/state/mysql"
	postgresv1 "github.com/dapr/components-contrib/state/postgresql/v1"
	postgresv2 "github.com/dapr/components-contrib/state/postgresql/v2"
	redisstate "github.com/dapr/components-contrib/state/redis"
	"github.com/dapr/components-contrib/state/sqlite"
	"go.uber.org/goleak"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/components/datasheet"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/state"
	"github.com/sidecast/sidecast/state/statetest"
	"github.com/sidecast/sidecast/tests/servers"
)

// tolerated are goroutines that outlive their component.
var tolerated = []goleak.Option{
	// The servers, which end last: what hangs on to one is found while it is there.
	goleak.IgnoreAnyFunction("github.com/sidecast/sidecast/tests/servers.(*instance).start.func1"),
	goleak.IgnoreAnyFunction("os/exec.(*Cmd).Start.func2"),
	// A Subscribe that RabbitMQ refused waits for a minute; see tap.open.
	goleak.IgnoreAnyFunction("github.com/dapr/components-contrib/pubsub/rabbitmq.(*rabbitMQ).Subscribe"),
}

func TestMain(m *testing.M) {
	_ = flag.Set("test.parallel", "8") // tests that run side by side here mostly wait, for servers and leases
	_ = flag.Set("rapid.checks", "30") // each waits for servers too; the command line may ask for more
	flag.Parse()
	code := m.Run()
	var left error
	for deadline := time.Now().Add(hung); code == 0; { // a library may need a while to notice that it was told to end
		if left = goleak.Find(tolerated...); left == nil || time.Now().After(deadline) {
			break
		}
	}
	if err := errors.Join(left, servers.Stop()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	os.Exit(code)
}

var host = components.Host{Log: discard, AppID: "orders", Namespace: "test", Component: "backend"}

// databases counts those of Redis that tests have used: each test has one of its own.
var databases atomic.Int64

func redisSettings(t testing.TB) map[string]string {
	return redisAt(servers.Redis(t), fmt.Sprint(databases.Add(1)%1000))
}

// redisAt are the settings of a client that waits for a busy server.
func redisAt(host, database string) map[string]string {
	return map[string]string{
		"redisHost": host, "redisDB": database, "dialTimeout": hung.String(), "readTimeout": hung.String(), "writeTimeout": hung.String(),
	}
}

// hung is how long what must happen may take. Nothing but a hang takes so long, however busy the machine is.
const hung = 2 * time.Minute

// patiently is a context that ends a hang.
func patiently(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), hung)
	t.Cleanup(cancel)
	return ctx
}

// tables counts the tables of the tests.
var tables atomic.Int64

func openState(t testing.TB, c components.Component, settings map[string]string) state.Store {
	t.Helper()
	b, err := c.Open(t.Context(), host, settings)
	if err != nil {
		t.Fatal(err)
	}
	return b.(state.Store)
}

// conforms runs the suite on stores of c, each with settings of its own.
func conforms(t *testing.T, c components.Component, traits statetest.Traits, settings func(t testing.TB) map[string]string) {
	traits.Parallel = true
	traits.MaxValue = cmp.Or(traits.MaxValue, MaxValue)
	var places sync.Map // the settings of a store
	open := func(t *testing.T, place map[string]string) state.Store {
		s := openState(t, c, place)
		places.Store(s, place)
		return s
	}
	traits.Reopen = func(t *testing.T, s state.Store) state.Store {
		if err := s.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		place, _ := places.Load(s)
		return open(t, place.(map[string]string))
	}
	statetest.Run(t, func(t *testing.T) state.Store { return open(t, settings(t)) }, traits)
}

func TestRedisState(t *testing.T) {
	t.Parallel()
	conforms(t, redisState, statetest.Traits{}, redisSettings)
}

func BenchmarkRedisState(b *testing.B) {
	s := openState(b, redisState, redisSettings(b))
	defer s.Close(b.Context())
	statetest.Bench(b, s)
}

var sqlTraits = statetest.Traits{NoChecks: true, TTLUnit: time.Second}

func postgresSettings(key string) func(t testing.TB) map[string]string {
	return func(t testing.TB) map[string]string {
		n := tables.Add(1)
		return map[string]string{
			"connectionString": servers.Postgres(t), key: fmt.Sprintf("t%d_", n), "metadataTableName": fmt.Sprintf("m%d", n), "maxConns": "8",
			"timeout": hung.String(),
		}
	}
}

func TestPostgresV1State(t *testing.T) {
	t.Parallel()
	conforms(t, postgresV1, sqlTraits, postgresSettings("tableName"))
}

func TestPostgresV2State(t *testing.T) {
	t.Parallel()
	conforms(t, postgresV2, sqlTraits, postgresSettings("tablePrefix"))
}

// TestSQLiteState does without fsync, which is about power cuts, and has its writers wait for each other on a slow disk.
func TestSQLiteState(t *testing.T) {
	t.Parallel()
	conforms(t, sqliteState, sqlTraits, func(t testing.TB) map[string]string {
		file := filepath.Join(t.TempDir(), "state.db") + "?_pragma=synchronous(OFF)"
		return map[string]string{"connectionString": file, "busyTimeout": hung.String(), "timeout": hung.String()}
	})
}

// TestRedisStateSharesItemsWithDapr writes as a daprd does, with the library's own store, and reads and writes over it.
func TestRedisStateSharesItemsWithDapr(t *testing.T) {
	settings := redisSettings(t)
	ours := openState(t, redisState, settings)
	defer ours.Close(t.Context())
	theirs := daprRedis(t, settings)
	theirs.set(t, "k", "1", "")
	items, err := ours.Get(t.Context(), []string{"k"})
	if err != nil || len(items) != 1 || string(items[0].Value) != "1" {
		t.Fatalf("Get = %v, %v", items, err)
	}
	tags, err := ours.Apply(t.Context(), []state.Op{{Kind: state.Set, Key: "k", Value: []byte("2"), Match: state.Exact, ETag: items[0].ETag}})
	if err != nil {
		t.Fatal(err)
	}
	if value, tag := theirs.get(t, "k"); value != "2" || tag != tags[0] {
		t.Errorf("Dapr reads %q with ETag %s, want 2 with %s", value, tag, tags[0])
	}
	theirs.set(t, "k", "3", tags[0])
	if items, err = ours.Get(t.Context(), []string{"k"}); err != nil || len(items) != 1 || string(items[0].Value) != "3" {
		t.Errorf("after Dapr wrote over it: %v, %v", items, err)
	}
}

func TestBackendsThatAreNotThereAreUnavailable(t *testing.T) {
	t.Parallel()
	for name, open := range map[string]struct {
		c        components.Component
		settings map[string]string
	}{
		"redis":     {redisState, map[string]string{"redisHost": "127.0.0.1:1"}},
		"postgres":  {postgresV2, map[string]string{"connectionString": "postgres://postgres@127.0.0.1:1/postgres?sslmode=disable"}},
		"v1":        {postgresV1, map[string]string{"connectionString": "postgres://postgres@127.0.0.1:1/postgres?sslmode=disable"}},
		"mysql":     {mysqlState, map[string]string{"connectionString": "root@tcp(127.0.0.1:1)/"}},
		"etcd":      {etcdV1, map[string]string{"endpoints": "127.0.0.1:1"}},
		"memcached": {memcachedState, map[string]string{"hosts": "127.0.0.1:1"}},
		"mongodb":   {mongoState, map[string]string{"host": "127.0.0.1:1"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := open.c.Open(t.Context(), host, open.settings)
			if fault.KindOf(err) != fault.Unavailable || fault.ReasonOf(err) != fault.BackendDown {
				t.Errorf("opening gave %v (%v)", err, fault.ReasonOf(err))
			}
		})
	}
}

// TestTheKeysAreTheLibrarys compares the keys of each component with those that the library's own settings have.
func TestTheKeysAreTheLibrarys(t *testing.T) {
	log := logs{log: discard}
	for _, c := range []struct {
		component components.Component
		library   any
		more      string // keys beside its settings that the library reads, or Dapr's examples have; those after a minus it reads and are left out
	}{
		{redisState, redisstate.NewRedisStateStore(log), "maxRetries maxRetryBackoff"},
		{redisLock, redislock.NewStandaloneRedisLock(log), "maxRetries maxRetryBackoff"},
		{redisPubSub, redispubsub.NewRedisStreams(log), "redeliverInterval"},
		{rabbitPubSub, rabbitmq.NewRabbitMQ(log), "concurrencyMode reconnectWait"},
		{jetstreamPubSub, jetstream.NewJetStream(log), "concurrencyMode"},
		{postgresV1, postgresv1.NewPostgreSQLStateStore(log), "awsRegion awsSessionToken assumeRoleArn assumeRoleSessionName"},
		{postgresV2, postgresv2.NewPostgreSQLStateStore(log), "awsRegion awsSessionToken assumeRoleArn assumeRoleSessionName"},
		{sqliteState, sqlite.NewSQLiteStateStore(log), ""},
		{mysqlState, mysql.NewMySQLStateStore(log), ""},
		{etcdV1, etcd.NewEtcdStateStoreV1(log), ""},
		{etcdV2, etcd.NewEtcdStateStoreV2(log), ""},
		{memcachedState, memcached.NewMemCacheStateStore(log), ""},
		{mongoState, mongodb.NewMongoDB(log), ""},
		{redisConfiguration, redisconfig.NewRedisConfigurationStore(log), ""},
		{postgresConfiguration, postgresconfig.NewPostgresConfigurationStore(log), "-useAWSIAM -awsAccessKey -awsSecretKey"},
	} {
		d := c.component.Describe()
		known := map[string]bool{}
		for _, key := range strings.Fields(c.more) {
			known[strings.ToLower(key)] = true
		}
		described := c.library.(interface {
			GetComponentMetadata() contribmetadata.MetadataMap
		})
		for key := range described.GetComponentMetadata() {
			if key != "concurrency" || d.Type == "pubsub.redis" { // concurrencyMode is what it reads
				known[strings.ToLower(key)] = true
			}
		}
		sheet, _ := datasheet.Of(d.Type, d.Version)
		named := func(key string) bool { // by the library's own file
			return slices.ContainsFunc(sheet.Keys, func(k datasheet.Key) bool { return strings.EqualFold(k.Name, key) })
		}
		for _, f := range d.Fields {
			switch f.Key {
			case "keyPrefix", "actorStateStore", "allowedTopics", "publishingScopes", "subscriptionScopes", "protectedTopics", "consumerID",
				"primaryEncryptionKey", "secondaryEncryptionKey", "outboxPublishPubsub", "outboxPublishTopic", "outboxPubsub", "outboxDiscardWhenMissingState":
				delete(known, strings.ToLower(f.Key))
				continue // the block's
			}
			if !known[strings.ToLower(f.Key)] && !strings.HasPrefix(f.Key, "azure") && !named(f.Key) {
				t.Errorf("%s has a key %s that the library does not read", d.Title(), f.Key)
			}
			delete(known, strings.ToLower(f.Key))
		}
		for _, key := range strings.Fields(c.more) {
			if out, left := strings.CutPrefix(key, "-"); left {
				delete(known, strings.ToLower(out))
				delete(known, strings.ToLower(key))
			}
		}
		if len(known) > 0 {
			t.Errorf("%s lacks the keys %v", d.Title(), slices.Sorted(maps.Keys(known)))
		}
	}
}

func TestWhatTheLibraryRefusesNamesItsKey(t *testing.T) {
	for name, open := range map[string]struct {
		c        components.Component
		settings map[string]string
		key      string
	}{
		"redis, a type":             {redisState, map[string]string{"redisHost": "127.0.0.1:1", "redisDB": "one"}, "redisDB"},
		"redis, what Init says":     {redisState, map[string]string{"redisHost": "127.0.0.1:1", "dialTimeout": "soon"}, "dialTimeout"},
		"redis, a misspelt key":     {redisState, map[string]string{"redisHost": "127.0.0.1:1", "redisPasword": "x"}, "redisPasword"},
		"redis, no host":            {redisState, map[string]string{}, "redisHost"},
		"sqlite, what Init says":    {sqliteState, map[string]string{"connectionString": ":memory:", "timeout": "1ms"}, "timeout"},
		"rabbitmq, no URL":          {rabbitPubSub, map[string]string{"connectionString": "amqp://guest:hunt%er22@127.0.0.1:1"}, "connectionString"},
		"postgres, no URL":          {postgresV2, map[string]string{"connectionString": "postgres://me@127.0.0.1:port/x"}, "connectionString"},
		"jetstream, no URL":         {jetstreamPubSub, map[string]string{"natsURL": "nats://127.0.0.1:port"}, "natsURL"},
		"sqlite, no file":           {sqliteState, map[string]string{}, "connectionString"},
		"mysql, no name":            {mysqlState, map[string]string{"connectionString": "root:hunter2@tcp(x"}, "connectionString"},
		"mysql, a table":            {mysqlState, map[string]string{"connectionString": "root@tcp(127.0.0.1:1)/", "tableName": "a; b"}, "tableName"},
		"mysql, no authority":       {mysqlState, map[string]string{"connectionString": "root@tcp(127.0.0.1:1)/?tls=custom"}, "connectionString"},
		"mysql, no file":            {mysqlState, map[string]string{"connectionString": "root@tcp(127.0.0.1:1)/", "pemPath": "/nowhere"}, "pemPath"},
		"etcd, no server":           {etcdV1, map[string]string{"endpoints": " , "}, "endpoints"},
		"etcd, half of TLS":         {etcdV1, map[string]string{"endpoints": "127.0.0.1:1", "tlsEnable": "true", "ca": "x"}, "tlsEnable"},
		"etcd, no certificate":      {etcdV1, map[string]string{"endpoints": "127.0.0.1:1", "tlsEnable": "true", "ca": "x", "cert": "x", "key": "x"}, "cert"},
		"mongodb, no server":        {mongoState, map[string]string{"databaseName": "x"}, "host"},
		"mongodb, no URI":           {mongoState, map[string]string{"connectionString": "http://x"}, "connectionString"},
		"memcached, no server":      {memcachedState, map[string]string{"hosts": ","}, "hosts"},
		"memcached, a misspelt key": {memcachedState, map[string]string{"hosts": "127.0.0.1:1", "maxIdleConection": "3"}, "maxIdleConection"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := open.c.Open(t.Context(), host, open.settings)
			if fault.KindOf(err) != fault.Invalid || fault.ReasonOf(err) != fault.BadManifest || !strings.Contains(err.Error(), open.key) {
				t.Errorf("opening gave %v (%v)", err, fault.ReasonOf(err))
			}
		})
	}
}

// TestVersionsAndPlaces reads manifests as a user writes them.
func TestVersionsAndPlaces(t *testing.T) {
	dir := t.TempDir()
	write := func(version, key, value string) string {
		file := filepath.Join(dir, "store.yaml")
		text := fmt.Sprintf("apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: store}\nspec:\n  type: state.postgresql\n"+
			"  version: %s\n  metadata:\n    - {name: connectionString, value: %q}\n    - {name: %s, value: %q}\n",
			version, servers.Postgres(t), key, value)
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return file
	}
	load := func(file string) error {
		docs, err := components.Load(t.Context(), []string{file}, All())
		if err != nil {
			return err
		}
		set := components.NewSet(components.Options{Host: host, Known: All(), Documents: docs})
		defer set.Close(t.Context())
		use, err := set.State(t.Context(), "store")
		if err == nil {
			use.Release()
		}
		return err
	}
	if err := load(write("v2", "tablePrefix", "versions_")); err != nil {
		t.Errorf("v2: %v", err)
	}
	if err := load(write("v1", "tableName", "versions")); err != nil {
		t.Errorf("v1: %v", err)
	}
	for _, wrong := range []struct{ version, key, value, want string }{
		{"v1", "tablePrefix", "x", `store.yaml:9: spec.metadata.tablePrefix: state.postgresql has no such key`},
		{"v3", "tableName", "x", `store.yaml:6: spec.version: "v3" is not a version of state.postgresql; valid: v1, v2`},
		{"v2", "timeout", "10ms", `store.yaml:9: spec.metadata.timeout: invalid value for 'timeout'`},
		{"v2", "timeouts", "10s", `did you mean "timeout"?`},
	} {
		if err := load(write(wrong.version, wrong.key, wrong.value)); err == nil || !strings.Contains(err.Error(), wrong.want) {
			t.Errorf("%+v: %v", wrong, err)
		}
	}
}
