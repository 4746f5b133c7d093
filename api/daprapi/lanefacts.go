package daprapi

import (
	"errors"
	"fmt"
	"maps"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/metadata"

	"github.com/sidecast/sidecast/fault"
)

// laneFacts are what a lane tells of a call that it gave up: daprd's errors have no place for it, so it goes beside them, in
// header fields over HTTP and in the trailer over gRPC. Of a refusal, which daprd does not know, an ErrorInfo tells it, too.
type laneFacts struct {
	kind   fault.Kind
	reason fault.Reason
	meta   map[string]string
}

// factsOf are those of err, or nil when no lane gave the call up.
func factsOf(err error) *laneFacts {
	e, ok := errors.AsType[*fault.Error](err)
	if !ok || e.Meta["lane"] == "" {
		return nil
	}
	return &laneFacts{kind: e.Kind, reason: e.Reason, meta: e.Meta}
}

// told are the facts that everybody is told, with the names of their fields.
var told = map[string]string{"lane": "sidecast-lane", "policy": "sidecast-policy", "attempts": "sidecast-attempts"}

// write gives set the facts as fields of an answer. Documents name policies and lanes as they like; fields hold only ASCII.
func (f *laneFacts) write(set func(key, value string)) {
	set("sidecast-reason", string(f.reason))
	for key, field := range told {
		if value := f.meta[key]; value != "" {
			set(field, percentEncoded(value))
		}
	}
}

// percentEncoded is text as gRPC encodes its messages in a field: what is no printable ASCII, and the sign itself, as %XX.
func percentEncoded(text string) string {
	plain := func(c byte) bool { return ' ' <= c && c <= '~' && c != '%' }
	if strings.IndexFunc(text, func(r rune) bool { return r > '~' || !plain(byte(r)) }) < 0 {
		return text
	}
	var b strings.Builder
	for i := range len(text) {
		if c := text[i]; plain(c) {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// trailer is the facts as metadata that follow an answer over gRPC.
func (f *laneFacts) trailer() metadata.MD {
	md := metadata.MD{}
	f.write(func(key, value string) { md.Set(key, value) })
	return md
}

// refusal says that it is the lane that did not make the call, by a limit or its breaker.
func (f *laneFacts) refusal() bool { return f.kind == fault.Exhausted || f.kind == fault.Tripped }

// detail is the facts as a gRPC client gets those of a refusal.
func (f *laneFacts) detail() *errdetails.ErrorInfo {
	meta := maps.Clone(f.meta)
	maps.DeleteFunc(meta, func(key, _ string) bool { return told[key] == "" })
	meta["kind"] = f.kind.String()
	return &errdetails.ErrorInfo{Reason: string(f.reason), Domain: fault.Domain, Metadata: meta}
}
