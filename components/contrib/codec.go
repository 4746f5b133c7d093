package contrib

import (
	"bytes"
	"encoding/json"
	"maps"
	"strings"

	contribmetadata "github.com/dapr/components-contrib/metadata"
	contribpubsub "github.com/dapr/components-contrib/pubsub"
	"github.com/google/uuid"

	"github.com/sidecast/sidecast/pubsub"
)

const (
	cloudEvent = "application/cloudevents+json"
	binary     = "application/octet-stream"
)

// codec moves what a message has beside its data to the other end: as far as the library carries it. An event carries its
// id, key and type in its envelope, whatever the broker.
type codec struct {
	encode func(m *pubsub.Message) map[string]string
	// decode returns the token that all copies of one message have, or "".
	decode func(m *contribpubsub.NewMessage) (message pubsub.Message, token string)
	// unique says that a token is never that of two messages.
	unique bool
}

// besideData is what a message has beside its data, spelled as its publisher did: the library reads its options there. A raw
// event has in its header, in lower case, what it has as metadata.
func besideData(m *pubsub.Message) map[string]string {
	metadata := make(map[string]string, len(m.Header)+len(m.Metadata)+3)
	maps.Copy(metadata, m.Header)
	for name, value := range m.Metadata {
		if lower := strings.ToLower(name); lower != name && m.Header[lower] == value {
			delete(metadata, lower)
		}
		metadata[name] = value
	}
	return metadata
}

// event makes a message of data: of a CloudEvent with what its envelope says.
func event(m *contribpubsub.NewMessage) pubsub.Message {
	message := pubsub.Message{Data: m.Data, ContentType: binary}
	if m.ContentType != nil && *m.ContentType != "" {
		message.ContentType = *m.ContentType
	}
	if !bytes.HasPrefix(bytes.TrimLeft(m.Data, " \t\r\n"), []byte("{")) {
		return message
	}
	var envelope struct {
		SpecVersion, ID, PartitionKey string
	}
	if json.Unmarshal(m.Data, &envelope) == nil && envelope.SpecVersion != "" && envelope.ID != "" {
		message.ID, message.Key, message.ContentType = envelope.ID, envelope.PartitionKey, cloudEvent
	}
	return message
}

// named gives a message that came without an ID one of its own.
func named(m pubsub.Message) pubsub.Message {
	if m.ID == "" {
		m.ID = uuid.NewString()
	}
	return m
}

// The keys of metadata that carry a message's fields; the others are its header.
const (
	tokenKey = "sidecast-token"
	idKey    = "sidecast-id"
	keyKey   = "sidecast-key"
	typeKey  = "sidecast-type"
)

// metadataCodec is for brokers that carry metadata beside data.
var metadataCodec = codec{
	unique: true,
	encode: func(m *pubsub.Message) map[string]string {
		metadata := pubsub.Beside(m)
		if metadata == nil {
			metadata = make(map[string]string, 4)
		}
		metadata[tokenKey] = uuid.NewString()
		metadata[idKey], metadata[keyKey], metadata[typeKey] = m.ID, m.Key, m.ContentType
		return metadata
	},
	decode: func(m *contribpubsub.NewMessage) (pubsub.Message, string) {
		message, token := event(m), m.Metadata[tokenKey]
		if token != "" {
			message.ID, message.Key, message.ContentType = m.Metadata[idKey], m.Metadata[keyKey], m.Metadata[typeKey]
		}
		if message.Header = maps.Clone(m.Metadata); message.Header != nil { // and empty where nothing is left: a bulk tells it as {}
			for _, name := range []string{tokenKey, idKey, keyKey, typeKey} {
				delete(message.Header, name)
			}
		}
		return named(message), token
	},
}

// tokenMark starts the correlation ids that are tokens; longest is the most bytes of a property of AMQP.
const (
	tokenMark = "sidecast-"
	longest   = 255
)

// rabbitTexts are what a publisher may say of a message that AMQP gives room for as text, under the library's names.
var rabbitTexts = []string{"routingKey", "messageID", "correlationID", "contentType", "type"}

// amqpProperties are what the library tells of a message's properties, without those that a sidecar made for others of its kind.
func amqpProperties(m *contribpubsub.NewMessage) map[string]string {
	all := maps.Clone(m.Metadata)
	maps.DeleteFunc(all, func(name, value string) bool {
		return name == "metadata.correlationid" && strings.HasPrefix(value, tokenMark)
	})
	return all
}

// amqpCodec is for properties of AMQP: the library sends an id, a type and a correlation id, and no headers.
var amqpCodec = codec{
	unique: true,
	encode: func(m *pubsub.Message) map[string]string {
		metadata := map[string]string{"correlationID": tokenMark + uuid.NewString()}
		if len(m.ID) <= longest {
			metadata["messageID"] = m.ID
		}
		if m.ContentType != "" && len(m.ContentType) <= longest {
			metadata["contentType"] = m.ContentType
		}
		for _, key := range append([]string{"priority"}, rabbitTexts...) { // what the publisher says comes before what is said for it
			if value := m.Metadata[key]; value != "" {
				metadata[key] = value
			}
		}
		if ttl, ok, _ := contribmetadata.TryGetTTL(m.Metadata); ok { // what is none is passed over
			metadata[contribmetadata.TTLMetadataKey] = ttl.String()
		}
		return metadata
	},
	decode: func(m *contribpubsub.NewMessage) (pubsub.Message, string) {
		message, token := event(m), m.Metadata["metadata.correlationid"]
		if !strings.HasPrefix(token, tokenMark) {
			token = ""
		}
		for name, value := range m.Metadata {
			switch name {
			case "metadata.messageid":
				if message.ID == "" {
					message.ID = value
				}
			case "metadata.contenttype":
				if message.ContentType != cloudEvent {
					message.ContentType = value
				}
			case "metadata.correlationid", "metadata.type":
			default:
				if message.Header == nil {
					message.Header = make(map[string]string)
				}
				message.Header[strings.TrimPrefix(name, "metadata.")] = value
			}
		}
		return named(message), token
	},
}
