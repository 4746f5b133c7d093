package grpcweb

import (
	"bytes"
	"context"
	"errors"
	"io"
	"reflect"
	"testing"

	"pgregory.net/rapid"

	"github.com/sidecast/sidecast/call"
)

// pieces is a stream of chunks.
type pieces [][]byte

func (p *pieces) Recv(context.Context) ([]byte, error) {
	if len(*p) == 0 {
		return nil, io.EOF
	}
	next := (*p)[0]
	*p = (*p)[1:]
	return next, nil
}

func TestFramesSurviveAnyCut(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		messages := rapid.SliceOf(rapid.SliceOfN(rapid.Byte(), 0, 40)).Draw(t, "messages")
		trailers := Trailers{
			Code: rapid.Uint32Range(0, 16).Draw(t, "code"), Message: rapid.StringN(0, 20, 40).Draw(t, "message"),
			Details: []byte{1, 2}, Fields: call.Header{{Key: "a", Value: "b"}, {Key: "k-bin", Value: "AAE="}},
		}
		var all []byte
		for _, m := range messages {
			all = append(all, Message(m)...)
		}
		all = append(all, trailers.Frame()...)
		var stream pieces
		for len(all) > 0 {
			n := rapid.IntRange(1, len(all)).Draw(t, "cut")
			stream, all = append(stream, all[:n:n]), all[n:]
		}
		r := Reader{From: &stream}
		for _, want := range messages {
			got, last, err := r.Next(t.Context())
			if err != nil || last || !bytes.Equal(got, want) {
				t.Fatalf("got %v %v %v, want %v", got, last, err, want)
			}
		}
		payload, last, err := r.Next(t.Context())
		if err != nil || !last {
			t.Fatal(last, err)
		}
		if got, err := ParseTrailers(payload); err != nil || !reflect.DeepEqual(got, trailers) {
			t.Fatalf("got %+v %v, want %+v", got, err, trailers)
		}
		if _, _, err := r.Next(t.Context()); !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
	})
}

// FuzzCuts is a stream that is cut anywhere: its frames are the same, and what follows a frame that is none is not read.
func FuzzCuts(f *testing.F) {
	f.Add(append(Message([]byte("one")), Message(nil)...), uint8(1))
	f.Add(append(Message([]byte("message")), Trailers{Code: 5, Message: "no%20such\n", Details: []byte{1}}.Frame()...), uint8(3))
	f.Add([]byte{1, 0, 0, 0, 0}, uint8(5))
	f.Add([]byte{0, 0, 0, 0}, uint8(2))
	f.Fuzz(func(t *testing.T, data []byte, cut uint8) {
		read := func(stream *pieces) (frames [][]byte, last []bool, end string) {
			r := Reader{From: stream, Most: 1 << 12}
			for {
				payload, trailers, err := r.Next(t.Context())
				if err != nil {
					return frames, last, err.Error()
				}
				frames, last = append(frames, bytes.Clone(payload)), append(last, trailers)
			}
		}
		whole := pieces{bytes.Clone(data)}
		if len(data) == 0 {
			whole = nil
		}
		var some pieces
		for rest, n := bytes.Clone(data), max(int(cut), 1); len(rest) > 0; {
			n := min(n, len(rest))
			some, rest = append(some, rest[:n:n]), rest[n:]
		}
		frames, last, end := read(&whole)
		framesCut, lastCut, endCut := read(&some)
		if !reflect.DeepEqual(frames, framesCut) || !reflect.DeepEqual(last, lastCut) || end != endCut {
			t.Errorf("whole: %q %v %s; cut: %q %v %s", frames, last, end, framesCut, lastCut, endCut)
		}
		for i, payload := range frames {
			if !last[i] {
				continue
			}
			trailers, err := ParseTrailers(payload)
			if err != nil {
				continue
			}
			again, err := ParseTrailers(trailers.Frame()[head:])
			if err != nil || again.Code != trailers.Code || !bytes.Equal(again.Details, trailers.Details) {
				t.Errorf("%+v is %+v when it is written and read again: %v", trailers, again, err)
			}
		}
	})
}

func FuzzNext(f *testing.F) {
	f.Add(Message([]byte("x")))
	f.Add(Trailers{Message: "m"}.Frame())
	f.Add([]byte{0, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, data []byte) {
		r := Reader{From: &pieces{data}, Most: 1 << 10}
		for {
			payload, last, err := r.Next(t.Context())
			if err != nil {
				return
			}
			if last {
				_, _ = ParseTrailers(payload)
			}
		}
	})
}
