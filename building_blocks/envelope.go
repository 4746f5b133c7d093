package blocks

import (
	"bytes"
	"cmp"
	"encoding/json"
	"mime"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/google/uuid"

	"github.com/sidecast/sidecast/appchannel"
	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/call/rawjson"
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
	// expirationExtension is Dapr's: when the event is to be dropped unhandled, in RFC 3339.
	expirationExtension = "expiration"
)

// wrap makes the message that a broker stores for a draft: a CloudEvent, or the bare payload when it is raw.
func wrap(self Self, component, topic string, draft *Draft) (pubsub.Message, error) {
	m := pubsub.Message{Key: draft.Key, Delay: draft.Delay, Metadata: draft.Metadata}
	if draft.Raw {
		m.ID = draft.Header.Get(attributePart + "id")
		if m.ID == "" {
			m.ID = uuid.NewString()
		}
		m.Data, m.ContentType, m.Header = draft.Data, orBinary(draft.ContentType), draft.Header.Map()
		return m, nil
	}
	if draft.Wrap != nil {
		var err error
		m.ID, m.Data, err = draft.Wrap(draft.Header)
		m.ContentType = CloudEventJSON
		return m, err
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
	if !utf8.ValidString(draft.Key) {
		return nil, fault.New(op, fault.EventInvalid, "the partition key is not valid UTF-8")
	}
	for _, f := range draft.Header {
		if !utf8.ValidString(f.Key) || !utf8.ValidString(f.Value) { // or else it is stored as another
			return nil, fault.New(op, fault.EventInvalid, "attribute %q is not valid UTF-8", f.Key)
		}
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
		Time: d.Stored(), Delivery: d.Attempt(), Raw: raw,
		ContentType: m.ContentType, Data: m.Data, Header: call.HeaderOf(m.Header), Beside: m.Header,
	}
	if raw || mediaType(m.ContentType) != CloudEventJSON {
		return seen
	}
	attributes, ok := rawjson.Fields(m.Data)
	if !ok {
		return seen // stored by someone else under the wrong media type: the app gets what there is
	}
	seen.Envelope = m.Data
	open(seen, attributes)
	return seen
}

// open reads the attributes of an envelope. It forgives what others have written against the specification: what is no text
// where there should be one is left out.
func open(seen *appchannel.Event, attributes map[string]json.RawMessage) {
	text := func(name string) string { return rawjson.Text(attributes[name]) }
	seen.ID = cmp.Or(text("id"), seen.ID)
	seen.Source, seen.Type, seen.Subject = text("source"), text("type"), text("subject")
	seen.ContentType = text("datacontenttype")
	if t, err := time.Parse(time.RFC3339Nano, text("time")); err == nil {
		seen.Time = t
	}
	seen.Data = nil
	if encoded, ok := attributes["data_base64"]; ok {
		_ = json.Unmarshal(encoded, &seen.Data) // into bytes: from base64
	} else if data, ok := attributes["data"]; ok {
		seen.Data = dataOf(seen.ContentType, data)
	}
	var several [8]string // more than most events have
	extensions := several[:0]
	for name := range attributes {
		switch name {
		case "specversion", "id", "source", "type", "subject", "datacontenttype", "dataschema", "time", "data", "data_base64":
		case "pubsubname", "topic", keyExtension: // fields of their own
		default:
			extensions = append(extensions, name)
		}
	}
	slices.Sort(extensions)
	// What the envelope says counts, and not what came beside it under such a name.
	seen.Header = slices.DeleteFunc(seen.Header, func(f call.Field) bool { return f.Key == expirationExtension })
	for _, name := range extensions {
		if value, ok := extension(attributes[name]); ok {
			seen.Header.Set(name, value)
		}
	}
}

// dataOf is the payload that an envelope holds as JSON: text is a string in it unless its type is JSON (CloudEvents 1.0,
// JSON event format, 3.1).
func dataOf(contentType string, data json.RawMessage) []byte {
	kind := mediaType(contentType)
	if kind == "" || kind == "application/json" || strings.HasSuffix(kind, "+json") {
		return data
	}
	if len(data) > 0 && data[0] == '"' {
		return []byte(rawjson.Text(data))
	}
	if string(data) == "null" { // as of a string, which is left empty
		return []byte{}
	}
	return data
}

// extension is the text of an extension attribute: booleans and numbers come as text, as over HTTP.
func extension(raw json.RawMessage) (string, bool) {
	if len(raw) > 0 && raw[0] == '"' {
		text := rawjson.Text(raw)
		return text, text != ""
	}
	var value any
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.UseNumber()
	if decoder.Decode(&value) != nil {
		return "", false
	}
	switch v := value.(type) {
	case bool:
		return strconv.FormatBool(v), true
	case json.Number:
		return v.String(), true
	}
	return "", false
}

// expired says whether the publisher wanted the event to be gone by now.
func expired(event *appchannel.Event) bool {
	at := event.Header.Get(expirationExtension)
	if at == "" || event.Envelope == nil {
		return false
	}
	t, err := time.Parse(time.RFC3339, at)
	return err == nil && t.Before(time.Now())
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
