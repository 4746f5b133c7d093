package compat

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	commonv1 "github.com/dapr/dapr/pkg/proto/common/v1"
	runtimev1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/sidecast/sidecast/tests/machine"
)

const withSettings = resources + `---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: settings}
spec: {type: configuration.jetstream, version: v1, metadata: []}
`

// lostSettings are those of a server that is not there.
const lostSettings = `---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: lost}
spec: {type: configuration.redis, version: v1, metadata: [{name: redisHost, value: "127.0.0.1:1"}]}
`

// setting is what the app is told of one.
type setting struct{ path, kind, body string }

func TestConfiguration(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	told := make(chan setting, 100)
	app := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/configuration/") {
			body, _ := io.ReadAll(r.Body)
			told <- setting{r.Method + " " + r.URL.EscapedPath(), r.Header.Get("Content-Type"), strings.TrimSpace(string(body))}
		}
	}))
	metrics := machine.Port(t)
	d := startWith(t, m, withSettings+lostSettings, "app", "--app-port", app, "--metrics-port", metrics,
		"--config", configuration(t, `  tracing: {samplingRate: "1", stdout: true}`+"\n"))
	d.await("/v1.0/healthz")
	client := d.client()
	set := func(key, value string) {
		t.Helper()
		m.Must("config", "set", key, value, "--store", "settings")
	}
	for _, version := range []string{"v1.0", "v1.0-alpha1"} {
		d.expect(204, "", "GET", "/"+version+"/configuration/settings", "")
	}
	set("a", "1")
	set("b/c", "<2>")
	d.expect(200, `{"a":{"value":"1","version":"1"},"b/c":{"value":"\u003c2\u003e","version":"2"}}`, "GET", "/v1.0/configuration/settings", "")
	d.expect(200, `{"a":{"value":"1","version":"1"}}`, "GET", "/v1.0-alpha1/configuration/settings?key=a&key=absent&metadata.x=y", "")
	d.expect(204, "", "GET", "/v1.0/configuration/settings?key=absent", "")
	want := &runtimev1.GetConfigurationResponse{Items: map[string]*commonv1.ConfigurationItem{"a": {Value: "1", Version: "1"}}}
	for _, get := range []func(context.Context, *runtimev1.GetConfigurationRequest) (*runtimev1.GetConfigurationResponse, error){
		func(ctx context.Context, in *runtimev1.GetConfigurationRequest) (*runtimev1.GetConfigurationResponse, error) {
			return client.GetConfiguration(ctx, in)
		},
		func(ctx context.Context, in *runtimev1.GetConfigurationRequest) (*runtimev1.GetConfigurationResponse, error) {
			return client.GetConfigurationAlpha1(ctx, in)
		},
	} {
		if got, err := get(t.Context(), &runtimev1.GetConfigurationRequest{StoreName: "settings", Keys: []string{"a", "absent"}}); err != nil || !proto.Equal(got, want) {
			t.Errorf("over gRPC: %v, %v", got, err)
		}
	}

	id := func(path string) string {
		t.Helper()
		var answer struct{ ID string }
		got := d.expect(200, "{…", "GET", path, "")
		if err := json.Unmarshal([]byte(got.body), &answer); err != nil || answer.ID == "" {
			t.Fatalf("%v: %s", err, got.body)
		}
		return answer.ID
	}
	next := func() setting {
		t.Helper()
		select {
		case s := <-told:
			return s
		default:
		}
		var s setting
		machine.Until(t, "the app is told", func() error {
			select {
			case s = <-told:
				return nil
			default:
				return errors.New("it is not")
			}
		})
		return s
	}
	one := id("/v1.0/configuration/settings/subscribe?key=a&key=b%2Fc")
	set("a", "3")
	if got, want := next(), (setting{"POST /configuration/settings/a", "application/json", fmt.Sprintf(`{"id":%q,"items":{"a":{"value":"3","version":"3"}}}`, one)}); got != want {
		t.Errorf("told %+v\nwant %+v", got, want)
	}
	set("other", "x")
	set("b/c", "4")
	if got := next(); got.path != "POST /configuration/settings/b/c" {
		t.Errorf("told %+v", got)
	}
	if again := id("/v1.0/configuration/settings/subscribe?key=b%2Fc&key=a"); again != one {
		t.Error("the app has two subscriptions to the same")
	}
	d.expect(200, `{"ok":true}`, "GET", "/v1.0/configuration/settings/"+one+"/unsubscribe", "")
	d.expect(500, `{"message":"failed to unsubscribe to configuration request `+one+`: subscription with id `+one+` does not exist"}`, "GET", "/v1.0-alpha1/configuration/settings/"+one+"/unsubscribe", "")
	all := id("/v1.0-alpha1/configuration/settings/subscribe")
	m.Must("config", "delete", "a", "--store", "settings")
	if got, want := next(), (setting{"POST /configuration/settings/a", "application/json", fmt.Sprintf(`{"id":%q,"items":{"a":{}}}`, all)}); got != want {
		t.Errorf("told %+v\nwant %+v", got, want)
	}

	for _, path := range []string{"", "/subscribe", "/id/unsubscribe"} {
		d.expect(400, `{"errorCode":"ERR_CONFIGURATION_STORE_NOT_FOUND","message":"configuration store nope not found"}`, "GET", "/v1.0/configuration/nope"+path, "")
	}
	d.expect(500, `{"errorCode":"ERR_CONFIGURATION_GET","message":"failed to get [k l] from Configuration store lost: …`, "GET", "/v1.0/configuration/lost?key=k&key=l", "")
	d.expect(500, `{"errorCode":"ERR_CONFIGURATION_SUBSCRIBE","message":"failed to subscribe [k] from Configuration store lost: …`, "GET", "/v1.0/configuration/lost/subscribe?key=k", "")
	appless := startWith(t, m, withSettings, "appless")
	appless.expect(500, `{"errorCode":"ERR_APP_CHANNEL_NIL","message":"app channel is not initialized. cannot subscribe to configuration updates"}`, "GET", "/v1.0/configuration/settings/subscribe", "")
	none := startWith(t, m, resources, "none")
	none.expect(500, `{"errorCode":"ERR_CONFIGURATION_STORE_NOT_CONFIGURED","message":"configuration stores not configured"}`, "GET", "/v1.0/configuration/settings", "")
	problem := func(err error, code codes.Code, tag, message string) {
		t.Helper()
		s := status.Convert(err)
		head, partly := strings.CutSuffix(message, "…")
		if s.Code() != code || s.Message() != message && (!partly || !strings.HasPrefix(s.Message(), head)) || len(s.Details()) != 1 || s.Details()[0].(*errdetails.ErrorInfo).Reason != tag {
			t.Errorf("got %v %v, want %v %s %s", err, s.Details(), code, tag, message)
		}
	}
	_, err := none.client().GetConfiguration(t.Context(), &runtimev1.GetConfigurationRequest{StoreName: "settings"})
	problem(err, codes.FailedPrecondition, "ERR_CONFIGURATION_STORE_NOT_CONFIGURED", "configuration stores not configured")
	_, err = client.GetConfiguration(t.Context(), &runtimev1.GetConfigurationRequest{StoreName: "nope"})
	problem(err, codes.InvalidArgument, "ERR_CONFIGURATION_STORE_NOT_FOUND", "configuration store nope not found")
	_, err = client.GetConfiguration(t.Context(), &runtimev1.GetConfigurationRequest{StoreName: "lost", Keys: []string{"k", "l"}})
	problem(err, codes.Internal, "ERR_CONFIGURATION_GET", "failed to get [k l] from Configuration store lost: …")
	stream, err := client.SubscribeConfiguration(t.Context(), &runtimev1.SubscribeConfigurationRequest{StoreName: "lost", Keys: []string{"l", "k"}})
	if err == nil {
		_, err = stream.Recv()
	}
	problem(err, codes.InvalidArgument, "ERR_CONFIGURATION_SUBSCRIBE", "failed to subscribe [k l] from Configuration store lost: …")

	machine.Until(t, "the spans of settings are written", func() error {
		for _, span := range []string{"configuration get settings", "configuration subscribe settings"} {
			if !strings.Contains(d.Output(), span) {
				return fmt.Errorf("there is no %s", span)
			}
		}
		return nil
	})
	families := scrape(t, metrics)
	for labels, want := range map[string]float64{
		"component=settings operation=get success=true namespace=": 7, "component=lost operation=get success=false": 2,
		"component=settings operation=subscribe success=true": 3, "component=lost operation=subscribe success=false": 2,
		"component=settings operation=unsubscribe success=true": 1, "component=settings operation=unsubscribe success=false": 1,
	} {
		for _, name := range []string{"dapr_component_configuration_count", "dapr_component_configuration_latencies"} {
			if got := value(families, name, labels); got != want {
				t.Errorf("%s %s is %v, not %v", name, labels, got, want)
			}
		}
	}
}

func TestConfigurationStreams(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	d := startWith(t, m, withSettings, "app")
	client := d.client()
	m.Must("config", "set", "a", "1", "--store", "settings")
	type stream interface {
		Recv() (*runtimev1.SubscribeConfigurationResponse, error)
	}
	subscribe := func(s stream, err error) (stream, string) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		first, err := s.Recv()
		if err != nil || first.GetId() == "" || len(first.GetItems()) > 0 {
			t.Fatalf("first %v, %v", first, err)
		}
		return s, first.GetId()
	}
	expect := func(s stream, id, key, value string) {
		t.Helper()
		got, err := s.Recv()
		if err != nil || got.GetId() != id || len(got.GetItems()) != 1 || got.GetItems()[key].GetValue() != value {
			t.Errorf("got %v, %v; want %s=%s", got, err, key, value)
		}
	}
	some, someID := subscribe(client.SubscribeConfiguration(t.Context(), &runtimev1.SubscribeConfigurationRequest{StoreName: "settings", Keys: []string{"b", "a"}}))
	every, everyID := subscribe(client.SubscribeConfigurationAlpha1(t.Context(), &runtimev1.SubscribeConfigurationRequest{StoreName: "settings"}))
	m.Must("config", "set", "a", "2", "--store", "settings")
	expect(some, someID, "a", "2")
	expect(every, everyID, "a", "2")
	m.Must("config", "set", "c", "3", "--store", "settings")
	expect(every, everyID, "c", "3")
	for _, unsubscribe := range []func() (*runtimev1.UnsubscribeConfigurationResponse, error){
		func() (*runtimev1.UnsubscribeConfigurationResponse, error) {
			return client.UnsubscribeConfiguration(t.Context(), &runtimev1.UnsubscribeConfigurationRequest{StoreName: "settings", Id: someID})
		},
	} {
		if got, err := unsubscribe(); err != nil || !got.GetOk() {
			t.Errorf("got %v, %v", got, err)
		}
	}
	if got, err := some.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("after the end: %v, %v", got, err)
	}
	got, err := client.UnsubscribeConfigurationAlpha1(t.Context(), &runtimev1.UnsubscribeConfigurationRequest{StoreName: "settings", Id: someID})
	if want := "failed to unsubscribe to configuration request " + someID + ": subscription does not exist"; err != nil || got.GetOk() || got.GetMessage() != want {
		t.Errorf("got %v, %v", got, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	gone, goneID := subscribe(client.SubscribeConfiguration(ctx, &runtimev1.SubscribeConfigurationRequest{StoreName: "settings"}))
	cancel()
	_, _ = gone.Recv()
	machine.Until(t, "a client that goes ends its subscription", func() error {
		if got, err := client.UnsubscribeConfiguration(t.Context(), &runtimev1.UnsubscribeConfigurationRequest{Id: goneID}); err != nil || got.GetOk() {
			return fmt.Errorf("%v, %v", got, err)
		}
		return nil
	})
	d.Terminate()
	if got, err := every.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("at a shutdown: %v, %v", got, err)
	}
	if code := d.Wait(machine.Patience); code != 0 {
		t.Errorf("it ends with code %d: %s", code, d.Output())
	}
}

func TestSettingsByCommand(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	for _, c := range []struct {
		args string
		code int
		out  string
	}{
		{"get", 0, ""}, {"get a", 3, ""}, {"delete a", 0, ""}, {"set a 1", 0, ""}, {"set b/c two=2", 0, ""}, {"get a", 0, "1\n"}, {"get", 0, "a=1\nb/c=two=2\n"}, {"get b/c a", 0, "b/c=two=2\na=1\n"},
		{"get nope", 3, ""}, {"get a --store other", 3, ""}, {"get a --namespace other", 3, ""}, {"set .a 1", 2, ""}, {"delete a", 0, ""}, {"delete a", 0, ""}, {"get a", 3, ""},
		{"set a 1 --bucket own", 0, ""}, {"get a --bucket own --store any", 0, "1\n"}, {"set a 1 --bucket a.b", 2, ""},
	} {
		if got := m.Command(append([]string{"config"}, strings.Fields(c.args)...)...); got.Code != c.code || got.Out != c.out {
			t.Errorf("config %s: %d %q %s", c.args, got.Code, got.Out, got.Err)
		}
	}
}
