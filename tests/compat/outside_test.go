package compat

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	runtimev1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sidecast/sidecast/tests/machine"
)

// What the tests of daprd itself expect and no other test here shows.

func TestOfDeclaredSubscriptionsOfATopicTheFirstCounts(t *testing.T) {
	t.Parallel()
	declared := func(name, version, topic, route string) string {
		return `---
apiVersion: dapr.io/` + version + `
kind: Subscription
metadata: {name: ` + name + `}
spec: {pubsubname: bus, topic: ` + topic + `, ` + route + `}
`
	}
	events := newSubscriber(`[{"pubsubname":"bus","topic":"asked","route":"/z-first"},{"pubsubname":"bus","topic":"asked","route":"/asked"}]`)
	app := serve(t, http.HandlerFunc(events.ServeHTTP))
	d := startWith(t, machine.New(t), resources+declared("one", "v1alpha1", "a", "route: /a1")+declared("two", "v2alpha1", "a", "routes: {default: /a2}")+
		declared("three", "v2alpha1", "b", "routes: {default: /b1}")+declared("four", "v1alpha1", "b", "route: /b2")+
		declared("five", "v1alpha1", "asked", "route: /declared")+
		declared("six", "v1alpha1", "z", "route: /z, deadLetterTopic: z")+declared("seven", "v1alpha1", "c", "route: /c"), "app", "--app-port", app)
	d.await("/v1.0/healthz")
	for topic, path := range map[string]string{"a": "/a1", "b": "/b1", "asked": "/asked", "z": "/z"} {
		machine.Until(t, topic+" is subscribed to where it should be", func() error {
			if all := d.do("GET", "/v1.0/metadata", "").body; !strings.Contains(all, `"topic":"`+topic+`","rules":[{"path":"`+path+`"}]`) {
				return errors.New(all)
			}
			return nil
		})
		d.expect(204, "", "POST", "/v1.0/publish/bus/"+topic, "x")
		events.arrive(t, path)
	}
	var got struct{ Subscriptions []struct{ Topic string } }
	if err := json.Unmarshal([]byte(d.do("GET", "/v1.0/metadata", "").body), &got); err != nil {
		t.Fatal(err)
	}
	order := ""
	for _, sub := range got.Subscriptions {
		order += sub.Topic + " "
	}
	if order != "a b asked z c " {
		t.Errorf("metadata has the subscriptions in the order %s", order)
	}
}

// A stop that has to cut off what runs answers it and ends with code 1.
func TestAStopThatIsNotGraceful(t *testing.T) {
	t.Parallel()
	running, end := make(chan struct{}), make(chan struct{})
	app := serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/hang" {
			close(running)
			<-end
		}
	}))
	t.Cleanup(func() { close(end) })
	d := start(t, machine.New(t), "app", "--app-port", app, "--dapr-graceful-shutdown-seconds", "1")
	d.await("/v1.0/healthz")
	answered := make(chan string, 1)
	go func() {
		response, err := http.Get("http://" + d.http + "/v1.0/invoke/app/method/hang")
		if err != nil {
			answered <- err.Error()
			return
		}
		response.Body.Close()
		answered <- response.Status
	}()
	<-running
	d.Terminate()
	if code := d.Wait(machine.Patience); code != 1 || !strings.Contains(d.Output(), "Graceful shutdown timeout exceeded, forcing shutdown") {
		t.Errorf("it ends with %d: %s", code, d.Output())
	}
	if got := <-answered; got != "500 Internal Server Error" {
		t.Errorf("what was cut off is answered %s", got)
	}
}

// A stream that has not said what it is about does not hold up a stop, and one that asks for what there is not is told so.
func TestStreamsThatSayNothing(t *testing.T) {
	t.Parallel()
	d := start(t, machine.New(t), "app")
	c := d.client()
	silent, err := c.SubscribeTopicEventsAlpha1(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	wrong, err := c.SubscribeTopicEventsAlpha1(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := wrong.Send(&runtimev1.SubscribeTopicEventsRequestAlpha1{SubscribeTopicEventsRequestType: &runtimev1.SubscribeTopicEventsRequestAlpha1_InitialRequest{
		InitialRequest: &runtimev1.SubscribeTopicEventsRequestInitialAlpha1{PubsubName: "none", Topic: "t"},
	}}); err != nil {
		t.Fatal(err)
	}
	_, err = wrong.Recv()
	fails(t, err, codes.InvalidArgument, "DAPR_PUBSUB_NOT_FOUND", "pubsub none is not found")
	d.Terminate()
	if _, err := silent.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("it ends with %v", err)
	}
	if code := d.Wait(machine.Patience); code != 0 {
		t.Errorf("the sidecar ends with %d: %s", code, d.Output())
	}
}

// An app is asked what it is once it is ready, and what it subscribes to after that.
func TestAppsAreAskedForTheirConfiguration(t *testing.T) {
	t.Parallel()
	var well atomic.Bool
	var checks atomic.Int32
	asked := make(chan string, 10)
	app := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/healthz" && !well.Load():
			checks.Add(1)
			w.WriteHeader(http.StatusServiceUnavailable)
		case strings.HasPrefix(r.URL.Path, "/dapr/"):
			asked <- r.Method + " " + r.URL.Path + " " + r.Header.Get("dapr-app-id")
			_, _ = io.WriteString(w, "[]")
		}
	}))
	start(t, machine.New(t), "app", "--app-port", app, "--enable-app-health-check", "--app-health-probe-interval", "1", "--app-health-threshold", "1")
	machine.Until(t, "it is found unwell", func() error {
		if checks.Load() < 2 {
			return errors.New("not yet")
		}
		return nil
	})
	if len(asked) > 0 {
		t.Errorf("it is asked %s before it is well", <-asked)
	}
	well.Store(true)
	for _, want := range []string{"GET /dapr/config app", "GET /dapr/subscribe app"} {
		select {
		case got := <-asked:
			if got != want {
				t.Errorf("it is asked %s, not %s", got, want)
			}
		case <-time.After(machine.Patience):
			t.Fatalf("nobody asks %s", want)
		}
	}
}

// Sidecars of two users, who have their data in two places, start beside each other, and those of one find each other.
func TestSidecarsOfTwoUsers(t *testing.T) {
	t.Parallel()
	app := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Host) }))
	for range 2 {
		m := machine.New(t)
		m.Env = []string{"SIDECAST_DATA_DIR=", "XDG_STATE_HOME", "HOME=" + m.Dir}
		start(t, m, "server", "--app-port", app).await("/v1.0/healthz")
		start(t, m, "client").expect(200, "…", "GET", "/v1.0/invoke/server/method/x", "")
	}
}

// Names are what the path of a request can name.
func TestNamesOfComponents(t *testing.T) {
	t.Parallel()
	d := startWith(t, machine.New(t), `
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: 123}
spec: {type: state.in-memory, version: v1, initTimeout: ""}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: 'kȠM #G0O鈀\'}
spec: {type: state.badger, version: v1}
`, "app")
	for _, name := range []string{"123", "k%C8%A0M%20%23G0O%E9%88%80%5C"} {
		d.expect(204, "", "POST", "/v1.0/state/"+name, `[{"key":"k","value":1}]`)
		d.expect(200, "1", "GET", "/v1.0/state/"+name+"/k", "")
	}
}

// HTTP/2 without TLS is for those who know that it is there; who asks for a change to it goes on in HTTP/1.1.
func TestHTTP2WithoutTLS(t *testing.T) {
	t.Parallel()
	d := start(t, machine.New(t), "app")
	knowing := &http.Transport{Protocols: new(http.Protocols)}
	knowing.Protocols.SetUnencryptedHTTP2(true)
	defer knowing.CloseIdleConnections()
	for proto, transport := range map[string]http.RoundTripper{"HTTP/2.0": knowing, "HTTP/1.1": http.DefaultTransport} {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+d.http+"/v1.0/healthz/outbound", nil)
		if err != nil {
			t.Fatal(err)
		}
		if proto == "HTTP/1.1" {
			request.Header = http.Header{"Connection": {"Upgrade, HTTP2-Settings"}, "Upgrade": {"h2c"}, "Http2-Settings": {"AAMAAABkAARAAAAAAAIAAAAA"}}
		}
		response, err := transport.RoundTrip(request)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.Proto != proto || response.StatusCode != http.StatusNoContent || response.Header.Get("Upgrade") != "" {
			t.Errorf("%s is answered %s %s", proto, response.Proto, response.Status)
		}
	}
}

// An app is asked what it subscribes to once there is a broker that it may use, and not before.
func TestAppsAreAskedForSubscriptionsOnceThereIsABroker(t *testing.T) {
	t.Parallel()
	const broker = `
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: bus}
spec: {type: pubsub.in-memory, version: v1}
`
	var there atomic.Bool
	asked := make(chan string, 10)
	app := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.URL.Path, "/dapr/") {
			asked <- r.URL.Path
			return
		}
		asked <- fmt.Sprint(r.URL.Path, " ", there.Load())
		if r.URL.Path == "/dapr/subscribe" {
			_, _ = io.WriteString(w, `[{"pubsubname":"bus","topic":"t","route":"/t"}]`)
		}
	}))
	doc := newDocument(t, broker+"scopes: [another]\n")
	d := startWith(t, machine.New(t), "", "app", "--app-port", app, "--resources-path", filepath.Dir(doc.file))
	next := func(want string) {
		t.Helper()
		if got := receive(t, asked); got != want {
			t.Errorf("the app is asked %s, not %s", got, want)
		}
	}
	next("/dapr/config false")
	d.expect(200, "", "POST", "/v1.0/invoke/app/method/x", "")
	next("/x")
	there.Store(true)
	doc.write(broker)
	next("/dapr/subscribe true")
	d.subscribed(1)
	d.expect(204, "", "POST", "/v1.0/publish/bus/t", "x")
	next("/t")
}
