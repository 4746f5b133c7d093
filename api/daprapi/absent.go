package daprapi

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"strings"

	internalv1 "github.com/dapr/dapr/pkg/proto/internals/v1"
	runtimev1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/emptypb"
)

// absentRoutes are those of actors, workflows and jobs, which there are not yet: they answer as a daprd does that was given
// neither a placement service nor a scheduler.
func absentRoutes(s *Server) []route {
	const actor = "v1.0/actors/{actorType}/{actorId}/"
	all := []route{
		{"POST PUT", actor + "state", "ExecuteActorStateTransaction", s.noActor(actorTransaction)},
		{"GET POST DELETE PUT", actor + "method/{method}", "InvokeActor", noWorkflow},
		{"GET", actor + "state/{key}", "GetActorState", s.noActor(nil)},
		{"POST PUT", actor + "reminders/{name}", "RegisterActorReminder", s.noActor(actorAlarm)},
		{"POST PUT", actor + "timers/{name}", "RegisterActorTimer", s.noActor(actorAlarm)},
		{"GET", actor + "reminders/{name}", "GetActorReminder", s.noActor(nil)},
		{"DELETE", actor + "reminders/{name}", "UnregisterActorReminder", s.bodyOf(&runtimev1.UnregisterActorReminderRequest{}, s.noActor(nil))},
		{"DELETE", actor + "timers/{name}", "UnregisterActorTimer", s.bodyOf(&runtimev1.UnregisterActorTimerRequest{}, s.noActor(nil))},
	}
	for _, version := range []string{"v1.0", "v1.0-beta1", "v1.0-alpha1"} {
		instance := version + "/workflows/{workflowComponent}/{instanceID}"
		all = append(all,
			route{"GET", instance, "GetWorkflow", s.bodyOf(&runtimev1.GetWorkflowRequest{}, noWorkflow)},
			route{"POST", instance + "/raiseEvent/{eventName}", "RaiseEventWorkflow", noWorkflow},
			route{"POST", version + "/workflows/{workflowComponent}/{workflowName}/start", "StartWorkflow", noWorkflow},
			route{"POST", instance + "/pause", "PauseWorkflow", s.bodyOf(&runtimev1.PauseWorkflowRequest{}, noWorkflow)},
			route{"POST", instance + "/resume", "ResumeWorkflow", s.bodyOf(&runtimev1.ResumeWorkflowRequest{}, noWorkflow)},
			route{"POST", instance + "/terminate", "TerminateWorkflow", s.bodyOf(&runtimev1.TerminateWorkflowRequest{}, noWorkflow)},
			route{"POST", instance + "/purge", "PurgeWorkflow", s.bodyOf(&runtimev1.PurgeWorkflowRequest{}, noWorkflow)})
	}
	for _, version := range []string{"v1.0", "v1.0-alpha1"} {
		job := version + "/jobs/{name}"
		all = append(all,
			route{"POST", job, "ScheduleJob", s.scheduleJob},
			route{"DELETE", job, "DeleteJob", func(_ http.ResponseWriter, _ *http.Request, p params) error {
				return s.noJob("delete job", "DELETE_JOB", p["name"])
			}},
			route{"GET", job, "GetJob", func(_ http.ResponseWriter, _ *http.Request, p params) error {
				return s.noJob("get job", "GET_JOB", p["name"])
			}})
	}
	return all
}

func withoutPlacement() error {
	return plain(http.StatusBadRequest, codes.Unavailable, "ERR_ACTOR_NO_PLACEMENT", "placement service is not configured")
}

func noWorkflow(http.ResponseWriter, *http.Request, params) error { return withoutPlacement() }

// reserved refuses the types of actors that are Dapr's own.
func reserved(kind string) error {
	if strings.HasPrefix(kind, "dapr.internal.") {
		return plain(http.StatusForbidden, codes.PermissionDenied, "ERR_ACTOR_TYPE_RESERVED",
			"actor type %q is reserved for the Dapr workflow runtime; direct actor API access is not permitted", kind)
	}
	return nil
}

// noActor is the problem of a request about an actor.
func noActor(kind string) error { return cmp.Or(reserved(kind), withoutPlacement()) }

// noActor answers requests about actors, of which read looks at the rest.
func (s *Server) noActor(read func(*Server, *http.Request, params) error) func(http.ResponseWriter, *http.Request, params) error {
	return func(_ http.ResponseWriter, r *http.Request, p params) error {
		if err := reserved(p["actorType"]); err != nil {
			return err
		}
		if read != nil {
			if err := read(s, r, p); err != nil {
				return err
			}
		}
		return withoutPlacement()
	}
}

func actorTransaction(s *Server, r *http.Request, _ params) error {
	var operations []struct {
		Operation string
		Request   any
	}
	if err := s.decode(r, &operations); err != nil {
		return malformed(err)
	}
	return nil
}

// actorAlarm reads a reminder or a timer.
func actorAlarm(s *Server, r *http.Request, p params) error {
	var alarm struct{ DueTime, Period, TTL, Callback string }
	if err := s.decode(r, &alarm); err != nil {
		return malformed(err)
	}
	if err := plainName(p["name"]); err != nil {
		return plain(http.StatusBadRequest, codes.InvalidArgument, "ERR_BAD_REQUEST", "invalid request: %v", err)
	}
	return nil
}

// plainName refuses the names that Dapr's reminders and timers cannot have.
func plainName(name string) error {
	if strings.ContainsAny(name, "#?\x00/\\") {
		return fmt.Errorf("name contains forbidden character: %q", name)
	}
	if i := strings.IndexFunc(name, control); i >= 0 {
		return fmt.Errorf("name contains control character at position %d: %q", i, name)
	}
	if name == "." || name == ".." {
		return fmt.Errorf("name is a path traversal sequence: %q", name)
	}
	return nil
}

// bodyOf has next handle requests whose body is nothing or can be read as one of those.
func (s *Server) bodyOf(one proto.Message, next func(http.ResponseWriter, *http.Request, params) error) func(http.ResponseWriter, *http.Request, params) error {
	return func(w http.ResponseWriter, r *http.Request, p params) error {
		if err := s.message(r, proto.Clone(one)); err != nil {
			return err
		}
		return next(w, r, p)
	}
}

func (s *Server) scheduleJob(_ http.ResponseWriter, r *http.Request, p params) error {
	var job internalv1.JobHTTPRequest
	if err := s.message(r, &job); err != nil {
		return err
	}
	if job.GetName() != "" {
		return s.jobProblem(http.StatusBadRequest, codes.InvalidArgument, "JOB_NAME", "Set the job name in the url only", "appID")
	}
	return s.noSchedule(&runtimev1.Job{Name: strings.TrimSpace(p["name"]), Schedule: job.Schedule, DueTime: job.DueTime})
}

// noSchedule is the problem of a job that is to be scheduled.
func (s *Server) noSchedule(job *runtimev1.Job) error {
	switch {
	case job == nil:
		return s.jobLacks("Job", "EMPTY")
	case job.GetName() != "" && job.Schedule == nil && job.DueTime == nil:
		return s.jobLacks("Schedule", "SCHEDULE_EMPTY")
	}
	return s.noJob("schedule job", "SCHEDULE_JOB", job.GetName())
}

// noJob is the problem of an operation on a job of that name.
func (s *Server) noJob(operation, code, name string) error {
	if name == "" {
		return s.jobLacks("Name", "JOB_NAME_EMPTY")
	}
	return s.noJobs(operation, code)
}

// noJobs is that of one on several.
func (s *Server) noJobs(operation, code string) error {
	return s.jobProblem(http.StatusInternalServerError, codes.Internal, code, "failed to "+operation+" due to: scheduler clients are disabled", "appID", "namespace")
}

func (s *Server) jobLacks(what, code string) error {
	return s.jobProblem(http.StatusBadRequest, codes.InvalidArgument, code, what+" is empty", "appID", "namespace")
}

func (s *Server) jobProblem(http int, grpc codes.Code, code, message string, tell ...string) error {
	known, told := map[string]string{"appID": s.o.AppID, "namespace": s.o.Namespace}, map[string]string{}
	for _, key := range tell {
		told[key] = known[key]
	}
	code = "DAPR_SCHEDULER_" + code
	return &problem{http: http, grpc: grpc, tag: code, message: message, details: []protoadapt.MessageV1{errorInfo(code, told)}}
}

func (a *api) InvokeActor(context.Context, *runtimev1.InvokeActorRequest) (*runtimev1.InvokeActorResponse, error) {
	return nil, withoutPlacement()
}

func (a *api) GetActorState(_ context.Context, in *runtimev1.GetActorStateRequest) (*runtimev1.GetActorStateResponse, error) {
	return nil, noActor(in.GetActorType())
}

func (a *api) ExecuteActorStateTransaction(_ context.Context, in *runtimev1.ExecuteActorStateTransactionRequest) (*emptypb.Empty, error) {
	return nil, noActor(in.GetActorType())
}

func (a *api) RegisterActorTimer(_ context.Context, in *runtimev1.RegisterActorTimerRequest) (*emptypb.Empty, error) {
	return nil, noActor(in.GetActorType())
}

func (a *api) UnregisterActorTimer(_ context.Context, in *runtimev1.UnregisterActorTimerRequest) (*emptypb.Empty, error) {
	return nil, noActor(in.GetActorType())
}

func (a *api) RegisterActorReminder(_ context.Context, in *runtimev1.RegisterActorReminderRequest) (*emptypb.Empty, error) {
	return nil, noActor(in.GetActorType())
}

func (a *api) UnregisterActorReminder(_ context.Context, in *runtimev1.UnregisterActorReminderRequest) (*emptypb.Empty, error) {
	return nil, noActor(in.GetActorType())
}

func (a *api) GetActorReminder(_ context.Context, in *runtimev1.GetActorReminderRequest) (*runtimev1.GetActorReminderResponse, error) {
	return nil, noActor(in.GetActorType())
}

func (a *api) UnregisterActorRemindersByType(_ context.Context, in *runtimev1.UnregisterActorRemindersByTypeRequest) (*runtimev1.UnregisterActorRemindersByTypeResponse, error) {
	return nil, noActor(in.GetActorType())
}

func (a *api) ListActorReminders(_ context.Context, in *runtimev1.ListActorRemindersRequest) (*runtimev1.ListActorRemindersResponse, error) {
	return nil, noActor(in.GetActorType())
}

func (a *api) SubscribeActorEventsAlpha1(runtimev1.Dapr_SubscribeActorEventsAlpha1Server) error {
	if app := a.s.o.App; app.Port == 0 || !strings.HasPrefix(app.Protocol, "grpc") {
		return status.Error(codes.FailedPrecondition, "actor callback streaming requires a gRPC app channel")
	}
	return withoutPlacement()
}

func (a *api) GetWorkflowBeta1(context.Context, *runtimev1.GetWorkflowRequest) (*runtimev1.GetWorkflowResponse, error) {
	return nil, withoutPlacement()
}

func (a *api) StartWorkflowBeta1(context.Context, *runtimev1.StartWorkflowRequest) (*runtimev1.StartWorkflowResponse, error) {
	return nil, withoutPlacement()
}

func (a *api) PurgeWorkflowBeta1(context.Context, *runtimev1.PurgeWorkflowRequest) (*emptypb.Empty, error) {
	return nil, withoutPlacement()
}

func (a *api) TerminateWorkflowBeta1(context.Context, *runtimev1.TerminateWorkflowRequest) (*emptypb.Empty, error) {
	return nil, withoutPlacement()
}

func (a *api) PauseWorkflowBeta1(context.Context, *runtimev1.PauseWorkflowRequest) (*emptypb.Empty, error) {
	return nil, withoutPlacement()
}

func (a *api) ResumeWorkflowBeta1(context.Context, *runtimev1.ResumeWorkflowRequest) (*emptypb.Empty, error) {
	return nil, withoutPlacement()
}

func (a *api) RaiseEventWorkflowBeta1(context.Context, *runtimev1.RaiseEventWorkflowRequest) (*emptypb.Empty, error) {
	return nil, withoutPlacement()
}

func (a *api) GetWorkflowAlpha1(context.Context, *runtimev1.GetWorkflowRequest) (*runtimev1.GetWorkflowResponse, error) {
	return nil, withoutPlacement()
}

func (a *api) StartWorkflowAlpha1(context.Context, *runtimev1.StartWorkflowRequest) (*runtimev1.StartWorkflowResponse, error) {
	return nil, withoutPlacement()
}

func (a *api) PurgeWorkflowAlpha1(context.Context, *runtimev1.PurgeWorkflowRequest) (*emptypb.Empty, error) {
	return nil, withoutPlacement()
}

func (a *api) TerminateWorkflowAlpha1(context.Context, *runtimev1.TerminateWorkflowRequest) (*emptypb.Empty, error) {
	return nil, withoutPlacement()
}

func (a *api) PauseWorkflowAlpha1(context.Context, *runtimev1.PauseWorkflowRequest) (*emptypb.Empty, error) {
	return nil, withoutPlacement()
}

func (a *api) ResumeWorkflowAlpha1(context.Context, *runtimev1.ResumeWorkflowRequest) (*emptypb.Empty, error) {
	return nil, withoutPlacement()
}

func (a *api) RaiseEventWorkflowAlpha1(context.Context, *runtimev1.RaiseEventWorkflowRequest) (*emptypb.Empty, error) {
	return nil, withoutPlacement()
}

func (a *api) ScheduleJob(_ context.Context, in *runtimev1.ScheduleJobRequest) (*runtimev1.ScheduleJobResponse, error) {
	return nil, a.s.noSchedule(in.GetJob())
}

func (a *api) ScheduleJobAlpha1(_ context.Context, in *runtimev1.ScheduleJobRequest) (*runtimev1.ScheduleJobResponse, error) {
	return nil, a.s.noSchedule(in.GetJob())
}

func (a *api) GetJob(_ context.Context, in *runtimev1.GetJobRequest) (*runtimev1.GetJobResponse, error) {
	return nil, a.s.noJob("get job", "GET_JOB", in.GetName())
}

func (a *api) GetJobAlpha1(_ context.Context, in *runtimev1.GetJobRequest) (*runtimev1.GetJobResponse, error) {
	return nil, a.s.noJob("get job", "GET_JOB", in.GetName())
}

func (a *api) DeleteJob(_ context.Context, in *runtimev1.DeleteJobRequest) (*runtimev1.DeleteJobResponse, error) {
	return nil, a.s.noJob("delete job", "DELETE_JOB", in.GetName())
}

func (a *api) DeleteJobAlpha1(_ context.Context, in *runtimev1.DeleteJobRequest) (*runtimev1.DeleteJobResponse, error) {
	return nil, a.s.noJob("delete job", "DELETE_JOB", in.GetName())
}

func (a *api) DeleteJobsByPrefix(context.Context, *runtimev1.DeleteJobsByPrefixRequest) (*runtimev1.DeleteJobsByPrefixResponse, error) {
	return nil, a.s.noJobs("delete job", "DELETE_JOB")
}

func (a *api) DeleteJobsByPrefixAlpha1(context.Context, *runtimev1.DeleteJobsByPrefixRequestAlpha1) (*runtimev1.DeleteJobsByPrefixResponseAlpha1, error) {
	return nil, a.s.noJobs("delete job", "DELETE_JOB")
}

func (a *api) ListJobs(context.Context, *runtimev1.ListJobsRequest) (*runtimev1.ListJobsResponse, error) {
	return nil, a.s.noJobs("list jobs", "LIST_JOBS")
}

func (a *api) ListJobsAlpha1(context.Context, *runtimev1.ListJobsRequestAlpha1) (*runtimev1.ListJobsResponseAlpha1, error) {
	return nil, a.s.noJobs("list jobs", "LIST_JOBS")
}
