// Package contrib makes state stores, brokers, locks, bindings, configuration stores, HTTP middleware and crypto providers of
// github.com/dapr/components-contrib backends of the runtime, under
// the type names and with the metadata that Dapr gives them:
//
//	apiVersion: dapr.io/v1alpha1
//	kind: Component
//	metadata: {name: statestore}
//	spec:
//	  type: state.redis
//	  version: v1
//	  metadata:
//	    - {name: redisHost, value: "localhost:6379"}
//
// The library reads the settings itself; this package knows their names, so that one that is misspelt is told with its
// line. Data is laid out as a daprd lays it out: both may use one server at the same time.
//
// # What is added
//
// Retries are the lanes': those of a client library are off unless the manifest asks for them. Errors become faults, and
// Close waits for the calls and goroutines there are. Where the library's own code cannot keep a promise of ours and the
// server can, the missing part is here: Redis applies batches by one script and its locks have leases, tokens and a line
// (redisstate.go, redislock.go). A NATS server is pulled from (jetstream.go). The bindings of HTTP, RabbitMQ and
// MQTT are ours (httpbinding.go, rabbitbinding.go, mqttbinding.go). Each reading of a binding has a connection of its own and ends with it, once the events at work have been
// handled.
//
// # What is not promised
//
// A store of a SQL database keeps whole seconds of a time to live, rounded up, and refuses a batch that mixes checks with
// writes (NOT_SUPPORTED), because the library has no such transaction. It neither lists nor watches. PostgreSQL's of version 1
// can be queried, by statements of ours (statequery.go): what is said to be JSON is kept as such there, and comes back in
// PostgreSQL's words.
//
// No broker of this package keeps the order of a key or delays a message. Redis and RabbitMQ push to the library, and that
// is what the rest is about. Such a broker hands out only what was asked for, but holds a bounded number of messages in
// this process until then, where other instances do not see them. It counts attempts and paces redelivery within the
// process: after a restart all of that begins anew. Nothing is lost by it: a message stays the server's until the app has
// handled it, see tap. RabbitMQ carries no header and no key beside an event's envelope, and an exchange without queues
// keeps nothing.
package contrib

import (
	"slices"

	"github.com/sidecast/sidecast/components"
)

// All lists the components that this package makes.
func All() []components.Component {
	all := []components.Component{
		redisState, postgresV1, postgresV2, sqliteState,
		redisPubSub, rabbitPubSub, jetstreamPubSub,
		redisLock,
		redisConfiguration, postgresConfiguration, postgresConfigurationShort,
		httpBinding, localStorageBinding, redisBinding, postgresBinding, cronBinding, rabbitBinding, smtpBinding, mqttBinding,
	}
	return slices.Concat(all, middleware, heavyMiddleware, keyrings)
}
