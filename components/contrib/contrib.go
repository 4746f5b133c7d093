// Package contrib makes state stores, brokers, locks, bindings, configuration stores, HTTP middleware, crypto providers and
// conversations of github.com/dapr/components-contrib backends of the runtime, under the type names and with the metadata that Dapr gives them:
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
// Retries are the lanes': those of a client library are off unless the manifest asks for them. Errors become faults, and Close
// waits for the calls and goroutines there are. Where the library's own code cannot keep a promise of ours and the server can,
// the missing part is here: Redis applies batches by one script and its locks have leases, tokens and a line (redisstate.go,
// redislock.go). A NATS server is pulled from (jetstream.go). Kafka is spoken to by a client of our choice, which commits no
// further than the app has handled (kafkareader.go), and MQTT by one that has a session for each subscription (mqttlink.go). The bindings of HTTP, RabbitMQ, Kafka and MQTT are ours (httpbinding.go,
// rabbitbinding.go, kafkabinding.go, mqttbinding.go). Each reading of a binding has a connection of its own and ends with it,
// once the events at work have been handled.
//
// # What is not promised
//
// A store of a SQL database keeps whole seconds of a time to live, rounded up, and refuses a batch that mixes checks with
// writes (NOT_SUPPORTED), because the library has no such transaction. It neither lists nor watches. PostgreSQL's of version 1
// can be queried, by statements of ours (statequery.go): what is said to be JSON is kept as such there, and comes back in
// PostgreSQL's words.
//
// No broker of this package delays a message, and none but Kafka and MQTT keeps the order of a key. A new group of Kafka begins
// at what is published from then on unless `initialOffset` is oldest, as with a daprd; but what it finds in a partition that was
// added later it reads from its start. Redis, RabbitMQ and MQTT push to the library, and Kafka is read ahead, and that is what
// the rest is about. Such a broker hands out only what was asked for, but holds a bounded number of messages in this process
// until then, where other instances do not see them. It counts attempts and paces redelivery within the process: after a
// restart all of that begins anew. Nothing is lost by it: a message stays the server's until the app has handled it, see tap.
// RabbitMQ and MQTT carry no header and no key beside an event's envelope, and an exchange without queues, or a topic without
// sessions, keeps nothing.
package contrib

import (
	"regexp"
	"slices"
	"sync"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/components/datasheet"
)

// onFirstUse is a regular expression that takes no memory before it is used: most programs use no component that has one.
func onFirstUse(text string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(text) })
}

// namesOf are the types of known, in their versions.
func namesOf(known []components.Component) map[datasheet.Name]bool {
	names := make(map[datasheet.Name]bool, len(known))
	for _, c := range known {
		names[datasheet.Name{Type: c.Type(), Version: c.Version()}] = true
	}
	return names
}

// All lists the components that this package makes in every build.
func All() []components.Component {
	all := []components.Component{
		redisState, postgresV1, postgresV2, sqliteState, sqliteState.As("sqlite3"), mysqlState, etcdV1, etcdV2, memcachedState, mongoState,
		postgresV1.As("postgres"), postgresV2.As("postgres"), postgresV2.As("cockroachdb"), postgresV2.As("yugabyte"), postgresV2.As("yugabytedb"),
		redisPubSub, rabbitPubSub, kafkaPubSub, jetstreamPubSub, mqttPubSub, mqttPubSub.As("mqtt"),
		redisLock,
		redisConfiguration, postgresConfiguration, postgresConfigurationShort,
		httpBinding, localStorageBinding, redisBinding, postgresBinding, postgresBinding.As("postgres"), mysqlBinding, cronBinding, rabbitBinding,
		kafkaBinding, smtpBinding, mqttBinding, mqttBinding.As("mqtt"),
	}
	return slices.Concat(all, middleware, heavyMiddleware, keyrings, conversations)
}
