package appchannel

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	runtimev1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"github.com/google/uuid"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/call/rawjson"
)

// daprEnvelope is an event as Dapr's apps see it: always a CloudEvent in JSON. What was published raw is wrapped for a
// subscriber that asked for raw payloads; one that did not gets a JSON object as it is, for it may be a CloudEvent of someone
// else's.
func daprEnvelope(event *Event) ([]byte, error) {
	if !event.Raw {
		if event.Envelope != nil {
			return event.Envelope, nil
		}
		if trimmed := bytes.TrimSpace(event.Data); len(trimmed) > 0 && trimmed[0] == '{' && json.Valid(trimmed) {
			return event.Data, nil
		}
	}
	wrapped := map[string]string{
		"id": uuid.NewString(), "specversion": "1.0", "datacontenttype": "application/octet-stream", "source": "Dapr",
		"type": "com.dapr.event.sent", "topic": event.Topic, "pubsubname": event.PubSub,
		"data_base64": base64.StdEncoding.EncodeToString(event.Data),
	}
	for _, key := range []string{"traceid", "traceparent", "tracestate"} {
		if value := event.Header.Get(key); value != "" {
			wrapped[key] = value
		}
	}
	if parent := wrapped["traceparent"]; parent != "" {
		wrapped["traceid"] = parent
	}
	return json.Marshal(wrapped)
}

// notExtensions are the attributes that TopicEventRequest has fields for.
var notExtensions = []string{"id", "source", "datacontenttype", "type", "specversion", "data", "data_base64"}

// DaprTopicEvent is an event as Dapr's gRPC apps get it.
func DaprTopicEvent(event *Event) (*runtimev1.TopicEventRequest, error) {
	ce, err := openDapr(event)
	if err != nil {
		return nil, err
	}
	return &runtimev1.TopicEventRequest{
		Id: ce.text("id"), Source: ce.text("source"), Type: ce.text("type"), SpecVersion: ce.text("specversion"),
		DataContentType: ce.text("datacontenttype"), Data: ce.data, Topic: event.Topic, PubsubName: event.PubSub, Path: event.Route,
		Extensions: ce.extensions,
	}, nil
}

// daprEvent is a CloudEvent taken apart.
type daprEvent struct {
	attributes map[string]json.RawMessage
	data       []byte
	extensions *structpb.Struct
}

// text is "" for what is no text, as in daprd.
func (e daprEvent) text(name string) string { return rawjson.Text(e.attributes[name]) }

func openDapr(event *Event) (e daprEvent, err error) {
	envelope, err := daprEnvelope(event)
	if err != nil {
		return e, err
	}
	var ok bool
	if e.attributes, ok = rawjson.Fields(envelope); !ok {
		if err := json.Unmarshal(envelope, &e.attributes); err != nil {
			return e, err
		}
	}
	kind := e.text("datacontenttype")
	if encoded := e.text("data_base64"); encoded != "" {
		if e.data, err = base64.StdEncoding.DecodeString(encoded); err != nil {
			return e, err
		}
	} else if raw, ok := e.attributes["data"]; ok && !bytes.Equal(raw, []byte("null")) {
		if e.data, err = daprData(kind, raw); err != nil {
			return e, err
		}
	}
	e.extensions, err = extensionsOf(e.attributes)
	return e, err
}

// extensionsOf are all attributes that TopicEventRequest has no fields for.
func extensionsOf(attributes map[string]json.RawMessage) (*structpb.Struct, error) {
	all := &structpb.Struct{Fields: make(map[string]*structpb.Value, len(attributes))}
	var rest map[string]json.RawMessage // what is not text: protojson knows what becomes of it
	for name, value := range attributes {
		switch {
		case slices.Contains(notExtensions, name):
		case value[0] == '"' && utf8.ValidString(name):
			all.Fields[name] = structpb.NewStringValue(rawjson.Text(value))
		default:
			if rest == nil {
				rest = map[string]json.RawMessage{}
			}
			rest[name] = value
		}
	}
	if rest == nil {
		return all, nil
	}
	encoded, err := json.Marshal(rest)
	if err != nil {
		return nil, err
	}
	others := &structpb.Struct{}
	if err := protojson.Unmarshal(encoded, others); err != nil {
		return nil, err
	}
	maps.Copy(all.Fields, others.GetFields())
	return all, nil
}

// daprData is the payload in an envelope: JSON stays JSON, text loses its quotes. Where the content type is neither, text is
// handed over all the same; daprd hands over nothing.
func daprData(contentType string, raw json.RawMessage) ([]byte, error) {
	kind := strings.ToLower(contentType)
	if strings.HasPrefix(kind, "application/json") || strings.HasPrefix(kind, "application/cloudevents+json") || kind == "" {
		var compact bytes.Buffer
		err := json.Compact(&compact, raw)
		return compact.Bytes(), err
	}
	if raw[0] == '"' {
		return []byte(rawjson.Text(raw)), nil
	}
	if strings.HasPrefix(kind, "text/") || strings.Contains(kind, "xml") {
		return nil, errors.New("unexpected data type encountered in envelope")
	}
	return raw, nil
}

// daprBulkEntry is an event as one of several that a gRPC app gets at once.
func daprBulkEntry(event *Event, id string) (*runtimev1.TopicEventBulkRequestEntry, error) {
	entry := &runtimev1.TopicEventBulkRequestEntry{EntryId: id, ContentType: entryType(event), Metadata: daprMetadata(event)}
	if event.Raw {
		entry.Event = &runtimev1.TopicEventBulkRequestEntry_Bytes{Bytes: event.Data}
		return entry, nil
	}
	ce, err := openDapr(event)
	if err != nil {
		return nil, err
	}
	entry.Event = &runtimev1.TopicEventBulkRequestEntry_CloudEvent{CloudEvent: &runtimev1.TopicEventCERequest{
		Id: ce.text("id"), Source: ce.text("source"), Type: ce.text("type"), SpecVersion: ce.text("specversion"),
		DataContentType: ce.text("datacontenttype"), Data: ce.data, Extensions: ce.extensions,
	}}
	return entry, nil
}

// entryType is the media type of an entry's event: that of the envelope, or bytes, for that is how a raw payload comes alone, too.
func entryType(event *Event) string {
	if event.Raw {
		return "application/octet-stream"
	}
	return "application/cloudevents+json"
}

// daprMetadata is what a broker tells about an event beside it: nil where there was nothing that could hold it.
func daprMetadata(event *Event) map[string]string {
	m := maps.Clone(event.Beside)
	if event.Envelope == nil {
		for key, value := range call.Header(event.Header).Map() {
			if m == nil {
				m = make(map[string]string, len(event.Header))
			}
			m[key] = value
		}
	}
	return m
}
