//go:build all_components

package contrib

import (
	"github.com/dapr/components-contrib/middleware/http/opa"
	"github.com/dapr/components-contrib/middleware/http/sentinel"
	"github.com/dapr/components-contrib/middleware/http/wasm"

	"github.com/sidecast/sidecast/components"
)

// heavyMiddleware are in builds with the tag all_components alone: OPA for its size, Sentinel because its rules and log files
// are one set for the whole process, WASM because the library neither closes a module nor keeps the output of two requests
// apart.
var heavyMiddleware = []components.Component{
	middlewareOf("opa", "Decides about requests by a policy in Rego (Open Policy Agent).", []components.Field{
		field("rego", "string", "The policy: package http, which sets allow to a truth value or to an object.", needed),
		field("defaultStatus", "int", "Status of a refusal that names none.", standard("403"), within("100", "599")),
		field("includedHeaders", "string", "Header fields that the policy sees, separated by commas."),
		field("readBody", "bool", "Lets the policy see the body, which is read as a whole for that.", standard("false")),
	}, opa.NewMiddleware, nil),
	middlewareOf("sentinel", "Limits and breaks by rules of Alibaba's Sentinel, which are one set for the whole process.", []components.Field{
		field("appName", "string", "What Sentinel calls the app.", needed),
		field("logDir", "string", "Folder of Sentinel's own log files."),
		field("flowRules", "string", "Rules in JSON that limit the rate of requests."),
		field("circuitBreakerRules", "string", "Rules in JSON that break circuits."),
		field("hotSpotParamRules", "string", "Rules in JSON that limit by parameter."),
		field("isolationRules", "string", "Rules in JSON that bound what runs at once."),
		field("systemRules", "string", "Rules in JSON that protect the whole system."),
	}, sentinel.NewMiddleware, nil),
	middlewareOf("wasm", "Passes requests through a WebAssembly module of the http-wasm interface.", []components.Field{
		field("url", "string", "Where the module is: file://, http:// or https://.", needed),
		field("guestConfig", "string", "What the module is told, as it is."),
	}, wasm.NewMiddleware, nil),
}
