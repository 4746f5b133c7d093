package compat

import "strings"

// SDKCase is one case of a program that uses a published Dapr SDK, and what it shows to work.
type SDKCase struct {
	// Name is that of the test, below the SDK's.
	Name string
	// Shows are routes of the HTTP API (`GET /v1.0/…`), RPCs of the gRPC API (`SaveState`), and what the sidecar calls of an app
	// (`AppCallback/OnInvoke`, `GET /dapr/subscribe`).
	Shows []string
}

// Routes and RPCs, by what they are for.
var (
	invokes = shows{
		"http": "GET /v1.0/invoke/{appID}/method/{method}, POST /v1.0/invoke/{appID}/method/{method}, PUT /v1.0/invoke/{appID}/method/{method}, " +
			"PATCH /v1.0/invoke/{appID}/method/{method}, DELETE /v1.0/invoke/{appID}/method/{method}",
		"grpc": "InvokeService",
	}
	invoked   = shows{"http": "", "grpc": "AppCallback/OnInvoke"}
	saves     = shows{"http": "POST /v1.0/state/{storeName}", "grpc": "SaveState"}
	gets      = shows{"http": "GET /v1.0/state/{storeName}/{key}", "grpc": "GetState"}
	getsBulk  = shows{"http": "POST /v1.0/state/{storeName}/bulk", "grpc": "GetBulkState"}
	deletes   = shows{"http": "DELETE /v1.0/state/{storeName}/{key}", "grpc": "DeleteState"}
	transacts = shows{"http": "POST /v1.0/state/{storeName}/transaction", "grpc": "ExecuteStateTransaction"}
	queries   = shows{"http": "POST /v1.0-alpha1/state/{storeName}/query", "grpc": "QueryStateAlpha1"}
	publishes = shows{"http": "POST /v1.0/publish/{pubsubname}/{topic}", "grpc": "PublishEvent"}
	delivers  = shows{"http": "GET /dapr/subscribe, POST {route}", "grpc": "AppCallback/ListTopicSubscriptions, AppCallback/OnTopicEvent"}
	bulks     = shows{"http": "POST /v1.0-alpha1/publish/bulk/{pubsubname}/{topic}", "grpc": "BulkPublishEventAlpha1"}
	inBulk    = shows{"http": "GET /dapr/subscribe, POST {route}", "grpc": "AppCallback/ListTopicSubscriptions, AppCallbackAlpha/OnBulkTopicEventAlpha1"}
	locks     = shows{"http": "POST /v1.0-alpha1/lock/{storeName}", "grpc": "TryLockAlpha1"}
	unlocks   = shows{"http": "POST /v1.0-alpha1/unlock/{storeName}", "grpc": "UnlockAlpha1"}
	describes = shows{"http": "GET /v1.0/metadata", "grpc": "GetMetadata"}
	labels    = shows{"http": "PUT /v1.0/metadata/{key}", "grpc": "SetMetadata"}
	shutdown  = shows{"http": "POST /v1.0/shutdown", "grpc": "Shutdown"}
	unserved  = shows{"http": "GET /v1.0/secrets/{secretStoreName}/{key}, POST /v1.0/bindings/{name}", "grpc": "GetSecret, InvokeBinding"}
)

// shows holds, for each protocol, routes or RPCs with commas between.
type shows map[string]string

func (s shows) over(protocol string) []string {
	if s[protocol] == "" {
		return nil
	}
	return strings.Split(s[protocol], ", ")
}

// sdkCases makes cases one by one.
type sdkCases []SDKCase

// add notes a case; over is what it shows, each over the protocol that follows it.
func (c *sdkCases) add(name string, over ...any) {
	one := SDKCase{Name: name}
	for i := 0; i < len(over); i += 2 {
		one.Shows = append(one.Shows, over[i].(shows).over(over[i+1].(string))...)
	}
	*c = append(*c, one)
}

// JavaScriptSDKCases are those of jssdk.
func JavaScriptSDKCases() []SDKCase {
	var all sdkCases
	protocols := []string{"http", "grpc"}
	for _, from := range protocols {
		for _, to := range protocols {
			name := "invocation/" + from + "-" + to + "/"
			for _, what := range []string{"verbs", "a large body", "errors"} {
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
		all.add(name+"errors", saves, p, gets, p, getsBulk, p, deletes, p, transacts, p, queries, p)
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
	for _, p := range protocols {
		all.add("lock/"+p+"/lock and unlock", locks, p, unlocks, p)
		all.add("lock/"+p+"/expiry", locks, p, unlocks, p)
		all.add("lock/"+p+"/errors", locks, p, unlocks, p)
		all.add("control/"+p+"/metadata", describes, p, labels, p)
		all.add("control/"+p+"/health", describes, p)
		all.add("control/"+p+"/token", describes, p, saves, p, gets, p)
		all.add("control/"+p+"/not served", unserved, p)
		all.add("control/"+p+"/shutdown", shutdown, p)
	}
	return all
}
