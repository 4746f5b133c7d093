package blocks

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/pubsub"
)

// stored is a message as a broker hands it out.
type stored struct{ message pubsub.Message }

func (s stored) Message() *pubsub.Message                 { return &s.message }
func (stored) Attempt() int                               { return 1 }
func (stored) Stored() time.Time                          { return time.Unix(1, 0) }
func (stored) Extend(context.Context) error               { return nil }
func (stored) Ack(context.Context) error                  { return nil }
func (stored) Retry(context.Context, time.Duration) error { return nil }

var someone = Self{AppID: "orders", Instance: "orders-1", Namespace: "default"}

func TestPayloadComesBackAsItWas(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		draft := Draft{
			Data:        rapid.SliceOf(rapid.Byte()).Draw(t, "data"),
			ContentType: rapid.SampledFrom([]string{"", "application/octet-stream", "image/png"}).Draw(t, "type"),
			Key:         rapid.StringMatching(`[a-z0-9 äß]{0,8}`).Draw(t, "key"),
			Raw:         rapid.Bool().Draw(t, "raw"),
		}
		message, err := wrap(someone, "pubsub", "topic", &draft)
		if err != nil {
			t.Fatal(err)
		}
		event := unwrap("pubsub", "topic", "", false, stored{message})
		if !bytes.Equal(event.Data, draft.Data) || event.ContentType != orBinary(draft.ContentType) || event.Key != draft.Key || event.ID != message.ID {
			t.Fatalf("%+v became %+v", draft, event)
		}
	})
}

func TestEnvelopeIsACloudEvent(t *testing.T) {
	draft := Draft{
		Data: []byte(`{"n":1}`), ContentType: "application/json; charset=utf-8", Key: "k",
		Header: call.Header{{Key: "cloudevent.id", Value: "id-1"}, {Key: "traceparent", Value: "tp"}},
	}
	message, err := wrap(someone, "pubsub", "orders", &draft)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"specversion":"1.0"`, `"id":"id-1"`, `"source":"orders"`, `"data":{"n":1}`, `"traceparent":"tp"`, `"partitionkey":"k"`, `"topic":"orders"`} {
		if !strings.Contains(string(message.Data), want) {
			t.Errorf("no %s in %s", want, message.Data)
		}
	}
	again, err := wrap(someone, "pubsub", "orders", &Draft{Data: message.Data, ContentType: CloudEventJSON})
	if err != nil || again.ID != "id-1" {
		t.Errorf("a complete CloudEvent became %+v, %v", again, err)
	}
}

func TestWhatIsNoCloudEventIsRefused(t *testing.T) {
	for _, draft := range []Draft{
		{Data: []byte("{}"), ContentType: CloudEventJSON},
		{Data: []byte("no"), ContentType: "application/json"},
		{Header: call.Header{{Key: "not an extension", Value: "x"}}},
		{Header: call.Header{{Key: "cloudevent.source", Value: "%zz"}}},
	} {
		_, err := wrap(someone, "pubsub", "orders", &draft)
		if fault.ReasonOf(err) != fault.EventInvalid {
			t.Errorf("%+v: got %v", draft, err)
		}
	}
}

func FuzzUnwrap(f *testing.F) {
	f.Add([]byte(`{"specversion":"1.0","id":"1","source":"s","type":"t","data":1}`))
	f.Add([]byte(`{"specversion":"1.0","data_base64":"!"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		event := unwrap("pubsub", "topic", "", false, stored{pubsub.Message{ID: "id", Data: data, ContentType: CloudEventJSON}})
		if event == nil || event.Topic != "topic" {
			t.Fatalf("%q became %+v", data, event)
		}
	})
}
