//go:build linux

package contrib

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dapr/components-contrib/configuration"
	redisconfig "github.com/dapr/components-contrib/configuration/redis"
	contribmetadata "github.com/dapr/components-contrib/metadata"
	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/configstore"
	"github.com/sidecast/sidecast/configstore/configtest"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/tests/servers"
)

func openConfiguration(t *testing.T, c components.Component, settings map[string]string) configstore.Store {
	t.Helper()
	b, err := c.Open(patiently(t), host, settings)
	if err != nil {
		t.Fatal(err)
	}
	return b.(configstore.Store)
}

func redisPlace(t *testing.T, settings map[string]string) configtest.Place {
	t.Helper()
	store := openConfiguration(t, redisConfiguration, settings)
	client := store.(*redisConfig).client
	write := func(args ...any) {
		if err := client.DoWrite(context.Background(), args...); err != nil {
			t.Errorf("%v: %v", args, err)
		}
	}
	return configtest.Place{
		Store: store,
		Put: func(key, value, version string) {
			if version != "" {
				value += "||" + version
			}
			write("SET", key, value)
		},
		Delete: func(key string) { write("DEL", key) },
	}
}

func TestRedisConfiguration(t *testing.T) {
	servers.Redis(t) // must not start within a test that counts goroutines
	configtest.Run(t, func(t *testing.T) configtest.Place { return redisPlace(t, redisSettings(t)) }, configtest.Traits{})
}

func TestRedisSettingsAreWhatDaprTakesForThem(t *testing.T) {
	settings := redisSettings(t)
	p := redisPlace(t, settings)
	defer p.Store.Close(t.Context())
	client := p.Store.(*redisConfig).client
	theirs := redisconfig.NewRedisConfigurationStore(logs{log: discard})
	if err := theirs.Init(t.Context(), configuration.Metadata{Base: contribmetadata.Base{Properties: settings}}); err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	for _, command := range [][]any{
		{"SET", "plain", "text"}, {"SET", "versioned", "1||2||3"}, {"SET", "empty", ""}, {"SET", "bare", "||4"}, {"HSET", "hash", "a", "b"}, {"SET", "number", 7},
	} {
		if err := client.DoWrite(t.Context(), command...); err != nil {
			t.Fatal(err)
		}
	}
	for _, keys := range [][]string{nil, {"plain", "versioned", "empty", "bare", "hash", "number", "absent"}} {
		ours, err := p.Store.Get(t.Context(), keys, nil)
		if err != nil {
			t.Fatal(err)
		}
		want, err := theirs.Get(t.Context(), &configuration.GetRequest{Keys: keys})
		if err != nil {
			t.Fatal(err)
		}
		for key, item := range want.Items {
			if got := ours[key]; got.Value != item.Value || got.Version != item.Version {
				t.Errorf("%s is %+v, to Dapr %+v", key, got, item)
			}
		}
		if len(ours) != len(want.Items) || len(ours) != 3 {
			t.Errorf("%q are %v, to Dapr %v", keys, ours, want.Items)
		}
	}
}

// TestRedisTellsOfChanges: what is watched is told at once, and not only when it is looked at again.
func TestRedisTellsOfChanges(t *testing.T) {
	settings := redisSettings(t)
	p := redisPlace(t, settings)
	defer p.Store.Close(t.Context())
	r := p.Store.(*redisConfig)
	prefix := fmt.Sprintf("__keyspace@%d__:", r.db)
	for channel, pattern := range map[string]bool{prefix + "a": false, prefix + "*": true} {
		ctx, cancel := context.WithTimeout(t.Context(), hung)
		heard, ended := make(chan string, 1000), make(chan struct{})
		go func() {
			defer close(ended)
			r.listen(ctx, channel, pattern, func(channel string) { heard <- channel })
		}()
		for told := false; !told && ctx.Err() == nil; { // it does not tell when it has begun
			p.Put("a", "1", "")
			select {
			case got := <-heard:
				told = got == prefix+"a"
			case <-time.After(20 * time.Millisecond):
			}
		}
		if ctx.Err() != nil {
			t.Errorf("nothing is told on %s", channel)
		}
		cancel()
		<-ended
	}
}

func TestRedisWatchesManyKeys(t *testing.T) {
	p := redisPlace(t, redisSettings(t))
	defer p.Store.Close(t.Context())
	keys := make([]string, 3*mostApart)
	for i := range keys {
		keys[i] = fmt.Sprintf("k%d", i)
	}
	ctx, cancel := context.WithCancel(t.Context())
	told, ended := make(chan []string, 1000), make(chan error)
	go func() { ended <- p.Store.Watch(ctx, keys, nil, func(keys []string) { told <- keys }) }()
	<-told
	for ok := false; !ok; {
		p.Put(keys[20], fmt.Sprint(len(told)), "")
		select {
		case got := <-told:
			ok = slices.Contains(got, keys[20])
		case <-time.After(20 * time.Millisecond):
		}
	}
	cancel()
	<-ended
}

// postgresTable makes a table with a trigger as Dapr's documentation has it.
func postgresTable(t *testing.T, url, table, channel string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(patiently(t), url)
	if err != nil {
		t.Fatal(err)
	}
	for _, statement := range []string{
		"CREATE TABLE " + table + " (KEY VARCHAR PRIMARY KEY, VALUE VARCHAR NOT NULL, VERSION VARCHAR NOT NULL, METADATA JSON)",
		`CREATE FUNCTION notify_` + table + `() RETURNS TRIGGER AS $$
			DECLARE data json;
			BEGIN
				IF (TG_OP = 'DELETE') THEN data = row_to_json(OLD); ELSE data = row_to_json(NEW); END IF;
				PERFORM pg_notify(TG_ARGV[0], json_build_object('table', TG_TABLE_NAME, 'action', TG_OP, 'data', data)::text);
				RETURN NULL;
			END; $$ LANGUAGE plpgsql`,
		"CREATE TRIGGER config AFTER INSERT OR UPDATE OR DELETE ON " + table + " FOR EACH ROW EXECUTE PROCEDURE notify_" + table + "('" + channel + "')",
	} {
		if _, err := conn.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	return conn
}

func postgresPlace(t *testing.T, url string, named bool) configtest.Place {
	t.Helper()
	return postgresPlaceIn(t, url, fmt.Sprintf("config%d", tables.Add(1)), named)
}

func postgresPlaceIn(t *testing.T, url, table string, named bool) configtest.Place {
	t.Helper()
	channel := "channel_" + table
	conn := postgresTable(t, url, table, channel)
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	settings, p := map[string]string{"connectionString": url, "table": table, "timeout": hung.String()}, configtest.Place{}
	if named {
		settings["notifyChannel"] = channel
	} else {
		p.Metadata = map[string]string{"pgNotifyChannel": channel}
	}
	p.Store = openConfiguration(t, postgresConfiguration, settings)
	p.Put = func(key, value, version string) {
		_, err := conn.Exec(context.Background(), "INSERT INTO "+table+" VALUES ($1, $2, $3, '{\"of\": \"test\"}') ON CONFLICT (key) DO UPDATE SET value = $2, version = $3", key, value, version)
		if err != nil {
			t.Errorf("put %s: %v", key, err)
		}
	}
	p.Delete = func(key string) {
		if _, err := conn.Exec(context.Background(), "DELETE FROM "+table+" WHERE key = $1", key); err != nil {
			t.Errorf("delete %s: %v", key, err)
		}
	}
	return p
}

func TestPostgresConfiguration(t *testing.T) {
	url := servers.Postgres(t)
	named := false
	configtest.Run(t, func(t *testing.T) configtest.Place {
		named = !named
		return postgresPlace(t, url, named)
	}, configtest.Traits{Ignore: []goleak.Option{
		goleak.IgnoreAnyFunction("github.com/jackc/pgx/v5/pgxpool.(*Pool).triggerHealthCheck.func1"), // after a connection broke it sleeps for half a second, and ends
	}})
}

func TestPostgresSettingsHaveMetadataAndBadRequestsAreTold(t *testing.T) {
	p := postgresPlace(t, servers.Postgres(t), false)
	defer p.Store.Close(t.Context())
	p.Put("a", "1", "1")
	items, err := p.Store.Get(t.Context(), []string{"a"}, map[string]string{"any": "thing"})
	if err != nil || items["a"].Metadata["of"] != "test" {
		t.Errorf("got %v, %v", items, err)
	}
	if _, err := p.Store.Get(t.Context(), []string{"a;b"}, nil); fault.KindOf(err) != fault.Invalid || !strings.Contains(err.Error(), "invalid key : 'a;b'") {
		t.Errorf("got %v", err)
	}
	for _, channel := range []string{"", "Upper", "a;b", strings.Repeat("x", 65)} {
		err := p.Store.Watch(t.Context(), nil, map[string]string{"PGNOTIFYCHANNEL": channel}, func([]string) {})
		if fault.KindOf(err) != fault.Invalid || !strings.Contains(err.Error(), "notifyChannel") {
			t.Errorf("%q: %v", channel, err)
		}
	}
	_, err = postgresConfiguration.Open(t.Context(), host, map[string]string{"connectionString": servers.Postgres(t), "table": "absent"})
	if err == nil || !strings.Contains(err.Error(), "absent") {
		t.Errorf("a table that is not there: %v", err)
	}
}

// TestNotificationsOfAnyFormAreTaken: whoever may notify the channel writes what he likes.
func TestNotificationsOfAnyFormAreTaken(t *testing.T) {
	for payload, want := range map[string][]string{
		`{"data":{"key":"a","value":"1"}}`: {"a"}, `{"data":{"KEY":"a","version":null}}`: {"a"}, `{"Data":{"key":7}}`: nil, `{"data":"x"}`: nil, `[]`: nil, "": nil, "text": nil,
	} {
		if got := keyOf(payload); !slices.Equal(got, want) {
			t.Errorf("%s is about %v", payload, got)
		}
	}
}

// watchSurvives: a watch either goes on when its server is killed and comes back, or ends, so that its owner watches again.
func watchSurvives(t *testing.T, server mortal, p configtest.Place, put func(ctx context.Context) error) {
	t.Helper()
	defer p.Store.Close(t.Context())
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	told, ended := make(chan struct{}, 1), make(chan error, 1)
	watch := func() {
		ended <- p.Store.Watch(ctx, []string{"a"}, p.Metadata, func([]string) {
			select {
			case told <- struct{}{}:
			default:
			}
		})
	}
	go watch()
	<-told
	killed(t, server, func() {
		away(t, "Get", attempt(t, func(ctx context.Context) error {
			_, err := p.Store.Get(ctx, []string{"a"}, nil)
			return err
		}))
	})
	eventually(t, "writing", put)
	for deadline := time.After(hung); ; {
		select {
		case <-told:
			items, err := p.Store.Get(patiently(t), []string{"a"}, nil)
			if err == nil && items["a"].Value == "after" {
				cancel()
				<-ended
				return
			}
		case err := <-ended:
			if fault.KindOf(err) != fault.Unavailable {
				t.Fatalf("the watch ended with %v", err)
			}
			pause(t.Context(), 50*time.Millisecond)
			go watch()
		case <-deadline:
			t.Fatal("nobody is told of what changed")
		}
	}
}

func TestRedisConfigurationOutlivesItsServer(t *testing.T) {
	t.Parallel()
	server := servers.Own(t, servers.OfRedis)
	p := redisPlace(t, redisAt(server.Address(), "0"))
	watchSurvives(t, server, p, func(ctx context.Context) error {
		return p.Store.(*redisConfig).client.DoWrite(ctx, "SET", "a", "after")
	})
}

func TestPostgresConfigurationOutlivesItsServer(t *testing.T) {
	t.Parallel()
	server := servers.Own(t, servers.OfPostgres)
	url := "postgres://postgres@" + server.Address() + "/postgres?sslmode=disable"
	p := postgresPlaceIn(t, url, "settings", true)
	watchSurvives(t, server, p, func(ctx context.Context) error {
		conn, err := pgx.Connect(ctx, url)
		if err != nil {
			return err
		}
		defer conn.Close(ctx)
		_, err = conn.Exec(ctx, "INSERT INTO settings VALUES ('a', 'after', '1', NULL) ON CONFLICT DO NOTHING")
		return err
	})
}

func FuzzKeyOf(f *testing.F) {
	f.Add(`{"data":{"key":"a","value":"1","version":null}}`)
	f.Add(`{"data":[1]}`)
	f.Fuzz(func(t *testing.T, payload string) {
		if got := keyOf(payload); len(got) > 1 {
			t.Errorf("%q", got)
		}
	})
}

// Of a cluster the library asks one server, so that a list of all keys would not have all.
func TestAClusterOfRedisIsAskedForKeysByName(t *testing.T) {
	r := &redisConfig{apart: true, life: newLife(host.Log)}
	if _, err := r.Get(t.Context(), nil, nil); fault.ReasonOf(err) != fault.NotSupported {
		t.Errorf("Get: %v", err)
	}
	if err := r.Watch(t.Context(), nil, nil, func([]string) { t.Error("it is watched") }); fault.ReasonOf(err) != fault.NotSupported {
		t.Errorf("Watch: %v", err)
	}
	r.life.calls.Wait()
}
