package fabric_test

import (
	"context"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"

	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/fault"
)

func TestTrailersGoWithTheEnds(t *testing.T) {
	fields := call.Header{{Key: "check", Value: "a b"}, {Key: "check", Value: ""}}
	a, _ := pair(t, handler{stream: func(ctx context.Context, _ *call.Request, s call.ServerStream) error {
		if err := echo(ctx, s); err != nil {
			return err
		}
		call.SetTrailer(s, append(call.Header{{Key: "echo", Value: "1"}}, call.TrailerOf(s)...))
		return nil
	}, call: func(_ context.Context, req *call.Request) (*call.Response, error) {
		return &call.Response{Body: req.Body, Trailer: req.Trailer}, nil
	}})
	for _, trailer := range []call.Header{nil, fields} {
		s, err := a.Stream(within(t), b1, &call.Request{Method: "m", Body: []byte("x")})
		if err != nil {
			t.Fatal(err)
		}
		call.SetTrailer(s, trailer)
		if err := s.CloseSend(within(t)); err != nil {
			t.Fatal(err)
		}
		for {
			if _, err = s.Recv(within(t)); err != nil {
				break
			}
		}
		if want := append(call.Header{{Key: "echo", Value: "1"}}, trailer...); !errors.Is(err, io.EOF) || !reflect.DeepEqual(call.TrailerOf(s), want) {
			t.Errorf("got %v %v, want %v", err, call.TrailerOf(s), want)
		}
		s.Close()
		for _, size := range []int{1, 3 << 20} { // in one message, and in chunks
			resp, err := a.Call(within(t), b1, &call.Request{Method: "m", Body: body(size), Trailer: trailer})
			if err != nil || len(resp.Body) != size || !reflect.DeepEqual(resp.Trailer, trailer) {
				t.Errorf("%d bytes: %v %v", size, resp, err)
			}
		}
	}
}

func TestHugeTrailersAreRefused(t *testing.T) {
	huge := call.Header{{Key: "k", Value: strings.Repeat("x", 2<<20)}}
	a, _ := pair(t, handler{stream: func(ctx context.Context, req *call.Request, s call.ServerStream) error {
		err := echo(ctx, s)
		if req.Method == "answer" {
			call.SetTrailer(s, huge)
		}
		return err
	}})
	s, err := a.Stream(within(t), b1, &call.Request{Method: "request"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	call.SetTrailer(s, huge)
	wantReason(t, s.CloseSend(within(t)), fault.BodyTooLarge)

	other, err := a.Stream(within(t), b1, &call.Request{Method: "answer"})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := other.CloseSend(within(t)); err != nil {
		t.Fatal(err)
	}
	_, err = other.Recv(within(t))
	wantReason(t, err, fault.BodyTooLarge)
}
