package access

import "strings"

// APIRule names a part of Dapr's API: `state`, `v1`, `http`.
type APIRule struct{ Name, Version, Protocol string }

// APIs says which parts of Dapr's API are served. The nil APIs serve all.
type APIs struct {
	allowedHTTP, deniedHTTP []APIRule
	allowedGRPC, deniedGRPC map[string]bool // full methods
}

// NewAPIs makes APIs of lists as a Configuration has them. What is denied is not served; where something is allowed for a
// protocol, nothing else is. Names that no part has allow and deny nothing.
func NewAPIs(allowed, denied []APIRule) *APIs {
	a := &APIs{
		allowedHTTP: overHTTP(allowed), deniedHTTP: overHTTP(denied), allowedGRPC: overGRPC(allowed), deniedGRPC: overGRPC(denied),
	}
	if len(a.allowedHTTP)+len(a.deniedHTTP)+len(a.allowedGRPC)+len(a.deniedGRPC) == 0 {
		return nil
	}
	return a
}

func overHTTP(rules []APIRule) (kept []APIRule) {
	for _, r := range rules {
		if strings.EqualFold(r.Protocol, "http") {
			kept = append(kept, r)
		}
	}
	return kept
}

func overGRPC(rules []APIRule) map[string]bool {
	methods := map[string]bool{}
	for _, r := range rules {
		if r.Protocol != "grpc" {
			continue
		}
		for _, method := range strings.Fields(grpcParts[r.Name+"."+r.Version]) {
			methods[grpcService+method] = true
		}
	}
	return methods
}

// HTTP says whether the route of a path such as v1.0/state/{storeName} is served. Health checks always are.
func (a *APIs) HTTP(path string) bool {
	if a == nil || path == "v1.0/healthz" || path == "v1.0/healthz/outbound" {
		return true
	}
	return !named(a.deniedHTTP, path) && (len(a.allowedHTTP) == 0 || named(a.allowedHTTP, path))
}

// named says whether one of rules names the route of a path: by its name and version, or, as older files do, by the
// beginning of the path.
func named(rules []APIRule, path string) bool {
	version, route, _ := strings.Cut(path, "/")
	name, _, _ := strings.Cut(route, "/")
	short := strings.Replace(strings.Replace(version, "-", "", 1), ".0", "", 1) // v1.0-alpha1 is v1alpha1
	for _, r := range rules {
		if r.Name == name && r.Version == short || strings.HasPrefix(path, r.Version+"/"+r.Name) {
			return true
		}
	}
	return false
}

// GRPC says whether a full method is served. Those of other services than Dapr's always are.
func (a *APIs) GRPC(method string) bool {
	if a == nil || !strings.HasPrefix(method, "/dapr.proto.runtime.") {
		return true
	}
	return !a.deniedGRPC[method] && (len(a.allowedGRPC) == 0 || a.allowedGRPC[method])
}

const grpcService = "/dapr.proto.runtime.v1.Dapr/"

// grpcParts are the methods of each part of the gRPC API, of v1.18. It is how Dapr's Configuration names them.
var grpcParts = map[string]string{
	"invoke.v1":        "InvokeService",
	"state.v1":         "GetState GetBulkState SaveState DeleteState DeleteBulkState ExecuteStateTransaction",
	"state.v1alpha1":   "QueryStateAlpha1",
	"publish.v1":       "PublishEvent BulkPublishEvent",
	"publish.v1alpha1": "BulkPublishEventAlpha1",
	"bindings.v1":      "InvokeBinding",
	"secrets.v1":       "GetSecret GetBulkSecret",
	"actors.v1": "RegisterActorTimer UnregisterActorTimer RegisterActorReminder GetActorReminder UnregisterActorReminder " +
		"UnregisterActorRemindersByType ListActorReminders GetActorState ExecuteActorStateTransaction InvokeActor",
	"actors.v1alpha1":        "SubscribeActorEventsAlpha1",
	"metadata.v1":            "GetMetadata SetMetadata",
	"configuration.v1alpha1": "GetConfigurationAlpha1 SubscribeConfigurationAlpha1 UnsubscribeConfigurationAlpha1",
	"configuration.v1":       "GetConfiguration SubscribeConfiguration UnsubscribeConfiguration",
	"lock.v1alpha1":          "TryLockAlpha1",
	"unlock.v1alpha1":        "UnlockAlpha1",
	"subtlecrypto.v1alpha1": "SubtleGetKeyAlpha1 SubtleEncryptAlpha1 SubtleDecryptAlpha1 SubtleSignAlpha1 SubtleVerifyAlpha1 " +
		"SubtleWrapKeyAlpha1 SubtleUnwrapKeyAlpha1",
	"crypto.v1alpha1": "EncryptAlpha1 DecryptAlpha1",
	"workflows.v1alpha1": "StartWorkflowAlpha1 GetWorkflowAlpha1 TerminateWorkflowAlpha1 RaiseEventWorkflowAlpha1 PurgeWorkflowAlpha1 " +
		"PauseWorkflowAlpha1 ResumeWorkflowAlpha1",
	"workflows.v1beta1": "StartWorkflowBeta1 GetWorkflowBeta1 TerminateWorkflowBeta1 RaiseEventWorkflowBeta1 PurgeWorkflowBeta1 " +
		"PauseWorkflowBeta1 ResumeWorkflowBeta1",
	"jobs.v1alpha1":         "ScheduleJobAlpha1 DeleteJobAlpha1 GetJobAlpha1 DeleteJobsByPrefixAlpha1 ListJobsAlpha1",
	"jobs.v1":               "ScheduleJob DeleteJob GetJob DeleteJobsByPrefix ListJobs",
	"shutdown.v1":           "Shutdown",
	"subscribe.v1alpha1":    "SubscribeTopicEventsAlpha1",
	"conversation.v1alpha1": "ConverseAlpha1",
	"conversation.v1alpha2": "ConverseAlpha2",
}
