package compat

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	commonv1 "github.com/dapr/dapr/pkg/proto/common/v1"
	runtimev1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/sidecast/sidecast/tests/machine"
)

// Actors, workflows and jobs answer as a daprd does that has neither a placement service nor a scheduler.
func TestActorsWorkflowsAndJobsThatAreNotThere(t *testing.T) {
	t.Parallel()
	d := start(t, machine.New(t), "app")
	const (
		placement = `{"errorCode":"ERR_ACTOR_NO_PLACEMENT","message":"placement service is not configured"}`
		reserved  = `{"errorCode":"ERR_ACTOR_TYPE_RESERVED","message":"actor type \"dapr.internal.default.app.workflow\" is reserved for the Dapr workflow runtime; direct actor API access is not permitted"}`
		malformed = `{"errorCode":"ERR_MALFORMED_REQUEST","message":"failed deserializing HTTP body: …`
		ours      = "dapr.internal.default.app.workflow"
	)
	for _, c := range []struct {
		verbs, path string
		body        string // that daprd can read; "" is one that it does not read, "-" none
	}{
		{"GET POST PUT DELETE", "/v1.0/actors/T/1/method/m", ""},
		{"POST PUT", "/v1.0/actors/T/1/state", "[]"},
		{"GET", "/v1.0/actors/T/1/state/k", "-"},
		{"POST PUT", "/v1.0/actors/T/1/reminders/r", `{"dueTime":"1s","data":{"a":1}}`},
		{"POST PUT", "/v1.0/actors/T/1/timers/r", `{"period":"1s"}`},
		{"GET", "/v1.0/actors/T/1/reminders/r", "-"},
		{"DELETE", "/v1.0/actors/T/1/reminders/r", "{}"},
		{"DELETE", "/v1.0/actors/T/1/timers/r", "{}"},
		{"GET", "/v1.0/workflows/dapr/1", "-"},
		{"POST", "/v1.0-beta1/workflows/dapr/w/start", ""},
		{"POST", "/v1.0-alpha1/workflows/dapr/1/raiseEvent/e", ""},
		{"POST", "/v1.0/workflows/dapr/1/pause", "{}"},
		{"POST", "/v1.0/workflows/dapr/1/resume", "{}"},
		{"POST", "/v1.0/workflows/dapr/1/terminate", "{}"},
		{"POST", "/v1.0/workflows/dapr/1/purge", "{}"},
	} {
		for verb := range strings.FieldsSeq(c.verbs) {
			d.expect(400, placement, verb, c.path, strings.TrimPrefix(c.body, "-"))
			if c.body != "" && c.body != "-" {
				d.expect(400, malformed, verb, c.path, "{")
			}
			if actor, ok := strings.CutPrefix(c.path, "/v1.0/actors/T/"); ok && !strings.Contains(actor, "method") {
				d.expect(403, reserved, verb, "/v1.0/actors/"+ours+"/"+actor, strings.TrimPrefix(c.body, "-"))
			}
		}
	}
	d.expect(400, `{"errorCode":"ERR_BAD_REQUEST","message":"invalid request: name contains forbidden character: \"a/b\""}`, "POST", "/v1.0/actors/T/1/reminders/a%2Fb", "{}")
	job := func(code, message string, namespace string) string {
		return `{"errorCode":"DAPR_SCHEDULER_` + code + `","message":"` + message + `","details":[{"@type":"type.googleapis.com/google.rpc.ErrorInfo","domain":"dapr.io","metadata":{"appID":"app"` +
			namespace + `},"reason":"DAPR_SCHEDULER_` + code + `"}]}`
	}
	const in, off = `,"namespace":"default"`, " due to: scheduler clients are disabled"
	for _, version := range []string{"v1.0", "v1.0-alpha1"} {
		path := "/" + version + "/jobs/j"
		d.expect(500, job("SCHEDULE_JOB", "failed to schedule job"+off, in), "POST", path, `{"schedule":"@every 1s","data":{"a":1}}`)
		d.expect(400, job("SCHEDULE_EMPTY", "Schedule is empty", in), "POST", path, "")
		d.expect(400, job("JOB_NAME_EMPTY", "Name is empty", in), "POST", "/"+version+"/jobs/%20", "{}")
		d.expect(400, job("JOB_NAME", "Set the job name in the url only", ""), "POST", path, `{"name":"j","dueTime":"1s"}`)
		d.expect(400, malformed, "POST", path, "[]")
		d.expect(500, job("GET_JOB", "failed to get job"+off, in), "GET", path, "")
		d.expect(500, job("DELETE_JOB", "failed to delete job"+off, in), "DELETE", path, "")
	}
	d.expect(404, `{"errorCode":"ERR_DIRECT_INVOKE","message":"failed getting app id either from the URL path or the header dapr-app-id"}`, "GET", "/v1.0/jobs", "")

	client, ctx := d.client(), t.Context()
	is := func(what string, err error, code codes.Code, message string, reason string) {
		t.Helper()
		s := status.Convert(err)
		if s.Code() != code || s.Message() != message || (reason != "") != (len(s.Details()) == 1) {
			t.Errorf("%s: %v", what, err)
			return
		}
		if reason != "" && s.Details()[0].(*errdetails.ErrorInfo).GetReason() != reason {
			t.Errorf("%s: %v", what, s.Details())
		}
	}
	_, err := client.InvokeActor(ctx, &runtimev1.InvokeActorRequest{ActorType: "T", ActorId: "1", Method: "m"})
	is("InvokeActor", err, codes.Unavailable, "placement service is not configured", "")
	_, err = client.GetActorState(ctx, &runtimev1.GetActorStateRequest{ActorType: ours})
	is("GetActorState", err, codes.PermissionDenied, `actor type "`+ours+`" is reserved for the Dapr workflow runtime; direct actor API access is not permitted`, "")
	_, err = client.RegisterActorReminder(ctx, &runtimev1.RegisterActorReminderRequest{ActorType: "T"})
	is("RegisterActorReminder", err, codes.Unavailable, "placement service is not configured", "")
	_, err = client.StartWorkflowBeta1(ctx, &runtimev1.StartWorkflowRequest{})
	is("StartWorkflowBeta1", err, codes.Unavailable, "placement service is not configured", "")
	//lint:ignore SA1019 alpha1 is there as long as clients of Dapr have it
	_, err = client.PurgeWorkflowAlpha1(ctx, &runtimev1.PurgeWorkflowRequest{})
	is("PurgeWorkflowAlpha1", err, codes.Unavailable, "placement service is not configured", "")
	_, err = client.ScheduleJob(ctx, &runtimev1.ScheduleJobRequest{})
	is("ScheduleJob", err, codes.InvalidArgument, "Job is empty", "DAPR_SCHEDULER_EMPTY")
	schedule := "@every 1s"
	//lint:ignore SA1019 alpha1 is there as long as clients of Dapr have it
	_, err = client.ScheduleJobAlpha1(ctx, &runtimev1.ScheduleJobRequest{Job: &runtimev1.Job{Name: "j", Schedule: &schedule}})
	is("ScheduleJobAlpha1", err, codes.Internal, "failed to schedule job"+off, "DAPR_SCHEDULER_SCHEDULE_JOB")
	_, err = client.ListJobs(ctx, &runtimev1.ListJobsRequest{})
	is("ListJobs", err, codes.Internal, "failed to list jobs"+off, "DAPR_SCHEDULER_LIST_JOBS")
	stream, err := client.SubscribeActorEventsAlpha1(ctx)
	if err == nil {
		_, err = stream.Recv()
	}
	is("SubscribeActorEventsAlpha1", err, codes.FailedPrecondition, "actor callback streaming requires a gRPC app channel", "")
}

// An app whose port is closed may be starting anew, so that it is tried for a while; then its caller is told what daprd tells.
func TestAnAppWhosePortIsClosed(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	listener := listen(t)
	server := &http.Server{Handler: http.HandlerFunc(echo)}
	served := make(chan error)
	go func() { served <- server.Serve(listener) }()
	at := listener.Addr().String()
	d := start(t, m, "app", "--app-port", port(at))
	d.await("/v1.0/healthz")
	caller := start(t, m, "caller")
	machine.Until(t, "the app is found", func() error {
		if got := caller.do("GET", "/v1.0/invoke/app/method/x", ""); got.status != 200 {
			return fmt.Errorf("%d %s", got.status, got.body)
		}
		return nil
	})
	_ = server.Close()
	<-served
	_ = d.do("GET", "/v1.0/invoke/app/method/x", "") // on the connection that was
	d.WaitFor("app is not ready", machine.Patience)
	const head, why = `{"errorCode":"ERR_DIRECT_INVOKE","message":"failed to invoke, id: app, err: `, "gave up after 6 attempts: the app"
	d.expect(500, head+why+"…", "GET", "/v1.0/invoke/app/method/x", "")
	caller.expect(500, head+"rpc error: code = Internal desc = error invoking app channel: "+why+"…", "GET", "/v1.0/invoke/app/method/x", "")
}

// What gRPC says of an app that is not there is taken for what the app says, as by daprd.
func TestAGRPCAppWhosePortIsClosed(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	app := grpc.NewServer()
	runtimev1.RegisterAppCallbackServer(app, callback{})
	listener := listen(t)
	served := make(chan error)
	go func() { served <- app.Serve(listener) }()
	d := start(t, m, "app", "--app-port", port(listener.Addr().String()), "--app-protocol", "grpc")
	d.await("/v1.0/healthz")
	caller := start(t, m, "caller")
	machine.Until(t, "the app is found", func() error {
		if got := caller.do("POST", "/v1.0/invoke/app/method/x", ""); got.status != 200 {
			return fmt.Errorf("%d %s", got.status, got.body)
		}
		return nil
	})
	app.Stop()
	<-served
	d.WaitFor("app is not ready", machine.Patience)
	for _, from := range []*daprd{d, caller} {
		const why = "the app"
		from.expect(503, `{"code":14,…`, "POST", "/v1.0/invoke/app/method/x", "")
		_, err := runtimev1.NewDaprClient(dial(t, from.grpc)).InvokeService(t.Context(), &runtimev1.InvokeServiceRequest{
			Id: "app", Message: &commonv1.InvokeRequest{Method: "x"}})
		fails(t, err, codes.Unavailable, "", why)
	}
}

// sickly is a gRPC app that is not always well.
type sickly struct {
	callback
	well *atomic.Bool
}

func (s sickly) HealthCheck(context.Context, *emptypb.Empty) (*runtimev1.HealthCheckResponse, error) {
	if !s.well.Load() {
		return nil, status.Error(codes.Unavailable, "unwell")
	}
	return &runtimev1.HealthCheckResponse{}, nil
}

func TestAnUnhealthyAppGetsNoProxiedCalls(t *testing.T) {
	t.Parallel()
	app := sickly{well: &atomic.Bool{}}
	app.well.Store(true)
	m := machine.New(t)
	at := serveGRPC(t, func(s *grpc.Server) {
		runtimev1.RegisterAppCallbackHealthCheckServer(s, app)
		s.RegisterService(&streams, app)
	})
	d := start(t, m, "app", "--app-port", at, "--app-protocol", "grpc", "--enable-app-health-check", "--app-health-probe-interval", "1", "--app-health-threshold", "1")
	for _, from := range []*daprd{d, start(t, m, "caller")} {
		ask := func() error {
			stream, err := dial(t, from.grpc).NewStream(metadata.AppendToOutgoingContext(t.Context(), "dapr-app-id", "app"), &streams.Streams[0], "/test.Streams/Echo")
			if err != nil {
				return err
			}
			if err := errors.Join(stream.SendMsg(&wrapperspb.BytesValue{}), stream.CloseSend()); err != nil {
				return err
			}
			return stream.RecvMsg(&wrapperspb.BytesValue{})
		}
		app.well.Store(true)
		machine.Until(t, "the app is well", ask)
		app.well.Store(false)
		machine.Until(t, "the app is unwell", func() error {
			if err := ask(); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "app is not in a healthy state") {
				return fmt.Errorf("got %v", err)
			}
			return nil
		})
	}
}
