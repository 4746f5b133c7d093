package call

import "encoding/hex"

// Traceparent names a trace of 16 bytes and a span of 8 as the field traceparent does (W3C Trace Context, version 00).
func Traceparent(id, span []byte, flags byte) string {
	var text [55]byte
	line := append(hex.AppendEncode(append(text[:0], "00-"...), id), '-')
	line = append(hex.AppendEncode(line, span), '-')
	return string(hex.AppendEncode(line, []byte{flags}))
}

// TraceBin is the key of a trace context in binary among the metadata of a gRPC call. Headers of ours hold none: doors read
// it as a traceparent, and channels write it beside that.
const TraceBin = "grpc-trace-bin"

// The binary form of a trace context (OpenCensus BinaryEncoding.md), which gRPC carries: a version, and three
// fields that begin with their number.
const (
	binarySize = 29
	atTrace    = 1 // field 0, 16 bytes
	atSpan     = 18
	atFlags    = 27
)

// TraceBinary is a traceparent in binary; ok says that it names a trace.
func TraceBinary(traceparent string) (binary string, ok bool) {
	p := traceparent
	if len(p) < 55 || p[2] != '-' || p[35] != '-' || p[52] != '-' || len(p) > 55 && (p[:2] == "00" || p[55] != '-') || p[:2] == "ff" {
		return "", false
	}
	var b [binarySize]byte
	var text [32]byte // on the stack
	fields := [...]struct{ at, from, to int }{{atTrace + 1, 3, 35}, {atSpan + 1, 36, 52}, {atFlags + 1, 53, 55}}
	for _, f := range fields {
		if _, err := hex.Decode(b[f.at:], text[:copy(text[:], p[f.from:f.to])]); err != nil {
			return "", false
		}
	}
	b[atSpan], b[atFlags] = 1, 2
	if [16]byte(b[atTrace+1:]) == [16]byte{} || [8]byte(b[atSpan+1:]) == [8]byte{} {
		return "", false
	}
	return string(b[:]), true
}

// TraceParent is a trace context in binary as a traceparent; ok says that it names a trace. The flags may be left out.
func TraceParent(binary string) (traceparent string, ok bool) {
	if len(binary) < atFlags || binary[0] != 0 || binary[atTrace] != 0 || binary[atSpan] != 1 {
		return "", false
	}
	id, span := []byte(binary[atTrace+1:atSpan]), []byte(binary[atSpan+1:atFlags])
	if [16]byte(id) == [16]byte{} || [8]byte(span) == [8]byte{} {
		return "", false
	}
	var flags byte
	if len(binary) >= binarySize && binary[atFlags] == 2 {
		flags = binary[atFlags+1]
	}
	return Traceparent(id, span, flags), true
}
