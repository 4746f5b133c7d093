package appchannel

import (
	"maps"
	"slices"
	"strings"

	"github.com/sidecast/sidecast/call"
)

// besideFields are the fields by which an app of Dapr's is told what the broker tells beside an event, under the broker's names. What
// is the protocol's own or the sidecar's to say, and what cannot be said in a field, is left out: bulks carry that too.
func besideFields(event *Event) call.Header {
	if len(event.Beside) == 0 {
		return nil
	}
	fields := make(call.Header, 0, len(event.Beside))
	for _, name := range slices.Sorted(maps.Keys(event.Beside)) {
		key := strings.ToLower(name)
		switch key {
		case "traceparent", "tracestate", "baggage", "pubsubname":
			continue
		}
		if !isToken(key) || reserved(key) || permanent[key] || strings.HasPrefix(key, "dapr-") || strings.HasSuffix(key, "-bin") || !printable(event.Beside[name]) {
			continue
		}
		fields = append(fields, call.Field{Key: key, Value: event.Beside[name]})
	}
	return fields
}

// printable says whether text may be the value of a field, in HTTP and in gRPC.
func printable(text string) bool {
	for i := range len(text) {
		if text[i] < ' ' || text[i] > '~' {
			return false
		}
	}
	return text == strings.TrimSpace(text)
}
