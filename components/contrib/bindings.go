package contrib

import (
	"slices"
	"strings"

	contribbindings "github.com/dapr/components-contrib/bindings"
	"github.com/dapr/components-contrib/bindings/cron"
	"github.com/dapr/components-contrib/bindings/localstorage"
	"github.com/dapr/components-contrib/bindings/postgres"
	"github.com/dapr/components-contrib/bindings/rabbitmq"
	"github.com/dapr/components-contrib/bindings/redis"
	"github.com/dapr/components-contrib/bindings/smtp"
	"github.com/dapr/kit/logger"

	"github.com/sidecast/sidecast/components"
)

var (
	cronBinding = (&system{
		input: cron.NewCron, fields: []components.Field{
			field("schedule", "string", "When: `@every 10s`, `@daily`, or six or five fields of cron, the first of six the seconds: `0 30 * * * *`.", needed),
		},
	}).component("cron", "Events at set times. Each instance of an app has its own; what fails is not repeated.")

	localStorageBinding = (&system{
		output: localstorage.NewLocalStorage, fields: []components.Field{
			field("rootPath", "string", "Folder that the files are in.", needed),
		},
	}).component("localstorage", "Files in a folder of this machine: create, get, list and delete, by the metadata fileName.")

	redisBinding = (&system{
		output: redis.NewRedis, fields: slices.Concat(redisFields, redisLegacy, azureFields),
		settle: func(values map[string]string, s components.Settings, _ bool) {
			if s.Given("maxRetries") && !s.Given("redisMaxRetries") {
				delete(values, "redisMaxRetries") // the default would hide the older name
			}
		},
	}).component("redis", "Keys of Redis or a server that speaks its protocol: create, get, delete and increment, by the metadata key.")

	// The library closes its connection for good when it is asked for the operation close, under the calls there are.
	postgresBinding = (&system{
		output: postgres.NewPostgres, fields: postgresBindingFields, done: []string{"close"},
	}).component("postgresql", "Statements of SQL in PostgreSQL: exec and query, by the metadata sql and params. Its operation close has nothing to do.")

	rabbitBinding = (&system{
		output: func(l logger.Logger) contribbindings.OutputBinding { return rabbitmq.NewRabbitMQ(l) },
		input:  func(l logger.Logger) contribbindings.InputBinding { return rabbitmq.NewRabbitMQ(l) },
		fields: rabbitBindingFields,
	}).component("rabbitmq", "A queue of RabbitMQ: create writes to it, and its messages are events, one after the other. The server does not confirm what is written.")

	// The library keeps what a request says in its settings, for all requests to come.
	smtpBinding = (&system{
		output: smtp.NewSMTP, fresh: true, fields: []components.Field{
			field("host", "string", "Host of the mail server.", needed),
			field("port", "int", "Port of the mail server; on 465 TLS comes first.", needed, within("1", "65535")),
			field("user", "string", "User of the mail server."),
			field("password", "string", "Password of the user.", hidden),
			field("skipTLSVerify", "bool", "Do not check the server's certificate: for tests alone.", standard("false")),
			field("emailFrom", "string", "Sender, where the metadata of a request names none."),
			field("emailTo", "string", "Receivers, separated by semicolons, where the metadata of a request names none."),
			field("emailCC", "string", "Receivers of a copy."),
			field("emailBCC", "string", "Receivers of a copy whom the others do not see."),
			field("subject", "string", "Subject, where the metadata of a request names none."),
			field("priority", "int", "Priority, from 1 for the highest to 5.", standard("3"), within("1", "5")),
		},
	}).component("smtp", "Mail, in HTML, by way of a mail server: create sends one.")
)

var postgresBindingFields = slices.Concat(slices.DeleteFunc(slices.Clone(postgresFields), func(f components.Field) bool {
	return f.Key == "metadataTableName" || f.Key == "cleanupInterval" || f.Key == "useAWSIAM" || // the library does not sign in so
		strings.HasPrefix(f.Key, "aws") || strings.HasPrefix(f.Key, "assumeRole")
}), azureFields)

var rabbitBindingFields = []components.Field{
	field("host", "string", "URL of the server: amqp://user:password@host:5672.", needed, hidden),
	field("queueName", "string", "Name of the queue, which is declared.", needed),
	field("durable", "bool", "The queue outlives a restart of the server.", standard("false")),
	field("deleteWhenUnused", "bool", "The queue goes with its last reader.", standard("false")),
	field("exclusive", "bool", "The queue is of one connection and goes with it: for one direction alone.", standard("false")),
	field("prefetchCount", "int", "Most messages that wait in this process; 0 is all that there are.", standard("100"), within("0", "65535")),
	field("maxPriority", "int", "Makes the queue one of priorities up to this.", within("1", "255")),
	field("ttl", "duration", "How long the queue keeps a message; left out, for ever.", also("ttlInSeconds")),
	field("reconnectWaitInSeconds", "duration", "Pause before a lost connection is made again.", standard("5s")),
	field("contentType", "string", "Accepted and without effect, as with daprd: the metadata contentType of a request says it."),
	field("caCert", "string", "Certificate of the authority that signed the server's, in PEM.", hidden),
	field("clientCert", "string", "Certificate to present to the server, in PEM.", hidden),
	field("clientKey", "string", "Key of that certificate, in PEM.", hidden),
	field("saslExternal", "bool", "Sign in by the client's certificate.", standard("false"), also("externalSasl")),
}
