package telemetry

import (
	"encoding/binary"
	"math/rand/v2"

	"github.com/sidecast/sidecast/call"
)

// identify adds a traceparent (W3C Trace Context, version 00) to a header that has none.
func identify(header *call.Header) {
	if header == nil || header.Get("traceparent") != "" {
		return
	}
	var ids [24]byte // of the trace, 16 bytes, and of the span
	binary.BigEndian.PutUint64(ids[:], rand.Uint64())
	binary.BigEndian.PutUint64(ids[8:], rand.Uint64()|1) // ids of all zeros are not valid
	binary.BigEndian.PutUint64(ids[16:], rand.Uint64()|1)
	header.Add("traceparent", call.Traceparent(ids[:16], ids[16:], 0))
}
