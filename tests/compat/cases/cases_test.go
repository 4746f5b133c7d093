package cases

import (
	"strings"
	"testing"

	runtimev1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"google.golang.org/grpc"
)

func TestWhatCasesShowIsInDaprsProtocol(t *testing.T) {
	known := map[string]bool{}
	note := func(prefix string, desc grpc.ServiceDesc) {
		for _, m := range desc.Methods {
			known[prefix+m.MethodName] = true
		}
		for _, s := range desc.Streams {
			known[prefix+s.StreamName] = true
		}
	}
	note("", runtimev1.Dapr_ServiceDesc)
	note("AppCallback/", runtimev1.AppCallback_ServiceDesc)
	note("AppCallbackAlpha/", runtimev1.AppCallbackAlpha_ServiceDesc)
	note("AppCallbackHealthCheck/", runtimev1.AppCallbackHealthCheck_ServiceDesc)
	for sdk, all := range map[string][]Case{"JavaScript": JavaScript(), "Python": Python()} {
		names := map[string]bool{}
		for _, c := range all {
			if names[c.Name] {
				t.Errorf("%s: two cases are named %s", sdk, c.Name)
			}
			names[c.Name] = true
			if len(c.Shows) == 0 {
				t.Errorf("%s: %s shows nothing", sdk, c.Name)
			}
			for _, what := range c.Shows {
				verb, _, route := strings.Cut(what, " /")
				if !route && verb != "POST {route}" && !known[what] && what != "any service by dapr-app-id" {
					t.Errorf("%s: %s shows %s, which Dapr has not", sdk, c.Name, what)
				}
			}
		}
	}
}
