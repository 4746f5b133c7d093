package telemetry

import (
	"strings"
	"unicode/utf8"

	"go.opentelemetry.io/otel/attribute"
)

// maxText bounds the names of spans and each text that they hold, in bytes: callers choose many of them.
const maxText = 4096

// clean makes text what every exporter takes: OpenTelemetry's protocol drops a whole batch for one text that is not UTF-8.
func clean(text string) string {
	return bounded(strings.ToValidUTF8(bounded(text), "\uFFFD"))
}

// bounded cuts text between two letters.
func bounded(text string) string {
	if len(text) <= maxText {
		return text
	}
	cut := maxText
	for cut > maxText-utf8.UTFMax && !utf8.RuneStart(text[cut]) {
		cut--
	}
	return text[:cut]
}

// Texts makes the texts among attributes what every exporter takes, in place, and gives attributes back: valid UTF-8 and
// 4096 bytes at most. It is for what goes onto a span past Tracer and Answer.
func Texts(attributes []attribute.KeyValue) []attribute.KeyValue {
	for i, a := range attributes {
		if a.Value.Type() == attribute.STRING {
			attributes[i] = attribute.String(string(a.Key), clean(a.Value.AsString()))
		}
	}
	return attributes
}
