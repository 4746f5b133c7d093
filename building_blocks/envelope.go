package blocks

import (
	"bytes"
	"encoding/json"
	"mime"
	"strings"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/cloudevents/sdk-go/v2/types"
	"github.com/google/uuid"

	"github.com/sidecast/sidecast/appchannel"
	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/pubsub"
)

// CloudEventJSON is the media type of a CloudEvent in its JSON format (CloudEvents 1.0, JSON event format).
const CloudEventJSON = "application/cloudevents+json"

const (
	binaryType    = "application/octet-stream"
	defaultType   = "dev.sidecast.event"
	attributePart = "cloudevent." // metadata keys that replace an attribute of the envelope
	keyExtension  = "partitionkey"
)

// wrap makes the message that a broker stores for a draft: a CloudEvent, or the bare payload when it is raw.
func wrap(self Self, component, topic string, draft *Draft) (pubsub.Message, error) {
	m := pubsub.Message{Key: draft.Key, Delay: draft.Delay}
	if draft.Raw {
		m.ID = draft.Header.Get(attributePart + "id")
		if m.ID == "" {
			m.ID = uuid.NewString()
		}
		m.Data, m.ContentType, m.Header = draft.Data, orBinary(draft.ContentType), draft.Header.Map()
		return m, nil
	}
	e, err := envelope(self, component, topic, draft)
	if err != nil {
		return m, err
	}
	var encoded bytes.Buffer
	encoded.Grow(len(draft.Data) + 512)
	if err := event.WriteJson(e, &encoded); err != nil {
		return m, fault.E("publish "+topic, fault.Invalid, fault.EventInvalid, err)
	}
	m.ID, m.Data, m.ContentType = e.ID(), encoded.Bytes(), CloudEventJSON
	return m, nil
}

func envelope(self Self, component, topic string, draft *Draft) (*event.Event, error) {
	op := "publish " + topic
	e := event.New(event.CloudEventsVersionV1)
	if mediaType(draft.ContentType) == CloudEventJSON {
		if err := e.UnmarshalJSON(draft.Data); err != nil {
			return nil, fault.New(op, fault.EventInvalid, "the content type says CloudEvent, but the payload is none: %w", err)
		}
	} else {
		e.SetID(uuid.NewString())
		e.SetSource(self.AppID)
		e.SetType(defaultType)
		e.SetTime(time.Now().UTC())
		if err := setData(&e, orBinary(draft.ContentType), draft.Data); err != nil {
			return nil, fault.E(op, fault.Invalid, fault.EventInvalid, err)
		}
	}
	e.SetExtension("pubsubname", component)
	e.SetExtension("topic", topic)
	if draft.Key != "" {
		e.SetExtension(keyExtension, draft.Key)
	}
	for _, f := range draft.Header {
		if err := setAttribute(&e, f); err != nil {
			return nil, fault.E(op, fault.Invalid, fault.EventInvalid, err)
		}
	}
	if err := e.Validate(); err != nil {
		return nil, fault.E(op, fault.Invalid, fault.EventInvalid, err)
	}
	return &e, nil
}

func setAttribute(e *event.Event, f call.Field) error {
	switch f.Key {
	case attributePart + "id":
		e.SetID(f.Value)
	case attributePart + "source":
		e.SetSource(f.Value)
	case attributePart + "type":
		e.SetType(f.Value)
	case attributePart + "subject":
		e.SetSubject(f.Value)
	default:
		return e.Context.SetExtension(f.Key, f.Value)
	}
	return nil
}

// setData puts data where the JSON format wants it: JSON as it is, text as a string, everything else in base64.
func setData(e *event.Event, contentType string, data []byte) error {
	e.SetDataContentType(contentType)
	if len(data) == 0 {
		return nil
	}
	kind := mediaType(contentType)
	switch {
	case kind == "application/json" || strings.HasSuffix(kind, "+json"):
		if !json.Valid(data) {
			return fault.New("", fault.EventInvalid, "the content type is %s, but the payload is not valid JSON", contentType)
		}
		e.DataEncoded = data
	case strings.HasPrefix(kind, "text/") || strings.HasSuffix(kind, "/xml") || strings.HasSuffix(kind, "+xml"):
		e.DataEncoded = data
	default:
		e.DataEncoded, e.DataBase64 = data, true
	}
	return nil
}

// unwrap makes of a stored message the event that an app sees. A message that is no CloudEvent, or whose subscriber wants
// payloads as they are, becomes a raw event.
func unwrap(component, topic, route string, raw bool, d pubsub.Delivery) *appchannel.Event {
	m := d.Message()
	seen := &appchannel.Event{
		ID: m.ID, PubSub: component, Topic: topic, Route: route, Key: m.Key,
		Time: d.Stored(), Delivery: d.Attempt(),
		ContentType: m.ContentType, Data: m.Data, Header: call.HeaderOf(m.Header),
	}
	if raw || mediaType(m.ContentType) != CloudEventJSON {
		return seen
	}
	var e event.Event
	if err := e.UnmarshalJSON(m.Data); err != nil {
		return seen // stored by someone else under the wrong media type: the app gets what there is
	}
	seen.ID, seen.Source, seen.Type, seen.Subject = e.ID(), e.Source(), e.Type(), e.Subject()
	seen.ContentType, seen.Data, seen.Envelope = e.DataContentType(), e.Data(), m.Data
	if !e.Time().IsZero() {
		seen.Time = e.Time()
	}
	for name, value := range e.Extensions() {
		switch name {
		case "pubsubname", "topic", keyExtension: // fields of their own
		default:
			if text, err := types.Format(value); err == nil { // booleans and numbers come as text, as over HTTP
				seen.Header.Add(name, text)
			}
		}
	}
	return seen
}

func mediaType(contentType string) string {
	switch contentType {
	case "application/json", CloudEventJSON, binaryType, "text/plain": // what nearly all are, without a parser
		return contentType
	}
	kind, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		return contentType
	}
	return kind
}

func orBinary(contentType string) string {
	if contentType == "" {
		return binaryType
	}
	return contentType
}
