package fabric

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/fault"
	"pgregory.net/rapid"
)

// carried is a frame's value after NATS has carried it: encoded as a header, read back, trimmed and all.
func carried(t interface{ Fatalf(string, ...any) }, value []byte) string {
	for _, c := range value {
		if c <= ' ' || c == 0x7f {
			t.Fatalf("the value holds the byte %#x", c)
		}
	}
	h, err := nats.DecodeHeadersMsg([]byte("NATS/1.0\r\n" + headerKey + ": " + string(value) + "\r\n\r\n"))
	if err != nil {
		t.Fatalf("NATS cannot carry %q: %v", value, err)
	}
	return h.Get(headerKey)
}

func anyText(t *rapid.T, label string) string {
	return rapid.OneOf(rapid.String(), rapid.StringMatching(`[a-z&=%. \r\n\x00-\x20]*`), rapid.Just("")).Draw(t, label)
}

func anyHeader(t *rapid.T) call.Header {
	var h call.Header
	for range rapid.IntRange(0, 5).Draw(t, "fields") {
		h.Add(anyText(t, "key"), anyText(t, "value"))
	}
	return h
}

func TestRequestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		req := &call.Request{App: "app", Caller: "caller", Method: anyText(t, "method"), Verb: anyText(t, "verb"), Query: anyText(t, "query"),
			ContentType: anyText(t, "type"), Header: anyHeader(t), Idempotent: rapid.Bool().Draw(t, "idempotent"), Body: []byte("body"), Trailer: anyHeader(t)}
		left := time.Duration(rapid.Int64Range(0, longest.Microseconds()).Draw(t, "left")) * time.Microsecond
		bounded := rapid.Bool().Draw(t, "bounded")
		fr, err := parseFrame(carried(t, appendRequest(begin(nil, kindCall), req, left, bounded)))
		if err != nil {
			t.Fatal(err)
		}
		if fr.kind != kindCall || fr.hasLeft != bounded || bounded && fr.left != left {
			t.Fatalf("came as %+v", fr)
		}
		if got := fr.request("app", "caller", req.Body); !reflect.DeepEqual(got, req) {
			t.Fatalf("came as %+v, want %+v", got, req)
		}
	})
}

func TestResponseRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		resp := &call.Response{Status: rapid.IntRange(0, 999).Draw(t, "status"), ContentType: anyText(t, "type"), Header: anyHeader(t), Trailer: anyHeader(t)}
		fr, err := parseFrame(carried(t, appendResponse(begin(nil, kindOK), resp)))
		if err != nil {
			t.Fatal(err)
		}
		if got := fr.response(nil); !reflect.DeepEqual(got, resp) {
			t.Fatalf("came as %+v, want %+v", got, resp)
		}
	})
}

func TestFailureRoundTrip(t *testing.T) {
	reasons := fault.Reasons()
	rapid.Check(t, func(t *rapid.T) {
		e := fault.E(anyText(t, "op"), rapid.SampledFrom(fault.Kinds()).Draw(t, "kind"), rapid.SampledFrom(reasons).Draw(t, "reason").Reason, nil)
		if text := anyText(t, "text"); text != "" {
			e.Err = errors.New(text)
		}
		e.RetryAfter = time.Duration(rapid.Int64Range(0, 1e9).Draw(t, "after")) * time.Microsecond
		for range rapid.IntRange(0, 3).Draw(t, "facts") {
			e = e.With(anyText(t, "key"), anyText(t, "fact"))
		}
		value, text := appendFailure(begin(nil, kindFailed), e)
		fr, err := parseFrame(carried(t, value))
		if err != nil {
			t.Fatal(err)
		}
		got := fr.failure.fault(text)
		if got.Error() != e.Error() || got.Op != e.Op || got.Kind != e.Kind || got.Reason != e.Reason || got.RetryAfter != e.RetryAfter || !reflect.DeepEqual(got.Meta, e.Meta) {
			t.Fatalf("came as %#v, want %#v", got, e)
		}
	})
}

func TestFailureOfOtherErrors(t *testing.T) {
	long := strings.Repeat("ü", maxFailureText)
	for _, err := range []error{context.Canceled, context.DeadlineExceeded, errors.New("x"), fmt.Errorf("a: %w", fault.New("op", fault.LockHeld, "b")), errors.New(long)} {
		value, text := appendFailure(begin(nil, kindFailed), err)
		fr, parseErr := parseFrame(carried(t, value))
		if parseErr != nil {
			t.Fatal(parseErr)
		}
		got := fr.failure.fault(text)
		if got.Kind != fault.KindOf(err) || len(text) > maxFailureText+8 || len(err.Error()) < maxFailureText && !strings.HasPrefix(got.Error(), err.Error()) {
			t.Errorf("%v came as %v", err, got)
		}
	}
}

func TestMalformedFrames(t *testing.T) {
	for _, bad := range []string{"call&m", "call&s=x", "data&s=-1", "more&w=-5", "more&w=99999999999", "open&n=-1", "call&t=soon",
		"call&m=%", "call&m=%zz", "call&h.%=x", "call&" + strings.Repeat("x=1&", maxFields+1)} {
		if fr, err := parseFrame(bad); err == nil {
			t.Errorf("%q was read as %+v", clip(bad), fr)
		}
	}
	if fr, err := parseFrame("call&future=1&m=x"); err != nil || fr.method != "x" {
		t.Errorf("a field of a newer peer: %+v, %v", fr, err)
	}
}

func FuzzParseFrame(f *testing.F) {
	for _, seed := range []string{"", "call", "call&m=price&t=5&ct=a/b&i=1&v=GET&q=a%26b&h.x=y", "data&s=1", "more&w=65536", "open&u=1&n=5",
		"failed&k=timeout&r=X&ra=5&op=o&f.a=b", "&&&", "ok&st=200&h.%3D=%20"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		fr, err := parseFrame(value)
		if err != nil {
			return
		}
		if fr.credit < 0 || fr.size < 0 || fr.status < 0 || len(fr.header) > maxFields {
			t.Fatalf("%q was read as %+v", value, fr)
		}
		fr.failure.fault("text")
		again, err := parseFrame(carried(t, appendRequest(begin(nil, kindCall), fr.request("", "", nil), fr.left, fr.hasLeft)))
		if err != nil || !reflect.DeepEqual(again.request("", "", nil), fr.request("", "", nil)) {
			t.Fatalf("%q changes on its way: %+v, %+v, %v", value, fr, again, err)
		}
	})
}

// A stream believes nothing that its peer sends: whatever comes, it holds no more than a window.
func FuzzStreamFrames(f *testing.F) {
	f.Add([]byte("head&s=1\ndata&s=2\nmore&w=5\nend&s=3"))
	f.Add([]byte("data&s=1\ndata&s=3"))
	f.Add([]byte("more&w=600000\nreset&k=timeout\ngone\nprobe&s=9\nstop\nok"))
	f.Fuzz(func(t *testing.T, script []byte) {
		fab := &Fabric{link: newLink(nil, nil, nil)}
		fab.outbound.init()
		for _, called := range []bool{false, true} {
			s := fab.newEnd("op", "to")
			s.called = called
			for line := range strings.SplitSeq(string(script), "\n") {
				s.heard(1, &nats.Msg{Data: make([]byte, len(line)*1000)}, line)
				if s.held > window || s.credit > window && s.err == nil {
					t.Fatalf("after %q it holds %d, may send %d, %v", line, s.held, s.credit, s.err)
				}
			}
		}
	})
}
