package appchannel

import (
	"strings"
	"testing"
)

// What a gRPC app of Dapr's gets of an event.
func BenchmarkDaprTopicEvent(b *testing.B) {
	event := &Event{PubSub: "pubsub", Topic: "orders", Envelope: []byte(`{"data":"` + strings.Repeat("x", 1<<10) +
		`","datacontenttype":"text/plain","id":"0190b4e2-57b5-7f00-8000-000000000000","pubsubname":"pubsub","source":"app","specversion":"1.0","time":"2026-11-26T06:00:00Z","topic":"orders","traceid":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01","traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01","tracestate":"","type":"com.dapr.event.sent"}`)}
	b.ReportAllocs()
	for b.Loop() {
		if message, err := DaprTopicEvent(event); err != nil || len(message.GetData()) != 1<<10 {
			b.Fatal(err)
		}
	}
}
