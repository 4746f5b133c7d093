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
