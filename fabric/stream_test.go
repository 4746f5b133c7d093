package fabric_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"testing"

	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/fabric"
	"github.com/sidecast/sidecast/fault"
	"pgregory.net/rapid"
)

func TestLargeBodiesBothWays(t *testing.T) {
	a, b := pair(t, handler{})
	for _, size := range []int{0, 1, 1<<20 - 200, 1 << 20, 1<<20 + 1, 5 << 20, 64 << 20} {
		sent := body(size)
		resp, err := a.Call(within(t), b1, &call.Request{Method: "m", ContentType: "x/y", Body: sent})
		if err != nil {
			t.Fatalf("%d bytes: %v", size, err)
		}
		if !bytes.Equal(resp.Body, sent) || resp.ContentType != "x/y" {
			t.Fatalf("%d bytes: the answer differs, it has %d", size, len(resp.Body))
		}
	}
	eventually(t, "nothing runs", func() bool { return b.Stats().Running == 0 && a.Stats().Waiting == 0 })
}

func TestManyLargeBodiesAtOnce(t *testing.T) {
	a, _ := pair(t, handler{})
	errs := make(chan error)
	callers := 64
	if testing.Short() { // under the race detector bodies are dear, and a machine that is busy with them misses heartbeats
		callers = 16
	}
	for range callers {
		go func() {
			sent := body(900 << 10)
			resp, err := a.Call(within(t), b1, &call.Request{Method: "m", Body: sent})
			if err == nil && !bytes.Equal(resp.Body, sent) {
				err = errors.New("the answer differs")
			}
			errs <- err
		}()
	}
	for range callers {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}

func TestBodyLimits(t *testing.T) {
	answer := body(3 << 20)
	a, _ := pair(t, handler{call: func(context.Context, *call.Request) (*call.Response, error) {
		return &call.Response{Body: answer}, nil
	}}, func(c *fabric.Config) {
		if c.AppID == "a" {
			c.MaxBody = 2 << 20
		} else {
			c.MaxBody = 4 << 20
		}
	})
	_, err := a.Call(within(t), b1, &call.Request{Method: "m", Body: body(2<<20 + 1)})
	wantReason(t, err, fault.BodyTooLarge)
	_, err = a.Call(within(t), b1, &call.Request{Method: "m"})
	wantReason(t, err, fault.AnswerTooLarge)
	if fault.NotSent(err) {
		t.Error("the work was done, and the fault says that it was not")
	}

	// The called side refuses before the handler runs.
	c, _ := pair(t, handler{call: func(context.Context, *call.Request) (*call.Response, error) {
		t.Error("the handler ran")
		return nil, nil
	}}, func(c *fabric.Config) {
		if c.AppID == "b" {
			c.MaxBody = 2 << 20
		}
	})
	_, err = c.Call(within(t), b1, &call.Request{Method: "m", Body: body(8 << 20)})
	wantReason(t, err, fault.BodyTooLarge)
	if !fault.NotSent(err) {
		t.Error("the handler did not run, and the fault does not say so")
	}
}

func TestHugeMetadataIsRefused(t *testing.T) {
	huge := call.Header{{Key: "x", Value: string(bytes.Repeat([]byte("x"), 2<<20))}}
	a, _ := pair(t, handler{call: func(context.Context, *call.Request) (*call.Response, error) {
		return &call.Response{Header: huge}, nil
	}})
	_, err := a.Call(within(t), b1, &call.Request{Method: "m", Header: huge})
	wantReason(t, err, fault.BodyTooLarge)
	_, err = a.Call(within(t), b1, &call.Request{Method: "m"})
	wantReason(t, err, fault.AnswerTooLarge)
}

func TestStreamEcho(t *testing.T) {
	a, b := pair(t, handler{stream: func(ctx context.Context, req *call.Request, s call.ServerStream) error {
		if err := s.Answer(ctx, &call.Response{Status: 200, ContentType: req.ContentType, Header: req.Header}); err != nil {
			return err
		}
		if err := s.Answer(ctx, &call.Response{}); fault.ReasonOf(err) != fault.BadRequest {
			return fmt.Errorf("a second header: %v", err)
		}
		return echo(ctx, s)
	}})
	rapid.Check(t, func(rt *rapid.T) {
		sizes := rapid.SliceOfN(rapid.OneOf(rapid.IntRange(0, 100), rapid.IntRange(0, 200<<10)), 0, 40).Draw(rt, "sizes")
		s, err := a.Stream(within(t), b1, &call.Request{Method: "m", ContentType: "a/b", Header: call.Header{{Key: "k", Value: "v"}}})
		if err != nil {
			rt.Fatal(err)
		}
		defer s.Close()
		var want []byte
		sent := make(chan error, 1)
		for _, n := range sizes {
			want = append(want, body(n)...)
		}
		go func() {
			for _, n := range sizes {
				if err := s.Send(within(t), body(n)); err != nil {
					sent <- err
					return
				}
			}
			sent <- s.CloseSend(within(t))
		}()
		head, err := s.Header(within(t))
		if err != nil || head.Status != 200 || head.ContentType != "a/b" || head.Header.Get("k") != "v" {
			rt.Fatalf("header %+v, %v", head, err)
		}
		var got []byte
		for {
			chunk, err := s.Recv(within(t))
			if err == io.EOF {
				break
			}
			if err != nil {
				rt.Fatal(err)
			}
			got = append(got, chunk...)
		}
		if err := <-sent; err != nil {
			rt.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			rt.Fatalf("%d bytes came back of %d", len(got), len(want))
		}
	})
	eventually(t, "nothing runs", func() bool { return b.Stats().Running == 0 && a.Stats().Waiting == 0 })
}

func TestSmallChunksKeepTheirBounds(t *testing.T) {
	a, _ := pair(t, handler{})
	s, err := a.Stream(within(t), b1, &call.Request{Method: "m", Body: []byte("first")})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, want := range []string{"first", "", "second", ""} {
		if want != "first" {
			if err := s.Send(within(t), []byte(want)); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := s.Recv(within(t)); err != nil || string(got) != want {
			t.Fatalf("got %q, %v, want %q", got, err, want)
		}
	}
}

// A reader that does not read stops the writer within a window, in both directions.
func TestSlowReaderSlowsTheWriter(t *testing.T) {
	const window = 512 << 10
	var sent atomic.Int64
	flood := func(ctx context.Context, send func(context.Context, []byte) error) error {
		for {
			if err := send(ctx, make([]byte, 10_000)); err != nil {
				return err
			}
			sent.Add(10_000)
		}
	}
	read := make(chan struct{})
	a, b := pair(t, handler{stream: func(ctx context.Context, req *call.Request, s call.ServerStream) error {
		if req.Method == "down" {
			return flood(ctx, s.Send)
		}
		<-read
		for {
			if _, err := s.Recv(ctx); err != nil {
				return err
			}
		}
	}})
	stalls := func(what string) {
		t.Helper()
		var last int64
		still := 0
		eventually(t, what, func() bool {
			now := sent.Load()
			if now == last && now > 0 {
				still++
			} else {
				still = 0
			}
			last = now
			return still > 40
		})
		if last > window {
			t.Errorf("%s: %d bytes were sent to a reader that reads nothing, the window is %d", what, last, window)
		}
	}
	s, err := a.Stream(within(t), b1, &call.Request{Method: "down"})
	if err != nil {
		t.Fatal(err)
	}
	stalls("down")
	for range 100 { // reading lets it go on
		if _, err := s.Recv(within(t)); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the writer goes on", func() bool { return sent.Load() > window })
	s.Close()
	eventually(t, "the writer was told", func() bool { return b.Stats().Running == 0 })

	sent.Store(0)
	ctx, cancel := context.WithCancel(within(t))
	s, err = a.Stream(ctx, b1, &call.Request{Method: "up"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	flooded := make(chan error, 1)
	go func() { flooded <- flood(within(t), s.Send) }()
	stalls("up")
	close(read)
	eventually(t, "the writer goes on", func() bool { return sent.Load() > 4*window })
	cancel()
	if err := <-flooded; fault.KindOf(err) != fault.Canceled {
		t.Errorf("the writer ended with %v", err)
	}
}

func TestSendAfterTheHandlerReturned(t *testing.T) {
	a, _ := pair(t, handler{stream: func(ctx context.Context, _ *call.Request, s call.ServerStream) error {
		return s.Send(ctx, []byte("enough"))
	}})
	s, err := a.Stream(within(t), b1, &call.Request{Method: "m"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var sendErr error
	for sendErr == nil {
		sendErr = s.Send(within(t), body(60_000))
	}
	wantReason(t, sendErr, fault.StreamBroken)
	if !errors.Is(sendErr, io.EOF) {
		t.Errorf("Send failed with %v", sendErr)
	}
	if got, err := s.Recv(within(t)); string(got) != "enough" || err != nil {
		t.Fatalf("%q %v", got, err)
	}
	if _, err := s.Recv(within(t)); err != io.EOF {
		t.Fatalf("the end came as %v", err)
	}
}

func TestRecvAndSendEndWithTheirContext(t *testing.T) {
	a, _ := pair(t, handler{stream: func(ctx context.Context, _ *call.Request, s call.ServerStream) error {
		<-ctx.Done()
		return ctx.Err()
	}})
	s, err := a.Stream(within(t), b1, &call.Request{Method: "m"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := s.Recv(ended); fault.KindOf(err) != fault.Canceled {
		t.Errorf("Recv: %v", err)
	}
	if _, err := s.Header(ended); fault.KindOf(err) != fault.Canceled {
		t.Errorf("Header: %v", err)
	}
	if err := s.Send(ended, body(2<<20)); fault.KindOf(err) != fault.Canceled {
		t.Errorf("Send: %v", err)
	}
}
