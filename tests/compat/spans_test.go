package compat

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	commonv1 "github.com/dapr/dapr/pkg/proto/common/v1"
	runtimev1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/sidecast/sidecast/tests/machine"
)

// spanApp is an app over HTTP that takes the events of one topic and has no route for those of another.
var spanApp = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/dapr/subscribe":
		_, _ = w.Write([]byte(`[{"pubsubname":"bus","topic":"good","route":"/good"},{"pubsubname":"bus","topic":"gone","route":"/gone"}]`))
	case "/gone":
		w.WriteHeader(http.StatusNotFound)
	}
})

// spanLine is a span of the trace that all belongs to: service, kind, name, the name of its parent, and the tags that say something of
// this call.
func spanLine(s map[string]any, all []map[string]any) string {
	parent := "caller"
	for _, other := range all {
		if other["id"] == s["parentId"] {
			parent = fmt.Sprint(other["name"])
		}
	}
	service, _ := s["localEndpoint"].(map[string]any)
	line := fmt.Sprintf("%v %v %v < %s", service["serviceName"], s["kind"], s["name"], parent)
	tags, _ := s["tags"].(map[string]any)
	var told []string
	for key, value := range tags {
		switch {
		case strings.HasPrefix(key, "sidecast."), key == "server.port" && value != "", key == "server.address" && value == "127.0.0.1":
		default:
			told = append(told, fmt.Sprintf("%s=%v", key, value))
		}
	}
	slices.Sort(told)
	return strings.TrimSpace(line + " " + strings.Join(told, " "))
}

// What daprd 1.18.3 tells a collector of the same calls, but for the topic of messages over HTTP, which it means to tell, and the app's
// own sidecar in calls that an app makes to itself. Calls that are refused have spans as well, wherever the refusal is.
func TestSpansAreToldAsDaprdTellsThem(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	url, collected := collector(t)
	config := configuration(t, fmt.Sprintf("  tracing: {samplingRate: 1, zipkin: {endpointAddress: %q}}\n", url))
	app := serve(t, spanApp)
	rpcs := serveGRPC(t, func(s *grpc.Server) {
		s.RegisterService(&grpc.ServiceDesc{ServiceName: "test.Trace", HandlerType: (*any)(nil), Streams: []grpc.StreamDesc{{
			StreamName: "See", ServerStreams: true, ClientStreams: true,
			Handler: func(_ any, stream grpc.ServerStream) error { return stream.SendMsg(&wrapperspb.BytesValue{}) },
		}}}, nil)
	})
	two := start(t, m, "two", "--config", config, "--app-port", serve(t, http.NotFoundHandler()))
	others := start(t, m, "rpcs", "--config", config, "--app-port", rpcs, "--app-protocol", "grpc")
	yaml := resources + component("files", "bindings.localstorage", "rootPath: "+t.TempDir()) + component("env", "secretstores.local.env") + component("other", "conversation.echo")
	one := startWith(t, m, yaml, "one", "--config", config, "--app-port", app, "--dapr-http-max-request-size", "1")
	two.await("/v1.0/healthz")
	others.await("/v1.0/healthz")
	one.subscribed(2)

	web := func(method, path, body string, more ...string) func(fields ...string) {
		return func(fields ...string) { one.do(method, path, body, append(fields, more...)...) }
	}
	conn := dial(t, one.grpc)
	rpc := func(method string, in any, more ...string) func(fields ...string) {
		return func(fields ...string) {
			md := metadata.MD{}
			for _, f := range append(fields, more...) {
				name, value, _ := strings.Cut(f, ": ")
				md.Append(strings.ToLower(name), value)
			}
			_ = conn.Invoke(metadata.NewOutgoingContext(t.Context(), md), method, in, &emptypb.Empty{}) // spans say how it ended
		}
	}
	const service = "/dapr.proto.runtime.v1.Dapr/"
	http := func(span, method, path, status, about string) string {
		return fmt.Sprintf("one CLIENT %s < caller dapr.api=%s %s dapr.protocol=http dapr.status_code=%s %s url.full=%s", span, method, path, status, about, path)
	}
	bulk := []*runtimev1.BulkPublishRequestEntry{{EntryId: "1", Event: []byte("x"), ContentType: "text/plain"}, {EntryId: "2", Event: []byte("y"), ContentType: "text/plain"}}
	calls := []struct {
		call  func(fields ...string)
		spans []string
	}{
		{web("GET", "/v1.0/state/store/k", "", "Dapr-Mine: me", "Dapr-Api-Token: none"), []string{
			"one CLIENT /v1.0/state/store/k < caller dapr-mine=me dapr.api=GET /v1.0/state/store/k dapr.protocol=http dapr.status_code=204 " +
				"db.connection_string=state db.name=store db.statement=GET /v1.0/state/store/k db.system=state http.request.method=GET url.full=/v1.0/state/store/k"}},
		{web("POST", "/v1.0/state/store", "{"), []string{
			http("/v1.0/state/store", "POST", "/v1.0/state/store", "400", "db.connection_string=state db.name=store db.statement=POST /v1.0/state/store db.system=state error=Code(400): Bad Request http.request.method=POST otel.status_code=ERROR")}},
		{web("GET", "/v1.0/state/none/k", ""), []string{
			http("/v1.0/state/none/k", "GET", "/v1.0/state/none/k", "400", "db.connection_string=state db.name=none db.statement=GET /v1.0/state/none/k db.system=state error=Code(400): Bad Request http.request.method=GET otel.status_code=ERROR")}},
		{web("GET", "/v1.0/secrets/none/k", ""), []string{
			http("/v1.0/secrets/none/k", "GET", "/v1.0/secrets/none/k", "401", "db.connection_string=secrets db.name=none db.statement=GET /v1.0/secrets/none/k db.system=secrets error=Code(401): Unauthorized http.request.method=GET otel.status_code=ERROR")}},
		{web("POST", "/v1.0/bindings/files", `{"operation":"list"}`), []string{
			http("/v1.0/bindings/files", "POST", "/v1.0/bindings/files", "200", "db.connection_string=bindings db.name=files db.statement=POST /v1.0/bindings/files db.system=bindings http.request.method=POST")}},
		{web("GET", "/v1.0/metadata", ""), []string{http("/v1.0/metadata", "GET", "/v1.0/metadata", "200", "http.request.method=GET")}},
		{web("GET", "/v1.0/nothing", ""), []string{
			http("/v1.0/nothing", "GET", "/v1.0/nothing", "404", "error=Code(404): Not Found http.request.method=GET otel.status_code=ERROR")}},
		{web("GET", "/v1.0/healthz", ""), nil},
		{web("GET", "/v1.0/state/store/k", "", "Baggage: a b=1"), nil},
		{web("POST", "/v1.0/publish/bus/good", "x"), []string{
			http("/v1.0/publish/bus/good", "POST", "/v1.0/publish/bus/good", "204", "http.request.method=POST messaging.destination.name=good messaging.system=pubsub"),
			"one CLIENT pubsub/good < /v1.0/publish/bus/good messaging.destination.name=good messaging.system=pubsub"}},
		{web("POST", "/v1.0/publish/bulk/bus/gone", `[{"entryId":"1","event":"x","contentType":"text/plain"}]`), []string{
			http("/v1.0/publish/bulk/bus/gone", "POST", "/v1.0/publish/bulk/bus/gone", "204", "http.request.method=POST messaging.destination.name=gone messaging.system=pubsub"),
			"one CLIENT pubsub/gone < /v1.0/publish/bulk/bus/gone error=Code(404): Not Found messaging.destination.name=gone messaging.system=pubsub otel.status_code=ERROR",
			"one PRODUCER /v1.0/publish/bulk/bus/gone < /v1.0/publish/bulk/bus/gone"}},
		{web("POST", "/v1.0/publish/bus/good", strings.Repeat("x", 1<<20+1)), []string{
			http("/v1.0/publish/bus/good", "POST", "/v1.0/publish/bus/good", "500", "error=Code(500): Internal Server Error http.request.method=POST messaging.destination.name=good messaging.system=pubsub otel.status_code=ERROR")}},
		{web("GET", "/v1.0/invoke/two/method/missing", ""), []string{
			http("calllocal/two/missing", "GET", "/v1.0/invoke/two/method/missing", "404", "error=Code(404): Not Found http.request.method=GET net.peer.name=two otel.status_code=ERROR rpc.service=ServiceInvocation"),
			"two SERVER calllocal/two/missing < calllocal/two/missing dapr.api=/dapr.proto.internals.v1.ServiceInvocation/CallLocalStream dapr.invoke_method=missing dapr.protocol=grpc rpc.service=ServiceInvocation"}},
		{web("GET", "/a/b", "", "Dapr-App-Id: two"), []string{
			http("calllocal/two/a/b", "GET", "/a/b", "404", "error=Code(404): Not Found http.request.method=GET net.peer.name=two otel.status_code=ERROR rpc.service=ServiceInvocation"),
			"two SERVER calllocal/two/a/b < calllocal/two/a/b dapr.api=/dapr.proto.internals.v1.ServiceInvocation/CallLocalStream dapr.invoke_method=a/b dapr.protocol=grpc rpc.service=ServiceInvocation"}},
		{rpc(service+"GetState", &runtimev1.GetStateRequest{StoreName: "none", Key: "k"}, "Dapr-Mine: me", "Dapr-Mine-Bin: me", "Dapr-Api-Token: none"), []string{
			"one CLIENT /dapr.proto.runtime.v1.dapr/getstate < caller dapr-mine=me dapr.api=/dapr.proto.runtime.v1.Dapr/GetState dapr.protocol=grpc db.connection_string=state db.name=none " +
				"db.statement=/dapr.proto.runtime.v1.Dapr/GetState db.system=state error=state store none is not found otel.status_code=ERROR rpc.service=Dapr"}},
		{rpc(service+"GetBulkSecret", &runtimev1.GetBulkSecretRequest{StoreName: "env"}), []string{
			"one CLIENT /dapr.proto.runtime.v1.dapr/getbulksecret < caller dapr.api=/dapr.proto.runtime.v1.Dapr/GetBulkSecret dapr.protocol=grpc"}},
		{rpc(service+"ConverseAlpha2", &runtimev1.ConversationRequestAlpha2{Name: "none"}), []string{
			"one CLIENT /dapr.proto.runtime.v1.dapr/conversealpha2 < caller dapr.api=/dapr.proto.runtime.v1.Dapr/ConverseAlpha2 dapr.protocol=grpc error=failed finding conversation component none otel.status_code=ERROR rpc.system=none"}},
		{rpc(service+"BulkPublishEvent", &runtimev1.BulkPublishRequest{PubsubName: "bus", Topic: "good", Entries: bulk}), []string{
			"one CLIENT /dapr.proto.runtime.v1.dapr/bulkpublishevent < caller dapr.api=/dapr.proto.runtime.v1.Dapr/BulkPublishEvent dapr.protocol=grpc messaging.destination.name=good messaging.system=pubsub rpc.service=Dapr",
			"one CLIENT pubsub/good < /dapr.proto.runtime.v1.dapr/bulkpublishevent/ messaging.destination.name=good messaging.system=pubsub",
			"one CLIENT pubsub/good < /dapr.proto.runtime.v1.dapr/bulkpublishevent/ messaging.destination.name=good messaging.system=pubsub",
			"one PRODUCER /dapr.proto.runtime.v1.dapr/bulkpublishevent/ < /dapr.proto.runtime.v1.dapr/bulkpublishevent",
			"one PRODUCER /dapr.proto.runtime.v1.dapr/bulkpublishevent/ < /dapr.proto.runtime.v1.dapr/bulkpublishevent"}},
		{rpc(service+"InvokeService", &runtimev1.InvokeServiceRequest{Id: "two", Message: &commonv1.InvokeRequest{Method: "a", HttpExtension: &commonv1.HTTPExtension{Verb: commonv1.HTTPExtension_GET}}}), []string{
			"one CLIENT calllocal/two/a < caller dapr.api=/dapr.proto.runtime.v1.Dapr/InvokeService dapr.protocol=grpc error=Not Found net.peer.name=two otel.status_code=ERROR rpc.service=ServiceInvocation",
			"two SERVER calllocal/two/a < calllocal/two/a dapr.api=/dapr.proto.internals.v1.ServiceInvocation/CallLocalStream dapr.invoke_method=a dapr.protocol=grpc rpc.service=ServiceInvocation"}},
		{rpc(service+"SubscribeConfiguration", &runtimev1.SubscribeConfigurationRequest{StoreName: "none"}), []string{
			"one CLIENT /dapr.proto.runtime.v1.dapr/subscribeconfiguration < caller dapr.api=/dapr.proto.runtime.v1.Dapr/SubscribeConfiguration dapr.protocol=grpc error=configuration stores not configured otel.status_code=ERROR"}},
		{rpc("/test.Trace/See", &emptypb.Empty{}, "Dapr-App-Id: rpcs"), []string{
			"one CLIENT /test.trace/see < caller dapr-app-id=rpcs", "rpcs SERVER /test.trace/see < /test.trace/see"}},
		{rpc("/test.Trace/See", &emptypb.Empty{}), nil},
	}
	for i, c := range calls {
		c.call(fmt.Sprintf("traceparent: 00-%032x-b7ad6b7169203331-01", i+1))
	}
	traces := map[string][]map[string]any{}
	missing := func() error { // an event is delivered when its publication is over
		for len(collected) > 0 {
			s := <-collected
			id := fmt.Sprint(s["traceId"])
			traces[id] = append(traces[id], s)
		}
		for i, c := range calls {
			if got := len(traces[fmt.Sprintf("%032x", i+1)]); got < len(c.spans) {
				return fmt.Errorf("%d of %v", got, c.spans)
			}
		}
		return nil
	}
	machine.Until(t, "spans", missing)
	for i, c := range calls {
		all := traces[fmt.Sprintf("%032x", i+1)]
		var got []string
		for _, s := range all {
			got = append(got, spanLine(s, all))
		}
		slices.Sort(got)
		if !slices.Equal(got, c.spans) {
			t.Errorf("call %d:\ngot  %s\nwant %s", i, strings.Join(got, "\n     "), strings.Join(c.spans, "\n     "))
		}
	}
}

// A call without the token is refused before it is anybody's over gRPC, as by daprd, and has a span over HTTP. The token is on none.
func TestSpansOfCallsWithoutTheToken(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	url, collected := collector(t)
	m.Env = []string{"DAPR_API_TOKEN=secret"}
	one := start(t, m, "one", "--config", configuration(t, fmt.Sprintf("  tracing: {samplingRate: 1, zipkin: {endpointAddress: %q}}\n", url)))
	one.expect(401, "invalid api token", "GET", "/v1.0/metadata", "", "dapr-api-token: wrong")
	one.expect(200, "{…", "GET", "/v1.0/metadata", "", "dapr-api-token: secret")
	if _, err := one.client().GetMetadata(t.Context(), &runtimev1.GetMetadataRequest{}); err == nil {
		t.Error("a call without the token is served")
	}
	one.Terminate()
	one.Wait(machine.Patience)
	close(collected)
	var got []string
	for s := range collected {
		got = append(got, spanLine(s, nil))
	}
	const failed = "one CLIENT /v1.0/metadata < caller dapr.api=GET /v1.0/metadata dapr.protocol=http dapr.status_code=401 error=Code(401): Unauthorized http.request.method=GET otel.status_code=ERROR url.full=/v1.0/metadata"
	if len(got) != 2 || got[0] != failed || strings.Contains(strings.Join(got, ""), "secret") {
		t.Errorf("got %s", strings.Join(got, "\n"))
	}
}

// A caller that does not keep its trace has it go on so: answers and onward calls name new spans, which are not kept either.
func TestTracesThatAreNotSampledStaySo(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	url, collected := collector(t)
	seen := make(chan string, 9)
	app := serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.URL.Path, "/dapr/") {
			seen <- r.Header.Get("traceparent") + " " + r.Header.Get("tracestate")
		}
	}))
	start(t, m, "server", "--app-port", app).await("/v1.0/healthz")
	one := startWith(t, m, resources+component("out", "bindings.http", "url: http://127.0.0.1:"+app), "one",
		"--config", configuration(t, fmt.Sprintf("  tracing: {samplingRate: 1, zipkin: {endpointAddress: %q}}\n", url)))
	const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
	goesOn := func(what, got string) {
		t.Helper()
		if len(got) != 55 || got[:36] != parent[:36] || got == parent || !strings.HasSuffix(got, "-00") {
			t.Errorf("%s names %q", what, got)
		}
	}
	for _, c := range [][3]string{{"GET", "/v1.0/invoke/server/method/x", ""}, {"POST", "/v1.0/bindings/out", `{"operation":"get"}`}} {
		goesOn("the answer to "+c[1], one.do(c[0], c[1], c[2], "traceparent: "+parent, "tracestate: a=b").header.Get("traceparent"))
		onward, state, _ := strings.Cut(receive(t, seen), " ")
		if goesOn(c[1], onward); state != "a=b" {
			t.Errorf("%s has the state %q", c[1], state)
		}
	}
	one.do("POST", "/v1.0/bindings/out", `{"operation":"get"}`, "traceparent: "+parent, "tracestate: no state")
	if onward, state, _ := strings.Cut(receive(t, seen), " "); state != "" {
		t.Errorf("%q has a state that is none: %q", onward, state)
	}
	var md metadata.MD
	ctx := metadata.AppendToOutgoingContext(t.Context(), "grpc-trace-bin", traceBinary[:28]+"\x00")
	if _, err := one.client().GetState(ctx, &runtimev1.GetStateRequest{StoreName: "store", Key: "k"}, grpc.Header(&md)); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(md["grpc-trace-bin"], ""); len(got) != 29 || got[:18] != traceBinary[:18] || got[18:27] == traceBinary[18:27] || got[28] != 0 {
		t.Errorf("an RPC is answered with %q", got)
	}
	one.Terminate()
	one.Wait(machine.Patience)
	if len(collected) != 0 {
		t.Errorf("the collector got %v", <-collected)
	}
}
