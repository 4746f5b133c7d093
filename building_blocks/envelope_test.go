package blocks

import (
	"bytes"
	"context"
	"encoding/json"
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

// What a publisher says beside an event is not what the event says.
func TestFieldsBesideAnEventDoNotShadowItsOwn(t *testing.T) {
	const past, future = "2001-01-01T00:00:00Z", "2999-01-01T00:00:00Z"
	for _, c := range []struct {
		inside, beside string
		want           bool
	}{{past, "", true}, {"", past, false}, {future, past, false}, {past, future, true}} {
		message := pubsub.Message{ID: "1", ContentType: CloudEventJSON, Header: map[string]string{"traceparent": "beside", "color": "red"},
			Data: []byte(`{"specversion":"1.0","id":"1","source":"s","type":"t","traceparent":"inside"` + extensionOf("expiration", c.inside) + `}`)}
		if c.beside != "" {
			message.Header["expiration"] = c.beside
		}
		event := unwrap("pubsub", "topic", "", false, stored{message})
		if expired(event) != c.want || event.Header.Get("traceparent") != "inside" || event.Header.Get("color") != "red" {
			t.Errorf("%+v: expired is %v, with %v", c, expired(event), event.Header)
		}
	}
}

func extensionOf(name, value string) string {
	if value == "" {
		return ""
	}
	return `,"` + name + `":"` + value + `"`
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

// FuzzWrap is a publisher that says anything: what is stored is an envelope that a subscriber can open, with what was said.
func FuzzWrap(f *testing.F) {
	f.Add("application/json", []byte(`{"a":1}`), "cloudevent.id", "x", "k", false)
	f.Add("application/cloudevents+json", []byte(`{"specversion":"1.0","id":"1","source":"s","type":"t","data":{"a":[1e400]},"ext":true}`), "traceparent", "00-1-2-3", "", false)
	f.Add("application/cloudevents+json; charset=utf-8", []byte(`{"specversion":"0.3","id":"1","source":"s","type":"t","data_base64":"AA=="}`), "ext", "\x00", "", false)
	f.Add("text/plain", []byte("\xff"), "cloudevent.source", "%zz", "", false)
	f.Add("", []byte("0"), "cloudevent.id", "\x80", "", false)
	f.Add("a/b", []byte(nil), "Ünfit", "x", "", true)
	f.Add("application/cloudevents+json", []byte("{}"), "", "", "", true) // raw for who publishes it, an envelope for who reads it
	f.Fuzz(func(t *testing.T, contentType string, data []byte, field, value, key string, raw bool) {
		draft := Draft{Data: data, ContentType: contentType, Header: call.Header{{Key: field, Value: value}}, Key: key, Raw: raw}
		message, err := wrap(someone, "pubsub", "topic", &draft)
		if err != nil {
			if fault.ReasonOf(err) != fault.EventInvalid {
				t.Errorf("refused with %v", err)
			}
			return
		}
		event := unwrap("pubsub", "topic", "", false, stored{message})
		switch {
		case message.ID == "" || event.ID != message.ID && !raw:
			t.Errorf("%q is stored as %q and read as %q", draft.Data, message.ID, event.ID)
		case raw && mediaType(contentType) != CloudEventJSON && !bytes.Equal(event.Data, data):
			t.Errorf("the payload %q became %q", data, event.Data)
		case !raw && (!json.Valid(message.Data) || event.Source == "" || event.Type == "" || event.Envelope == nil):
			t.Errorf("%s is read as %+v", message.Data, event)
		}
	})
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
