package appchannel_test

import (
	"context"
	"io"
	"testing"

	commonv1 "github.com/dapr/dapr/pkg/proto/common/v1"
	runtimev1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/sidecast/sidecast/appchannel"
	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/fault"
)

// daprApp answers with what it was asked, or with an error.
type daprApp struct {
	runtimev1.UnimplementedAppCallbackServer
}

func (daprApp) OnInvoke(_ context.Context, r *commonv1.InvokeRequest) (*commonv1.InvokeResponse, error) {
	if r.GetMethod() == "fail" {
		return nil, status.Error(codes.AlreadyExists, "taken")
	}
	body := r.GetHttpExtension().GetVerb().String() + " " + string(r.GetData().GetValue())
	return &commonv1.InvokeResponse{ContentType: r.GetContentType(), Data: &anypb.Any{Value: []byte(body)}}, nil
}

// pieces is a stream whose request comes in pieces.
type pieces struct {
	request []string
	head    *call.Response
	answer  []byte
}

func (p *pieces) Recv(context.Context) ([]byte, error) {
	if len(p.request) == 0 {
		return nil, io.EOF
	}
	next := p.request[0]
	p.request = p.request[1:]
	return []byte(next), nil
}

func (p *pieces) Send(_ context.Context, chunk []byte) error {
	p.answer = append(p.answer, chunk...)
	return nil
}

func (p *pieces) Answer(_ context.Context, head *call.Response) error {
	p.head = head
	return nil
}

func TestDaprGathersBodiesThatComeInPieces(t *testing.T) {
	listener := listen(t, "")
	server := grpc.NewServer()
	runtimev1.RegisterAppCallbackServer(server, daprApp{})
	served := make(chan struct{})
	go func() { defer close(served); _ = server.Serve(listener) }()
	t.Cleanup(func() { server.Stop(); <-served })
	ready := make(chan error, 16)
	channel, err := appchannel.OpenDapr(appchannel.Callback{
		Address: listener.Addr().String(), MaxBody: 10, Dapr: true, Log: quiet, OnReady: func(err error) { ready <- err },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = channel.Close(context.Background()) })
	if err := <-ready; err != nil {
		t.Fatal(err)
	}
	stream := &pieces{request: []string{"12345", "6", "7890"}}
	if err := channel.Stream(t.Context(), &call.Request{Method: "m", Verb: "PUT", ContentType: "text/x"}, stream); err != nil {
		t.Fatal(err)
	}
	if stream.head == nil || stream.head.ContentType != "text/x" || len(stream.head.Body) != 0 || string(stream.answer) != "PUT 1234567890" {
		t.Errorf("got %+v %q", stream.head, stream.answer)
	}
	stream = &pieces{request: []string{"12345", "67890", "1"}}
	if err := channel.Stream(t.Context(), &call.Request{Method: "m"}, stream); fault.ReasonOf(err) != fault.BodyTooLarge || stream.head != nil {
		t.Errorf("a body over the limit: %v", err)
	}
	if err := channel.Stream(t.Context(), &call.Request{Method: "fail"}, &pieces{}); fault.KindOf(err) != fault.Conflict {
		t.Errorf("an error of the app: %v", err)
	}
}
