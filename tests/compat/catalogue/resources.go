package catalogue

func behaviour() Area {
	return Area{ID: "behaviour", Title: "Behaviour", What: "Where", Intro: "What no single route, flag or key is about. Differences are meant: daprd would lose or distort something there.", Rows: []Row{
		differs("an event that is answered RETRY, or whose delivery fails", "compat.TestRoutesVerdictsAndDeadLetters, compat.TestInboundRetriesComeBeforeDeadLetters, compat.TestPoliciesOfOthersDoNotApply",
			"Comes back until it is handled or dead-lettered, on every broker. Name a dead-letter topic where an event may be given up."),
		differs("stored messages that are no CloudEvents", "compat.TestRoutesVerdictsAndDeadLetters", "Are handed over, wrapped as raw payloads are, where daprd fails them for ever."),
		differs("events of a media type that is neither text nor JSON, to gRPC apps", "compat.TestGRPCAppsSubscribe", "Come with their data."),
		differs("routing rules that are no CEL, or about anything but event", "routing.TestBadRulesAreErrors", "Are refused when they are read, and the other subscriptions stay. Correct the rule that the log names."),
		differs("bulks for an app with --app-max-concurrency", "compat.TestBulksAreNoLargerThanWhatTheAppTakesAtOnce", "Are no larger than that. Raise it for larger bulks."),
		differs("races of ETags and locks", "natsstore.TestConformance, badgerstore.TestConformance, natslock.TestLocker, memorylock.TestLocker", "One wins, always, on every store of Sidecast's own."),
		differs("calls that a limit refuses", "compat.TestPoliciesGuardInvocation", "Answer 429 with Retry-After, or RESOURCE_EXHAUSTED with RetryInfo, and the error code of the route. daprd has no such limits; none is on unless a document or flag sets it."),
		differs("resource files with mistakes", "e2e.TestAWrongPolicyKeepsASidecarFromStarting, components.TestLint", "Keep the sidecar from starting, with file, line and key. `sidecast lint DIR` tells them beforehand."),
		differs("files that change", "compat.TestFilesAreReadAgain, compat.TestAConfigurationIsReadAgain, compat.TestTracesGoWhereAChangedConfigurationSays, compat.TestComponentsAreReadAgainWhileCallsRun, "+
			"compat.TestSubscriptionsAreReadAgainWhileEventsCome, compat.TestPoliciesAreReadAgainWhileCallsRun, compat.TestEndpointsAreReadAgainWhileCallsRun, components.TestReloadLetsCallsInFlightFinish, components.TestSecretsAreFollowedWhileThatIsAsked",
			"Resources of every kind are taken into use at once and while calls run, where daprd starts anew for Configuration, Resiliency and HTTPEndpoint. Only whether metrics are served, and what `spec.metrics` says of how (paths, buckets, rules, error codes), takes a restart, as the log then says."),
		differs("files that change and have a mistake", "compat.TestAWrongChangeIsRefusedAsAWhole", "Change nothing at all; the log, `sidecast status` and the entry `sidecastWarnings` of the extended metadata say what is wrong, with file, line and key, until it is corrected."),
		differs("SIGHUP", "compat.TestSIGHUPReadsFilesAgain", "Has all files read again, also with the feature HotReload off; nothing is stopped for it."),
		differs("sidecars of one machine", "compat.TestGroupsOnOneMachineAreApart", "Find each other with no name resolution. Give groups that shall be apart a SIDECAST_DATA_DIR each."),
		differs("sidecars of several machines", "cluster.TestAServerOfTheClusterIsLost", "Find each other over NATS: set SIDECAST_FABRIC to its URLs. Placement, scheduler, sentry and operator are not needed."),
		differs("sizes of events", "compat.TestSizesOfEvents, compat.TestSizesOfRequests, natspubsub.TestTooLarge", "The fabric's broker takes 8 MiB with the envelope, whatever --max-body-size says; one on a NATS cluster what that server's max_payload says, 1 MiB unless it is set. The error names both sizes. Raise max_payload, or put larger bodies into state and publish their key."),
		differs("limits of names", "blocks.TestStateRefusesWhatCannotBe, blocks.TestPublishRefusesWhatCannotBe", "Keys have at most 1024 bytes, topics 256. Shorten longer ones."),
		differs("policies of large HTTP bodies", "compat.TestPoliciesHoldForLargeBodies",
			"Timeouts hold until the answer begins. A call is made again as long as 8 MiB of its request are enough to do so; daprd keeps all of it in memory. [Resiliency](concepts/resiliency.md#retries)."),
		works("API tokens, both ways", "compat.TestTokensAreAskedForAndSent"),
		works("graceful shutdown", "compat.TestSignalsDrain, compat.TestBlockedShutdown"),
		works("CORS", "compat.TestCORS"),
		differs("trace context (W3C and binary) and baggage", "compat.TestTraceContextIsPassedOnInBothForms, compat.TestAnswersNameTheSpanOfTheCall",
			"Read, passed on and answered as daprd does; where there are spans, apps get that of their caller's sidecar as parent. A `tracestate` stays with its trace on gRPC, too, and a call without a trace begins one that is not sampled."),
		notYet("mTLS between sidecars", "NATS connections can have TLS; see the fabric's page."),
		differs("outbox", "compat.TestOutboxPublishesWhatTransactionsWrite, compat.TestOutboxLosesNothingWhenTheSidecarIsKilled", "Events are part of the transaction: [outbox](concepts/outbox.md)."),
		differs("encryption of state", "compat.TestStateIsEncrypted, sealed.TestFormat, sealed.TestWhatCannotBeOpened",
			"Values are stored in daprd's format, on every store: each reads what the other wrote. What is encrypted is what would have been stored, and events of an outbox come in the clear; daprd encrypts Go's notation of JSON that came over HTTP, and publishes what it encrypted. A value that was not encrypted, or with a key of another name, is an error of its own read, where daprd panics. Write such items again."),
		works("names of daprd's metrics", "compat.TestMetricsHaveDaprsNames", "Beside Sidecast's own: [metrics](reference/metrics.md). Of what is not there yet, such as actors and workflows, there are none; series of words that apps make up are at most 500, the others count as `_other`."),
		differs("the middleware opa, the middleware sentinel, the middleware wasm", "contrib.TestHeavyMiddleware", "In builds with `-tags all_components` alone: OPA for its size (10 MB), Sentinel because its rules are one set for the process, WASM because the library never closes a module."),
		notYet("pluggable components"),
		differs("HTTP middleware", "compat.TestPipelinesAreReadAgainWhileRequestsRun, compat.TestAMiddlewareThatCannotBeOpenedLetsNothingPass, pipeline.TestPanicsAreAnswered, "+
			"daprapi.TestMiddlewareSeesWhereRequestsGo, components.TestAPipelineIsToldOfAChangedSecret",
			"Components that change are taken into use while requests run. One that cannot be opened lets no request through (500), unless it says `ignoreErrors: true`; daprd does not start. One that the app does not have is passed over as by daprd, and the log says so. Before the API, what it sees of a path is where the request goes, without doubled slashes and dots, which lead around daprd's."),
	}}
}

func componentTypes() Area {
	return Area{ID: "types", Title: "Component types", What: "Type", Intro: "Metadata keys are those that the type takes; [components](reference/components.md) says what they mean. Other keys are errors, where daprd passes over them.", Rows: []Row{
		works("state.in-memory, state.memory", "compat.TestStateOverHTTP, memorystore.TestConformance, compat.TestStoresConform"),
		works("state.jetstream", "compat.TestKeyPrefixes, natsstore.TestConformance, compat.TestStoresConform"),
		works("state.badger", "badgerstore.TestConformance, compat.TestStoresConform"),
		differs("state.redis", "contrib.TestRedisState, contrib.TestRedisStateSharesItemsWithDapr, compat.TestStoresConform", "A batch is applied whole or not at all, and a delete checks its ETag. Queries and values as RedisJSON documents are not there yet. A daprd may share the server."),
		differs("state.postgresql", "contrib.TestPostgresV1State, contrib.TestPostgresStateOutlivesItsServer, contrib.TestPostgresQueries, compat.TestStoresConform", "What comes as JSON is kept as JSONB and can be queried, as daprd does; numbers and nesting that JSONB cannot hold are kept as bytes, where daprd fails. A time to live is rounded up to seconds; a transaction cannot check one item and write another."),
		differs("state.postgresql v2", "contrib.TestPostgresV2State", "As state.postgresql, but values are kept as bytes and there are no queries, as daprd does."),
		differs("state.sqlite", "contrib.TestSQLiteState, compat.TestStoresConform", "As state.postgresql v2."),
		works("pubsub.in-memory, pubsub.memory", "memorypubsub.TestConformance, compat.TestBrokersConform"),
		differs("pubsub.jetstream", "compat.TestRoutesVerdictsAndDeadLetters, natspubsub.TestConformance, compat.TestBrokersConform", "Without `natsURL` it is the fabric's: streams and consumers are Sidecast's, and daprd's keys for them do not exist. Leave them out."),
		differs("pubsub.jetstream with natsURL", "contrib.TestJetStreamPubSub, contrib.TestJetStreamGoesOnWhereTheConsumerOfADaprWas",
			"Messages are pulled: the consumer that a daprd made goes on under its name with `-pull`. `flowControl`, `heartbeat` and `rateLimit` do nothing, `ackPolicy` is always explicit."),
		differs("pubsub.redis", "contrib.TestRedisPubSub, contrib.TestRedisOutlivesItsServer, compat.TestBrokersConform", "A message that failed stays pending until it is handled, where daprd acknowledges it. Nothing to do."),
		differs("pubsub.rabbitmq", "contrib.TestRabbitPubSub, contrib.TestRabbitOutlivesItsServer, contrib.TestRabbitRoutesByKey, contrib.TestRabbitRoutingKeysAreWholeOrRefused, contrib.TestRabbitPriorities, contrib.TestRabbitQueueTypes, compat.TestMetadataForTheBroker, compat.TestBrokersConform",
			"`publisherConfirm` and `requeueInFailure` are always on; `deletedWhenUnused` is false unless it is set: set it where daprds share the server. Of one publish `routingKey` and `priority`, of one subscription `routingKey`, `queueType`, `maxPriority`, `queueName` and `singleActiveConsumer` are told to the server; `maxLen` and `maxLenBytes` of one subscription are refused, where daprd tries for ever: set them for the component. A `routingKey` of more than 255 bytes is refused, where daprd cuts it."),
		works("lock.in-memory, lock.memory", "compat.TestLocksOverHTTP, memorylock.TestLocker, compat.TestLocksConform"),
		works("lock.jetstream", "natslock.TestLocker, compat.TestLocksConform"),
		works("lock.badger", "badgerlock.TestLocker, compat.TestLocksConform"),
		works("lock.redis", "contrib.TestRedisLock, contrib.TestRedisLockExcludesDapr, compat.TestLocksConform", "A daprd may share the server: its locks and Sidecast's exclude each other."),
		differs("bindings.http", "compat.TestOutputBindings, contrib.TestHTTPBindingKeepsToItsLimits", "An answer larger than `maxResponseBodySize` is an error, where daprd cuts it short; `responseTimeout` bounds an operation, or five minutes. Raise the first where answers are larger."),
		works("bindings.localstorage", "compat.TestOutputBindings"),
		works("bindings.redis", "contrib.TestRedisBinding, contrib.TestBindingsOutliveTheirServers"),
		differs("bindings.postgresql", "contrib.TestPostgresBinding", "The operation `close` does nothing, where daprd's binding is of no use afterwards."),
		works("bindings.cron", "compat.TestInputBindingsOfHTTPApps, compat.TestInputBindingsOfGRPCApps"),
		differs("bindings.rabbitmq", "contrib.TestRabbitBinding, contrib.TestTheEndOfReadingWaitsForWhatIsAtWork, contrib.TestBindingsOutliveTheirServers",
			"An operation answers when the server has confirmed the message. `prefetchCount` is 100 unless it is set, and an event that fails comes again after a pause that grows with failures in a row. Set `prefetchCount` to 0 for daprd's way."),
		differs("bindings.mqtt3", "contrib.TestMQTTBinding, contrib.TestMQTTBindingOutlivesItsServer",
			"A message that fails comes again until it is handled, after a pause that grows; `backOffMaxRetries` does nothing. Where the server is away, an operation fails at once."),
		differs("bindings.smtp", "contrib.TestSMTPBinding", "What the metadata of one request says holds for that request alone."),
		works("secretstores.local.env", "envsecrets.TestSecret, compat.TestSecrets", "As `secretKeyRef`, a variable that is not set is an error."),
		differs("secretstores.local.file", "filesecrets.TestSecret, compat.TestSecrets, compat.TestChangedSecretsAreTaken",
			"A changed file counts at once. Numbers and truths are their text, where daprd gives out `%!s(float64=1)`; nulls are no secrets."),
		works("configuration.jetstream", "natsconfig.TestConformance, natsconfig.TestWatchOutlivesTheServer, compat.TestConfiguration", "Sidecast's: a key-value bucket on the fabric, written by `sidecast config set` or `nats kv put`."),
		differs("configuration.redis", "contrib.TestRedisConfiguration, contrib.TestRedisSettingsAreWhatDaprTakesForThem, contrib.TestRedisConfigurationOutlivesItsServer, compat.TestConfigurationOutlivesItsServer, contrib.TestAClusterOfRedisIsAskedForKeysByName",
			"Keys that are watched are also read every few seconds: Redis may lose a notification. On a cluster, keys must be named: daprd lists those of any one of its servers."),
		differs("configuration.postgresql, configuration.postgres", "contrib.TestPostgresConfiguration, contrib.TestPostgresSettingsHaveMetadataAndBadRequestsAreTold, contrib.TestPostgresConfigurationOutlivesItsServer",
			"Metadata of a read is passed over, where daprd makes a condition of it that nothing meets. Signing in with AWS IAM is not there yet: use a password."),
		works("middleware.http.bearer", "compat.TestPipelinesAskForTokens"),
		works("middleware.http.uppercase", "compat.TestPipelinesChangeBodies, uppercase.TestLettersCutInTwo"),
		works("middleware.http.routeralias, middleware.http.routerchecker", "compat.TestPipelinesLeadAndCheckPaths"),
		works("middleware.http.ratelimit", "compat.TestPipelinesLimitRequests, requestlimit.TestBucketsAreForgotten", "What is kept of addresses and paths is bounded, where daprd keeps all for ever."),
		differs("middleware.http.oauth2clientcredentials", "compat.TestPipelinesGetTokensForTheSidecar, contrib.TestTokensAreNotWaitedForForEver",
			"Without a token the answer is 502, where daprd answers 200 with nothing; one is waited for 30 seconds at most."),
		differs("middleware.http.oauth2", "compat.TestPipelinesHaveBrowsersSignIn, signin.TestSessionsAreBounded, signin.TestTheTokenTakesThePlaceOfTheClientsField, signin.TestBrowsersComeBackToTheSidecar",
			"What is kept of browsers that do not sign in is bounded; `forceHTTPS` keeps the host; a state that is not known is 400. The token takes the place of a field that the client has sent under its name, where daprd leaves that before it."),
		works("crypto.dapr.localstorage, crypto.dapr.jwks", "compat.TestCryptoOverHTTP, compat.TestCryptoStreams, contrib.TestKeyrings"),
		notYet("all other types of components-contrib"),
	}}
}

const reads = "components.TestLoad"

func component() Area {
	return Area{ID: "component", Title: "Component resources", What: "Key", Intro: "`apiVersion: dapr.io/v1alpha1`, `kind: Component`, in the folders of `--resources-path`.", Rows: []Row{
		works("metadata.name, metadata.labels", reads),
		works("metadata.namespace", "components.TestSetRefusesByName"),
		works("spec.type, spec.version", reads),
		works("spec.metadata.name, spec.metadata.value", "components.TestLoad, components.TestOpenChecksItsMetadata"),
		works("spec.metadata.secretKeyRef.name, spec.metadata.secretKeyRef.key, spec.metadata.envRef", "components.TestSecretReferences, components.TestAChangedSecretSwapsWhatTookIt, compat.TestChangedSecretsAreTaken",
			"Where the store tells of changes, as a file does, a component that took a changed secret is opened again. Without `auth.secretStore` a secret is an environment variable."),
		works("spec.initTimeout", "components.TestSetInitTimeout"),
		differs("spec.ignoreErrors", "components.TestSetKeepsTryingWhatCannotStart, components.TestSetStartOpensWhatIsRequired",
			"Every component is as with `true`: one that cannot start is tried again, and the sidecar runs without it. Set `spec.required: true` to have the sidecar not start."),
		works("auth.secretStore", "components.TestSecretReferences, components.TestReloadFollowsTheSecretStore"),
		works("scopes", "components.TestSetRefusesByName"),
		works("keyPrefix: appid, keyPrefix: name, keyPrefix: namespace, keyPrefix: none", "compat.TestKeyPrefixes", "Of state stores and locks."),
		works("allowedTopics, publishingScopes, subscriptionScopes, protectedTopics", "components.TestTopicsFollowTheirScopes, compat.TestBadPublishRequests", "Of brokers."),
		works("consumerID", "compat.TestConsumerIDNamesTheGroup", "Of brokers."),
		works("actorStateStore", "compat.TestMetadata", "Accepted; there are no actors yet."),
		differs("outboxPublishPubsub, outboxPublishTopic, outboxPubsub, outboxDiscardWhenMissingState", "compat.TestOutboxPublishesWhatTransactionsWrite", "The last two are accepted and without effect."),
		differs("primaryEncryptionKey, secondaryEncryptionKey", "components.TestValuesAreEncryptedWithTheKeysOfTheManifest, components.TestBadEncryptionKeysAreErrorsWithTheirPlace, compat.TestStateIsEncrypted",
			"Of state stores. A key that cannot be is an error, as is a secondary one alone, where daprd encrypts nothing; one that no `auth.secretStore` gives comes from the environment. Write keys as a secretKeyRef: its name is stored with each value."),
	}}
}

func subscription() Area {
	return Area{ID: "subscription", Title: "Subscription resources", What: "Key", Intro: "`dapr.io/v1alpha1` with `spec.route`, `dapr.io/v2alpha1` with `spec.routes`.", Rows: []Row{
		works("spec.pubsubname, spec.topic, spec.metadata, scopes", "compat.TestDeclaredSubscriptionsAndBulk"),
		works("spec.route", "compat.TestDeclaredSubscriptionsAndBulk", "Of v1alpha1."),
		works("spec.routes.rules.match, spec.routes.rules.path, spec.routes.default", "compat.TestDeclaredSubscriptionsAndBulk, routing.TestChooseTakesTheFirstRuleThatHolds", "Of v2alpha1."),
		works("spec.deadLetterTopic", "components.TestLoad, compat.TestRoutesVerdictsAndDeadLetters"),
		works("spec.bulkSubscribe.enabled, spec.bulkSubscribe.maxMessagesCount, spec.bulkSubscribe.maxAwaitDurationMs", "compat.TestDeclaredBulks"),
		works("spec.metadata.rawPayload", "components.TestLoad, compat.TestRoutesVerdictsAndDeadLetters"),
	}}
}

func resiliency() Area {
	const dapr = "governance.TestDaprPoliciesMeanWhatTheyMeanToDapr, governance.TestRead"
	return Area{ID: "resiliency", Title: "Resiliency resources", What: "Key", Intro: "Dapr's keys; [resiliency](reference/resiliency.md) has those that Sidecast adds.", Rows: []Row{
		works("spec.policies.timeouts", dapr+", compat.TestPoliciesGuardInvocation"),
		works("spec.policies.retries.policy, spec.policies.retries.duration, spec.policies.retries.maxInterval, spec.policies.retries.maxRetries", dapr+", e2e.TestDaprResiliency"),
		works("spec.policies.retries.matching.httpStatusCodes, spec.policies.retries.matching.gRPCStatusCodes", dapr+", compat.TestPoliciesGuardInvocation"),
		works("spec.policies.circuitBreakers.maxRequests, spec.policies.circuitBreakers.interval, spec.policies.circuitBreakers.timeout, spec.policies.circuitBreakers.trip", dapr+", compat.TestPoliciesGuardInvocation"),
		works("spec.targets.apps.timeout, spec.targets.apps.retry", "compat.TestPoliciesGuardInvocation"),
		differs("spec.targets.apps.circuitBreaker, spec.targets.apps.circuitBreakerCacheSize", "compat.TestPoliciesGuardInvocation, compat.TestBreakersSeeTheAnswersOfStreams, governance.TestRead",
			"One breaker guards all methods of an app, where daprd has one for each; the size of that cache is read and means nothing. Give a method a breaker of its own under `operations`."),
		works("spec.targets.components.inbound.timeout, spec.targets.components.inbound.retry, spec.targets.components.inbound.circuitBreaker", "compat.TestInboundRetriesComeBeforeDeadLetters, governance.TestRead"),
		works("spec.targets.components.outbound.timeout, spec.targets.components.outbound.retry, spec.targets.components.outbound.circuitBreaker", dapr),
		notYet("spec.targets.actors.timeout, spec.targets.actors.retry, spec.targets.actors.circuitBreaker, spec.targets.actors.circuitBreakerScope, spec.targets.actors.circuitBreakerCacheSize", "Read and checked; there are no actors yet."),
		works("scopes", "governance.TestScopesAndNamespacesSayWhomADocumentIsFor, compat.TestPoliciesOfOthersDoNotApply"),
		works("the built-in names, such as DefaultRetryPolicy", "governance.TestRead"),
	}}
}

func configuration() Area {
	const warned = "Read and checked; a warning names the file."
	return Area{ID: "configuration", Title: "Configuration resources", What: "Key", Intro: "Files of `--config`; several are laid over each other. Changes are taken into use while calls run.", Rows: []Row{
		differs("spec.accessControl", "compat.TestAccessControlOfAnHTTPApp, compat.TestAccessControlOfAGRPCApp",
			"Holds without mTLS: the fabric says who calls. Callers of another namespace are of the trust domain `public`."),
		works("spec.api", "compat.TestOnlyTheAllowedPartsOfTheAPI"),
		works("spec.tracing.samplingRate, spec.tracing.stdout, spec.tracing.zipkin", "compat.TestTracing, telemetry.TestTheRateIsOfTracesThatBeginHere, telemetry.TestSpansReachZipkinAndTheLog", "A rate that is no number from 0 to 1 is an error."),
		works("spec.tracing.otel", "compat.TestTracesReachOpenTelemetry, telemetry.TestEveryWayToACollector"),
		works("spec.metric.enabled, spec.metrics.enabled", "compat.TestComponentsFeaturesAndMetricsOfAConfiguration", "Keys of `metrics` count before those of `metric`."),
		works("spec.metrics.http.increasedCardinality, spec.metrics.http.pathMatching, spec.metrics.http.excludeVerbs, spec.metrics.latencyDistributionBuckets, spec.metrics.rules", "compat.TestMetricsAreAsTheConfigurationSays, telemetry.TestPathLabels, telemetry.TestOptionsOfDaprsMetrics"),
		works("spec.metrics.recordErrorCodes", "compat.TestMetricsHaveDaprsNames, daprapi.TestCategories"),
		works("spec.logging", "compat.TestLoggingOfTheAPI"),
		works("spec.components, spec.features", "compat.TestComponentsFeaturesAndMetricsOfAConfiguration"),
		works("spec.httpPipeline", "compat.TestPipelinesChangeBodies, compat.TestPipelinesAskForTokens", "All requests to the HTTP API pass, health checks too, after CORS and the API token; those of the public port do not."),
		works("spec.appHttpPipeline", "compat.TestPipelinesChangeBodies, compat.TestPipelinesAskForTokens", "All requests to an HTTP app pass but health checks. Those to HTTP endpoints and URLs do, too."),
		notYet("spec.nameResolution", warned, "None is needed."),
		notYet("spec.mtls", warned),
		works("spec.secrets", "compat.TestSecretScopes", "Scopes of what the API gives out; components and endpoints may refer to any secret."),
		notYet("spec.wasm, spec.workflow", warned),
	}}
}

func httpEndpoint() Area {
	return Area{ID: "httpendpoint", Title: "HTTPEndpoint resources", What: "Key", Rows: []Row{
		works("spec.baseUrl, spec.headers, auth.secretStore, scopes", "compat.TestHTTPEndpoints, compat.TestChangedSecretsAreTaken, compat.TestStreamsThroughHTTPEndpoints"),
		works("spec.clientTLS", "compat.TestHTTPEndpointsWithTLS"),
	}}
}
