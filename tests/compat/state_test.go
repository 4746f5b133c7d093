package compat

import (
	"strings"
	"testing"

	commonv1 "github.com/dapr/dapr/pkg/proto/common/v1"
	runtimev1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sidecast/sidecast/tests/machine"
)

const store = "/v1.0/state/store"

func TestStateOverHTTP(t *testing.T) {
	t.Parallel()
	d := start(t, machine.New(t), "app")
	d.expect(204, "", "GET", store+"/absent", "")
	d.expect(204, "", "POST", store, `[{"key":"a","value":{"n": 12345678901234567890, "s":"<&>"}},{"key":"b","value":"text"},{"key":"c"}]`)
	got := d.expect(200, `{"n":12345678901234567890,"s":"<&>"}`, "GET", store+"/a", "")
	if got.header.Get("Content-Type") != "application/json" || got.header.Get("ETag") == "" {
		t.Errorf("the header is %v", got.header)
	}
	d.expect(200, `"text"`, "GET", store+"/b", "")
	d.expect(200, `null`, "GET", store+"/c", "")
	d.expect(204, "", "POST", store, `[]`)
	d.expect(204, "", "PUT", store, `[{"key":"d/e f","value":1}]`)
	d.expect(200, `1`, "GET", store+"/d%2Fe+f", "")

	const unequal = `possible etag mismatch. error from state store: …`
	d.expect(409, `{"errorCode":"ERR_STATE_SAVE","message":"failed saving state in state store store: `+unequal, "POST", store, `[{"key":"a","value":1,"etag":"wrong"}]`)
	d.expect(409, `{"errorCode":"ERR_STATE_DELETE","message":"failed deleting state with key a: `+unequal, "DELETE", store+"/a", "", "If-Match: wrong")
	d.expect(409, `{"errorCode":"ERR_STATE_SAVE","message":"failed saving state in state store store: `+unequal, "POST", store, `[{"key":"a","value":1,"options":{"concurrency":"first-write"}}]`)
	d.expect(204, "", "POST", store, `[{"key":"a","value":2,"etag":"`+got.header.Get("ETag")+`","options":{"concurrency":"first-write","consistency":"strong"}}]`)
	d.expect(409, `{"errorCode":"ERR_STATE_DELETE",…`, "DELETE", store+"/a", "", "If-Match: "+got.header.Get("ETag"))
	d.expect(204, "", "DELETE", store+"/a", "", "If-Match: "+d.do("GET", store+"/a", "").header.Get("ETag"))
	d.expect(204, "", "DELETE", store+"/a", "")

	d.expect(204, "", "POST", store+"?metadata.ttlInSeconds=1000", `[{"key":"t","value":1}]`)
	if got := d.do("GET", store+"/t", ""); got.header.Get("metadata.ttlExpireTime") == "" {
		t.Errorf("an item that expires does not tell when: %v", got.header)
	}
	d.expect(204, "", "POST", store, `[{"key":"t","value":1,"metadata":{"ttlInSeconds":"-1"}}]`)
	if got := d.do("GET", store+"/t", ""); got.header.Get("metadata.ttlExpireTime") != "" {
		t.Errorf("an item that stays expires: %v", got.header)
	}
	d.expect(200, `[{"key":"b","data":"text","etag":"…`, "POST", store+"/bulk", `{"keys":["b","none"],"parallelism":3}`)
	if got := d.do("POST", store+"/bulk", `{"keys":["none","b"]}`); !strings.HasPrefix(got.body, `[{"key":"none"},{"key":"b","data":"text"`) {
		t.Errorf("a bulk read answers %s", got.body)
	}
	d.expect(200, `[]`, "PUT", store+"/bulk", `{"keys":[]}`)
}

func TestTransactionsOverHTTP(t *testing.T) {
	t.Parallel()
	d := start(t, machine.New(t), "app")
	d.expect(204, "", "POST", store, `[{"key":"x","value":1}]`)
	d.expect(204, "", "POST", store+"/transaction", `{"operations":[{"operation":"upsert","request":{"key":"y","value":{"a":1}}},{"operation":"delete","request":{"key":"x"}},{"operation":"upsert","request":{"key":"y","value":2}}]}`)
	d.expect(204, "", "GET", store+"/x", "")
	d.expect(200, "2", "GET", store+"/y", "")
	d.expect(500, `{"errorCode":"ERR_STATE_TRANSACTION","message":"error while executing state transaction: possible etag mismatch. error from state store: …`,
		"POST", store+"/transaction", `{"operations":[{"operation":"upsert","request":{"key":"z","value":1}},{"operation":"upsert","request":{"key":"y","value":3,"etag":"0000000000000001"}}]}`)
	d.expect(204, "", "GET", store+"/z", "") // nothing of it was done
	d.expect(204, "", "POST", store+"/transaction", `{"operations":[]}`)
	d.expect(400, `{"errorCode":"ERR_NOT_SUPPORTED_STATE_OPERATION","message":"operation type merge not supported"}`,
		"POST", store+"/transaction", `{"operations":[{"operation":"merge","request":{"key":"y"}}]}`)
}

func TestBadStateRequestsOverHTTP(t *testing.T) {
	t.Parallel()
	d := start(t, machine.New(t), "app")
	const notFound = `{"errorCode":"ERR_STATE_STORE_NOT_FOUND","message":"state store nope is not found","details":[{"@type":"type.googleapis.com/google.rpc.ErrorInfo","domain":"dapr.io","metadata":{"appID":"app"},"reason":"DAPR_STATE_NOT_FOUND"}]}`
	for _, path := range []string{"", "/bulk", "/transaction"} {
		d.expect(400, notFound, "POST", "/v1.0/state/nope"+path, `not read`)
	}
	d.expect(400, notFound, "GET", "/v1.0/state/nope/k", "")
	d.expect(400, notFound, "DELETE", "/v1.0/state/nope/k", "")
	d.expect(400, `{"errorCode":"ERR_MALFORMED_REQUEST","message":"invalid character…`, "POST", store, `nonsense`)
	d.expect(400, `{"errorCode":"ERR_MALFORMED_REQUEST","message":"EOF"}`, "POST", store, ``)
	d.expect(400, `{"errorCode":"ERR_MALFORMED_REQUEST","message":"json: cannot unmarshal object into Go value of type []state.SetRequest"}`, "POST", store, `{}`)
	d.expect(400, `{"errorCode":"ERR_MALFORMED_REQUEST","message":"json: cannot unmarshal number into Go struct field SetRequest.etag of type string"}`, "POST", store, `[{"key":"k","etag":1}]`)
	d.expect(400, `{"errorCode":"ERR_MALFORMED_REQUEST","message":"failed deserializing HTTP body: json: cannot unmarshal string into Go struct field BulkGetRequest.parallelism of type int"}`, "POST", store+"/bulk", `{"keys":["k"],"parallelism":"x"}`)
	d.expect(400, `{"errorCode":"ERR_MALFORMED_REQUEST","message":"failed deserializing HTTP body: json: cannot unmarshal array into Go value of type http.stateTransactionRequestBody"}`, "POST", store+"/transaction", `[]`)
	d.expect(400, `{"errorCode":"ERR_MALFORMED_REQUEST","message":"\"key\" is a required field"}`, "POST", store, `[{"value":1}]`)
	d.expect(400, `{"errorCode":"ERR_MALFORMED_REQUEST","message":"failed deserializing HTTP body: invalid character…`, "POST", store+"/bulk", `nonsense`)
	d.expect(400, `{"errorCode":"ERR_MALFORMED_REQUEST","message":"failed deserializing HTTP body: invalid character…`, "POST", store+"/transaction", `nonsense`)
	const illegal = `{"errorCode":"ERR_MALFORMED_REQUEST","message":"api error: code = InvalidArgument desc = input key/keyPrefix 'a||b' can't contain '||'","details":[{"@type":"type.googleapis.com/google.rpc.BadRequest","field_violations":[{"field":"a||b","description":"api error: code = InvalidArgument desc = input key/keyPrefix 'a||b' can't contain '||'"}]},{"@type":"type.googleapis.com/google.rpc.ResourceInfo",…`
	d.expect(400, illegal, "GET", store+"/a%7C%7Cb", "")
	d.expect(400, illegal, "POST", store, `[{"key":"a||b"}]`)
	d.expect(400, illegal, "POST", store+"/bulk", `{"keys":["a||b"]}`)
	d.expect(500, `{"errorCode":"ERR_STATE_SAVE","message":"failed saving state in state store store: unrecognized concurrency model 'x'"}`, "POST", store, `[{"key":"k","options":{"concurrency":"x"}}]`)
	d.expect(500, `{"errorCode":"ERR_STATE_SAVE","message":"failed saving state in state store store: strconv.Atoi: parsing \"soon\": invalid syntax"}`, "POST", store, `[{"key":"k","metadata":{"ttlInSeconds":"soon"}}]`)
	d.expect(500, `{"errorCode":"ERR_STATE_STORE_NOT_SUPPORTED","message":"state store does not support querying",…`, "POST", "/v1.0-alpha1/state/store/query", `{}`)
	bare := startWith(t, machine.New(t), "", "bare")
	bare.expect(500, `{"errorCode":"ERR_STATE_STORE_NOT_CONFIGURED","message":"state store store is not configured",…`, "GET", store+"/k", "")
}

func TestStateOverGRPC(t *testing.T) {
	t.Parallel()
	d := start(t, machine.New(t), "app")
	c, ctx := d.client(), t.Context()
	item := func(key, value, etag string, concurrency commonv1.StateOptions_StateConcurrency) *commonv1.StateItem {
		i := &commonv1.StateItem{Key: key, Value: []byte(value), Options: &commonv1.StateOptions{Concurrency: concurrency}}
		if etag != "" {
			i.Etag = &commonv1.Etag{Value: etag}
		}
		return i
	}
	save := func(items ...*commonv1.StateItem) error {
		_, err := c.SaveState(ctx, &runtimev1.SaveStateRequest{StoreName: "store", States: items})
		return err
	}
	if err := save(item("a", "\x00\xff", "", 0), item("b", "2", "", 0)); err != nil {
		t.Fatal(err)
	}
	if none, err := c.GetState(ctx, &runtimev1.GetStateRequest{StoreName: "store"}); err != nil || none.GetData() != nil || none.GetEtag() != "" {
		t.Errorf("no key has %v, %v", none, err)
	}
	got, err := c.GetState(ctx, &runtimev1.GetStateRequest{StoreName: "store", Key: "a"})
	if err != nil || string(got.GetData()) != "\x00\xff" || got.GetEtag() == "" {
		t.Fatalf("got %v, %v", got, err)
	}
	// Over HTTP a value that is no JSON comes as a string among others.
	d.expect(200, `[{"key":"a","data":"\u0000\ufffd","etag":"…`, "POST", store+"/bulk", `{"keys":["a"]}`)
	if got, err := c.GetState(ctx, &runtimev1.GetStateRequest{StoreName: "store", Key: "none"}); err != nil || got.GetData() != nil || got.GetEtag() != "" {
		t.Errorf("got %v, %v", got, err)
	}
	const first = commonv1.StateOptions_CONCURRENCY_FIRST_WRITE
	fails(t, save(item("a", "x", "", first)), codes.Aborted, "ERR_STATE_SAVE", "failed saving state in state store store: possible etag mismatch")
	fails(t, save(item("a", "x", "wrong", 0)), codes.Aborted, "ERR_STATE_SAVE", "failed saving state in state store store: possible etag mismatch")
	fails(t, save(item("", "x", "", 0)), codes.InvalidArgument, "ERR_STATE_SAVE", "state key cannot be empty")
	fails(t, save(item("a||b", "x", "", 0)), codes.InvalidArgument, "DAPR_STATE_ILLEGAL_KEY", "input key/keyPrefix 'a||b' can't contain '||'")
	if err := save(item("a", "3", got.GetEtag(), first)); err != nil {
		t.Error(err)
	}
	bulk, err := c.GetBulkState(ctx, &runtimev1.GetBulkStateRequest{StoreName: "store", Keys: []string{"none", "a"}})
	if err != nil || len(bulk.GetItems()) != 2 || bulk.Items[0].Key != "none" || bulk.Items[0].Data != nil || string(bulk.Items[1].Data) != "3" {
		t.Errorf("got %v, %v", bulk, err)
	}
	transact := func(kind string, i *commonv1.StateItem) error {
		_, err := c.ExecuteStateTransaction(ctx, &runtimev1.ExecuteStateTransactionRequest{StoreName: "store", Operations: []*runtimev1.TransactionalStateOperation{
			{OperationType: "upsert", Request: item("t", "1", "", 0)}, {OperationType: kind, Request: i},
		}})
		return err
	}
	fails(t, transact("upsert", item("a", "x", "wrong", 0)), codes.Internal, "ERR_STATE_TRANSACTION", "error while executing state transaction: possible etag mismatch")
	fails(t, transact("merge", item("a", "x", "", 0)), codes.Unimplemented, "ERR_NOT_SUPPORTED_STATE_OPERATION", "operation type merge not supported")
	if err := transact("delete", item("b", "", "", 0)); err != nil {
		t.Error(err)
	}
	_, err = c.DeleteState(ctx, &runtimev1.DeleteStateRequest{StoreName: "store", Key: "a", Etag: &commonv1.Etag{Value: "wrong"}})
	fails(t, err, codes.Aborted, "ERR_STATE_DELETE", "failed deleting state with key a: possible etag mismatch")
	if _, err := c.DeleteBulkState(ctx, &runtimev1.DeleteBulkStateRequest{StoreName: "store", States: []*commonv1.StateItem{item("a", "", "", 0), item("t", "", "", 0)}}); err != nil {
		t.Error(err)
	}
	_, err = c.GetState(ctx, &runtimev1.GetStateRequest{StoreName: "nope", Key: "a"})
	fails(t, err, codes.InvalidArgument, "DAPR_STATE_NOT_FOUND", "state store nope is not found")
	_, err = c.QueryStateAlpha1(ctx, &runtimev1.QueryStateRequest{StoreName: "store"})
	fails(t, err, codes.Internal, "DAPR_STATE_QUERYING_NOT_SUPPORTED", "state store does not support querying")
}

// fails checks the code, the reason in the details and the beginning of the message.
func fails(t *testing.T, err error, code codes.Code, reason, message string) {
	t.Helper()
	s := status.Convert(err)
	given := ""
	for _, d := range s.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok && info.Domain == "dapr.io" {
			given = info.Reason
		}
	}
	if s.Code() != code || given != reason || !strings.HasPrefix(s.Message(), message) {
		t.Errorf("got  %s %q %s\nwant %s %q %s", s.Code(), given, s.Message(), code, reason, message)
	}
}

func TestKeyPrefixes(t *testing.T) {
	t.Parallel()
	yaml := ""
	for _, strategy := range []string{"appid", "name", "namespace", "none", "ours"} {
		yaml += strings.NewReplacer("NAME", strategy).Replace(`
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: NAME}
spec:
  type: state.jetstream
  version: v1
  metadata: [{name: keyPrefix, value: NAME}, {name: bucket, value: shared}]
---`)
	}
	m := machine.New(t)
	one, two := startWith(t, m, yaml, "one"), startWith(t, m, yaml, "two")
	for strategy, shared := range map[string]bool{"appid": false, "name": true, "namespace": false, "none": true, "ours": true} {
		one.expect(204, "", "POST", "/v1.0/state/"+strategy, `[{"key":"k","value":"`+strategy+`"}]`)
		want := 204
		if shared {
			want = 200
		}
		if got := two.do("GET", "/v1.0/state/"+strategy+"/k", ""); got.status != want {
			t.Errorf("%s: the other app gets %d %s", strategy, got.status, got.body)
		}
	}
	one.expect(200, `"none"`, "GET", "/v1.0/state/none/k", "") // in one bucket, under different keys
}
