package contrib

import (
	"slices"

	"github.com/sidecast/sidecast/components"
)

// kafkaCommon are the keys of both components of Kafka. Plain numbers of durations are seconds.
func kafkaCommon() []components.Field {
	return slices.Concat([]components.Field{
		field("brokers", "string", "Addresses of servers, host:port, separated by commas.", needed),
		field("clientID", "string", "What the servers call the client in their logs.", standard("sarama")),
		field("version", "string", "Version of the servers' protocol to keep to: like 2.0.0. Left out, it is agreed upon with each server."),
		field("initialOffset", "string", "Where a new group begins: at what is published from then on, or at the oldest message kept.", standard("newest"), oneOf("newest", "oldest")),
		field("maxMessageBytes", "int", "Most bytes of a message; 0 is 1 MiB.", standard("0"), within("0", "1000000000")),
		field("heartbeatInterval", span, "How often a member of a group says that it is there.", standard("3s")),
		field("sessionTimeout", span, "How long it may be silent until others take its place.", standard("10s")),
		field("consumerGroupRebalanceStrategy", "string", "How partitions are shared out among the members of a group, which must agree on it.", standard("range"), oneOf("range", "sticky", "roundrobin")),
		field("channelBufferSize", "int", "Most messages of a partition in this process that wait, are at work, or are handled while an earlier one is not.", standard("256"), within("1", "10000")),
		field("consumerFetchMin", "int", "Least bytes that a server waits for before it answers.", standard("1"), within("1", "1000000000")),
		field("consumerFetchDefault", "int", "About the most bytes of a partition that it answers with.", standard("1048576"), within("1", "1000000000")),
		field("producerRequiredAcks", "string", "Who must have a message before it is published: all replicas in sync, the leader alone, or nobody, which loses messages.", standard("all"), oneOf("all", "local", "none")),
		field("producerRetryMax", "int", "How often the client itself repeats a write, out of sight of the lane's policy.", standard("0"), within("0", "100")),
		field("compression", "string", "How messages are compressed.", standard("none"), oneOf("none", "gzip", "snappy", "lz4", "zstd")),
		field("clientConnectionTopicMetadataRefreshInterval", span, "How often the servers are asked for their topics; also what keeps connections alive.", standard("8m")),
		field("clientConnectionKeepAliveInterval", span, "How often an idle connection is probed; 0 is the system's 15s.", standard("0")),
		field("dialTimeout", span, "How long connecting may take.", standard("30s")),
		field("readTimeout", span, "How long an answer may take beyond what the request allows.", standard("30s")),
		field("writeTimeout", span, "Accepted and without effect: readTimeout is for both."),
		field("metadataTimeout", span, "How long an answer may take where readTimeout is 0."),
		field("consumeRetryEnabled", "bool", "Accepted, and always true: what the app has not handled comes again.", standard("true")),
		field("consumeRetryInterval", span, "Accepted and without effect: the pace is the lane's."),
		field("escapeHeaders", "bool", "Escape the values of headers and the key as in a URL, when they come.", standard("false")),
		field("excludeHeaderMetaRegex", "string", "Metadata and headers whose names match are neither sent as headers nor taken from them."),
		field("schemaRegistryURL", "string", "URL of the schema registry for values in Avro."),
		field("schemaRegistryAPIKey", "string", "User of the registry."),
		field("schemaRegistryAPISecret", "string", "Password of that user.", hidden),
		field("schemaCachingEnabled", "bool", "Remember schemas.", standard("true")),
		field("schemaLatestVersionCacheTTL", span, "How long the latest schema of a topic is remembered.", standard("5m")),
		field("useAvroJSON", "bool", "The JSON of values in Avro is that of Avro's specification, not plain JSON.", standard("false")),
	}, kafkaAuth())
}

func kafkaFields() []components.Field {
	return slices.Concat([]components.Field{
		field("consumerGroup", "string", "Consumer group of subscriptions that name none; goes before consumerID.", also("groupID")),
		field("consumeOrder", "string", "What is kept in order: the messages of a key, or all of a partition. Those of others are handled side by side.", standard("key"), oneOf("key", "partition")),
	}, kafkaCommon())
}

func kafkaAuth() []components.Field {
	return []components.Field{
		field("authType", "string", "How to sign in.", oneOf("none", "password", "mtls", "certificate", "oidc", "oidc_private_key_jwt", "awsiam")),
		field("authRequired", "bool", "Older than authType: true is password where saslPassword is given and else mtls, false is none."),
		field("disableTls", "bool", "Do not encrypt the connection.", standard("false")),
		field("skipVerify", "bool", "Do not check the servers' certificates: for tests alone.", standard("false")),
		field("caCert", "string", "Certificate of the authority that signed the servers', in PEM.", hidden),
		field("clientCert", "string", "Certificate to present to the servers, in PEM.", hidden),
		field("clientKey", "string", "Key of that certificate, in PEM.", hidden),
		field("saslUsername", "string", "User, with authType password."),
		field("saslPassword", "string", "Password of the user.", hidden),
		field("saslMechanism", "string", "How the password is proven.", standard("PLAINTEXT"), oneOf("PLAINTEXT", "SHA-256", "SHA-512")),
		field("oidcTokenEndpoint", "string", "URL that tokens are asked for at, with authType oidc or oidc_private_key_jwt."),
		field("oidcClientID", "string", "The client's name there."),
		field("oidcClientSecret", "string", "The client's secret there, with authType oidc.", hidden),
		field("oidcScopes", "string", "Scopes to ask for, separated by commas.", standard("openid")),
		field("oidcExtensions", "string", "Extensions that the servers are told with the token, an object of texts in JSON."),
		field("oidcClientAssertionCert", "string", "Certificate of the client, in PEM, with authType oidc_private_key_jwt.", hidden),
		field("oidcClientAssertionKey", "string", "Key of that certificate, in PEM.", hidden),
		field("oidcResource", "string", "Resource that the token is asked for."),
		field("oidcAudience", "string", "Audience of the client's assertion; left out, the token endpoint."),
		field("oidcKid", "string", "Name of the key that signs the assertion."),
		field("region", "string", "Region of AWS, with authType awsiam.", also("awsRegion")),
		field("accessKey", "string", "Access key of AWS; left out, the credentials of the machine.", hidden, also("awsAccessKey")),
		field("secretKey", "string", "Secret of that key.", hidden, also("awsSecretKey")),
		field("sessionToken", "string", "Token of temporary credentials.", hidden, also("awsSessionToken")),
		field("assumeRoleArn", "string", "Role to take.", also("awsIamRoleArn")),
		field("sessionName", "string", "Name of the session in that role.", standard("DaprDefaultSession"), also("awsStsSessionName")),
		field("trustAnchorArn", "string", "Trust anchor of IAM Roles Anywhere."),
		field("trustProfileArn", "string", "Profile of IAM Roles Anywhere."),
	}
}
