package natspubsub

import (
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/sidecast/sidecast/pubsub"
)

// Headers of a stored message. The user's own carry the prefix, so that none of them can mean something to the server.
const (
	hdrID          = "Sc-Id" // only where the server strips Nats-Msg-Id: on delayed messages
	hdrKey         = "Sc-Key"
	hdrStored      = "Sc-Stored" // only on delayed messages: when they were handed in, in nanoseconds
	hdrContentType = "Content-Type"
	hdrUser        = "Sc-H-"

	hdrMsgID    = nats.MsgIdHdr
	hdrSchedule = "Nats-Schedule"
	hdrTarget   = "Nats-Schedule-Target"
)

// encode makes the message to publish. IDs are unique to a topic, as the server drops duplicates across the stream.
func (b *broker) encode(topic string, m *pubsub.Message, now time.Time) *nats.Msg {
	h := make(nats.Header, 3+len(m.Header))
	out := &nats.Msg{Subject: b.names.target(topic, m.Key), Header: h, Data: m.Data}
	id := escape(m.ID)
	if m.ID != "" {
		h[hdrMsgID] = []string{topic + "/" + id}
	}
	if m.Key != "" {
		h[hdrKey] = []string{escape(m.Key)}
	}
	if m.ContentType != "" {
		h[hdrContentType] = []string{escape(m.ContentType)}
	}
	for k, v := range m.Header {
		h[hdrUser+escape(k)] = []string{escape(v)}
	}
	if m.Delay > 0 {
		h[hdrID] = []string{id}
		h[hdrStored] = []string{strconv.FormatInt(now.UnixNano(), 10)}
		h[hdrSchedule] = []string{"@at " + now.Add(m.Delay).UTC().Format(time.RFC3339Nano)}
		h[hdrTarget] = []string{out.Subject}
		out.Subject = b.names.delayed(topic, b.unique())
	}
	return out
}

// decode is the inverse of encode; in is what the server says of the delivery.
func decode(m *nats.Msg, in info) (msg pubsub.Message, stored time.Time) {
	msg, stored = pubsub.Message{Data: m.Data}, in.stored
	for k, v := range m.Header {
		switch k {
		case hdrMsgID:
			if msg.ID == "" {
				msg.ID = unescape(v[0][strings.IndexByte(v[0], '/')+1:])
			}
		case hdrID:
			msg.ID = unescape(v[0])
		case hdrKey:
			msg.Key = unescape(v[0])
		case hdrContentType:
			msg.ContentType = unescape(v[0])
		case hdrStored:
			if ns, err := strconv.ParseInt(v[0], 10, 64); err == nil {
				stored = time.Unix(0, ns)
			}
		default:
			if name, ok := strings.CutPrefix(k, hdrUser); ok {
				if msg.Header == nil {
					msg.Header = make(map[string]string, len(m.Header))
				}
				msg.Header[unescape(name)] = unescape(v[0])
			}
		}
	}
	if msg.ID == "" { // published by another tool, or without one
		msg.ID = strconv.FormatUint(in.seq, 10)
	}
	return msg, stored
}

// info is what JetStream's reply subject tells of a delivery.
type info struct {
	consumer string
	attempt  int
	seq      uint64
	stored   time.Time
	pending  uint64
}

// parseReply reads `$JS.ACK.[<domain>.<account>.]<stream>.<consumer>.<attempt>.<seq>.<n>.<time>.<pending>[.<random>]`.
func parseReply(reply string) (in info, ok bool) {
	rest, ok := strings.CutPrefix(reply, "$JS.ACK.")
	if !ok {
		return in, false
	}
	dots := strings.Count(rest, ".")
	if dots >= 8 {
		_, rest, _ = strings.Cut(rest, ".")
		_, rest, _ = strings.Cut(rest, ".")
	} else if dots != 6 {
		return in, false
	}
	_, rest, _ = strings.Cut(rest, ".")
	in.consumer, rest, _ = strings.Cut(rest, ".")
	var n [5]int64
	for i := range n {
		var token string
		token, rest, _ = strings.Cut(rest, ".")
		v, err := strconv.ParseInt(token, 10, 64)
		if err != nil {
			return in, false
		}
		n[i] = v
	}
	in.attempt, in.seq, in.stored, in.pending = int(n[0]), uint64(n[1]), time.Unix(0, n[3]), uint64(n[4])
	return in, true
}

const hexDigits = "0123456789ABCDEF"

// escape makes any string fit a NATS header name or value: visible ASCII stays, but for % and :.
func escape(s string) string {
	bad := 0
	for i := range len(s) {
		if !fits(s[i]) {
			bad++
		}
	}
	if bad == 0 {
		return s
	}
	var b strings.Builder
	b.Grow(len(s) + 2*bad)
	for i := range len(s) {
		if fits(s[i]) {
			b.WriteByte(s[i])
			continue
		}
		b.WriteByte('%')
		b.WriteByte(hexDigits[s[i]>>4])
		b.WriteByte(hexDigits[s[i]&15])
	}
	return b.String()
}

func fits(c byte) bool { return c > ' ' && c < 0x7f && c != '%' && c != ':' }

// unescape is the inverse of escape; what escape did not write stays as it is.
func unescape(s string) string {
	if strings.IndexByte(s, '%') < 0 {
		return s
	}
	var b strings.Builder
	b.Grow(len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			high, low := strings.IndexByte(hexDigits, s[i+1]), strings.IndexByte(hexDigits, s[i+2])
			if high >= 0 && low >= 0 {
				b.WriteByte(byte(high<<4 | low))
				i += 2
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
