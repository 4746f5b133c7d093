package fabric

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/fault"
)

// headerKey is the one NATS header of a message of the call protocol. Its value is a kind and then fields, written like
// a query string, so that `nats sub` shows them; the body is the payload, untouched:
//
//	Sc: call&m=price&t=4980211&ct=application/json&h.traceparent=00-4bf9…-01
//
// One header with many fields costs half of what many headers do, and keeps the order and repetition of the fields.
const headerKey = "Sc"

// The kinds of frame. A unary call is one call frame and one ok or failed frame. Everything else is a stream: open, then
// data and end from the caller, and head, data and end from the called side, each kept in check by the other's more.
const (
	kindCall   = "call"   // caller: a whole unary request
	kindOpen   = "open"   // caller: the request of a stream, or of a unary call whose body follows as data
	kindOK     = "ok"     // called: a whole unary answer
	kindFailed = "failed" // called: the fault a unary call ended with; its text is the payload
	kindHead   = "head"   // called: the header of a stream's answer, numbered
	kindData   = "data"   // both: a chunk, numbered
	kindEnd    = "end"    // both: no more chunks, numbered; from the called side also: the handler has returned
	kindMore   = "more"   // both: credit, in bytes, for the peer's next chunks
	kindReset  = "reset"  // both: the stream ended with this fault; its text is the payload
	kindStop   = "stop"   // caller: nobody waits for the answer any more
	kindProbe  = "probe"  // both: does the peer still know this exchange, and has it got every numbered frame?
	kindGone   = "gone"   // both: the exchange of your frame is unknown here
)

// frame is the metadata of one message. Which fields count depends on the kind.
type frame struct {
	kind    string
	seq     uint64        // head, data, end: number of the frame, from 1; probe: how many were sent
	credit  int           // more
	left    time.Duration // call, open: time until the caller's deadline
	hasLeft bool
	unary   bool  // open: the data that follows is the body of a unary call
	pieces  bool  // call, open with unary: the caller takes an answer in pieces; head: this is one
	size    int64 // open with unary, head: bytes of the body that follows

	method, verb, query string
	contentType         string
	idempotent          bool
	status              int
	header              call.Header
	trailer             call.Header // call, ok, head of a whole answer, end

	failure failure // failed, reset
}

// failure is a fault on its way, without its text.
type failure struct {
	kind, reason, op string
	after            time.Duration
	meta             map[string]string
}

// begin starts the value of a frame. The append functions below add fields to it.
func begin(b []byte, kind string) []byte { return append(b, kind...) }

func appendText(b []byte, key, value string) []byte {
	if value == "" {
		return b
	}
	b = append(b, '&')
	b = append(b, key...)
	b = append(b, '=')
	return appendEscaped(b, value, false)
}

func appendNumber(b []byte, key string, value int64) []byte {
	b = append(b, '&')
	b = append(b, key...)
	b = append(b, '=')
	return strconv.AppendInt(b, value, 10)
}

// appendPairs writes user fields: an empty value is kept, for a present field may be empty.
func appendPair(b []byte, prefix, key, value string) []byte {
	b = append(b, '&')
	b = append(b, prefix...)
	b = appendEscaped(b, key, true)
	b = append(b, '=')
	return appendEscaped(b, value, false)
}

const hexDigits = "0123456789ABCDEF"

// appendEscaped writes s with the bytes that would end a field, or that NATS would trim or refuse in a header, as %XX.
func appendEscaped(b []byte, s string, isKey bool) []byte {
	from := 0
	for i := range len(s) {
		c := s[i]
		if c > ' ' && c != '%' && c != '&' && c != 0x7f && (c != '=' || !isKey) {
			continue
		}
		b = append(b, s[from:i]...)
		b = append(b, '%', hexDigits[c>>4], hexDigits[c&15])
		from = i + 1
	}
	return append(b, s[from:]...)
}

// unescape is the inverse of appendEscaped. It copies only when it must.
func unescape(s string) (string, error) {
	at := strings.IndexByte(s, '%')
	if at < 0 {
		return s, nil
	}
	b := make([]byte, 0, len(s))
	for ; at >= 0; at = strings.IndexByte(s, '%') {
		if at+2 >= len(s) {
			return "", errors.New("a field ends inside an escape")
		}
		high, low := strings.IndexByte(hexDigits, s[at+1]), strings.IndexByte(hexDigits, s[at+2])
		if high < 0 || low < 0 {
			return "", fmt.Errorf("a field holds the escape %q", s[at:at+3])
		}
		b = append(b, s[:at]...)
		b = append(b, byte(high<<4|low))
		s = s[at+3:]
	}
	return string(append(b, s...)), nil
}

func appendRequest(b []byte, req *call.Request, left time.Duration, hasLeft bool) []byte {
	b = appendText(b, "m", req.Method)
	if hasLeft {
		b = appendNumber(b, "t", left.Microseconds())
	}
	b = appendText(b, "ct", req.ContentType)
	b = appendText(b, "v", req.Verb)
	b = appendText(b, "q", req.Query)
	if req.Idempotent {
		b = append(b, "&i=1"...)
	}
	if req.Pieces != nil {
		b = append(b, "&p=1"...)
	}
	return appendTrailer(appendHeader(b, req.Header), req.Trailer)
}

func appendResponse(b []byte, resp *call.Response) []byte {
	if resp.Status != 0 {
		b = appendNumber(b, "st", int64(resp.Status))
	}
	b = appendText(b, "ct", resp.ContentType)
	return appendTrailer(appendHeader(b, resp.Header), resp.Trailer)
}

func appendTrailer(b []byte, trailer call.Header) []byte {
	for i := range trailer {
		b = appendPair(b, "x.", trailer[i].Key, trailer[i].Value)
	}
	return b
}

func appendHeader(b []byte, header call.Header) []byte {
	for i := range header {
		b = appendPair(b, "h.", header[i].Key, header[i].Value)
	}
	return b
}

// maxFailureText bounds the text of a fault on the wire, and each of its facts.
const maxFailureText = 8 << 10

// appendFailure writes err and returns its text, which travels as the payload.
func appendFailure(b []byte, err error) (value []byte, text string) {
	e, ok := errors.AsType[*fault.Error](err)
	if !ok {
		e = fault.E("", fault.KindOf(err), reasonOf(err), err)
	}
	b = appendText(b, "k", e.Kind.String())
	b = appendText(b, "r", string(e.Reason))
	if e.RetryAfter > 0 {
		b = appendNumber(b, "ra", e.RetryAfter.Microseconds())
	}
	for key, value := range e.Meta {
		b = appendPair(b, "f.", clip(key), clip(value))
	}
	if error(e) != err && !errors.Is(e.Err, err) { // words were wrapped around the fault: keep them
		return b, clip(err.Error())
	}
	b = appendText(b, "op", clip(e.Op))
	if e.Err != nil {
		text = clip(e.Err.Error())
	}
	return b, text
}

// reasonOf names what an error that is no fault is.
func reasonOf(err error) fault.Reason {
	switch fault.KindOf(err) {
	case fault.Timeout:
		return fault.DeadlineExceeded
	case fault.Canceled:
		return fault.CallCanceled
	}
	return fault.Defect
}

func clip(s string) string {
	if len(s) <= maxFailureText {
		return s
	}
	return strings.ToValidUTF8(s[:maxFailureText], "") + "…"
}

// fault rebuilds the error that appendFailure wrote.
func (f failure) fault(text string) *fault.Error {
	kind, known := fault.KindNamed(f.kind)
	reason := fault.Reason(f.reason)
	if !known || kind == fault.None {
		kind = reason.Kind()
	}
	e := fault.E(f.op, kind, reason, nil)
	if text != "" {
		e.Err = errors.New(text)
	}
	e.RetryAfter, e.Meta = f.after, f.meta
	return e
}

// kindOf reads only the kind of a frame, which is all that routing needs.
func kindOf(value string) string {
	if at := strings.IndexByte(value, '&'); at >= 0 {
		return value[:at]
	}
	return value
}

// maxFields bounds what a frame may make its reader allocate.
const maxFields = 1024

// parseFrame reads the value of a frame header. Fields it does not know are left out: a newer peer may send them.
func parseFrame(value string) (frame, error) {
	kind, rest, _ := strings.Cut(value, "&")
	f := frame{kind: kind}
	if n := strings.Count(rest, "&h."); n > 0 || strings.HasPrefix(rest, "h.") {
		f.header = make(call.Header, 0, min(n+1, maxFields))
	}
	for fields := 0; rest != ""; fields++ {
		if fields == maxFields {
			return f, fmt.Errorf("a frame has more than %d fields", maxFields)
		}
		var field string
		field, rest, _ = strings.Cut(rest, "&")
		key, raw, found := strings.Cut(field, "=")
		if !found {
			return f, fmt.Errorf("the field %q of a frame has no value", clip(field))
		}
		text, err := unescape(raw)
		if err == nil {
			err = f.set(key, text)
		}
		if err != nil {
			return f, fmt.Errorf("field %q of a frame: %w", clip(key), err)
		}
	}
	return f, nil
}

func (f *frame) set(key, text string) (err error) {
	switch key {
	case "s":
		f.seq, err = strconv.ParseUint(text, 10, 64)
	case "w":
		f.credit, err = parseCount(text)
	case "n":
		f.size, err = strconv.ParseInt(text, 10, 64)
		if err == nil && f.size < 0 {
			err = errors.New("negative")
		}
	case "t":
		f.left, err = parseMicroseconds(text)
		f.hasLeft = err == nil
	case "u":
		f.unary = text == "1"
	case "p":
		f.pieces = text == "1"
	case "m":
		f.method = text
	case "v":
		f.verb = text
	case "q":
		f.query = text
	case "ct":
		f.contentType = text
	case "i":
		f.idempotent = text == "1"
	case "st":
		f.status, err = parseCount(text)
	case "k":
		f.failure.kind = text
	case "r":
		f.failure.reason = text
	case "op":
		f.failure.op = text
	case "ra":
		f.failure.after, err = parseMicroseconds(text)
	default:
		err = f.setPair(key, text)
	}
	return err
}

func (f *frame) setPair(key, text string) error {
	name, isHeader := strings.CutPrefix(key, "h.")
	fact, isFact := strings.CutPrefix(key, "f.")
	last, isTrailer := strings.CutPrefix(key, "x.")
	switch {
	case isTrailer:
		last, err := unescape(last)
		f.trailer = append(f.trailer, call.Field{Key: last, Value: text})
		return err
	case isHeader:
		name, err := unescape(name)
		f.header = append(f.header, call.Field{Key: name, Value: text})
		return err
	case isFact:
		fact, err := unescape(fact)
		if f.failure.meta == nil {
			f.failure.meta = make(map[string]string, 4)
		}
		f.failure.meta[fact] = text
		return err
	}
	return nil
}

func parseCount(text string) (int, error) {
	n, err := strconv.ParseInt(text, 10, 32)
	if err == nil && n < 0 {
		err = errors.New("negative")
	}
	return int(n), err
}

// longest is the longest time a frame may name; more is taken as that.
const longest = 10 * 365 * 24 * time.Hour

func parseMicroseconds(text string) (time.Duration, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	return time.Duration(max(min(n, longest.Microseconds()), -longest.Microseconds())) * time.Microsecond, err
}

func (f *frame) request(app, caller string, body []byte) *call.Request {
	return &call.Request{
		App: app, Caller: caller, Method: f.method, Verb: f.verb, Query: f.query,
		ContentType: f.contentType, Header: f.header, Idempotent: f.idempotent, Body: body, Trailer: f.trailer,
	}
}

func (f *frame) response(body []byte) *call.Response {
	return &call.Response{Status: f.status, ContentType: f.contentType, Header: f.header, Body: body, Trailer: f.trailer}
}
