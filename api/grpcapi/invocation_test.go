package grpcapi

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"testing"

	"google.golang.org/grpc/metadata"

	"github.com/sidecast/sidecast/fault"
	sidecastv1 "github.com/sidecast/sidecast/sdk/proto/sidecast/v1"
)

// answering makes an app whose answer to every invocation is what answer says of it.
func answering(answer func(in *sidecastv1.ServeResponse_Invocation) *sidecastv1.InvokeResponse) func(*sidecastv1.ServeResponse, func(*sidecastv1.ServeRequest)) {
	return func(frame *sidecastv1.ServeResponse, say func(*sidecastv1.ServeRequest)) {
		in := frame.GetInvoke()
		if in == nil {
			return
		}
		say(&sidecastv1.ServeRequest{Frame: &sidecastv1.ServeRequest_Answer{Answer: &sidecastv1.CallAnswer{
			CallId: in.GetCallId(), Result: &sidecastv1.CallAnswer_Response{Response: answer(in)},
		}}})
		if in.GetStreaming() {
			say(&sidecastv1.ServeRequest{Frame: &sidecastv1.ServeRequest_Chunk{Chunk: &sidecastv1.StreamChunk{
				CallId: in.GetCallId(), Data: []byte("early"), End: true,
			}}})
		}
	}
}

func TestACallCarriesItsMetadataTraceAndDeadlineToTheHandler(t *testing.T) {
	dir := t.TempDir()
	seen := make(chan *sidecastv1.ServeResponse_Invocation, 1)
	start(t, dir, "shop", "shop-1").serve(answering(func(in *sidecastv1.ServeResponse_Invocation) *sidecastv1.InvokeResponse {
		seen <- in
		return &sidecastv1.InvokeResponse{
			Data: in.GetRequest().GetData(), ContentType: "text/plain", Metadata: map[string]string{"x-answer": "2"}, HttpStatus: 207,
		}
	}))
	caller := start(t, dir, "intake", "intake-1")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	ctx = metadata.AppendToOutgoingContext(ctx, "traceparent", "00-a-b-01", "baggage", "k=v")
	answer, err := sidecastv1.NewInvocationClient(caller.conn).Invoke(ctx, &sidecastv1.InvokeRequest{
		AppId: "shop", Method: "/price", Data: []byte("7"), ContentType: "text/csv", HttpVerb: "PUT", HttpQuery: "a=b",
		Metadata: map[string]string{"X-One": "1", "sidecast-caller": "mallory"}, Idempotent: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	if string(answer.GetData()) != "7" || answer.GetContentType() != "text/plain" || answer.GetHttpStatus() != 207 || answer.GetMetadata()["x-answer"] != "2" {
		t.Errorf("the answer: %v", answer)
	}
	in := <-seen
	r := in.GetRequest()
	want := map[string]string{"x-one": "1", "traceparent": "00-a-b-01", "baggage": "k=v"}
	if r.GetMethod() != "price" || r.GetAppId() != "shop" || r.GetContentType() != "text/csv" || r.GetHttpVerb() != "PUT" ||
		r.GetHttpQuery() != "a=b" || !r.GetIdempotent() || in.GetCaller() != "intake" || !maps.Equal(r.GetMetadata(), want) {
		t.Errorf("the handler saw %v", in)
	}
	if left := in.GetTimeout().AsDuration(); left <= 0 || left > patience {
		t.Errorf("the handler has %s left of %s", left, patience)
	}
}

func TestAnAppThatNobodyKnows(t *testing.T) {
	s := start(t, t.TempDir(), "shop", "shop-1")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, err := sidecastv1.NewInvocationClient(s.conn).Invoke(ctx, &sidecastv1.InvokeRequest{AppId: "nobody", Method: "x"})
	wantReason(t, err, fault.AppNotFound)
	_, err = sidecastv1.NewInvocationClient(s.conn).Invoke(ctx, &sidecastv1.InvokeRequest{AppId: "shop", Method: "x", Data: make([]byte, 8<<20+1)})
	wantReason(t, err, fault.BodyTooLarge)
}

// open begins a stream.
func (s *sidecar) open(app, method string) sidecastv1.Invocation_InvokeStreamClient {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	s.t.Cleanup(cancel)
	stream, err := sidecastv1.NewInvocationClient(s.conn).InvokeStream(ctx)
	if err != nil {
		s.t.Fatal(err)
	}
	s.say(stream.Send(&sidecastv1.InvokeStreamRequest{Frame: &sidecastv1.InvokeStreamRequest_Open{Open: &sidecastv1.InvokeRequest{AppId: app, Method: method}}}))
	return stream
}

func chunk(data []byte) *sidecastv1.InvokeStreamRequest {
	return &sidecastv1.InvokeStreamRequest{Frame: &sidecastv1.InvokeStreamRequest_Data{Data: data}}
}

// all reads the answer.
func all(stream sidecastv1.Invocation_InvokeStreamClient) (header *sidecastv1.InvokeResponse, data []byte, err error) {
	for {
		frame, err := stream.Recv()
		if err != nil {
			return header, data, err
		}
		if frame.GetHeader() != nil {
			header = frame.GetHeader()
		}
		data = append(data, frame.GetData()...)
	}
}

// echo is an app that streams back what it gets, and gives the window back as it goes.
func echo(frame *sidecastv1.ServeResponse, say func(*sidecastv1.ServeRequest)) {
	if in := frame.GetInvoke(); in != nil {
		say(&sidecastv1.ServeRequest{Frame: &sidecastv1.ServeRequest_Answer{Answer: &sidecastv1.CallAnswer{
			CallId: in.GetCallId(), Result: &sidecastv1.CallAnswer_Response{Response: &sidecastv1.InvokeResponse{ContentType: "text/plain"}},
		}}})
	}
	if c := frame.GetChunk(); c != nil {
		say(&sidecastv1.ServeRequest{Frame: &sidecastv1.ServeRequest_Chunk{Chunk: c}})
		if n := len(c.GetData()); n > 0 {
			say(&sidecastv1.ServeRequest{Frame: &sidecastv1.ServeRequest_StreamCredit{StreamCredit: &sidecastv1.StreamCredit{CallId: c.GetCallId(), Bytes: int64(n)}}})
		}
	}
}

func TestStreamEchoesUntilItsSendingSideEnds(t *testing.T) {
	dir := t.TempDir()
	start(t, dir, "shop", "shop-1").serve(echo)
	stream := start(t, dir, "intake", "intake-1").open("shop", "x")
	sent := bytes.Repeat([]byte("0123456789abcdef"), 4<<10)
	for range 64 { // in step, so that no window is needed
		if err := stream.Send(chunk(sent)); err != nil {
			t.Fatal(err)
		}
		for got := 0; got < len(sent); {
			frame, err := stream.Recv()
			if err != nil {
				t.Fatal(err)
			}
			if data := frame.GetData(); !bytes.HasPrefix(sent[got:], data) {
				t.Fatal("the echo differs")
			}
			got += len(frame.GetData())
		}
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, rest, err := all(stream); !errors.Is(err, io.EOF) || len(rest) > 0 {
		t.Errorf("after the end: %d bytes, %v", len(rest), err)
	}
}

func TestStreamOfAHandlerThatAnswersWithoutReading(t *testing.T) {
	dir := t.TempDir()
	start(t, dir, "shop", "shop-1").serve(answering(func(*sidecastv1.ServeResponse_Invocation) *sidecastv1.InvokeResponse {
		return &sidecastv1.InvokeResponse{ContentType: "text/plain"}
	}))
	caller := start(t, dir, "intake", "intake-1")
	for range 20 { // the end of the answer and the request that goes on cross each other
		stream := caller.open("shop", "x")
		for range 64 {
			if stream.Send(chunk(make([]byte, 64<<10))) != nil {
				break
			}
		}
		header, data, err := all(stream)
		if !errors.Is(err, io.EOF) || header.GetContentType() != "text/plain" || string(data) != "early" {
			t.Fatalf("got %v, %q, %v", header, data, err)
		}
	}
}

func TestStreamThatBreaksTheProtocol(t *testing.T) {
	dir := t.TempDir()
	s := start(t, dir, "shop", "shop-1")
	s.serve(echo)
	stream := s.open("shop", "x")
	s.say(stream.Send(&sidecastv1.InvokeStreamRequest{Frame: &sidecastv1.InvokeStreamRequest_Open{Open: &sidecastv1.InvokeRequest{AppId: "shop", Method: "x"}}}))
	_, _, err := all(stream)
	wantReason(t, err, fault.BadRequest)
	_, _, err = all(s.open("nobody", "x"))
	wantReason(t, err, fault.AppNotFound)
	_, _, err = all(s.open("shop", ""))
	wantReason(t, err, fault.BadRequest)
}

// A stream that reached an instance whose app is not there goes to another one, with all that was sent.
func TestStreamThatIsTriedAgainLosesNothing(t *testing.T) {
	dir := t.TempDir()
	start(t, dir, "shop", "shop-without-app")
	start(t, dir, "shop", "shop-1").serve(echo)
	caller := start(t, dir, "intake", "intake-1")
	for range 20 {
		stream := caller.open("shop", "x")
		for i := range byte(5) {
			s := chunk([]byte{'a' + i})
			if err := stream.Send(s); err != nil {
				t.Fatal(err)
			}
		}
		if err := stream.CloseSend(); err != nil {
			t.Fatal(err)
		}
		if _, data, err := all(stream); !errors.Is(err, io.EOF) || string(data) != "abcde" {
			t.Fatalf("got %q, %v", data, err)
		}
	}
}
