package contrib

import (
	"slices"

	"github.com/sidecast/sidecast/components"
)

// field describes one key of the library's metadata. Its text goes to the library as it is: `span` is a text there, for a
// duration whose plain numbers have a unit of the component's own.
func field(key, typ, doc string, options ...func(*components.Field)) components.Field {
	if typ == span {
		typ = "string"
	}
	f := components.Field{Key: key, Type: typ, Doc: doc}
	for _, option := range options {
		option(&f)
	}
	return f
}

const span = "span"

func needed(f *components.Field) { f.Required = true }
func hidden(f *components.Field) { f.Secret = true }

func standard(text string) func(*components.Field) {
	return func(f *components.Field) { f.Default = text }
}

func also(names ...string) func(*components.Field) {
	return func(f *components.Field) { f.Aliases = names }
}

func oneOf(texts ...string) func(*components.Field) {
	return func(f *components.Field) { f.OneOf = texts }
}

func within(low, high string) func(*components.Field) {
	return func(f *components.Field) { f.Min, f.Max = low, high }
}

// redisFields are the keys of every component of Redis. Durations without a unit are milliseconds.
func redisFields() []components.Field {
	return []components.Field{
		field("redisHost", "string", "Address of the server, host:port; several, separated by commas, for a cluster or Sentinel."),
		field("redisPort", "int", "Port of a redisHost that has none.", within("0", "65535")),
		field("redisUsername", "string", "User of the server's access list."),
		field("redisPassword", "string", "Password of the user.", hidden),
		field("redisDB", "int", "Number of the database. A cluster has only 0.", standard("0")),
		field("redisType", "string", "A single server (or Sentinel), or a cluster.", standard("node"), oneOf("node", "cluster")),
		field("enableTLS", "bool", "Encrypt the connection.", standard("false")),
		field("insecureSkipTLSVerify", "bool", "Do not check the server's certificate: for tests alone.", standard("false")),
		field("clientCert", "string", "Certificate to present to the server, in PEM.", hidden),
		field("clientKey", "string", "Key of that certificate, in PEM.", hidden),
		field("failover", "bool", "redisHost names Sentinels, which tell who the master is.", standard("false")),
		field("sentinelMasterName", "string", "What the Sentinels call the master."),
		field("sentinelUsername", "string", "User at the Sentinels."),
		field("sentinelPassword", "string", "Password at the Sentinels.", hidden),
		field("redisMaxRetries", "int", "How often the client itself repeats a command, out of sight of the lane's policy; -1 is never.", standard("-1")),
		field("redisMinRetryInterval", span, "Least pause before such a repetition: like 8ms, or a number of milliseconds."),
		field("redisMaxRetryInterval", span, "Longest pause before such a repetition: like 2s, or a number of milliseconds."),
		field("dialTimeout", span, "How long connecting may take: like 5s, or a number of milliseconds."),
		field("readTimeout", span, "How long an answer may take: like 3s, or a number of milliseconds; -1 is for ever."),
		field("writeTimeout", span, "How long sending may take: like 3s, or a number of milliseconds."),
		field("poolSize", "int", "Most connections; 0 is ten for each processor.", standard("0")),
		field("poolTimeout", span, "How long a call waits for a connection when all are in use: like 4s, or a number of milliseconds."),
		field("minIdleConns", "int", "Connections kept open without work.", standard("0")),
		field("maxConnAge", span, "Age at which a connection is closed: like 1h, or a number of milliseconds; left out, never."),
		field("idleTimeout", span, "How long a connection may idle: like 5m, or a number of milliseconds; -1 is for ever."),
		field("idleCheckFrequency", span, "How often idle connections are looked for: like 1m, or a number of milliseconds."),
		field("useEntraID", "bool", "Sign in with Microsoft Entra ID instead of a password.", standard("false"), also("useAzureAD")),
	}
}

// redisLegacy are keys of older manifests of state stores and locks.
func redisLegacy() []components.Field {
	return []components.Field{
		field("processingTimeout", span, "Accepted and without effect, as with daprd: it is for brokers."),
		field("redeliverInterval", span, "Accepted and without effect, as with daprd: it is for brokers."),
		field("maxRetries", "int", "Older name of redisMaxRetries."),
		field("maxRetryBackoff", "int", "Older form of redisMinRetryInterval, in nanoseconds."),
	}
}

// azureFields are for those that sign in with Microsoft Entra ID.
func azureFields() []components.Field {
	return []components.Field{
		field("azureTenantId", "string", "Tenant of the Entra ID application.", also("spnTenantId", "tenantId")),
		field("azureClientId", "string", "The application, or the managed identity.", also("spnClientId", "clientId")),
		field("azureClientSecret", "string", "Secret of the application.", hidden, also("spnClientSecret", "clientSecret")),
		field("azureCertificate", "string", "Certificate of the application, with its key.", hidden, also("spnCertificate")),
		field("azureCertificateFile", "string", "File that holds that certificate.", also("spnCertificateFile")),
		field("azureCertificatePassword", "string", "Password of that certificate.", hidden, also("spnCertificatePassword")),
		field("azureEnvironment", "string", "Which of Azure's clouds.", also("azureCloud")),
		field("azureAuthMethods", "string", "Ways to sign in, tried in order, separated by commas.", also("azureADAuthMethods", "entraIDAuthMethods", "microsoftEntraIDAuthMethods")),
	}
}

// postgresServer are the keys that say where a PostgreSQL is and who asks.
func postgresServer() []components.Field {
	return []components.Field{
		field("connectionString", "string", "URL or key=value list of the database, as libpq reads them.", hidden, also("url")),
		field("host", "string", "Host, where the connection string names none."),
		field("hostaddr", "string", "Address of the host, to look no name up."),
		field("port", "string", "Port of the server."),
		field("database", "string", "Name of the database."),
		field("user", "string", "User of the database."),
		field("password", "string", "Password of the user.", hidden),
		field("sslRootCert", "string", "File with the certificates of the authorities that may have signed the server's."),
	}
}

// postgresFields are the keys of both versions of state.postgresql.
func postgresFields() []components.Field {
	return slices.Concat(postgresServer(), []components.Field{
		field("metadataTableName", "string", "Table for the component's own notes; may name a schema.", standard("dapr_metadata")),
		field("timeout", "duration", "How long one statement may take; a second or more.", standard("20s"), also("timeoutInSeconds")),
		field("cleanupInterval", "duration", "How often expired items are removed; 0 or less is never.", standard("1h"), also("cleanupIntervalInSeconds")),
		field("connectionMaxIdleTime", "duration", "How long a connection may idle; 0 is the driver's 30 minutes.", standard("0")),
		field("maxConns", "int", "Most connections; 0 is four, or one for each processor if that is more.", standard("0")),
		field("queryExecMode", "string", "How the driver sends statements: a mode of pgx, for connection poolers that keep no prepared ones."),
		field("useAzureAD", "bool", "Sign in with Microsoft Entra ID.", standard("false")),
		field("useAWSIAM", "bool", "Sign in with AWS IAM.", standard("false")),
		field("awsRegion", "string", "AWS region.", also("region")),
		field("awsAccessKey", "string", "AWS access key.", hidden, also("accessKey")),
		field("awsSecretKey", "string", "AWS secret key.", hidden, also("secretKey")),
		field("awsSessionToken", "string", "AWS session token.", hidden, also("sessionToken")),
		field("assumeRoleArn", "string", "AWS role to take."),
		field("assumeRoleSessionName", "string", "Name of the session in that role.", also("sessionName")),
	})
}

func postgresV1Fields() []components.Field {
	return slices.Concat(postgresFields(), []components.Field{
		field("tableName", "string", "Table that holds the items; may name a schema.", standard("state")),
	}, azureFields())
}

func postgresV2Fields() []components.Field {
	return slices.Concat(postgresFields(), []components.Field{
		field("tablePrefix", "string", "What the name of the table starts with; may name a schema, with its dot."),
	}, azureFields())
}

func sqliteFields() []components.Field {
	return []components.Field{
		field("connectionString", "string", "File of the database, or a file: URI of it; :memory: is one that ends with the sidecar.", needed, also("url")),
		field("tableName", "string", "Table that holds the items.", standard("state")),
		field("metadataTableName", "string", "Table for the component's own notes.", standard("metadata")),
		field("timeout", "duration", "How long one statement may take; a second or more.", standard("20s"), also("timeoutInSeconds")),
		field("busyTimeout", "duration", "How long a writer waits for another process's lock.", standard("2s")),
		field("cleanupInterval", "duration", "How often expired items are removed; 0 is never.", standard("0"), also("cleanupIntervalInSeconds")),
		field("disableWAL", "bool", "Keep no write-ahead log: for files on a network.", standard("false")),
	}
}

func redisStateFields() []components.Field {
	return slices.Concat(redisFields(), redisLegacy(), []components.Field{
		field("ttlInSeconds", "int", "Time to live of items that are written without one; left out, they stay."),
		field("queryIndexes", "string", "Search indexes to create when the component opens, in JSON; needs the server's search module."),
	}, azureFields())
}

func redisLockFields() []components.Field {
	return slices.Concat(redisFields(), redisLegacy(), azureFields())
}

// redisConfigurationFields: the library writes no transaction, and knows no older names here.
func redisConfigurationFields() []components.Field {
	return slices.Concat(redisFields(), azureFields())
}

func postgresConfigurationFields() []components.Field {
	return slices.Concat(postgresServer(), []components.Field{
		field("table", "string", "Table that holds the settings.", needed),
		field("notifyChannel", "string", "Channel that the table's trigger notifies; left out, subscriptions name it as `pgNotifyChannel`."),
		field("timeout", "duration", "How long connecting may take; a second or more.", standard("20s")),
		field("connectionMaxIdleTime", "duration", "How long a connection may idle; 0 is the driver's 30 minutes.", standard("0")),
		field("connMaxIdleTime", "duration", "Older name of connectionMaxIdleTime."),
		field("maxConns", "int", "Most connections beside one for each subscription; 0 is four, or one for each processor if that is more.", standard("0")),
		field("queryExecMode", "string", "How the driver sends statements: a mode of pgx, for connection poolers that keep no prepared ones."),
		field("useAzureAD", "bool", "Sign in with Microsoft Entra ID.", standard("false")),
	}, azureFields())
}

func redisPubSubFields() []components.Field {
	return slices.Concat(redisFields(), []components.Field{
		field("processingTimeout", span, "How long a message may be at work before the server's list of pending ones gives it out again: like 60s, or a number of milliseconds; 0 is never.", standard("60s")),
		field("redeliverInterval", span, "How often that list is looked through: like 15s, or a number of milliseconds; 0 is never.", standard("15s")),
		field("queueDepth", "int", "Most messages read from the server ahead of their delivery.", standard("100"), within("1", "100000")),
		field("concurrency", "int", "Most deliveries of a subscription at once.", standard("10"), within("1", "10000")),
		field("maxLenApprox", "int", "About how many messages a stream keeps; 0 is all.", standard("0")),
		field("streamTTL", "duration", "How long a stream keeps messages; 0 is for ever.", standard("0")),
	}, azureFields())
}

func rabbitFields() []components.Field {
	return []components.Field{
		field("concurrency", "string", "Whether the library takes several messages of a subscription at once.", standard("parallel"), oneOf("parallel", "single")),
		field("connectionString", "string", "URL of the server: amqp://user:password@host:5672.", hidden, also("host")),
		field("protocol", "string", "Without a connection string: the protocol.", oneOf("amqp", "amqps")),
		field("hostname", "string", "Without a connection string: the host.", standard("localhost")),
		field("username", "string", "User of the server."),
		field("password", "string", "Password of the user.", hidden),
		field("durable", "bool", "Exchanges and queues outlive a restart of the server.", standard("true")),
		field("deletedWhenUnused", "bool", "A queue goes with its last subscriber, and its messages with it. Dapr's default is true: a server that its sidecars use too wants to be told so.", standard("false")),
		field("autoAck", "bool", "The server forgets a message when it sends it: what is at work when the sidecar dies is lost.", standard("false")),
		field("requeueInFailure", "bool", "Accepted, and always true: a message that is given back comes again.", standard("true")),
		field("enableDeadLetter", "bool", "Declare a dead-letter exchange for what queues drop by age or length.", standard("false")),
		field("deliveryMode", "int", "2 writes messages to disk, 0 and 1 do not.", standard("2"), within("0", "2")),
		field("prefetchCount", "int", "Most messages of a subscription in this process; 0 is 255.", standard("100"), within("0", "255")),
		field("reconnectWaitSeconds", "duration", "Pause before a lost connection is made again.", standard("3s")),
		field("reconnectWait", "string", "Accepted, for Dapr's examples have it, and without effect, as with Dapr."),
		field("concurrencyMode", "string", "Deliver messages side by side, or one after the other.", standard("parallel"), oneOf("parallel", "single")),
		field("exchangeKind", "string", "Kind of the exchange of a topic.", standard("fanout"), oneOf("fanout", "topic", "direct", "headers")),
		field("publisherConfirm", "bool", "Accepted, and always true: a publish answers when the server has the message.", standard("true")),
		field("maxLen", "int", "Most messages of a queue; 0 is no limit.", standard("0")),
		field("maxLenBytes", "int", "Most bytes of a queue; 0 is no limit.", standard("0")),
		field("ttlInSeconds", "int", "How long a queue keeps a message; left out, for ever."),
		field("clientName", "string", "What the server's console calls the connection."),
		field("heartBeat", "duration", "How often the connection proves to be alive.", standard("10s")),
		field("publishMessagePropertiesToMetadata", "bool", "Subscribers are told the AMQP properties of a message: metadata.messageid, metadata.correlationid, metadata.contenttype, metadata.type and the headers, metadata.{name}.", standard("false")),
		field("caCert", "string", "Certificate of the authority that signed the server's, in PEM.", hidden),
		field("clientCert", "string", "Certificate to present to the server, in PEM.", hidden),
		field("clientKey", "string", "Key of that certificate, in PEM.", hidden),
		field("saslExternal", "bool", "Sign in by the client's certificate.", standard("false")),
	}
}

func jetstreamFields() []components.Field {
	return []components.Field{
		field("natsURL", "string", "URL of the NATS server: nats://host:4222.", needed),
		field("jwt", "string", "User JWT, with seedKey.", hidden),
		field("seedKey", "string", "Seed of the user's key.", hidden),
		field("token", "string", "Token of the server.", hidden),
		field("tls_client_cert", "string", "File with the certificate to present to the server."),
		field("tls_client_key", "string", "File with the key of that certificate."),
		field("name", "string", "What the server calls the connection.", standard("dapr.io - pubsub.jetstream")),
		field("streamName", "string", "Stream of the topics; left out, the one that has the topic as a subject."),
		field("durableName", "string", "Durable consumer; left out, one for the consumer group and topic. Where a daprd made one of that name, one with -pull behind it goes on where that was."),
		field("queueGroupName", "string", "Part of the consumer's name where durableName is left out: the members of a queue group share messages."),
		field("startSequence", "int", "First message of a new consumer, with deliverPolicy sequence."),
		field("startTime", "int", "First message of a new consumer, in seconds since 1970, with deliverPolicy time."),
		field("deliverPolicy", "string", "Where a new consumer starts.", standard("all"), oneOf("all", "last", "new", "sequence", "time")),
		field("ackPolicy", "string", "Accepted, and always explicit: what the app has not handled comes again.", standard("explicit"), oneOf("explicit", "all", "none")),
		field("ackWait", "duration", "How long the server waits for an acknowledgement; 0 is what the subscription says.", standard("0")),
		field("maxDeliver", "int", "How often the server delivers a message; 0 is without end.", standard("0")),
		field("backOff", "string", "Pauses between deliveries by the server, separated by commas: 1s,5s."),
		field("maxAckPending", "int", "Most deliveries the server waits for; 0 is its 1000.", standard("0")),
		field("flowControl", "bool", "Accepted, and without effect: messages are sent only when they are asked for.", standard("false")),
		field("heartbeat", "duration", "Accepted, and without effect, like flowControl.", standard("0")),
		field("rateLimit", "int", "Accepted, and without effect, like flowControl.", standard("0")),
		field("replicas", "int", "Copies of the consumer; 0 is as many as its stream has.", standard("0")),
		field("memoryStorage", "bool", "Keep the consumer in memory.", standard("false")),
		field("domain", "string", "JetStream domain."),
		field("apiPrefix", "string", "Prefix of JetStream's API."),
		field("concurrencyMode", "string", "Deliver messages side by side, or one after the other.", standard("parallel"), oneOf("parallel", "single")),
	}
}
