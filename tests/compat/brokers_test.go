package compat

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	runtimev1 "github.com/dapr/dapr/pkg/proto/runtime/v1"

	"github.com/sidecast/sidecast/tests/machine"
	"github.com/sidecast/sidecast/tests/servers"
)

// brokersOfTheDefaultBuild are all types of pub/sub in the default build, with the settings by which one opens, and that of a
// program.
var brokersOfTheDefaultBuild = []struct {
	kind     string
	settings func(t *testing.T) []string
	plugged  bool // it is a program's
}{
	{kind: "pubsub.in-memory"},
	{kind: "pubsub.memory"},
	{kind: "pubsub.jetstream"},
	{kind: "pubsub.plugged", plugged: true},
	{kind: "pubsub.redis", settings: func(t *testing.T) []string { return []string{"redisHost: " + servers.Redis(t), "redisDB: 7"} }},
	{kind: "pubsub.rabbitmq", settings: func(t *testing.T) []string { return []string{"connectionString: " + servers.RabbitMQ(t)} }},
	{kind: "pubsub.kafka", settings: func(t *testing.T) []string { return []string{"brokers: " + servers.Kafka(t), "authType: none"} }},
	{kind: "pubsub.mqtt3", settings: func(t *testing.T) []string { return []string{"url: " + servers.MQTT(t)} }},
}

// opened waits until n subscriptions can be delivered to.
func (d *daprd) opened(n int) {
	d.t.Helper()
	d.subscribed(n)
	machine.Until(d.t, "all are subscribed", func() error {
		if got := strings.Count(d.Output(), "msg=subscribed"); got < n {
			return fmt.Errorf("%d of %d: %s", got, n, d.Output())
		}
		return nil
	})
}

// Outbox, bulk publish and subscribe, retries, dead letters and raw payloads are the same whatever the broker.
func TestEveryBrokerOfTheDefaultBuild(t *testing.T) {
	t.Parallel()
	for i, broker := range brokersOfTheDefaultBuild {
		t.Run(broker.kind, func(t *testing.T) {
			t.Parallel()
			var settings []string
			if broker.settings != nil {
				settings = broker.settings(t)
			}
			p := fmt.Sprintf("every%d-", i)
			if broker.kind == "pubsub.kafka" { // whose topics keep what a run before this one wrote
				p += fmt.Sprintf("%d-", time.Now().UnixNano())
			}
			app := newSubscriber(strings.ReplaceAll(`[
				{"pubsubname":"any","topic":"P-orders","route":"/orders","deadLetterTopic":"P-dead"},
				{"pubsubname":"any","topic":"P-dead","route":"/dead"},
				{"pubsubname":"any","topic":"P-flaky","route":"/flaky"},
				{"pubsubname":"any","topic":"P-raw","route":"/raw","metadata":{"rawPayload":"true"}},
				{"pubsubname":"any","topic":"P-written","route":"/written"},
				{"pubsubname":"any","topic":"P-many","route":"/many","bulkSubscribe":{"enabled":true,"maxMessagesCount":5,"maxAwaitDurationMs":200}}]`, "P-", p))
			var mu sync.Mutex
			asked := map[any]bool{}
			app.says = func(path string, event map[string]any) (int, string) {
				mu.Lock()
				defer mu.Unlock()
				switch data := event["data"]; {
				case path == "/many":
					return handled(path, event)
				case path == "/orders" && data == "drop":
					return 200, `{"status":"DROP"}`
				case path == "/flaky" && data == "again" && !asked[data]:
					asked[data] = true
					return 200, `{"status":"RETRY"}`
				case path == "/flaky" && data == "failed" && !asked[data]:
					asked[data] = true
					return 500, ""
				}
				return 200, `{"status":"SUCCESS"}`
			}
			ledger := component("ledger", "state.badger", "outboxPublishPubsub: any", "outboxPublishTopic: "+p+"written", "outboxPubsub: any")
			m := machine.New(t)
			if broker.plugged {
				plugIn(t, m, "plugged")
			}
			d := startWith(t, m, component("any", broker.kind, settings...)+ledger, "app", "--app-port", serve(t, app))
			d.opened(6)
			came := func(want map[string]int) {
				t.Helper()
				for left := total(want); left > 0; {
					got := app.next(t)
					events := []any{map[string]any{"event": map[string]any(got.event)}}
					if entries, bulk := got.event["entries"].([]any); bulk {
						events = entries
					}
					for _, e := range events {
						event, _ := e.(map[string]any)["event"].(map[string]any)
						what := fmt.Sprint(got.path, " ", event["data"], event["data_base64"])
						if want[what]--; want[what] < 0 {
							t.Fatalf("came once too often: %s %v, waiting for %v", what, got.event, want)
						}
						left--
					}
				}
			}
			publish := func(topic, data string) {
				t.Helper()
				d.expect(204, "", "POST", "/v1.0/publish/any/"+p+topic, data, "Content-Type: text/plain")
			}
			var entries []string
			want := map[string]int{}
			for i := range 12 {
				entries = append(entries, fmt.Sprintf(`{"entryId":"%d","event":"%d","contentType":"text/plain"}`, i, i))
				want[fmt.Sprintf("/orders %d<nil>", i)]++
				want[fmt.Sprintf("/many %d<nil>", i)]++
			}
			for _, topic := range []string{"orders", "many"} {
				d.expect(204, "", "POST", "/v1.0/publish/bulk/any/"+p+topic, "["+strings.Join(entries, ",")+"]")
			}
			came(want)
			publish("flaky", "again")
			came(map[string]int{"/flaky again<nil>": 2})
			publish("flaky", "failed")
			came(map[string]int{"/flaky failed<nil>": 2})
			publish("orders", "drop")
			came(map[string]int{"/orders drop<nil>": 1, "/dead drop<nil>": 1})
			publish("raw?metadata.rawPayload=true", "plain \x00")
			came(map[string]int{"/raw <nil>" + base64.StdEncoding.EncodeToString([]byte("plain \x00")): 1})
			d.expect(204, "", "POST", "/v1.0/state/ledger/transaction", `{"operations":[{"operation":"upsert","request":{"key":"1","value":"written"}}]}`)
			came(map[string]int{"/written written<nil>": 1})
		})
	}
}

func total(counts map[string]int) (n int) {
	for _, count := range counts {
		n += count
	}
	return n
}

// What a record has beside its value comes as fields, to apps of both protocols, and with each entry of a bulk.
func TestKafkaTellsAboutItsRecords(t *testing.T) {
	t.Parallel()
	kafka := component("any", "pubsub.kafka", "brokers: "+servers.Kafka(t), "authType: none", "consumerGroup: readers")
	heads := make(chan http.Header, 10)
	app := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/dapr/subscribe":
			_, _ = io.WriteString(w, `[{"pubsubname":"any","topic":"about","route":"/about"},{"pubsubname":"any","topic":"about-many","route":"/many","bulkSubscribe":{"enabled":true,"maxMessagesCount":1}}]`)
		case "/about":
			heads <- r.Header
		case "/many":
			var bulk struct {
				Metadata map[string]string
				Entries  []struct{ Metadata map[string]string }
			}
			_ = json.NewDecoder(r.Body).Decode(&bulk)
			head := http.Header{}
			for _, metadata := range []map[string]string{bulk.Metadata, bulk.Entries[0].Metadata} {
				for name, value := range metadata {
					head.Set(name, value)
				}
			}
			_, _ = io.WriteString(w, `{"statuses":[]}`)
			heads <- head
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	d := startWith(t, machine.New(t), kafka, "app", "--app-port", app)
	d.opened(2)
	for _, topic := range []string{"about", "about-many"} {
		d.expect(204, "", "POST", "/v1.0/publish/any/"+topic+"?metadata.partitionKey=k1&metadata.mine=yes&metadata.rawPayload=false", "one")
		head := receive(t, heads)
		for name, want := range map[string]string{"__key": "k1", "__topic": topic, "__offset": "0", "mine": "yes", "partitionKey": "k1"} {
			if got := head.Get(name); got != want {
				t.Errorf("%s: %s is %q, want %q: %v", topic, name, got, want, head)
			}
		}
		if head.Get("__partition") == "" || head.Get("__timestamp") == "" || head.Get("pubsubname") != "any" {
			t.Errorf("%s: got %v", topic, head)
		}
	}
	if _, err := d.client().PublishEvent(t.Context(), &runtimev1.PublishEventRequest{
		PubsubName: "any", Topic: "about", Data: []byte("two"), Metadata: map[string]string{"partitionNumber": "99"},
	}); err == nil || !strings.Contains(err.Error(), "partition") {
		t.Errorf("a partition that does not exist gives %v", err)
	}
}

// A binding reads topics one record after the other, does what the app answers, and has what failed again before what is behind it.
func TestKafkaBindings(t *testing.T) {
	t.Parallel()
	address := servers.Kafka(t)
	app := newBoundApp("/records")
	var mu sync.Mutex
	var seen []string
	failed := false
	app.says = func(r *http.Request, body string) (int, string) {
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, body+" "+r.Header.Get("__key"))
		if body == `"2"` && !failed {
			failed = true
			return 500, ""
		}
		return 200, `{"to":["copies"],"data":` + body + `}`
	}
	copied := newBoundApp("/copies")
	run := fmt.Sprint(time.Now().UnixNano()) // topics keep what a run before this one wrote
	records := component("records", "bindings.kafka", "brokers: "+address, "authType: none", "topics: records"+run, "publishTopic: records"+run, "initialOffset: oldest")
	copies := component("copies", "bindings.kafka", "brokers: "+address, "authType: none", "topics: copies"+run, "publishTopic: copies"+run, "initialOffset: oldest")
	m := machine.New(t)
	d := startWith(t, m, records+component("copies", "bindings.kafka", "brokers: "+address, "authType: none", "publishTopic: copies"+run, "direction: output"), "copier", "--app-port", serve(t, app))
	startWith(t, m, copies, "reader", "--app-port", serve(t, copied))
	d.await("/v1.0/healthz")
	for i := range 4 {
		d.expect(204, "", "POST", "/v1.0/bindings/records", fmt.Sprintf(`{"operation":"create","data":"%d","metadata":{"partitionKey":"k"}}`, i))
	}
	for i := range 4 {
		if got := receive(t, copied.got); !strings.Contains(fmt.Sprint(got), fmt.Sprintf("%d", i)) {
			t.Errorf("copy %d is %v", i, got)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if got := strings.Join(seen, ", "); got != `"0" k, "1" k, "2" k, "2" k, "3" k` {
		t.Errorf("the app got %s", got)
	}
}

// What was acknowledged while the server is killed and started again arrives, and no publish hangs.
func TestKafkaLosesNothingWhenItsServerIsKilled(t *testing.T) {
	t.Parallel()
	machine.SkipShort(t)
	server := servers.Own(t, servers.OfKafka)
	servers.KafkaTopics(t, server.Address(), "kept")
	app := newSubscriber(`[{"pubsubname":"any","topic":"kept","route":"/kept"}]`)
	d := startWith(t, machine.New(t), component("any", "pubsub.kafka", "brokers: "+server.Address(), "authType: none"), "app", "--app-port", serve(t, app))
	d.opened(1)
	want, failed := map[string]bool{}, 0
	publish := func(data string) {
		t.Helper()
		if answer := d.do("POST", "/v1.0/publish/any/kept?metadata.partitionKey="+data, data, "Content-Type: text/plain"); answer.status == http.StatusNoContent {
			want[data] = true
		} else {
			failed++
		}
	}
	for i := range 40 {
		publish(fmt.Sprint("before", i))
	}
	server.Kill()
	publish("away")
	if failed == 0 {
		t.Error("an event is published without a server")
	}
	server.Start(t)
	machine.Until(t, "an event is published again", func() error {
		publish("again")
		if !want["again"] {
			return fmt.Errorf("%d failed", failed)
		}
		return nil
	})
	for i := range 40 {
		publish(fmt.Sprint("after", i))
	}
	for len(want) > 0 {
		delete(want, fmt.Sprint(app.next(t).event["data"]))
	}
}

// What was acknowledged, and what the app has not handled, arrives although the sidecar and the server are killed.
func TestMQTTLosesNothingWhenItsServerOrSidecarIsKilled(t *testing.T) {
	t.Parallel()
	machine.SkipShort(t)
	server := servers.Own(t, servers.OfMQTT)
	broker := component("any", "pubsub.mqtt3", "url: mqtt://"+server.Address(), "consumerID: readers")
	app := newSubscriber(`[{"pubsubname":"any","topic":"kept/#","route":"/kept"}]`)
	var handles atomic.Bool
	app.says = func(string, map[string]any) (int, string) {
		if handles.Load() {
			return 200, ""
		}
		return 200, `{"status":"RETRY"}`
	}
	port := serve(t, app)
	m := machine.New(t)
	want := map[string]bool{}
	publish := func(d *daprd, data string) bool {
		t.Helper()
		stored := d.do("POST", "/v1.0/publish/any/kept%2F"+data, data, "Content-Type: text/plain").status == http.StatusNoContent
		want[data] = want[data] || stored
		return stored
	}
	d := startWith(t, m, broker, "app", "--app-port", port)
	d.opened(1)
	for i := range 10 {
		if !publish(d, fmt.Sprint("refused", i)) {
			t.Fatal("an event is not published")
		}
	}
	app.next(t)
	d.Kill() // while the app has handled nothing

	d = startWith(t, m, broker, "app", "--app-port", port)
	d.opened(1)
	for i := range 10 {
		publish(d, fmt.Sprint("before", i))
	}
	time.Sleep(3 * time.Second) // the server writes what it has confirmed a moment later
	server.Kill()
	if publish(d, "away") {
		t.Error("an event is published without a server")
	}
	delete(want, "away")
	server.Start(t)
	machine.Until(t, "an event is published again", func() error {
		if !publish(d, "again") {
			return errors.New("the server is not connected")
		}
		return nil
	})
	handles.Store(true)
	for len(want) > 0 {
		delete(want, fmt.Sprint(app.next(t).event["data"]))
	}
}
