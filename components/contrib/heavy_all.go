//go:build all_components

package contrib

import (
	"slices"

	"github.com/dapr/components-contrib/middleware/http/opa"
	"github.com/dapr/components-contrib/middleware/http/sentinel"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/components/datasheet"
)

// heavyMiddleware are in builds with the tag all_components alone: OPA and WASM for
// their size, Sentinel because its rules and log files are one set for the whole process.
var heavyMiddleware = []components.Component{
	middlewareOf("opa", "Decides about requests by a policy in Rego (Open Policy Agent).", func() []components.Field {
		return []components.Field{
			field("rego", "string", "The policy: package http, which sets allow to a truth value or to an object.", needed),
			field("defaultStatus", "int", "Status of a refusal that names none.", standard("403"), within("100", "599")),
			field("includedHeaders", "string", "Header fields that the policy sees, separated by commas."),
			field("readBody", "bool", "Lets the policy see the body, which is read as a whole for that.", standard("false")),
		}
	}, opa.NewMiddleware, nil),
	middlewareOf("sentinel", "Limits and breaks by rules of Alibaba's Sentinel, which are one set for the whole process.", func() []components.Field {
		return []components.Field{
			field("appName", "string", "What Sentinel calls the app.", needed),
			field("logDir", "string", "Folder of Sentinel's own log files; left out, logs/csp in the user's home."),
			field("flowRules", "string", "Rules in JSON that limit the rate of requests. A resource is a method and a path: POST:/v1.0/publish/pubsub/orders."),
			field("circuitBreakerRules", "string", "Rules in JSON that break circuits: by the ratio of slow answers, or by the ratio or number of those of 500 and above."),
			field("hotSpotParamRules", "string", "Rules in JSON that limit by parameter. Requests have none for Sentinel: they limit nothing."),
			field("isolationRules", "string", "Rules in JSON that bound what runs at once."),
			field("systemRules", "string", "Rules in JSON that protect the whole system."),
		}
	}, sentinel.NewMiddleware, errorsToo),
	wasmMiddleware,
}

// Rest makes those known that components-contrib has and known lacks.
func Rest(known []components.Component) []components.Component {
	var all []components.Component
	had := namesOf(known)
	for _, c := range slices.Concat(allState, allBrokers, allBindings, allSecrets, allOthers, allConversations) {
		if !had[datasheet.Name{Type: c.Type(), Version: c.Version()}] { // it may have one of its own by now
			all = append(all, c)
		}
	}
	return all
}
