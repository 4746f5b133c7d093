package compat

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	commonv1 "github.com/dapr/dapr/pkg/proto/common/v1"
	runtimev1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/sidecast/sidecast/tests/machine"
	"github.com/sidecast/sidecast/tests/servers"
)

// What a daprd answered when the same requests went to it and to Sidecast.

func TestKeysThatCannotBeAreToldAsDaprdTellsThem(t *testing.T) {
	d := start(t, machine.New(t), "app")
	const text = "input key/keyPrefix 'a||b' can't contain '||'"
	told := func(field string) string {
		outer := "api error: code = InvalidArgument desc = " + text
		return `{"errorCode":"ERR_MALFORMED_REQUEST","message":"` + outer + `","details":[{"@type":"type.googleapis.com/google.rpc.BadRequest","field_violations":[{` +
			field + `"description":"` + outer + `"}]},{"@type":"type.googleapis.com/google.rpc.ResourceInfo","description":"","owner":"","resource_name":"store","resource_type":"state"},` +
			`{"@type":"type.googleapis.com/google.rpc.ErrorInfo","domain":"dapr.io","metadata":null,"reason":"DAPR_STATE_ILLEGAL_KEY"}]}`
	}
	named := told(`"field":"a||b",`)
	d.expect(400, named, "GET", "/v1.0/state/store/a||b", "")
	d.expect(400, named, "DELETE", "/v1.0/state/store/a||b", "")
	d.expect(400, named, "POST", "/v1.0/state/store", `[{"key":"a||b","value":1}]`)
	d.expect(400, named, "POST", "/v1.0/state/store/bulk", `{"keys":["a||b"]}`)
	d.expect(400, told(""), "POST", "/v1.0/state/store/transaction", `{"operations":[{"operation":"upsert","request":{"key":"a||b"}}]}`)
	_, err := d.client().GetState(t.Context(), &runtimev1.GetStateRequest{StoreName: "store", Key: "a||b"})
	if got := status.Convert(err); got.Code() != codes.InvalidArgument || got.Message() != text {
		t.Errorf("over gRPC: %v", err)
	}
}

func TestItemsAreRefusedInTheWordsOfDaprsStores(t *testing.T) {
	d := startWith(t, machine.New(t), resources+`---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: lite}
spec: {type: state.sqlite, version: v1, metadata: [{name: connectionString, value: "`+filepath.Join(t.TempDir(), "lite.db")+`"}]}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: red}
spec: {type: state.redis, version: v1, metadata: [{name: redisHost, value: "`+servers.Redis(t)+`"}]}
`, "app")
	save := func(code int, store, item, message string) {
		t.Helper()
		if message != "" {
			message = `{"errorCode":"ERR_STATE_SAVE","message":"failed saving state in state store ` + store + ": " + message
		}
		d.expect(code, message, "POST", "/v1.0/state/"+store, "["+item+"]")
	}
	// Any text may be an ETag to these stores; it is not that of the item.
	for _, store := range []string{"store", "lite"} {
		save(409, store, `{"key":"x","value":1,"etag":"none of its own"}`, "possible etag mismatch. error from state store…")
		_, err := d.client().DeleteState(t.Context(), &runtimev1.DeleteStateRequest{StoreName: store, Key: "x", Etag: &commonv1.Etag{Value: "7"}})
		if status.Code(err) != codes.Aborted {
			t.Errorf("%s: %v", store, err)
		}
	}
	// To Redis an ETag is a number of what is set, and any text of what is deleted, such as one in quotes.
	save(204, "red", `{"key":"x","value":1}`, "")
	save(400, "red", `{"key":"x","value":2,"etag":"none of its own"}`, "invalid etag value: …")
	_, err := d.client().DeleteState(t.Context(), &runtimev1.DeleteStateRequest{StoreName: "red", Key: "x", Etag: &commonv1.Etag{Value: `"7"`}})
	if status.Code(err) != codes.Aborted {
		t.Error(err)
	}
	ttl := func(text string) string { return `{"key":"x","value":1,"metadata":{"ttlInSeconds":"` + text + `"}}` }
	save(500, "store", ttl("soon"), `strconv.Atoi: parsing \"soon\": invalid syntax"}`)
	save(204, "store", ttl("-5"), "")
	save(500, "lite", ttl("soon"), `error parsing TTL: incorrect value for metadata 'ttlInSeconds': strconv.ParseInt: parsing \"soon\": invalid syntax"}`)
	save(500, "lite", ttl("-5"), `error parsing TTL: incorrect value for metadata 'ttlInSeconds': must be -1 or greater"}`)

	d.expect(400, `{"errorCode":"ERR_MALFORMED_REQUEST","message":"json: cannot unmarshal number into Go struct field SetRequest.options of type state.SetStateOption"}`,
		"POST", "/v1.0/state/store", `[{"key":"x","options":5}]`)
	for request, kind := range map[string]string{`5`: "float64", `"x"`: "string", `[1]`: "slice", `true`: "bool"} {
		d.expect(400, `{"errorCode":"ERR_MALFORMED_REQUEST","message":"failed deserializing HTTP body: '' expected a map, got '`+kind+`'"}`,
			"POST", "/v1.0/state/store/transaction", `{"operations":[{"operation":"upsert","request":`+request+`}]}`)
	}
	d.expect(200, `[{"key":"x","data":1,"etag":…`, "POST", "/v1.0/state/store/bulk", `{"keys":["x",""]}`)
}

func TestOneBadSubscriptionOfAnAppDoesNotTakeTheOthersAlong(t *testing.T) {
	events := newSubscriber(`[{"pubsubname":"bus","topic":"z","route":"/z"},{"pubsubname":"bus","route":"/x"},{"pubsubname":"bus","topic":"nowhere"},
		{"pubsubname":"bus","topic":"a","route":"/a","deadLetterTopic":"first"},{"pubsubname":"bus","topic":"a","route":"/a","deadLetterTopic":"last"}]`)
	d := start(t, machine.New(t), "app", "--app-port", serve(t, events))
	d.subscribed(2)
	d.expect(204, "", "POST", "/v1.0/publish/bus/z", "x")
	events.arrive(t, "/z")
	if all := d.do("GET", "/v1.0/metadata", "").body; strings.Index(all, `"topic":"z"`) > strings.Index(all, `"topic":"a"`) || strings.Contains(all, `"topic":"nowhere"`) ||
		strings.Contains(all, `"deadLetterTopic":"first"`) || !strings.Contains(all, `"deadLetterTopic":"last"`) { // of those of one topic the last counts
		t.Errorf("not in the app's order: %s", all)
	}
}

func TestWhatIsPublishedInMemoryComesWithItsMetadata(t *testing.T) {
	type seen struct {
		path   string
		header http.Header
		body   string
	}
	got := make(chan seen, 10)
	app := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		switch r.URL.Path {
		case "/dapr/subscribe":
			_, _ = io.WriteString(w, `[{"pubsubname":"mem","topic":"one","route":"/one"},
				{"pubsubname":"mem","topic":"many","route":"/many","bulkSubscribe":{"enabled":true,"maxMessagesCount":1}},
				{"pubsubname":"mem","topic":"neither","route":"/neither","metadata":{"rawPayload":"perhaps"},"deadLetterTopic":"one"},
				{"pubsubname":"mem","topic":"wild/*","route":"/wild"}]`)
		case "/one", "/wild", "/neither":
			got <- seen{r.URL.Path, r.Header, string(body)}
		case "/many":
			got <- seen{r.URL.Path, r.Header, string(body)}
			w.WriteHeader(http.StatusNotFound) // drops all
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	d := startWith(t, machine.New(t), resources+`---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: mem}
spec: {type: pubsub.in-memory, version: v1, metadata: [{name: publishingScopes, value: "app=one,many,wild/a,neither"}]}
`, "app", "--app-port", app)
	d.subscribed(4)
	await := func() seen {
		t.Helper()
		select {
		case one := <-got:
			return one
		case <-time.After(20 * time.Second):
			t.Fatal("no event comes")
			return seen{}
		}
	}
	d.expect(204, "", "POST", "/v1.0/publish/mem/one?metadata.foo=bar&metadata.ttl=90s&metadata.cloudevent.type=mine", `{"a":1}`, "Content-Type: application/json")
	one := await()
	for name, want := range map[string]string{"Foo": "bar", "Ttl": "90s", "Cloudevent.type": "mine", "Pubsubname": "mem"} {
		if have := one.header.Get(name); have != want {
			t.Errorf("%s is %q, want %q", name, have, want)
		}
	}
	var event struct{ Type, Expiration string }
	if err := json.Unmarshal([]byte(one.body), &event); err != nil || event.Type != "mine" || event.Expiration == "" {
		t.Errorf("%v: %s", err, one.body)
	}
	const batch = `[{"entryId":"1",%s"event":"x","contentType":"text/plain"}]`
	for _, c := range []struct{ path, body, want, source string }{
		{"/v1.0/publish/mem/many", "x", `{}`, "app"},
		{"/v1.0/publish/mem/many?metadata.foo=bar", "x", `{"foo":"bar"}`, "app"},
		// What a batch says of its events is said of those that have metadata of their own.
		{"/v1.0/publish/bulk/mem/many", fmt.Sprintf(batch, ""), `null`, "app"},
		{"/v1.0/publish/bulk/mem/many", fmt.Sprintf(batch, `"metadata":{},`), `{}`, "app"},
		{"/v1.0/publish/bulk/mem/many?metadata.foo=bar&metadata.cloudevent.source=me", fmt.Sprintf(batch, ""), `null`, "app"},
		{"/v1.0/publish/bulk/mem/many?metadata.foo=bar&metadata.cloudevent.source=me", fmt.Sprintf(batch, `"metadata":null,`), `null`, "app"},
		{"/v1.0/publish/bulk/mem/many?metadata.foo=bar&metadata.cloudevent.source=me", fmt.Sprintf(batch, `"metadata":{},`), `{"cloudevent.source":"me","foo":"bar"}`, "me"},
		{"/v1.0/publish/bulk/mem/many?metadata.foo=bar&metadata.cloudevent.source=me", fmt.Sprintf(batch, `"metadata":{"foo":"own"},`), `{"cloudevent.source":"me","foo":"own"}`, "me"},
	} {
		d.expect(204, "", "POST", c.path, c.body)
		many := await()
		for _, want := range []string{`"metadata":` + c.want + `,`, `"source":"` + c.source + `"`} {
			if !strings.Contains(many.body, want) {
				t.Errorf("%s %s: want %s in %s", c.path, c.body, want, many.body)
			}
		}
	}
	if _, err := d.client().PublishEvent(t.Context(), &runtimev1.PublishEventRequest{PubsubName: "mem", Topic: "many"}); err != nil {
		t.Fatal(err)
	}
	if many := await(); !strings.Contains(many.body, `"metadata":null,`) {
		t.Errorf("over gRPC nothing is told beside the event: %s", many.body)
	}
	// A subscription whose rawPayload is no truth gets nothing: events are dead letters, or wait.
	d.expect(204, "", "POST", "/v1.0/publish/mem/neither", "x")
	if letter := await(); !strings.Contains(letter.body, `"topic":"neither"`) || letter.path != "/one" {
		t.Errorf("%s %s", letter.path, letter.body)
	}
	d.expect(400, `{"errorCode":"ERR_PUBSUB_REQUEST_METADATA","message":"failed deserializing metadata. Error: rawPayload value must be a valid boolean: actual is 'yes'",…`, "POST", "/v1.0/publish/mem/one?metadata.rawPayload=yes", "x")
	d.expect(204, "", "POST", "/v1.0/publish/mem/wild%2Fa", "x")
	if wild := await(); !strings.Contains(wild.body, `"topic":"wild/a"`) {
		t.Errorf("what a wildcard matches: %s", wild.body)
	}
	if all := d.do("GET", "/v1.0/metadata", "").body; !strings.Contains(all, `"SUBSCRIBE_WILDCARDS"`) {
		t.Errorf("the broker does not tell that it has wildcards: %s", all)
	}
	d.expect(403, `{"errorCode":"ERR_PUBSUB_FORBIDDEN","message":"topic two is not allowed for app id app","details":[{"@type":"type.googleapis.com/google.rpc.ResourceInfo",`+
		`"description":"topic two is not allowed for app id app","owner":"","resource_name":"mem","resource_type":"pubsub"},{"@type":"type.googleapis.com/google.rpc.ErrorInfo",`+
		`"domain":"dapr.io","metadata":{"error":"topic two is not allowed for app id app","topic":"two"},"reason":"DAPR_PUBSUB_FORBIDDEN"}]}`, "POST", "/v1.0/publish/mem/two", "x")
	for body, text := range map[string]string{"[]": "json: cannot unmarshal array into Go value of type map[string]interface {}", "": "EOF"} {
		answer := d.do("POST", "/v1.0/publish/mem/one", body, "Content-Type: application/cloudevents+json")
		if answer.status != 500 || !strings.Contains(answer.body, fmt.Sprintf(`"error":%q`, text)) {
			t.Errorf("%q: %d %s", body, answer.status, answer.body)
		}
	}
}

func TestFieldsThatAreOfOneConnectionOrOfGRPC(t *testing.T) {
	app := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header()["Connection"] = []string{"keep-alive, x-hop"}
		w.Header().Set("X-Hop", "1")
		w.Header().Set("Grpc-Status", "0")
		w.Header().Set("X-Grpc-Foo", r.Header.Get("Dapr-Grpc-Foo"))
		w.Header().Set("X-By", r.Header.Get("Forwarded"))
	}))
	m := machine.New(t)
	callee := start(t, m, "callee", "--app-port", app)
	callee.await("/v1.0/healthz")
	caller := start(t, m, "caller")
	caller.until(200, "", "GET", "/v1.0/invoke/callee/method/x", "")
	got := caller.do("GET", "/v1.0/invoke/callee/method/"+strings.Repeat("m", 6000), "", "grpc-foo: bar")
	if got.status != 200 || got.header.Get("X-Hop") != "" || got.header.Get("Dapr-Grpc-Status") != "0" || got.header.Get("X-Grpc-Foo") != "bar" {
		t.Errorf("%d %v %.200s", got.status, got.header, got.body)
	}
	var head metadata.MD
	_, err := caller.client().InvokeService(t.Context(), &runtimev1.InvokeServiceRequest{Id: "callee", Message: &commonv1.InvokeRequest{
		Method: "x", HttpExtension: &commonv1.HTTPExtension{Verb: commonv1.HTTPExtension_GET},
	}}, grpc.Header(&head))
	if by := head.Get("x-by"); err != nil || len(by) != 1 || !strings.HasPrefix(by[0], "for=") || got.header.Get("X-By") != by[0] {
		t.Errorf("who forwards is not told as over HTTP: %v %v", by, err)
	}
	refused := func(character, what string) {
		t.Helper()
		caller.expect(500, `{"errorCode":"ERR_DIRECT_INVOKE","message":"failed to invoke, id: callee, err: rpc error: code = InvalidArgument desc = invalid method: method contains `+what+`"}`,
			"GET", "/v1.0/invoke/callee/method/a"+character, "")
	}
	refused("%0A", `control character at position 1: \"a\\n\"`)
	refused("%00", `forbidden character: \"a\\x00\"`)
	refused("%23", `forbidden character: \"a#\"`)
	large := caller.do("POST", "/v1.0/invoke/callee/method/x", strings.Repeat("x", 4<<20+1))
	if want := `{"errorCode":"ERR_DIRECT_INVOKE","message":"failed to invoke, id: callee, err: stream too large"}`; large.status != 500 || large.body != want {
		t.Errorf("%d %s", large.status, large.body)
	}
}

func TestErrorsOverGRPCNameNeitherTheAppNorTheRequest(t *testing.T) {
	d := start(t, machine.New(t), "app")
	client := d.client()
	refused := func(err error, code codes.Code, message, reason string) {
		t.Helper()
		got := status.Convert(err)
		if got.Code() != code || got.Message() != message {
			t.Errorf("got %v, want %v %s", err, code, message)
		}
		for _, detail := range got.Details() {
			if info, ok := detail.(*errdetails.ErrorInfo); ok && (info.Reason != reason || len(info.Metadata) > 0) {
				t.Errorf("%v", info)
			}
		}
	}
	_, err := client.GetState(t.Context(), &runtimev1.GetStateRequest{StoreName: "none", Key: "x"})
	refused(err, codes.InvalidArgument, "state store none is not found", "DAPR_STATE_NOT_FOUND")
	_, err = client.PublishEvent(t.Context(), &runtimev1.PublishEventRequest{PubsubName: "none", Topic: "x", Metadata: map[string]string{"a": "b"}})
	refused(err, codes.InvalidArgument, "pubsub none is not found", "DAPR_PUBSUB_NOT_FOUND")
	_, err = client.SaveState(t.Context(), &runtimev1.SaveStateRequest{StoreName: "store", States: []*commonv1.StateItem{
		{Key: "x", Value: []byte("bad"), Metadata: map[string]string{"contentType": "application/json"}},
	}})
	refused(err, codes.Unknown, "invalid character 'b' looking for beginning of value", "")
	_, err = client.InvokeService(t.Context(), &runtimev1.InvokeServiceRequest{Message: &commonv1.InvokeRequest{Method: "x"}})
	refused(err, codes.Internal, "failed to invoke, id: , err: app id is empty", "")
	_, err = client.BulkPublishEvent(t.Context(), &runtimev1.BulkPublishRequest{PubsubName: "bus", Topic: "secret"})
	if status.Code(err) != codes.PermissionDenied {
		t.Errorf("no events for a topic that is not the app's: %v", err)
	}
	d.expect(400, `{"errorCode":"ERR_STATE_STORE_NOT_FOUND","message":"state store none is not found","details":[{"@type":"type.googleapis.com/google.rpc.ErrorInfo","domain":"dapr.io","metadata":{"appID":"app"},"reason":"DAPR_STATE_NOT_FOUND"}]}`,
		"GET", "/v1.0/state/none/x", "")
	d.expect(400, `{"errorCode":"ERR_STATE_STORE_NOT_FOUND","message":"state store none is not found","details":[{"@type":"type.googleapis.com/google.rpc.ErrorInfo","domain":"dapr.io","metadata":null,"reason":"DAPR_STATE_NOT_FOUND"}]}`,
		"POST", "/v1.0-alpha1/state/none/query", "{}")
}
