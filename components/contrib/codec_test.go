package contrib

import (
	"maps"
	"testing"

	contribpubsub "github.com/dapr/components-contrib/pubsub"

	"github.com/sidecast/sidecast/pubsub"
)

// What a publisher says as metadata comes to subscribers beside the event, as with daprd, and none of what carries the message.
func TestMetadataIsDeliveredBesideTheData(t *testing.T) {
	sent := &pubsub.Message{
		ID: "1", Key: "k", Data: []byte("raw"), ContentType: "text/plain",
		Header:   map[string]string{"ttlinseconds": "5", "traceparent": "t"},
		Metadata: map[string]string{"ttlInSeconds": "5", "color": "red"},
	}
	got, token := metadataCodec.decode(&contribpubsub.NewMessage{Data: sent.Data, Metadata: metadataCodec.encode(sent)})
	want := map[string]string{"ttlinseconds": "5", "traceparent": "t", "color": "red"}
	if !maps.Equal(got.Header, want) || got.ID != "1" || got.Key != "k" || got.ContentType != "text/plain" || token == "" {
		t.Errorf("%+v came, not with %v", got, want)
	}
	if got, _ := metadataCodec.decode(&contribpubsub.NewMessage{Metadata: metadataCodec.encode(&pubsub.Message{})}); got.Header == nil || len(got.Header) != 0 {
		t.Errorf("beside nothing came %v: a bulk tells it as {}, not as null", got.Header)
	}
	if len(sent.Header) != 2 || len(sent.Metadata) != 2 {
		t.Errorf("the publisher's message is changed: %+v", sent)
	}
}
