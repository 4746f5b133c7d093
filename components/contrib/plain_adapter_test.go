//go:build linux

package contrib

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	contribbindings "github.com/dapr/components-contrib/bindings"
	"github.com/dapr/components-contrib/bindings/cron"
	"github.com/dapr/components-contrib/bindings/localstorage"
	redisconfig "github.com/dapr/components-contrib/configuration/redis"
	contribpubsub "github.com/dapr/components-contrib/pubsub"
	"github.com/dapr/components-contrib/pubsub/rabbitmq"
	secretfile "github.com/dapr/components-contrib/secretstores/local/file"
	contribstate "github.com/dapr/components-contrib/state"
	"github.com/dapr/components-contrib/state/sqlite"
	"github.com/dapr/kit/logger"

	"github.com/sidecast/sidecast/binding"
	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/configstore"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/pubsub"
	"github.com/sidecast/sidecast/pubsub/pubsubtest"
	"github.com/sidecast/sidecast/state"
	"github.com/sidecast/sidecast/state/statetest"
	"github.com/sidecast/sidecast/tests/servers"
)

// What the components of all_state.go have in common holds our contract, as far as the library's store does.
func TestPlainState(t *testing.T) {
	t.Parallel()
	conforms(t, plainState("sqlite", "v1", newSQLite), statetest.Traits{NoChecks: true, AnyETag: true, TTLUnit: time.Second}, func(t testing.TB) map[string]string {
		return map[string]string{"connectionString": filepath.Join(t.TempDir(), "items.db"), "busyTimeout": hung.String()}
	})
}

// modest is a store that says of itself that it can do nothing.
type modest struct{ contribstate.Store }

func (modest) Features() []contribstate.Feature { return nil }

func TestAPlainStoreRefusesWhatItLacks(t *testing.T) {
	c := plainState("sqlite", "v1", func(l logger.Logger) contribstate.Store { return modest{sqlite.NewSQLiteStateStore(l)} })
	s := openState(t, c, map[string]string{"connectionString": filepath.Join(t.TempDir(), "items.db")})
	set := func(key string) state.Op { return state.Op{Kind: state.Set, Key: key, Value: []byte("1")} }
	if tags, err := s.Apply(t.Context(), []state.Op{set("a")}); err != nil || len(tags) != 1 || tags[0] != "" {
		t.Fatalf("%q, %v", tags, err)
	}
	if items, err := s.Get(t.Context(), []string{"a", "b"}); err != nil || len(items) != 1 || string(items[0].Value) != "1" || items[0].ETag != "" {
		t.Errorf("%+v, %v", items, err)
	}
	exact, short := set("a"), set("a")
	exact.Match, exact.ETag, short.TTL = state.Exact, "1", time.Second
	for name, ops := range map[string][]state.Op{"an ETag": {exact}, "a time to live": {short}, "a transaction": {set("a"), set("b")}} {
		if _, err := s.Apply(t.Context(), ops); fault.ReasonOf(err) != fault.NotSupported {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := s.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// A message is the server's until the app has handled it: what was not is given out again to who comes next.
func TestPlainPubSub(t *testing.T) {
	t.Parallel()
	ctx := patiently(t)
	c, topic := plainPubSub("rabbitmq", rabbitmq.NewRabbitMQ), fmt.Sprintf("p%d-plain", places.Add(1))
	b := openBroker(t, c, map[string]string{"connectionString": servers.RabbitMQ(t), "requeueInFailure": "true", "publisherConfirm": "true", "durable": "true", "deletedWhenUnused": "false"})
	subscribe := func() pubsub.Feed {
		feed, err := b.Subscribe(ctx, topic, pubsub.Group{Name: "group", AckWait: hung, MaxInFlight: 10})
		if err != nil {
			t.Fatal(err)
		}
		return feed
	}
	next := func(feed pubsub.Feed) pubsub.Delivery {
		t.Helper()
		got, err := feed.Next(ctx, 1)
		if err != nil || len(got) != 1 {
			t.Fatal(got, err)
		}
		return got[0]
	}
	feed := subscribe()
	event := `{"specversion":"1.0","id":"7","source":"s","type":"t","partitionkey":"k","data":1}`
	errs := b.Publish(ctx, topic, []pubsub.Message{{Data: []byte(event), ContentType: cloudEvent}, {Data: []byte("x"), Delay: time.Second}})
	if errs[0] != nil || fault.ReasonOf(errs[1]) != fault.NotSupported {
		t.Fatal(errs)
	}
	d := next(feed)
	if m := d.Message(); m.ID != "7" || m.Key != "k" || string(m.Data) != event || d.Attempt() != 1 {
		t.Errorf("attempt %d of %+v", d.Attempt(), m)
	}
	if err := d.Retry(ctx, 0); err != nil {
		t.Fatal(err)
	}
	if d = next(feed); d.Attempt() != 2 {
		t.Errorf("attempt %d", d.Attempt())
	}
	if err := feed.Close(ctx); err != nil {
		t.Fatal(err)
	}
	feed = subscribe()
	d = next(feed)
	if string(d.Message().Data) != event {
		t.Errorf("got %+v", d.Message())
	}
	if err := d.Ack(ctx); err != nil {
		t.Fatal(err)
	}
	if err := feed.Close(ctx); err != nil {
		t.Error(err)
	}
	if err := b.Close(ctx); err != nil {
		t.Error(err)
	}
}

// hub is a library that notes after each message how far it has come, whatever its handler says.
type hub struct {
	contribpubsub.PubSub
	features []contribpubsub.Feature
	values   map[string]string
	feed     chan string
	noted    chan string // closed when it reads no more
}

func (h *hub) Features() []contribpubsub.Feature { return h.features }

func (h *hub) Init(_ context.Context, m contribpubsub.Metadata) error {
	h.values = m.Properties
	return nil
}
func (h *hub) Close() error { return nil }

func (h *hub) Subscribe(ctx context.Context, r contribpubsub.SubscribeRequest, handle contribpubsub.Handler) error {
	go func() {
		defer close(h.noted)
		for {
			select {
			case <-ctx.Done():
				return
			case data := <-h.feed:
				_ = handle(ctx, &contribpubsub.NewMessage{Topic: r.Topic, Data: []byte(data)})
				h.noted <- data
			}
		}
	}()
	return nil
}

// A library that gives out one message after the other says so: nobody is to wait for more of them.
func TestPlainPubSubSaysWhatItsLibrarySaysOfBulks(t *testing.T) {
	for want, features := range map[bool][]contribpubsub.Feature{true: {contribpubsub.FeatureBulkSubscribeImmediate}, false: {contribpubsub.FeatureMessageTTL}} {
		h := &hub{features: features}
		b := openBroker(t, plainPubSub("pulsar", func(logger.Logger) contribpubsub.PubSub { return h }), map[string]string{"host": "localhost:6650"})
		if got := b.(pubsub.Immediate).Immediate(); got != want {
			t.Errorf("with %v it says %v", features, got)
		}
		if err := b.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

func TestPlainCheckpointsAreOfWhatWasHandled(t *testing.T) {
	ctx := patiently(t)
	h := &hub{feed: make(chan string, 2), noted: make(chan string, 2)}
	b := openBroker(t, plainCheckpoints("azure.eventhubs", func(logger.Logger) contribpubsub.PubSub { return h }), map[string]string{"connectionString": "x", "storageAccountName": "a", "storageContainerName": "c"})
	feed, err := b.Subscribe(ctx, "t", pubsub.Group{Name: "group", AckWait: 2 * hung, MaxInFlight: 10})
	if err != nil {
		t.Fatal(err)
	}
	if h.values["enableInOrderMessageDelivery"] != "true" || h.values["consumerID"] != "group" {
		t.Errorf("the library is told %v", h.values)
	}
	for _, data := range []string{"handled", "given back"} {
		h.feed <- data
		ds, err := feed.Next(ctx, 1)
		if err != nil || len(ds) != 1 || string(ds[0].Message().Data) != data {
			t.Fatal(ds, err)
		}
		if data == "handled" {
			if err := ds[0].Ack(ctx); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := feed.Close(ctx); err != nil {
		t.Error(err)
	}
	if first := <-h.noted; first != "handled" {
		t.Errorf("noted %q", first)
	}
	if data, more := <-h.noted; more {
		t.Errorf("noted %q, which nobody has handled", data)
	}
	if err := b.Close(ctx); err != nil {
		t.Error(err)
	}
}

// The adapter itself neither loses a message nor keeps one, whatever feeds do, over a library that gives back what failed and
// a queue that outlives its readers: RabbitMQ's, told to.
func TestPlainPubSubAgreesWithTheModel(t *testing.T) {
	t.Parallel()
	c := plainPubSub("rabbitmq", rabbitmq.NewRabbitMQ)
	pubsubtest.Model(t, pubsubtest.Backend{
		Durable: true, NoDelay: true, NoOrder: true, LocalAttempts: true, OnlyEvents: true, NothingKept: true,
		New: func(t testing.TB) pubsubtest.Place {
			return placeOf(t, c, fmt.Sprintf("p%d-", places.Add(1)), map[string]string{
				"connectionString": servers.RabbitMQ(t), "prefetchCount": "255", "publisherConfirm": "true", "requeueInFailure": "true", "deletedWhenUnused": "false",
			})
		},
	})
}

func TestPlainSecrets(t *testing.T) {
	file := filepath.Join(t.TempDir(), "secrets.json")
	if err := os.WriteFile(file, []byte(`{"db": "hunter2", "more": {"user": "me"}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	b, err := plainSecrets("local.file", secretfile.NewLocalSecretStore).Open(t.Context(), host, map[string]string{"secretsFile": file})
	if err != nil {
		t.Fatal(err)
	}
	s := b.(components.SecretStore)
	if parts, err := s.Secret(t.Context(), "db", nil); err != nil || parts["db"] != "hunter2" {
		t.Errorf("%v, %v", parts, err)
	}
	if all, err := s.Secrets(t.Context(), nil); err != nil || len(all) != 2 {
		t.Errorf("%v, %v", all, err)
	}
	if _, err := s.Secret(t.Context(), "nothing", nil); err == nil {
		t.Error("a secret that is not there is found")
	}
	if err := s.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := s.Secret(t.Context(), "db", nil); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("after its end: %v", err)
	}
}

func TestPlainConfiguration(t *testing.T) {
	settings := redisSettings(t)
	place := redisPlace(t, settings)
	t.Cleanup(func() { _ = place.Store.Close(context.Background()) })
	b, err := plainConfiguration("redis", redisconfig.NewRedisConfigurationStore).Open(t.Context(), host, settings)
	if err != nil {
		t.Fatal(err)
	}
	s := b.(configstore.Store)
	place.Put("discount", "10", "v1")
	if items, err := s.Get(t.Context(), []string{"discount", "none"}, nil); err != nil || len(items) != 1 || items["discount"].Value != "10" || items["discount"].Version != "v1" {
		t.Errorf("%+v, %v", items, err)
	}
	watching, stop := context.WithCancel(patiently(t))
	told, ended := make(chan []string, 100), make(chan error, 1)
	go func() {
		ended <- s.Watch(watching, []string{"discount"}, nil, func(keys []string) { told <- keys })
	}()
	if first := <-told; first != nil {
		t.Errorf("the first call names %q", first)
	}
	stop()
	if err := <-ended; err == nil {
		t.Error("a watch that ended has no error")
	}
	if err := s.Close(patiently(t)); err != nil {
		t.Error(err)
	}
}

func TestPlainBindings(t *testing.T) {
	folder := t.TempDir()
	h := host
	h.Binding = components.Binding{Input: true, Output: true}
	b, err := plainOutput("localstorage", localstorage.NewLocalStorage).Open(t.Context(), h, map[string]string{"rootPath": folder})
	if err != nil {
		t.Fatal(err)
	}
	out := b.(binding.Output)
	if _, err := out.Invoke(t.Context(), binding.Request{Operation: "create", Data: []byte("x"), Metadata: map[string]string{"fileName": "f"}}); err != nil {
		t.Error(err)
	}
	if text, err := os.ReadFile(filepath.Join(folder, "f")); err != nil || string(text) != "x" {
		t.Errorf("%q, %v", text, err)
	}
	if err := out.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestAPlainInputNamesWhatItMisses(t *testing.T) {
	c := plainInput("cron", cron.NewCron)
	h := host
	h.Binding = components.Binding{Input: true}
	if _, err := c.Open(t.Context(), h, nil); fault.ReasonOf(err) != fault.BadManifest || !strings.Contains(err.Error(), "spec.metadata.schedule") {
		t.Errorf("got %v", err)
	}
	b, err := c.Open(t.Context(), h, map[string]string{"schedule": "@daily"})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// parrot is a binding of both directions that says as events what it is told.
type parrot struct{ said chan []byte }

func (e *parrot) Init(context.Context, contribbindings.Metadata) error { return nil }
func (e *parrot) Operations() []contribbindings.OperationKind {
	return []contribbindings.OperationKind{contribbindings.CreateOperation}
}

func (e *parrot) Invoke(_ context.Context, r *contribbindings.InvokeRequest) (*contribbindings.InvokeResponse, error) {
	e.said <- r.Data
	return nil, nil
}

func (e *parrot) Read(ctx context.Context, handle contribbindings.Handler) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case data := <-e.said:
			_, _ = handle(ctx, &contribbindings.ReadResponse{Data: data})
		}
	}
}
func (e *parrot) Close() error { return nil }

func TestPlainBindingsOfBothDirections(t *testing.T) {
	said := make(chan []byte, 1)
	h := host
	h.Binding = components.Binding{Input: true, Output: true}
	b, err := plainTwoWay("kubemq", func(logger.Logger) *parrot { return &parrot{said} }).Open(t.Context(), h, map[string]string{"address": "here:1", "channel": "c"})
	if err != nil {
		t.Fatal(err)
	}
	two := b.(*twoWayBinding)
	if _, err := two.Invoke(t.Context(), binding.Request{Operation: "create", Data: []byte("hello")}); err != nil || !slices.Equal(two.Operations(), []string{"create"}) {
		t.Fatal(err)
	}
	reading, stop := context.WithCancel(t.Context())
	heard, ended := make(chan []byte, 1), make(chan error, 1)
	go func() {
		ended <- two.Read(reading, func(e binding.Event) ([]byte, error) { heard <- e.Data; return nil, nil })
	}()
	if data := <-heard; !bytes.Equal(data, []byte("hello")) {
		t.Errorf("got %q", data)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if err := two.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestPlainCodecKeepsWhatAnEventSays(t *testing.T) {
	metadata := plainCodec.encode(&pubsub.Message{Header: map[string]string{"a": "1"}, Metadata: map[string]string{"partitionKey": "p"}})
	if metadata["a"] != "1" || metadata["partitionKey"] != "p" {
		t.Errorf("%v", metadata)
	}
}

func TestDescribedFields(t *testing.T) {
	d := described{block: components.StateBlock, product: "sqlite", version: "v1", own: func() any { return sqlite.NewSQLiteStateStore(logs{log: unheard}) }}
	fields := d.fields()
	at := func(key string) components.Field {
		i := slices.IndexFunc(fields, func(f components.Field) bool { return f.Key == key })
		if i < 0 {
			t.Fatalf("%s is not among %+v", key, fields)
		}
		return fields[i]
	}
	if f := at("connectionString"); f.Required || !f.Secret || f.Type != "string" { // it is part of a way to sign in
		t.Errorf("%+v", f)
	}
	if f := at("cleanupInterval"); f.Type != "string" || f.Usual == "" || f.Default != "" || !slices.Equal(f.Aliases, []string{"cleanupIntervalInSeconds"}) { // the sheet has it as a text
		t.Errorf("%+v", f)
	}
	if f := at("disableWAL"); f.Type != "bool" {
		t.Errorf("%+v", f)
	}
	files := described{block: components.BindingBlock, product: "localstorage", version: "v1", own: func() any { return localstorage.NewLocalStorage(logs{log: unheard}) }}
	for _, f := range files.fields() {
		if f.Required != (f.Key == "rootPath") { // fileName is of a request, as the struct shows
			t.Errorf("%+v", f)
		}
	}
	if !strings.HasPrefix(d.doc(), "SQLite") {
		t.Error(d.doc())
	}
	for name, want := range map[string]bool{"dbPassword": true, "accessKey": true, "tokenURL": false, "secretsFile": false, "host": false, "connectionString": true} {
		if looksSecret(name) != want {
			t.Errorf("%s: %v", name, !want)
		}
	}
	for name, want := range map[string]string{"URLPath": "urlPath", "Host": "host", "TTL": "ttl", "tls": "tls"} {
		if got := lowerFirst(name); got != want {
			t.Errorf("%s: %s", name, got)
		}
	}
}
