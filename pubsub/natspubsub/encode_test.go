package natspubsub

import (
	"strings"
	"testing"
	"time"
)

func FuzzEscape(f *testing.F) {
	for _, s := range []string{"", "plain", " a ", "a: b\r\nc", "%41", "%", "%4", "ü\x00\xff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		e := escape(s)
		if strings.ContainsAny(e, " :\r\n\x00") {
			t.Errorf("escape(%q) = %q", s, e)
		}
		if back := unescape(e); back != s {
			t.Errorf("unescape(escape(%q)) = %q", s, back)
		}
		unescape(s)
	})
}

func FuzzParseReply(f *testing.F) {
	f.Add("$JS.ACK.stream.consumer.2.10.5.1700000000000000000.7")
	f.Add("$JS.ACK._.hash.stream.consumer.2.10.5.1700000000000000000.7.random")
	f.Add("$JS.ACK.........")
	f.Fuzz(func(_ *testing.T, s string) { parseReply(s) })
}

func TestParseReply(t *testing.T) {
	want := info{consumer: "consumer", attempt: 2, seq: 10, stored: time.Unix(0, 1700000000000000000), pending: 7}
	for _, reply := range []string{
		"$JS.ACK.stream.consumer.2.10.5.1700000000000000000.7",
		"$JS.ACK._.hash.stream.consumer.2.10.5.1700000000000000000.7",
		"$JS.ACK.hub.hash.stream.consumer.2.10.5.1700000000000000000.7.random",
	} {
		if got, ok := parseReply(reply); !ok || got != want {
			t.Errorf("%s: got %+v, %v", reply, got, ok)
		}
	}
	for _, reply := range []string{"", "_INBOX.x", "$JS.ACK.s.c.1.2", "$JS.ACK.stream.consumer.x.10.5.1.7"} {
		if _, ok := parseReply(reply); ok {
			t.Errorf("%q was accepted", reply)
		}
	}
}
