package catalogue

func behaviour() Area {
	return Area{ID: "behaviour", Title: "Behaviour", What: "Where", Intro: "What no single route, flag or key is about. Differences are meant: daprd would lose or distort something there.", Rows: []Row{
		differs("an event that is answered RETRY, or whose delivery fails", "compat.TestRoutesVerdictsAndDeadLetters, compat.TestInboundRetriesComeBeforeDeadLetters, compat.TestPoliciesOfOthersDoNotApply",
			"Comes back until it is handled or dead-lettered, on every broker. Name a dead-letter topic where an event may be given up."),
		differs("stored messages that are no CloudEvents", "compat.TestRoutesVerdictsAndDeadLetters", "Are handed over, wrapped as raw payloads are, where daprd fails them for ever."),
		differs("events of a media type that is neither text nor JSON, or of none, to gRPC apps", "compat.TestGRPCAppsSubscribe", "Come with their data, bytes as they were published: daprd leaves it out."),
		differs("routing rules that are no CEL, or about anything but event", "routing.TestBadRulesAreErrors", "Are refused when they are read, and the other subscriptions stay. Correct the rule that the log names."),
		differs("bulks for an app with --app-max-concurrency", "compat.TestBulksAreNoLargerThanWhatTheAppTakesAtOnce", "Are no larger than that. Raise it for larger bulks."),
		differs("races of ETags and locks", "natsstore.TestConformance, badgerstore.TestConformance, natslock.TestLocker, memorylock.TestLocker", "One wins, always, on every store of Sidecast's own."),
		differs("calls that a limit refuses", "compat.TestPoliciesGuardInvocation", "Answer 429 with Retry-After, or RESOURCE_EXHAUSTED with RetryInfo, and the error code of the route. daprd has no such limits; none is on unless a document or flag sets it."),
		differs("resource files with mistakes", "compat.TestMistakesInFilesKeepASidecarFromStarting, e2e.TestAWrongPolicyKeepsASidecarFromStarting, components.TestLint",
			"Keep the sidecar from starting, with file, line and key, whatever the kind. daprd ends for a component of no or an unknown type or with the name of another, and for a rule that is no CEL; "+
				"what it cannot decode or make sense of it leaves out with a line of its log, a Resiliency as a whole, and keys and versions that it does not know it passes over, such as `spec.default` of a subscription: what was asked for is then not there. "+
				"Documents for others, such as those of Kubernetes, are passed over here, too. Correct the file; `sidecast lint DIR` tells mistakes beforehand."),
		differs("files that change", "compat.TestFilesAreReadAgain, compat.TestAConfigurationIsReadAgain, compat.TestTracesGoWhereAChangedConfigurationSays, compat.TestComponentsAreReadAgainWhileCallsRun, "+
			"compat.TestSubscriptionsAreReadAgainWhileEventsCome, compat.TestPoliciesAreReadAgainWhileCallsRun, compat.TestEndpointsAreReadAgainWhileCallsRun, components.TestReloadLetsCallsInFlightFinish, components.TestSecretsAreFollowedWhileThatIsAsked",
			"Resources of every kind are taken into use at once and while calls run, where daprd starts anew for Configuration, Resiliency and HTTPEndpoint. Only whether metrics are served, and what `spec.metrics` says of how (paths, buckets, rules, error codes), takes a restart, as the log then says."),
		differs("files that change and have a mistake", "compat.TestAWrongChangeIsRefusedAsAWhole", "Change nothing at all; the log, `sidecast status` and the entry `sidecastWarnings` of the extended metadata say what is wrong, with file, line and key, until it is corrected."),
		differs("SIGHUP", "compat.TestSIGHUPReadsFilesAgain", "Has all files read again, also with the feature HotReload off; nothing is stopped for it."),
		differs("sidecars of one machine", "compat.TestGroupsOnOneMachineAreApart", "Find each other with no name resolution. Give groups that shall be apart a SIDECAST_DATA_DIR each."),
		differs("sidecars of several machines", "cluster.TestAServerOfTheClusterIsLost", "Find each other over NATS: set SIDECAST_FABRIC to its URLs. Placement, scheduler, sentry and operator are not needed."),
		differs("sizes of events", "compat.TestSizesOfEvents, compat.TestSizesOfRequests, natspubsub.TestTooLarge", "The fabric's broker takes 8 MiB with the envelope, whatever --max-body-size says; one on a NATS cluster what that server's max_payload says, 1 MiB unless it is set. The error names both sizes. Raise max_payload, or put larger bodies into state and publish their key."),
		differs("limits of names", "blocks.TestStateRefusesWhatCannotBe, blocks.TestPublishRefusesWhatCannotBe", "Keys have at most 1024 bytes, topics, resources of locks and their owners 256; keys and topics have no control characters; paths of invocations have at most 16384 bytes, and what is set as metadata 1 MiB in all. A key must not be empty: daprd finds and deletes nothing under an empty one over gRPC, and a transaction writes it. Shorten longer ones."),
		differs("policies of large HTTP bodies", "compat.TestPoliciesHoldForLargeBodies",
			"Timeouts hold until the answer begins. A call is made again as long as 8 MiB of its request are enough to do so, also one of unknown length, which daprd makes once; of others daprd keeps all in memory. [Resiliency](concepts/resiliency.md#retries)."),
		works("API tokens, both ways", "compat.TestTokensAreAskedForAndSent"),
		differs("graceful shutdown", "compat.TestSignalsDrain, compat.TestBlockedShutdown, compat.TestAStopThatIsNotGraceful", "While the calls to the app end, the app can use its sidecar, new connections included, and new calls to it are refused (500): daprd closes its API at once. Calls that it has to cut off are answered (500), where daprd closes their connections. Nothing to do."),
		differs("HTTP/2 without TLS", "compat.TestHTTP2WithoutTLS", "With prior knowledge. `Upgrade: h2c`, which RFC 9113 has given up, is passed over: such a request is answered in HTTP/1.1, where daprd changes over. Nothing to do."),
		works("sidecars and apps that end or are killed", "gosdk.TestSoak", "What was acknowledged is kept, every call is answered, and subscriptions of each kind come back."),
		differs("answers of apps to HTTP callers", "compat.TestAnswersComeAsTheyAreWritten, compat.TestLargeAnswersTakeLittleMemory, compat.TestServerSentEventsComeAsTheyAreWritten, compat.TestAppsThatServeBySDKAnswerAsTheyWrite, compat.TestCallersThatDoNotReadHoldTheAppBack",
			"Are passed on as they come, and may have any size, as in daprd. Of apps that serve over Sidecast's own gRPC or SDK those are to requests that accept server-sent events or lines of JSON, or have the header `dapr-stream: true`; others are when they are whole, and 64 MiB at most. A failure (400 and above) of up to 64 MiB is passed on when it is whole, so that policies may have the call made again before its caller sees it. Nothing to do."),
		differs("answers shorter than their Content-Length", "compat.TestAnswersThatAreCutShortAreErrors, compat.TestAnswersWhoseEndIsLostAreCutOff", "Are cut off, so that callers see that the end is missing; in daprd such an answer ends well with what has come. Nothing to do."),
		differs("errors of a call that a lane gave up", "daprapi.TestErrorsTellWhichLaneGaveUp, daprapi.TestTheErrorInfoOfDaprComesLast", "Have Dapr's words, and beside them what the lane knows: Retry-After, `sidecast-reason`, `sidecast-lane`, `sidecast-policy`, `sidecast-attempts`, over gRPC in the trailer; a refusal has an ErrorInfo of the domain sidecast.dev and RetryInfo, too. Nothing to do."),
		differs("calls that no policy is for", "compat.TestAnInstanceIsKilledWithACall, compat.TestCallsThatNoPolicyIsForAreNotCutOff, blocks.TestCallsOfDaprdMayTakeAsLongAsTheyLike", "Have no timeout and no breaker, as with daprd; only a server outside (an HTTPEndpoint or a URL) that says nothing for 5 minutes is given up: have it say something meanwhile. A call whose instance is lost with it is made again where its HTTP verb may be repeated; daprd makes those of all verbs again, so that a POST may be done twice: ask for that in a Resiliency."),
		works("order of events on a stream", "compat.TestStreamsGetEventsInOrder, blocks.TestStreamsGetEventsInTheOrderOfTheirGroup", "That of their group; only what is delivered again comes later."),
		differs("apps of another namespace", "compat.TestAppsOfOtherNamespaces", "Are called as `{app}.{namespace}` everywhere; daprd's mDNS knows no namespaces, and finds them by their id alone."),
		works("several declared subscriptions of one topic", "compat.TestOfDeclaredSubscriptionsOfATopicTheFirstCounts, blocks.TestEventsWaitUntilTheAppHasSaidWhatItWants", "The first counts, and what the app asks for itself counts more, as with daprd. Those of different consumer groups all count."),
		works("CORS", "compat.TestCORS"),
		differs("trace context (W3C and binary) and baggage", "compat.TestTraceContextIsPassedOnInBothForms, compat.TestAnswersNameTheSpanOfTheCall, compat.TestPublishedEventsAreCloudEvents, compat.TestTracesThatAreNotSampledStaySo, compat.TestTraceContextPassesWhereTracingIsOff, daprapi.TestWhatIsNoTraceContextGoesNowhere",
			"Read, passed on and answered as daprd does; where there are spans, apps get that of their caller's sidecar as parent. A `tracestate` stays with its trace on gRPC, too, and a call or an event without a trace begins one that is not sampled: daprd gives events a `traceparent` of zeros, which W3C forbids. At a `samplingRate` of 0 there are no spans, and the trace of a caller goes on to apps, bindings and events as it is; daprd drops it for bindings and events and where a gRPC caller names it as `traceparent` alone, and sends gRPC apps an empty `grpc-trace-bin` where there is none. Raw payloads keep theirs, too: apps get it as `traceparent` of the request, of the event that a raw payload is wrapped in and among the metadata of a bulk's entry. Nothing to do."),
		differs("spans: names, kinds, attributes, outcomes", "compat.TestSpansAreToldAsDaprdTellsThem, compat.TestSpansOfCallsWithoutTheToken, telemetry.TestSpansOfTheAppAreToldInDaprsWords, telemetry.TestACallHasOneSpanFromItsFrontDoorOn",
			"Are daprd's, also of calls that are refused. Beside them spans have what the lane did as events and attributes `sidecast.*`. Messages published over HTTP have their topic, which daprd leaves empty; calls of an app to itself have a second span; the API token is on none. Nothing to do."),
		notYet("resources of the kinds MCPServer and WorkflowAccessPolicy", "Passed over, and the log says so: they are about workflows. The metadata lists no MCP servers."),
		notYet("mTLS between sidecars", "NATS connections can have TLS; see the fabric's page."),
		differs("outbox", "compat.TestOutboxPublishesWhatTransactionsWrite, compat.TestOutboxLosesNothingWhenTheSidecarIsKilled", "Events are part of the transaction: [outbox](concepts/outbox.md)."),
		differs("encryption of state", "compat.TestStateIsEncrypted, sealed.TestFormat, sealed.TestWhatCannotBeOpened",
			"Values are stored in daprd's format, on every store: each reads what the other wrote. What is encrypted is what would have been stored, so that a string that came over HTTP is read with its quotes, and events of an outbox come in the clear; daprd encrypts Go's notation of JSON that came over HTTP, strings without their quotes, and publishes what it encrypted. A value that was not encrypted, or with a key of another name, is an error of its own read, where daprd panics. Write such items again."),
		works("names of daprd's metrics", "compat.TestMetricsHaveDaprsNames, telemetry.TestAdmissionsAreCountedByTheCaller", "Beside Sidecast's own: [metrics](reference/metrics.md). `dapr_resiliency_cb_state` tells the state that a breaker is in; daprd's, that before the last call. Those of access control tell who called, which daprd knows with mTLS alone; calls of URLs are of the app `url`. Those of bulks name their component, where daprd's are all of `pubsubName`. Of what is not there yet, such as actors and workflows, there are none; series of words that apps make up are at most 500, the others count as `_other`."),
		differs("pluggable components", "compat.TestPluggableComponents, compat.TestPluggableComponentsComeAndGo, compat.TestPluggableStoresWithoutTransactions, compat.TestTypesOfPlugIns, compat.TestBulksOfPlugInsWithoutPatience, "+
			"compat.TestStoresConform, compat.TestBrokersConform, pluggable.TestStateConforms, pluggable.TestPubSubConforms, pluggable.TestAMessageOutlivesItsProgram, pluggable.TestMalformedSocketsAreTold",
			"On the same wire. A program may come later than its sidecar, and is told its settings again when it was away, where daprd goes on with one that knows nothing, and reads no more events. "+
				"Events that fail are tried again by the sidecar; the program is not told. Metadata of a read of items is not passed on. A bulk read of one key is a `Get`. When a subscription or a binding ends, what is at work is answered and its stream ends: daprd calls `Pause` of a broker when it stops, and answers for a moment that the binding is closed. [Pluggable components](concepts/pluggable-components.md)."),
		differs("the middleware opa, the middleware sentinel, the middleware wasm", "contrib.TestHeavyMiddleware, contrib.TestSentinelBreaksCircuits, contrib.TestWASMChangesARequest, contrib.TestWASMReadsBodies, contrib.TestWASMOutlivesItsGuests, everything.TestNoTypeOfDaprIsMissing", "In builds with `-tags all_components` alone: OPA and WASM for their size (10 and 2 MB), Sentinel because its rules are one set for the process. Sentinel is told of errors (500 and above, panics), so that rules about them break. A WASM guest that traps, or works for more than 10 seconds, fails its own request with 500 and no other, and says no more of it; daprd answers with the trace of its stack, and loses bodies of requests that a guest reads."),
		differs("HTTP middleware", "compat.TestPipelinesAreReadAgainWhileRequestsRun, compat.TestPipelinesDoNotWaitForWhatCannotStart, compat.TestPipelinesLeadAndCheckPaths, compat.TestAMiddlewareThatCannotBeOpenedLetsNothingPass, pipeline.TestPanicsAreAnswered, "+
			"daprapi.TestMiddlewareSeesWhereRequestsGo, components.TestAPipelineIsToldOfAChangedSecret",
			"Components that change are taken into use while requests run. One that cannot be opened lets no request through (500), unless it says `ignoreErrors: true`; daprd does not start. One that the app does not have is passed over as by daprd, and the log says so. Before the API, what it sees of a path is where the request goes, without doubled slashes, dots and one at its end, which lead around daprd's. One that changes the path of a request to the app does so, where daprd's request then fails. Callers do not wait for one that cannot be opened."),
	}}
}

// Rest is the row of the types that only a build with the tag all_components has.
const Rest = "all other types of components-contrib"

func componentTypes() Area {
	return Area{ID: "types", Title: "Component types", What: "Type", Intro: "Metadata keys are those that the type takes; [components](reference/components.md) says what they mean. Other keys are errors, where daprd passes over them.", Rows: []Row{
		works("state.in-memory, state.memory", "compat.TestStateOverHTTP, compat.TestItemsAreRefusedInTheWordsOfDaprsStores, memorystore.TestConformance, compat.TestStoresConform"),
		works("state.jetstream", "compat.TestKeyPrefixes, natsstore.TestConformance, compat.TestStoresConform"),
		works("state.badger", "badgerstore.TestConformance, compat.TestStoresConform"),
		differs("state.redis", "contrib.TestRedisState, contrib.TestRedisStateSharesItemsWithDapr, compat.TestStoresConform", "A batch is applied whole or not at all, and a write or a delete with the ETag of an item that is gone fails, where daprd does it, and so does a first write without an ETag of an item that is there, which daprd writes over unless it came by a first write. A write that says no time to live ends that of the item, as on other stores, where daprd lets it run: say it again with each write. Queries and values as RedisJSON documents are not there yet. A daprd may share the server."),
		differs("state.postgresql, state.postgres", "contrib.TestPostgresV1State, contrib.TestPostgresStateOutlivesItsServer, contrib.TestPostgresQueries, compat.TestStoresConform", "What comes as JSON is kept as JSONB and can be queried, as daprd does; numbers and nesting that JSONB cannot hold are kept as bytes, where daprd fails. A time to live is rounded up to seconds; a transaction cannot check one item and write another."),
		differs("state.postgresql v2, state.postgres v2, state.cockroachdb v2, state.yugabyte v2, state.yugabytedb v2", "contrib.TestPostgresV2State", "As state.postgresql, but values are kept as bytes and there are no queries, as daprd does."),
		differs("state.sqlite, state.sqlite3", "contrib.TestSQLiteState, compat.TestStoresConform", "As state.postgresql v2."),
		differs("state.mysql", "contrib.TestMySQLState, contrib.TestMySQLStateOutlivesItsServer, contrib.TestMySQLStateSharesItemsWithDapr, contrib.TestMySQLKeysThatATableFolds, compat.TestStoresConform",
			"A daprd may share the table. A table that Sidecast makes tells `k`, `K` and `k ` apart, which daprd's takes for one key: there the second is refused. First writes are safe where two come at once or the item has expired, expiry is told in UTC whatever the server's zone, and a database in `connectionString` is used where `schemaName` names none, where daprd joins the two names. A time to live is rounded up to seconds and ends before 2038. Nothing to do."),
		differs("state.etcd, state.etcd v2", "contrib.TestEtcdState, contrib.TestEtcdStateOutlivesItsServer, contrib.TestEtcdStateSharesItemsWithDapr, contrib.TestEtcdBatchesHaveABound, compat.TestStoresConform, compat.TestAStoreWithShortTransactions",
			"A write whose ETag does not match fails, and a transaction is applied whole or not at all, where daprd may lose the write and say that it succeeded. Items can be listed and watched (Sidecast's API). When an item expires is told with version 1, too. `maxTxnOps` bounds one transaction; a save of more items is parted. A daprd may share the server."),
		differs("state.mongodb", "contrib.TestMongoState, contrib.TestMongoStateOutlivesItsServer, contrib.TestMongoStateKeepsTheLibrarysDocuments, compat.TestStoresConform",
			"A write is acknowledged when most servers have it and a read sees the newest of those (`writeConcern` majority, `readConcern` linearizable), where daprd's defaults may lose it or read what is lost: set them for daprd's way. A transaction whose commit fails is an error, where daprd says that it is done. Queries are not there yet. MongoDB is in no registry of packages that the tests reach: they run on a stand-in that speaks its protocol, without replica sets, so transactions have no test."),
		differs("state.memcached", "contrib.TestMemcachedState, contrib.TestMemcachedOutlivesItsServer, contrib.TestMemcachedStateSharesItemsWithDapr, compat.TestStoresConform, compat.TestAStoreWithoutETags",
			"No ETags and no transactions, as with daprd, but a write with an ETag or first-write is refused (`NOT_SUPPORTED`), where daprd writes regardless. Leave conditions out, or use another store. Keys that memcached cannot hold are stored in hex or by their SHA-256, where daprd fails."),
		differs("pubsub.in-memory, pubsub.memory", "memorypubsub.TestConformance, memorypubsub.TestWildcards, memorypubsub.TestMetadataOfThePublisherIsDelivered, compat.TestWhatIsPublishedInMemoryComesWithItsMetadata, compat.TestStreamsOfOneAppShareATopic, compat.TestBrokersConform, compat.TestEveryBrokerOfTheDefaultBuild", "What is published before anyone subscribes is kept, within bounds, and comes to those who do; daprd drops it. Subscriptions of an app to one topic, streams among them, share its events, as on all other brokers, where daprd gives each of them every event. Events are handled side by side, and come in bulks, where daprd has one at a time. Nothing to do."),
		differs("pubsub.jetstream", "compat.TestRoutesVerdictsAndDeadLetters, natspubsub.TestConformance, compat.TestBrokersConform, compat.TestEveryBrokerOfTheDefaultBuild", "Without `natsURL` it is the fabric's: streams and consumers are Sidecast's, and daprd's keys for them do not exist. Leave them out."),
		differs("pubsub.jetstream with natsURL", "contrib.TestJetStreamPubSub, contrib.TestJetStreamTellsTheSubject, contrib.TestJetStreamTopicsShareADurableName, contrib.TestJetStreamGoesOnWhereTheConsumerOfADaprWas",
			"Messages are pulled: the consumer that a daprd made goes on under its name with `-pull`. With `durableName`, each topic after the first has a consumer `{durableName}-{topic}`, where daprd reads the first topic alone. `flowControl`, `heartbeat` and `rateLimit` do nothing, `ackPolicy` is always explicit."),
		differs("pubsub.redis", "contrib.TestRedisPubSub, contrib.TestRedisOutlivesItsServer, contrib.TestMetadataIsDeliveredBesideTheData, compat.TestBrokersConform, compat.TestEveryBrokerOfTheDefaultBuild", "A message that failed stays pending until it is handled, where daprd acknowledges it. Nothing to do."),
		differs("pubsub.rabbitmq", "contrib.TestRabbitPubSub, contrib.TestRabbitOutlivesItsServer, contrib.TestRabbitRoutesByKey, contrib.TestRabbitRoutingKeysAreWholeOrRefused, contrib.TestRabbitPriorities, contrib.TestRabbitDropsWhatIsTooOld, contrib.TestRabbitTellsProperties, contrib.TestRabbitQueueTypes, contrib.TestRabbitTakesTheSettingsOfDaprsExamples, compat.TestMetadataForTheBroker, compat.TestBrokersConform, compat.TestEveryBrokerOfTheDefaultBuild",
			"`publisherConfirm` and `requeueInFailure` are always on; `deletedWhenUnused` is false unless it is set: set it where daprds share the server. A `prefetchCount` of 0 is 255, not all that there are. A message says its media type, where daprd says `text/plain` of all, and has an id and a correlation id; header fields of messages that others send are metadata of the event. Of one publish `routingKey`, `priority`, `ttlInSeconds`, `messageID`, `correlationID`, `contentType` and `type`, of one subscription `routingKey`, `queueType`, `maxPriority`, `queueName` and `singleActiveConsumer` are told to the server; `maxLen` and `maxLenBytes` of one subscription are refused, where daprd tries for ever: set them for the component. A `routingKey` or another text of more than 255 bytes is refused, where daprd cuts it, and a time to live of more than 49 days, where daprd fails."),
		differs("pubsub.kafka", "contrib.TestKafkaPubSub, contrib.TestKafkaOutlivesItsServer, compat.TestKafkaLosesNothingWhenItsServerIsKilled, contrib.TestKafkaEndsCallsOfASilentServer, contrib.TestKafkaMovesPartitionsBetweenInstancesWithoutLossAndInOrder, contrib.TestKafkaRecordsOfOthersAndOurs, contrib.TestKafkaSendsAKeyWhereOthersDo, contrib.TestKafkaSharesAGroupWithADaprd, contrib.TestKafkaKeepsTheOrderOfAPartitionWhenAsked, contrib.TestKafkaStopsReadingBehindAMessageThatIsNotHandled, contrib.TestKafkaSpeaksAvro, contrib.TestKafkaWaitsForASchemaAndKeepsTheOrder, contrib.TestKafkaGivesTheLaneWhatIsNoAvro, contrib.TestKafkaGoesOnAtWhatIsLeftWhereTheLogHasPassedItsGroup, contrib.TestKafkaReadsPartitionsThatAreAddedFromTheirStart, contrib.TestKafkaTellsANewGroupFromPartitionsThatAreAdded, contrib.TestKafkaSignsInWithAPassword, contrib.TestKafkaEncrypts, contrib.TestKafkaAsksForTokens, contrib.TestKafkaSignsInAtAWS, compat.TestKafkaTellsAboutItsRecords, compat.TestEveryBrokerOfTheDefaultBuild, compat.TestBrokersConform",
			"Messages of one key come one after the other, those of others side by side, where daprd handles one of a partition at a time: set `consumeOrder` to `partition` for the order of all. A message that is not handled comes again and the others go on, up to `channelBufferSize` in its partition; what has been handled beyond it is kept as the commit's metadata, which a daprd does not read; it may share the group. `consumeRetryEnabled` and `consumeRetryInterval` do nothing, `producerRetryMax` is 0 unless it is set: retries are the lane's. `version` is agreed upon unless it is set. An unknown `saslMechanism` is an error, where daprd sends the password as it is. With `initialOffset` newest, a partition that is added to a topic which the group reads is read from its start, and a group whose place is no longer in the log goes on at the oldest message kept, where daprd goes on at the end of both. Of a bulk, what an entry's metadata say of the key counts before those of the request, and `__key` of an event is always that of its message, also where a header field has that name. What is not Avro where a subscription says so is a dead letter, where daprd tries it for ever and its partition waits."),
		differs("pubsub.mqtt3, pubsub.mqtt", "contrib.TestMQTTPubSub, contrib.TestMQTTOutlivesItsServer, contrib.TestMQTTKnowsItsMessagesAgain, contrib.TestMQTTTellsThatANameIsTaken, contrib.TestMQTTWildcardsRetainedAndShared, contrib.TestMQTTSessionsEndWhenAsked, contrib.TestMQTTQualities, contrib.TestMQTTRefusesWhatCannotBe, contrib.TestMQTTEndsCallsOfASilentServer, contrib.TestMQTTEncrypts, compat.TestMQTTLosesNothingWhenItsServerOrSidecarIsKilled, compat.TestEveryBrokerOfTheDefaultBuild, compat.TestBrokersConform",
			"A message that is not handled comes again from the sidecar, in the order of its key and without holding up the others, up to the server's limit in flight (Mosquitto's `max_inflight_messages`, 20); daprd leaves it until it connects again. Each subscription has a client and a session of its own, `{consumerID}-{hash of the topic}`, and publishing has one whose name is new each time: let access lists go by user, and let a daprd empty its session, `{consumerID}`, before you change over. A session is that of one instance: two with one `consumerID` take it from each other as with daprd, but the log of the one that yields says so, and it comes back each minute. Give each its own `consumerID` and subscribe to `$share/{group}/{topic}` to share messages. MQTT 3 has no headers: dead letters come without their reason. A message comes with its topic as `__topic`, too. A server of MQTT 3 also confirms what its access list or a full queue then drops."),
		works("lock.in-memory, lock.memory", "compat.TestLocksOverHTTP, memorylock.TestLocker, compat.TestLocksConform"),
		works("lock.jetstream", "natslock.TestLocker, compat.TestLocksConform"),
		works("lock.badger", "badgerlock.TestLocker, compat.TestLocksConform"),
		works("lock.redis", "contrib.TestRedisLock, contrib.TestRedisLockExcludesDapr, compat.TestLocksConform", "A daprd may share the server: its locks and Sidecast's exclude each other."),
		differs("bindings.http", "compat.TestOutputBindings, contrib.TestHTTPBindingKeepsToItsLimits", "An answer larger than `maxResponseBodySize` is an error, where daprd cuts it short; `responseTimeout` bounds an operation, or five minutes. Raise the first where answers are larger."),
		works("bindings.localstorage", "compat.TestBindingsConform, compat.TestOutputBindings"),
		works("bindings.redis", "compat.TestBindingsConform, contrib.TestRedisBinding, contrib.TestBindingsOutliveTheirServers"),
		differs("bindings.postgresql, bindings.postgres", "compat.TestBindingsConform, contrib.TestPostgresBinding", "The operation `close` does nothing, where daprd's binding is of no use afterwards. Signing in with AWS IAM is not there yet: use a password."),
		differs("bindings.mysql", "compat.TestBindingsConform, contrib.TestMySQLBinding", "As bindings.postgresql."),
		works("bindings.cron", "compat.TestBindingsConform, compat.TestInputBindingsOfHTTPApps, compat.TestInputBindingsOfGRPCApps"),
		differs("bindings.rabbitmq", "compat.TestBindingsConform, contrib.TestRabbitBinding, contrib.TestTheEndOfReadingWaitsForWhatIsAtWork, contrib.TestBindingsOutliveTheirServers",
			"An operation answers when the server has confirmed the message. `prefetchCount` is 100 unless it is set, and an event that fails comes again after a pause that grows with failures in a row. Set `prefetchCount` to 0 for daprd's way."),
		differs("bindings.kafka", "compat.TestBindingsConform, contrib.TestKafkaBinding, compat.TestKafkaBindings, contrib.TestKafkaSettingsThatAreWrong",
			"An event that fails comes again, after a pause that grows with failures in a row, and those behind it in its partition wait, where daprd goes on and commits over it. `consumerGroup` may be left out: it is the app id. The rest is as for pubsub.kafka."),
		differs("bindings.mqtt3, bindings.mqtt", "compat.TestBindingsConform, contrib.TestMQTTBinding, contrib.TestMQTTBindingRefusesWhatIsNoTopic, contrib.TestMQTTBindingDoesNotConfirmForTheServer, contrib.TestMQTTBindingOutlivesItsServer",
			"A message that fails comes again until it is handled, after a pause that grows; `backOffMaxRetries` does nothing. Where the server is away, an operation fails at once, and one to what is no name of a topic, where daprd loses the message and its connection."),
		differs("bindings.smtp", "contrib.TestSMTPBinding", "What the metadata of one request says holds for that request alone."),
		works("secretstores.local.env", "envsecrets.TestSecret, compat.TestSecrets", "As `secretKeyRef`, a variable that is not set is an error. `APP_ID`, `APP_PORT` and `HOST_ADDRESS`, which daprd sets for itself, are not there."),
		differs("secretstores.local.file", "filesecrets.TestSecret, filesecrets.TestSecretsAreAllThereAre, compat.TestSecrets, compat.TestChangedSecretsAreTaken",
			"A changed file counts at once. Numbers and truths are their text, where daprd gives out `%!s(float64=1)`; nulls are no secrets. With `multiValued`, numbers, truths and what is in lists at the top are there, too, where daprd finds them not."),
		works("configuration.jetstream", "natsconfig.TestConformance, natsconfig.TestWatchOutlivesTheServer, compat.TestConfiguration", "Sidecast's: a key-value bucket on the fabric, written by `sidecast config set` or `nats kv put`."),
		differs("configuration.redis", "contrib.TestRedisConfiguration, contrib.TestRedisSettingsAreWhatDaprTakesForThem, contrib.TestRedisConfigurationOutlivesItsServer, compat.TestConfigurationOutlivesItsServer, contrib.TestAClusterOfRedisIsAskedForKeysByName",
			"Keys that are watched are also read every few seconds: Redis may lose a notification. One that is set to what it holds tells nothing. On a cluster, keys must be named: daprd lists those of any one of its servers."),
		differs("configuration.postgresql, configuration.postgres", "contrib.TestPostgresConfiguration, contrib.TestPostgresSettingsHaveMetadataAndBadRequestsAreTold, contrib.TestPostgresConfigurationOutlivesItsServer",
			"Metadata of a read is passed over, where daprd makes a condition of it that nothing meets. A key that is deleted comes without a value, where daprd tells that which it had. Signing in with AWS IAM is not there yet: use a password."),
		works("middleware.http.bearer", "compat.TestPipelinesAskForTokens"),
		works("middleware.http.uppercase", "compat.TestPipelinesChangeBodies, uppercase.TestLettersCutInTwo"),
		works("middleware.http.routeralias, middleware.http.routerchecker", "compat.TestPipelinesLeadAndCheckPaths"),
		works("middleware.http.ratelimit", "compat.TestPipelinesLimitRequests, requestlimit.TestBucketsAreForgotten", "What is kept of addresses and paths is bounded, where daprd keeps all for ever."),
		differs("middleware.http.oauth2clientcredentials", "compat.TestPipelinesGetTokensForTheSidecar, contrib.TestTokensAreNotWaitedForForEver",
			"Without a token the answer is 502, where daprd answers 200 with nothing; one is waited for 30 seconds at most."),
		differs("middleware.http.oauth2", "compat.TestPipelinesHaveBrowsersSignIn, signin.TestSessionsAreBounded, signin.TestTheTokenTakesThePlaceOfTheClientsField, signin.TestBrowsersComeBackToTheSidecar",
			"What is kept of browsers that do not sign in is bounded; `forceHTTPS` keeps the host; a state that is not known is 400. The token takes the place of a field that the client has sent under its name, where daprd leaves that before it."),
		works("crypto.dapr.localstorage, crypto.dapr.jwks", "compat.TestCryptoOverHTTP, compat.TestCryptoStreams, compat.TestCryptoProvidersConform, contrib.TestKeyrings, contrib.TestKeyringsEncryptAndSign, contrib.TestKeyringsAnswerAnything"),
		works("conversation.echo", "compat.TestConversation, compat.TestConversationsConform, contrib.TestEcho",
			"Takes the keys of models, in whose place manifests may name it."),
		differs(Rest, "everything.TestNoTypeOfDaprIsMissing, everything.TestWhatIsToldNothingSaysWhatItNeeds, contrib.TestPlainState, contrib.TestPlainPubSub, contrib.TestPlainSecrets, contrib.TestPlainConfiguration, contrib.TestPlainBindings, contrib.TestPlainBindingsOfBothDirections, datasheet.TestSheetsAreTheLibrarys",
			"In builds with `-tags all_components` alone: [all components](concepts/all-components.md). Elsewhere a manifest of them is an error that says so. Their adapters are tested, the products themselves are not: no server of theirs runs in the tests."),
	}}
}

const reads = "components.TestLoad"

func component() Area {
	return Area{ID: "component", Title: "Component resources", What: "Key", Intro: "`apiVersion: dapr.io/v1alpha1`, `kind: Component`, in the folders of `--resources-path`.", Rows: []Row{
		works("metadata.name, metadata.labels", reads),
		works("metadata.namespace", "components.TestSetRefusesByName, components.TestAnyNamespace", "Without `NAMESPACE` it counts for nothing, as with daprd."),
		works("spec.type, spec.version", reads),
		differs("spec.metadata.name, spec.metadata.value", "components.TestLoad, components.TestOpenChecksItsMetadata, components.TestValuesMayBeListsAndMappings",
			"A key that the component does not have is an error; a number without quotes is taken as it is written, `1.50`, where daprd makes `1.5` of it."),
		differs("spec.metadata.secretKeyRef.name, spec.metadata.secretKeyRef.key, spec.metadata.envRef", "components.TestSecretReferences, components.TestAChangedSecretSwapsWhatTookIt, compat.TestChangedSecretsAreTaken",
			"Where the store tells of changes, as a file does, a component that took a changed secret is opened again. Without `auth.secretStore` a secret is an environment variable. A secret or a variable that is not there is an error of the component, where daprd goes on with nothing."),
		works("spec.initTimeout", "components.TestSetInitTimeout"),
		differs("spec.ignoreErrors", "components.TestSetKeepsTryingWhatCannotStart, components.TestSetStartOpensWhatIsRequired",
			"Every component is as with `true`: one that cannot start is tried again, and the sidecar runs without it. Set `spec.required: true` to have the sidecar not start. What is wrong in a manifest itself ends the start, whatever this says."),
		differs("auth.secretStore", "components.TestSecretReferences, components.TestReloadFollowsTheSecretStore, components.TestLint",
			"A store that no manifest makes is an error that ends the start, where daprd starts without the component and waits for the store."),
		works("scopes", "components.TestSetRefusesByName"),
		works("keyPrefix: appid, keyPrefix: name, keyPrefix: namespace, keyPrefix: none", "compat.TestKeyPrefixes", "Of state stores and locks."),
		works("allowedTopics, publishingScopes, subscriptionScopes, protectedTopics", "components.TestTopicsFollowTheirScopes, compat.TestBadPublishRequests", "Of brokers."),
		works("consumerID", "compat.TestConsumerIDNamesTheGroup, components.TestTopicsFollowTheirScopes", "Of brokers. `{namespace}` in it is the namespace, a point and the app id."),
		works("{namespace} in any value of a broker", "blocks.TestTopicsOfABrokerThatNamesTheNamespace, components.TestTopicsFollowTheirScopes",
			"The namespace stands before the names of topics on the server, `prodorders` for `orders`."),
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
		works("spec.metadata.rawPayload", "components.TestLoad, compat.TestRoutesVerdictsAndDeadLetters, compat.TestWhatIsPublishedInMemoryComesWithItsMetadata", "One that is no truth is an error in a file; where an app says it, its events go to the dead-letter topic, or wait."),
	}}
}

func resiliency() Area {
	const dapr = "governance.TestDaprPoliciesMeanWhatTheyMeanToDapr, governance.TestRead"
	return Area{ID: "resiliency", Title: "Resiliency resources", What: "Key", Intro: "Dapr's keys; [resiliency](reference/resiliency.md) has those that Sidecast adds.", Rows: []Row{
		works("spec.policies.timeouts", dapr+", compat.TestPoliciesGuardInvocation"),
		works("spec.policies.retries.policy, spec.policies.retries.duration, spec.policies.retries.maxInterval, spec.policies.retries.maxRetries", dapr+", e2e.TestDaprResiliency"),
		works("spec.policies.retries.matching.httpStatusCodes, spec.policies.retries.matching.gRPCStatusCodes", dapr+", compat.TestPoliciesGuardInvocation, compat.TestRetriesOfPublishesByCode",
			"Decides of the answers of apps, and of publishes that a pluggable component refused: by the status of HTTP or the code of gRPC, as the publisher speaks. All other failures are tried again."),
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
			"Holds without mTLS: the fabric says who calls. Callers of another namespace are of the trust domain `public`. An InvokeService that is refused is PERMISSION_DENIED (daprd: INTERNAL, with the same text)."),
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
