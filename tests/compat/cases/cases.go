// Package cases names what the programs in jssdk and pysdk show with the published Dapr SDKs, so that the page of what is
// compatible can say which test shows it. A program that runs another set of cases than is named here fails its test.
package cases

import "strings"

// Case is one case of a program.
type Case struct {
	// Name is that of the test, below the SDK's.
	Name string
	// Shows are routes of the HTTP API (`GET /v1.0/…`), RPCs of the gRPC API (`SaveState`), and what the sidecar calls of an app
	// (`AppCallback/OnInvoke`, `GET /dapr/subscribe`).
	Shows []string
	// Absent says that what it shows of them is that they are not served.
	Absent bool
	// Postgres says that it needs a server of PostgreSQL.
	Postgres bool
}

// Routes and RPCs, by what they are for.
var (
	invokes = shows{
		"http": "GET /v1.0/invoke/{appID}/method/{method}, POST /v1.0/invoke/{appID}/method/{method}, PUT /v1.0/invoke/{appID}/method/{method}, " +
			"PATCH /v1.0/invoke/{appID}/method/{method}, DELETE /v1.0/invoke/{appID}/method/{method}",
		"grpc": "InvokeService",
	}
	proxies     = shows{"grpc": "any service by dapr-app-id"}
	invoked     = shows{"http": "", "grpc": "AppCallback/OnInvoke"}
	saves       = shows{"http": "POST /v1.0/state/{storeName}", "grpc": "SaveState"}
	gets        = shows{"http": "GET /v1.0/state/{storeName}/{key}", "grpc": "GetState"}
	getsBulk    = shows{"http": "POST /v1.0/state/{storeName}/bulk", "grpc": "GetBulkState"}
	deletes     = shows{"http": "DELETE /v1.0/state/{storeName}/{key}", "grpc": "DeleteState"}
	transacts   = shows{"http": "POST /v1.0/state/{storeName}/transaction", "grpc": "ExecuteStateTransaction"}
	queries     = shows{"http": "POST /v1.0-alpha1/state/{storeName}/query", "grpc": "QueryStateAlpha1"}
	publishes   = shows{"http": "POST /v1.0/publish/{pubsubname}/{topic}", "grpc": "PublishEvent"}
	delivers    = shows{"http": "GET /dapr/subscribe, POST {route}", "grpc": "AppCallback/ListTopicSubscriptions, AppCallback/OnTopicEvent"}
	bulks       = shows{"http": "POST /v1.0-alpha1/publish/bulk/{pubsubname}/{topic}", "grpc": "BulkPublishEventAlpha1"}
	bulksStable = shows{"grpc": "BulkPublishEvent"}
	streams     = shows{"grpc": "SubscribeTopicEventsAlpha1"}
	inBulk      = shows{"http": "GET /dapr/subscribe, POST {route}", "grpc": "AppCallback/ListTopicSubscriptions, AppCallbackAlpha/OnBulkTopicEventAlpha1"}
	locks       = shows{"http": "POST /v1.0-alpha1/lock/{storeName}", "grpc": "TryLockAlpha1"}
	unlocks     = shows{"http": "POST /v1.0-alpha1/unlock/{storeName}", "grpc": "UnlockAlpha1"}
	describes   = shows{"http": "GET /v1.0/metadata", "grpc": "GetMetadata"}
	outbound    = shows{"http": "GET /v1.0/healthz/outbound"}
	checked     = shows{"http": "GET /healthz", "grpc": "AppCallbackHealthCheck/HealthCheck"}
	labels      = shows{"http": "PUT /v1.0/metadata/{key}", "grpc": "SetMetadata"}
	shutdown    = shows{"http": "POST /v1.0/shutdown", "grpc": "Shutdown"}
	secrets     = shows{"http": "GET /v1.0/secrets/{secretStoreName}/{key}, GET /v1.0/secrets/{secretStoreName}/bulk", "grpc": "GetSecret, GetBulkSecret"}
	settings    = shows{"grpc": "GetConfiguration"}
	follows     = shows{"grpc": "SubscribeConfiguration, UnsubscribeConfiguration"}
	followsOld  = shows{"grpc": "SubscribeConfigurationAlpha1, UnsubscribeConfiguration"}
	talksOld    = shows{"grpc": "ConverseAlpha1"}
	talks       = shows{"grpc": "ConverseAlpha2"}
	binds       = shows{"http": "POST /v1.0/bindings/{name}", "grpc": "InvokeBinding"}
	bound       = shows{"http": "OPTIONS /{binding}, POST /{binding}", "grpc": "AppCallback/ListInputBindings, AppCallback/OnBindingEvent"}
)

// shows holds, for each protocol, routes or RPCs with commas between.
type shows map[string]string

func (s shows) over(protocol string) []string {
	if s[protocol] == "" {
		return nil
	}
	return strings.Split(s[protocol], ", ")
}

// list is cases in the order in which they run.
type list []Case

// add notes a case; over is what it shows, each over the protocol that follows it.
func (l *list) add(name string, over ...any) {
	one := Case{Name: name}
	for i := 0; i < len(over); i += 2 {
		one.Shows = append(one.Shows, over[i].(shows).over(over[i+1].(string))...)
	}
	*l = append(*l, one)
}

// postgres is add for what needs PostgreSQL.
func (l *list) postgres(name string, over ...any) {
	l.add(name, over...)
	(*l)[len(*l)-1].Postgres = true
}

// JavaScript are those of jssdk.
func JavaScript() []Case {
	var all list
	protocols := []string{"http", "grpc"}
	for _, from := range protocols {
		for _, to := range protocols {
			name := "invocation/" + from + "-" + to + "/"
			for _, what := range []string{"verbs", "text and bytes", "a large body", "errors"} {
				all.add(name+what, invokes, from, invoked, to)
			}
			if from == "http" && to == "http" {
				all.add(name+"headers and query", invokes, from, invoked, to)
			}
		}
	}
	for _, p := range protocols {
		name := "state/" + p + "/"
		all.add(name+"save and get", saves, p, gets, p)
		all.add(name+"bulk", saves, p, getsBulk, p)
		all.add(name+"etags", saves, p, deletes, p, getsBulk, p)
		all.add(name+"delete", deletes, p)
		all.add(name+"ttl", saves, p, gets, p)
		all.add(name+"transaction", transacts, p)
		all.postgres(name+"query", queries, p)
		all.add(name+"errors", saves, p, gets, p, getsBulk, p, deletes, p, transacts, p)
	}
	for _, to := range protocols {
		for _, from := range protocols {
			name := "pubsub/" + from + "-" + to + "/"
			for _, what := range []string{"publish", "cloud events", "raw payload", "routes", "retry", "drop", "dead letters"} {
				all.add(name+what, publishes, from, delivers, to)
			}
			all.add(name+"bulk", bulks, from, delivers, to)
			all.add(name+"bulk subscription", bulks, from, inBulk, to)
			all.add(name+"errors", publishes, from, bulks, from)
		}
	}
	for _, to := range protocols {
		all.add("binding/"+to+"/send", binds, to)
		all.add("binding/"+to+"/receive", bound, to)
	}
	for _, p := range protocols {
		all.add("lock/"+p+"/lock and unlock", locks, p, unlocks, p)
		all.add("lock/"+p+"/expiry", locks, p, unlocks, p)
		all.add("lock/"+p+"/errors", locks, p, unlocks, p)
		all.add("secrets/"+p+"/get and get bulk", secrets, p)
		all.add("secrets/"+p+"/errors", secrets, p)
		if p == "grpc" {
			all.add("configuration/get", settings, p)
			all.add("configuration/subscribe", follows, p)
		}
		all.add("control/"+p+"/metadata", describes, p, labels, p)
		all.add("control/"+p+"/health", describes, p)
		if p == "http" {
			all.add("control/http/app health", checked, p)
		}
		all.add("control/"+p+"/token", describes, p, saves, p, gets, p)
		all.add("control/"+p+"/shutdown", shutdown, p)
	}
	return all
}

// Python are those of pysdk.
func Python() []Case {
	var all list
	apps := []struct{ name, protocol string }{{"grpc", "grpc"}, {"fastapi", "http"}, {"flask", "http"}}
	for _, from := range []string{"http", "grpc"} {
		for _, to := range apps {
			for _, what := range []string{"verbs", "headers", "a large body", "errors"} {
				all.add("invocation/"+from+"-"+to.name+"/"+what, invokes, from, invoked, to.protocol)
			}
		}
	}
	for _, kind := range []string{"unary", "server stream", "client stream", "both stream", "errors"} {
		all.add("invocation/proxy/"+kind, proxies, "grpc")
	}
	all.add("invocation/default client", invokes, "http")
	all.add("state/save and get", saves, "grpc", gets, "grpc")
	all.add("state/bulk", saves, "grpc", getsBulk, "grpc")
	all.add("state/etags", saves, "grpc", gets, "grpc", deletes, "grpc")
	all.add("state/delete", deletes, "grpc")
	all.add("state/ttl", saves, "grpc", gets, "grpc")
	all.add("state/transaction", transacts, "grpc")
	all.postgres("state/query", queries, "grpc")
	all.add("state/errors", saves, "grpc", gets, "grpc", getsBulk, "grpc", deletes, "grpc", transacts, "grpc")
	for _, to := range apps {
		for _, what := range []string{"publish", "cloud events", "raw payload", "retry", "drop", "dead letters"} {
			all.add("pubsub/"+to.name+"/"+what, publishes, "grpc", delivers, to.protocol)
		}
		all.add("pubsub/"+to.name+"/bulk", bulksStable, "grpc", delivers, to.protocol)
	}
	all.add("pubsub/grpc/routes", publishes, "grpc", delivers, "grpc")
	all.add("pubsub/errors", publishes, "grpc", bulksStable, "grpc")
	for _, what := range []string{"success and retry", "unanswered", "drop and dead letter", "handler", "errors"} {
		all.add("streams/"+what, streams, "grpc")
	}
	all.add("binding/invoke", binds, "grpc")
	for _, to := range apps {
		all.add("binding/"+to.name, bound, to.protocol)
	}
	for _, what := range []string{"lock and unlock", "expiry", "errors"} {
		all.add("lock/"+what, locks, "grpc", unlocks, "grpc")
	}
	all.add("secrets/get and get bulk", secrets, "grpc")
	all.add("secrets/errors", secrets, "grpc")
	all.add("configuration/get", settings, "grpc")
	all.add("configuration/subscribe", followsOld, "grpc")
	all.add("conversation/alpha1", talksOld, "grpc")
	all.add("conversation/alpha2", talks, "grpc")
	all.add("async/state, lock, metadata", saves, "grpc", gets, "grpc", locks, "grpc", unlocks, "grpc", describes, "grpc")
	all.add("async/invocation", invokes, "http")
	all.add("async/streams", streams, "grpc", publishes, "grpc")
	all.add("control/metadata", describes, "grpc", labels, "grpc")
	all.add("control/health", outbound, "http")
	all.add("control/app health", checked, "http", checked, "grpc")
	all.add("control/token", describes, "grpc", saves, "grpc")
	all.add("control/shutdown", shutdown, "grpc")
	return all
}
