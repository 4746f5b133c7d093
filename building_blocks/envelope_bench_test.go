package blocks

import (
	"strings"
	"testing"
	"time"

	"github.com/sidecast/sidecast/pubsub"
)

// storedMessage is a delivery that nobody settles.
type storedMessage struct {
	pubsub.Delivery
	message pubsub.Message
}

func (s *storedMessage) Message() *pubsub.Message { return &s.message }
func (s *storedMessage) Attempt() int             { return 1 }
func (s *storedMessage) Stored() time.Time        { return time.Time{} }

// What becomes of a stored event on its way to the app.
func BenchmarkUnwrap(b *testing.B) {
	d := &storedMessage{message: pubsub.Message{ContentType: CloudEventJSON, Data: []byte(`{"data":"` + strings.Repeat("x", 1<<10) +
		`","datacontenttype":"text/plain","id":"0190b4e2-57b5-7f00-8000-000000000000","pubsubname":"pubsub","source":"app","specversion":"1.0","time":"2026-11-26T06:00:00Z","topic":"orders","traceid":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01","traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01","tracestate":"","type":"com.dapr.event.sent"}`)}}
	b.ReportAllocs()
	for b.Loop() {
		if unwrap("pubsub", "orders", "/orders", false, d).Envelope == nil {
			b.Fatal("no envelope")
		}
	}
}
