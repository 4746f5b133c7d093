package e2e

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/sidecast/sidecast/tests/machine"
)

func TestReflectionTellsTheAPI(t *testing.T) {
	t.Parallel()
	s := machine.New(t).Sidecar("reflect")
	conn, err := grpc.NewClient(s.GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), machine.Patience)
	defer cancel()
	stream, err := reflectionpb.NewServerReflectionClient(conn).ServerReflectionInfo(ctx)
	if err != nil {
		t.Fatal(err)
	}
	ask := func(r *reflectionpb.ServerReflectionRequest) *reflectionpb.ServerReflectionResponse {
		if err := stream.Send(r); err != nil {
			t.Fatal(err)
		}
		answer, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		return answer
	}
	listed := ask(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}})
	services := fmt.Sprint(listed.GetListServicesResponse().GetService())
	for _, name := range []string{"Invocation", "PubSub", "State", "Lock", "App", "Runtime"} {
		service := "sidecast.v1." + name
		if !strings.Contains(services, service+`"`) {
			t.Errorf("%s is not listed", service)
		}
		answer := ask(&reflectionpb.ServerReflectionRequest{
			MessageRequest: &reflectionpb.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: service},
		})
		files := answer.GetFileDescriptorResponse().GetFileDescriptorProto()
		if len(files) == 0 {
			t.Errorf("%s is not described: %v", service, answer)
			continue
		}
		var file descriptorpb.FileDescriptorProto
		if err := proto.Unmarshal(files[0], &file); err != nil {
			t.Errorf("%s: %v", service, err)
		}
	}
}

// grpcurl is a tool of this repository; where building it takes too long (a cold cache) the test says so and passes.
func TestGrpcurl(t *testing.T) {
	t.Parallel()
	s := machine.New(t).Sidecar("curled")
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	curl := func(args ...string) (string, error) {
		cmd := exec.CommandContext(ctx, "go", append([]string{"tool", "-modfile=tools/go.mod", "grpcurl", "-plaintext"}, args...)...)
		cmd.Dir = "../.."
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	out, err := curl(s.GRPC, "list")
	if err != nil {
		t.Skipf("grpcurl could not be built or run here: %v: %s", err, out)
	}
	if !strings.Contains(out, "sidecast.v1.State\n") {
		t.Errorf("list: %s", out)
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{s.GRPC, "describe", "sidecast.v1.State.Set"}, "rpc Set ( .sidecast.v1.SetRequest )"},
		{[]string{"-d", `{"items":[{"key":"k","value":"dg=="}]}`, s.GRPC, "sidecast.v1.State/Set"}, `"etags"`},
		{[]string{"-d", `{"key":"k"}`, s.GRPC, "sidecast.v1.State/Get"}, `"found": true`},
		{[]string{"-d", `{"topic":"t","data":"dg=="}`, s.GRPC, "sidecast.v1.PubSub/Publish"}, `"id"`},
		{[]string{"-d", `{"name":"l"}`, s.GRPC, "sidecast.v1.Lock/Acquire"}, `"token"`},
		{[]string{s.GRPC, "sidecast.v1.Runtime/Describe"}, `"appId": "curled"`},
		{[]string{"-d", `{"key":""}`, s.GRPC, "sidecast.v1.State/Get"}, `KEY_INVALID`},
	} {
		if out, _ := curl(c.args...); !strings.Contains(out, c.want) {
			t.Errorf("%v: no %s in %s", c.args, c.want, out)
		}
	}
}
