package compat

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/dapr/components-contrib/bindings"
	contribconfig "github.com/dapr/components-contrib/configuration"
	"github.com/dapr/components-contrib/metadata"
	"github.com/dapr/components-contrib/secretstores"
	bindingconformance "github.com/dapr/components-contrib/tests/conformance/bindings"
	configconformance "github.com/dapr/components-contrib/tests/conformance/configuration"
	secretconformance "github.com/dapr/components-contrib/tests/conformance/secretstores"
	"github.com/dapr/components-contrib/tests/utils/configupdater"
	postgresupdater "github.com/dapr/components-contrib/tests/utils/configupdater/postgres"
	redisupdater "github.com/dapr/components-contrib/tests/utils/configupdater/redis"
	commonv1 "github.com/dapr/dapr/pkg/proto/common/v1"
	runtimev1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"github.com/dapr/kit/logger"

	"github.com/sidecast/sidecast/tests/machine"
	"github.com/sidecast/sidecast/tests/servers"
)

// The conformance functions of components-contrib for bindings, through a sidecar and an app of HTTP.
func TestBindingsConform(t *testing.T) {
	t.Parallel()
	for _, b := range []struct {
		kind, operations string
		settings         func(t *testing.T) []string
		metadata         map[string]string
	}{
		{kind: "bindings.cron", operations: "read", settings: func(*testing.T) []string { return []string{"schedule: @every 1s"} }},
		{kind: "bindings.localstorage", operations: "operations create get", settings: func(t *testing.T) []string {
			return []string{"rootPath: " + t.TempDir()}
		}, metadata: map[string]string{"fileName": "conforming"}},
		{kind: "bindings.http", operations: "operations create", settings: func(t *testing.T) []string {
			return []string{"url: http://127.0.0.1:" + serve(t, http.HandlerFunc(outside))}
		}},
		{kind: "bindings.redis", operations: "operations create", settings: func(t *testing.T) []string { return []string{"redisHost: " + servers.Redis(t)} },
			metadata: map[string]string{"key": "conforming"}},
		{kind: "bindings.postgresql", operations: "operations exec query close", settings: func(t *testing.T) []string { return []string{"connectionString: " + servers.Postgres(t)} }},
		{kind: "bindings.mysql", operations: "operations exec query close", settings: func(t *testing.T) []string { return []string{"url: root@tcp(" + servers.MySQL(t) + ")/"} }},
		{kind: "bindings.kafka", operations: "operations create read", settings: func(t *testing.T) []string {
			return []string{"brokers: " + servers.Kafka(t), "authType: none", "topics: conforming", "publishTopic: conforming", "initialOffset: oldest"}
		}},
		{kind: "bindings.rabbitmq", operations: "operations create read", settings: func(t *testing.T) []string {
			return []string{"host: " + servers.RabbitMQ(t), "queueName: conforming"}
		}},
		{kind: "bindings.mqtt3", operations: "operations create read", settings: func(t *testing.T) []string {
			return []string{"url: " + servers.MQTT(t), "topic: conforming", "consumerID: conforming"}
		}},
	} {
		t.Run(b.kind, func(t *testing.T) {
			config, err := bindingconformance.NewTestConfig(b.kind, strings.Fields(b.operations), map[string]any{"output": b.metadata})
			if err != nil {
				t.Fatal(err)
			}
			t.Parallel() // not before: the library keeps a part of the configuration for all
			r := &remoteBinding{reading: make(chan struct{})}
			d := startWith(t, machine.New(t), component(conforming, b.kind, b.settings(t)...), "bound", "--app-port", serve(t, r))
			r.dapr = d.client()
			bindingconformance.ConformanceTests(t, nil, (*remoteInput)(r), r, config)
		})
	}
}

// remoteBinding is a sidecar's binding as one of the library for output, and the app that has its events.
type remoteBinding struct {
	dapr    runtimev1.DaprClient
	reading chan struct{} // closed when handle is there
	once    sync.Once
	handle  bindings.Handler
}

func (*remoteBinding) Init(context.Context, bindings.Metadata) error { return nil }

func (*remoteBinding) Close() error { return nil }

func (*remoteBinding) GetComponentMetadata() metadata.MetadataMap { return nil }

// Operations are those that the refusal of another one names.
func (r *remoteBinding) Operations() (all []bindings.OperationKind) {
	_, err := r.Invoke(context.Background(), &bindings.InvokeRequest{Operation: "none of them"})
	_, named, _ := strings.Cut(fmt.Sprint(err), "supported operations:")
	for _, name := range strings.Fields(named) {
		all = append(all, bindings.OperationKind(name))
	}
	return all
}

func (r *remoteBinding) Invoke(ctx context.Context, request *bindings.InvokeRequest) (*bindings.InvokeResponse, error) {
	got, err := r.dapr.InvokeBinding(ctx, &runtimev1.InvokeBindingRequest{
		Name: conforming, Operation: string(request.Operation), Data: request.Data, Metadata: request.Metadata,
	})
	return &bindings.InvokeResponse{Data: got.GetData(), Metadata: got.GetMetadata()}, err
}

// ServeHTTP is the app's: an event waits until somebody reads.
func (r *remoteBinding) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	if request.Method != http.MethodPost || request.URL.Path != "/"+conforming {
		return // asked whether it wants the events, it does not refuse
	}
	body, err := io.ReadAll(request.Body)
	if err == nil {
		select {
		case <-r.reading:
			_, err = r.handle(request.Context(), &bindings.ReadResponse{Data: body})
		case <-request.Context().Done():
			err = request.Context().Err()
		}
	}
	if err != nil {
		w.WriteHeader(http.StatusInternalServerError)
	}
}

// remoteInput is a remoteBinding for input.
type remoteInput remoteBinding

func (*remoteInput) Init(context.Context, bindings.Metadata) error { return nil }

func (*remoteInput) Close() error { return nil }

func (*remoteInput) GetComponentMetadata() metadata.MetadataMap { return nil }

// Read hands the first event over; the library has room for no more.
func (r *remoteInput) Read(_ context.Context, handle bindings.Handler) error {
	var first sync.Once
	r.handle = func(ctx context.Context, e *bindings.ReadResponse) (answer []byte, err error) {
		first.Do(func() { answer, err = handle(ctx, e) })
		return answer, err
	}
	r.once.Do(func() { close(r.reading) })
	return nil
}

// The conformance function of components-contrib for secret stores, through a sidecar.
func TestSecretStoresConform(t *testing.T) { // alone: the library sets the environment
	for kind, settings := range map[string]func(t *testing.T) []string{
		"secretstores.local.env": func(*testing.T) []string { return nil },
		"secretstores.local.file": func(t *testing.T) []string {
			return []string{"secretsFile: " + writeFile(t, "secrets.json", `{"conftestsecret": "abcd", "secondsecret": "efgh"}`)}
		},
	} {
		t.Run(kind, func(t *testing.T) {
			m := machine.New(t)
			m.Env = []string{"conftestsecret=abcd", "secondsecret=efgh"}
			d := startWith(t, m, component(conforming, kind, settings(t)...), "app")
			secretconformance.ConformanceTests(t, nil, remoteSecrets{d.client()}, secretconformance.NewTestConfig(kind, nil))
		})
	}
}

// remoteSecrets is a sidecar's secret store as one of the library.
type remoteSecrets struct{ dapr runtimev1.DaprClient }

func (remoteSecrets) Init(context.Context, secretstores.Metadata) error { return nil }

func (remoteSecrets) Features() []secretstores.Feature { return nil }

func (remoteSecrets) GetComponentMetadata() metadata.MetadataMap { return nil }

func (remoteSecrets) Close() error { return nil }

func (s remoteSecrets) GetSecret(ctx context.Context, r secretstores.GetSecretRequest) (secretstores.GetSecretResponse, error) {
	got, err := s.dapr.GetSecret(ctx, &runtimev1.GetSecretRequest{StoreName: conforming, Key: r.Name, Metadata: r.Metadata})
	return secretstores.GetSecretResponse{Data: got.GetData()}, err
}

func (s remoteSecrets) BulkGetSecret(ctx context.Context, r secretstores.BulkGetSecretRequest) (secretstores.BulkGetSecretResponse, error) {
	got, err := s.dapr.GetBulkSecret(ctx, &runtimev1.GetBulkSecretRequest{StoreName: conforming, Metadata: r.Metadata})
	all := secretstores.BulkGetSecretResponse{Data: map[string]map[string]string{}}
	for name, secret := range got.GetData() {
		all.Data[name] = secret.GetSecrets()
	}
	return all, err
}

// conformed counts the runs of TestConfigurationStoresConform.
var conformed atomic.Int32

// The conformance function of components-contrib for configuration stores, through a sidecar. It waits for a minute and a half
// for what must not come.
func TestConfigurationStoresConform(t *testing.T) {
	t.Parallel()
	for kind, store := range map[string]struct {
		settings func(t *testing.T) map[string]string
		updater  func(logger.Logger) configupdater.Updater
		oldValue bool // the library expects of a setting that is gone what it was, where a sidecar tells that it is gone
	}{
		"configuration.redis": {func(t *testing.T) map[string]string {
			return map[string]string{"redisHost": servers.Redis(t), "redisDB": fmt.Sprint(901 + conformed.Add(1))} // one that is empty
		}, redisupdater.NewRedisConfigUpdater, false},
		"configuration.postgresql": {func(t *testing.T) map[string]string {
			return map[string]string{"connectionString": servers.Postgres(t), "table": "conforming_settings", "notifyChannel": "config"}
		}, postgresupdater.NewPostgresConfigUpdater, true},
	} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			m := machine.New(t)
			settings := store.settings(t)
			var given []string
			for key, value := range settings {
				given = append(given, key+": "+value)
			}
			name := strings.TrimPrefix(kind, "configuration.")
			r := &remoteSettings{oldValue: store.oldValue, cancels: map[string]context.CancelFunc{}}
			r.start = func() {
				r.dapr = startWith(t, m, component(conforming, kind, given...), "app").client()
			}
			configconformance.ConformanceTests(t, settings, r, store.updater(logger.NewLogger("conformance")), configconformance.NewTestConfig(name, nil, nil), name)
			r.streams.Wait()
		})
	}
}

// remoteSettings is a sidecar's configuration store as one of the library.
type remoteSettings struct {
	start    func()
	oldValue bool
	dapr     runtimev1.DaprClient
	streams  sync.WaitGroup
	cancels  map[string]context.CancelFunc
}

// Init starts the sidecar: there is a table by now.
func (s *remoteSettings) Init(context.Context, contribconfig.Metadata) error { s.start(); return nil }

func (*remoteSettings) GetComponentMetadata() metadata.MetadataMap { return nil }

func (*remoteSettings) Close() error { return nil }

func (s *remoteSettings) Get(ctx context.Context, r *contribconfig.GetRequest) (*contribconfig.GetResponse, error) {
	got, err := s.dapr.GetConfiguration(ctx, &runtimev1.GetConfigurationRequest{StoreName: conforming, Keys: r.Keys, Metadata: r.Metadata})
	return &contribconfig.GetResponse{Items: settingsOf(got)}, err
}

// settingsOf are items as the library has them.
func settingsOf(got interface {
	GetItems() map[string]*commonv1.ConfigurationItem
}) map[string]*contribconfig.Item {
	items := map[string]*contribconfig.Item{}
	for key, item := range got.GetItems() {
		items[key] = &contribconfig.Item{Value: item.GetValue(), Version: item.GetVersion(), Metadata: item.GetMetadata()}
		if item.GetMetadata() == nil && item.GetVersion() != "" {
			items[key].Metadata = map[string]string{} // an empty one is none on its way
		}
	}
	return items
}

// Subscribe passes on what changes; what there is at the beginning is not for the library.
func (s *remoteSettings) Subscribe(_ context.Context, r *contribconfig.SubscribeRequest, handle contribconfig.UpdateHandler) (string, error) {
	ctx, cancel := context.WithCancel(context.Background()) // r's ends with its test, before the subscription
	stream, err := s.dapr.SubscribeConfiguration(ctx, &runtimev1.SubscribeConfigurationRequest{StoreName: conforming, Keys: r.Keys, Metadata: r.Metadata})
	if err != nil {
		cancel()
		return "", err
	}
	first, err := stream.Recv() // the id alone
	if err != nil {
		cancel()
		return "", err
	}
	id := first.GetId()
	s.cancels[id] = cancel
	s.streams.Go(func() {
		last := map[string]*contribconfig.Item{}
		for {
			got, err := stream.Recv()
			if err != nil {
				return
			}
			items := settingsOf(got)
			for key, item := range items {
				if gone := item.Value == "" && item.Version == ""; !gone {
					last[key] = item
				} else if s.oldValue && last[key] != nil {
					items[key] = last[key]
				}
			}
			_ = handle(ctx, &contribconfig.UpdateEvent{ID: id, Items: items}) // it never fails
		}
	})
	return id, nil
}

func (s *remoteSettings) Unsubscribe(ctx context.Context, r *contribconfig.UnsubscribeRequest) error {
	_, err := s.dapr.UnsubscribeConfiguration(ctx, &runtimev1.UnsubscribeConfigurationRequest{StoreName: conforming, Id: r.ID})
	s.cancels[r.ID]()
	return err
}
