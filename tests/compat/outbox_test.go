package compat

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	commonv1 "github.com/dapr/dapr/pkg/proto/common/v1"
	runtimev1 "github.com/dapr/dapr/pkg/proto/runtime/v1"

	"github.com/sidecast/sidecast/tests/machine"
)

const outboxResources = resources + `
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: ledger}
spec:
  type: state.badger
  version: v1
  metadata:
  - {name: outboxPublishPubsub, value: bus}
  - {name: outboxPublishTopic, value: written}
  - {name: outboxPubsub, value: bus}
  - {name: outboxDiscardWhenMissingState, value: "false"}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: nowhere}
spec:
  type: state.in-memory
  version: v1
  metadata:
  - {name: outboxPublishPubsub, value: missing}
  - {name: outboxPublishTopic, value: written}
`

const ledger = "/v1.0/state/ledger"

func TestOutboxPublishesWhatTransactionsWrite(t *testing.T) {
	t.Parallel()
	app := newSubscriber(`[{"pubsubname":"bus","topic":"written","route":"/written"}]`)
	d := startWith(t, machine.New(t), outboxResources, "app", "--app-port", serve(t, app))
	d.subscribed(1)
	check := func(got delivered, want map[string]any) {
		t.Helper()
		if id, _ := got.event["id"].(string); !strings.HasPrefix(id, "outbox-") {
			t.Errorf("the id is %v", got.event["id"])
		}
		want["specversion"], want["topic"], want["pubsubname"] = "1.0", "written", "bus"
		for key, value := range want {
			if fmt.Sprint(got.event[key]) != fmt.Sprint(value) {
				t.Errorf("%s is %v, want %v: %v", key, got.event[key], value, got.event)
			}
		}
	}
	next := func(want map[string]any) {
		t.Helper()
		check(app.next(t), want)
	}
	defaults := func(data any) map[string]any {
		return map[string]any{"data": data, "source": "app", "type": "com.dapr.event.sent", "datacontenttype": "text/plain"}
	}

	d.expect(204, "", "POST", ledger+"/transaction", `{"operations":[{"operation":"upsert","request":{"key":"1","value":"2"}}]}`)
	next(defaults("2"))
	d.expect(200, `"2"`, "GET", ledger+"/1", "")

	// What was saved, what a projection shows, what metadata say of the event, and nothing of a deletion.
	d.expect(204, "", "POST", ledger+"/transaction", `{"operations":[
		{"operation":"upsert","request":{"key":"1","value":"3","metadata":{"outbox.cloudevent.myapp":"myapp1","data":"a","id":"b","cloudevent.type":"order.placed"}}},
		{"operation":"upsert","request":{"key":"1","value":{"id":7},"metadata":{"outbox.projection":"true","contentType":"application/json"}}},
		{"operation":"delete","request":{"key":"2"}}]}`)
	next(map[string]any{
		"data": map[string]any{"id": 7}, "datacontenttype": "application/json", "outbox.cloudevent.myapp": "myapp1",
		"type": "order.placed", "cloudevent.type": "order.placed", "source": "app",
	})
	d.expect(200, `"3"`, "GET", ledger+"/1", "")

	_, err := d.client().ExecuteStateTransaction(t.Context(), &runtimev1.ExecuteStateTransactionRequest{
		StoreName: "ledger", Operations: []*runtimev1.TransactionalStateOperation{
			{OperationType: "upsert", Request: &commonv1.StateItem{Key: "g", Value: []byte(`{"a":1}`), Metadata: map[string]string{"contentType": "application/json", "source": "shop"}}},
			{OperationType: "upsert", Request: &commonv1.StateItem{Key: "g", Value: []byte("second")}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	first, second := app.next(t), app.next(t)
	if first.event["data"] == "second" { // the app is given several at a time
		first, second = second, first
	}
	check(first, map[string]any{"data": map[string]any{"a": 1}, "source": "shop", "contentType": "application/json"})
	check(second, defaults("second"))

	// A transaction that fails, one that cannot publish, one whose projection belongs to nothing, and what is no transaction.
	d.expect(500, `{"errorCode":"ERR_STATE_TRANSACTION",…`, "POST", ledger+"/transaction", `{"operations":[{"operation":"upsert","request":{"key":"n","value":"no"}},{"operation":"upsert","request":{"key":"1","value":"no","etag":"9999"}}]}`)
	d.expect(500, `{"errorCode":"ERR_PUBLISH_OUTBOX","message":"error while publishing outbox message: …`, "POST", "/v1.0/state/nowhere/transaction", `{"operations":[{"operation":"upsert","request":{"key":"n","value":"no"}}]}`)
	d.expect(204, "", "GET", "/v1.0/state/nowhere/n", "")
	d.expect(500, `{"errorCode":"ERR_STATE_TRANSACTION",…`, "POST", ledger+"/transaction", `{"operations":[{"operation":"upsert","request":{"key":"n","value":"no","metadata":{"outbox.projection":"true"}}}]}`)
	d.expect(204, "", "POST", ledger, `[{"key":"s","value":"no"}]`)
	d.expect(204, "", "POST", ledger+"/transaction", `{"operations":[{"operation":"upsert","request":{"key":"1","value":"last"}}]}`)
	next(defaults("last")) // and nothing of these before it
}

func TestOutboxLosesNothingWhenTheSidecarIsKilled(t *testing.T) {
	t.Parallel()
	machine.SkipShort(t)
	m := machine.New(t)
	var mu sync.Mutex
	seen := map[string]bool{}
	app := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/dapr/subscribe":
			_, _ = w.Write([]byte(`[{"pubsubname":"bus","topic":"written","route":"/written"}]`))
		case "/written":
			var event struct{ Data string }
			if json.NewDecoder(r.Body).Decode(&event) == nil {
				mu.Lock()
				seen[event.Data] = true
				mu.Unlock()
			}
		}
	}))
	committed := map[string]bool{}
	for round := range 3 {
		d := startWith(t, m, outboxResources, "app", "--app-port", app)
		d.await("/v1.0/healthz")
		var writers sync.WaitGroup
		for w := range 8 {
			writers.Go(func() {
				for i := 0; ; i++ {
					name := fmt.Sprintf("%d-%d-%d", round, w, i)
					body := fmt.Sprintf(`{"operations":[{"operation":"upsert","request":{"key":%q,"value":%q}}]}`, name, name)
					response, err := http.Post("http://"+d.http+ledger+"/transaction", "application/json", strings.NewReader(body))
					if err != nil {
						return
					}
					response.Body.Close()
					if response.StatusCode == http.StatusNoContent {
						mu.Lock()
						committed[name] = true
						mu.Unlock()
					}
				}
			})
		}
		machine.Until(t, "some transactions", func() error {
			mu.Lock()
			defer mu.Unlock()
			if len(committed) < 200*(round+1) {
				return fmt.Errorf("%d so far", len(committed))
			}
			return nil
		})
		d.Kill()
		d.Wait(machine.Patience)
		writers.Wait()
	}
	d := startWith(t, m, outboxResources, "app", "--app-port", app)
	machine.UntilWithin(t, time.Minute, "every committed transaction's event", func() error {
		mu.Lock()
		defer mu.Unlock()
		lost := 0
		for name := range committed {
			if !seen[name] {
				lost++
			}
		}
		if lost > 0 {
			return fmt.Errorf("%d of %d are missing", lost, len(committed))
		}
		return nil
	})
	mu.Lock()
	defer mu.Unlock()
	for name := range seen { // of those that were not acknowledged too: what is published was written
		if got := d.do("GET", ledger+"/"+name, ""); got.status != http.StatusOK {
			t.Errorf("an event tells of %s, which is not stored: %d", name, got.status)
		}
	}
}
