package catalogue

// What is said of the parts of the API that are not there: over either protocol they answer as a daprd without the services that
// they need.
const (
	noActors = "There are no actors and no workflows. Answers as a daprd without a placement service: ERR_ACTOR_NO_PLACEMENT with 400, or UNAVAILABLE."
	noJobs   = "There are no jobs. Answers as a daprd without a scheduler: DAPR_SCHEDULER_SCHEDULE_JOB and its like with 500, or INTERNAL; requests that lack something as daprd does."
)

// queryNote is what is true of queries over both protocols.
const queryNote = "On `state.postgresql` v1. Items of other apps, under other key prefixes, and those that have expired are left out, so that a page may be shorter than its limit: go on while there are results. daprd returns them all. A page has at most 1000 items, also where no limit is asked for: an answer with a `token` has more, go on with it. Numbers are compared and sorted by their value, and GT, GTE, LT and LTE find nothing but numbers: daprd compares and sorts their text, so that 9 is more than 20 and 1234567 is never found. Names of fields with an apostrophe are refused: daprd makes them part of its SQL. Other stores answer as daprd's do that cannot be queried."

// subtleNote is what is true of the subtle API for crypto over both protocols.
const subtleNote = "As in a daprd that is built with the tag `subtlecrypto`; its releases answer that they have it not. Why an operation failed is in the log, at level debug. A key to wrap that can be read as Base64 is, as with daprd."

// scrubNote is what is true of conversations over both protocols.
const scrubNote = "Where one kind of personal data begins in another, both are scrubbed: daprd leaves a letter of the second, or the rest of the text, as it is. A request that makes no sense is told why in plain words. Nothing to do."

func rpcs() Area {
	return Area{ID: "rpcs", Title: "gRPC API", What: "RPC", Intro: "Service `dapr.proto.runtime.v1.Dapr`. Status codes, messages and details are daprd's.", Rows: []Row{
		works("InvokeService", "compat.TestInvocationFromGRPC, gosdk.TestInvocation/http, gosdk.TestInvocation/grpc",
			"To apps of either protocol. A call that names no verb is a POST to an HTTP app, where daprd answers an error."),
		works("GetState, SaveState, DeleteState, GetBulkState, DeleteBulkState, ExecuteStateTransaction", "compat.TestStateOverGRPC, gosdk.TestState"),
		differs("QueryStateAlpha1", "compat.TestStateQueries, compat.TestGoSDKQueries, gosdk.TestStateQueries, compat.TestStateOverGRPC, contrib.TestPostgresQueries, contrib.TestPostgresQueriesCompareNumbers, contrib.TestPostgresQueriesHaveBoundedPages, contrib.TestBadQueriesAreRefused", queryNote),
		works("PublishEvent", "compat.TestGRPCAppsSubscribe, compat.TestBadPublishRequests, gosdk.TestPubSub/grpc"),
		works("BulkPublishEvent, BulkPublishEventAlpha1", "compat.TestGRPCAppsSubscribe, gosdk.TestPubSub/http"),
		works("SubscribeTopicEventsAlpha1", "compat.TestStreamsSubscribe, compat.TestAStreamOfATopicThatIsNotTheAppsIsRefused, gosdk.TestStreamingSubscription"),
		works("TryLockAlpha1, UnlockAlpha1", "compat.TestLocksOverHTTP, gosdk.TestLock"),
		works("GetMetadata", "gosdk.TestMetadataAndShutdown, compat.TestUnixSockets"),
		works("SetMetadata, Shutdown", "gosdk.TestMetadataAndShutdown"),
		works("InvokeBinding", "compat.TestOutputBindingsOverGRPC"),
		works("GetSecret, GetBulkSecret", "compat.TestSecrets, compat.TestSecretScopes, gosdk.TestSecrets"),
		works("GetConfiguration, GetConfigurationAlpha1", "compat.TestConfiguration, gosdk.TestConfiguration"),
		works("SubscribeConfiguration, SubscribeConfigurationAlpha1, UnsubscribeConfiguration, UnsubscribeConfigurationAlpha1",
			"compat.TestConfigurationStreams, compat.TestConfigurationOutlivesItsServer, gosdk.TestConfiguration", "A stream outlives its server and a change of its component, and tells what changed meanwhile; a slow client gets the latest of each key."),
		notYet("InvokeActor, GetActorState, ExecuteActorStateTransaction, RegisterActorTimer, UnregisterActorTimer, RegisterActorReminder, UnregisterActorReminder, "+
			"UnregisterActorRemindersByType, GetActorReminder, ListActorReminders, SubscribeActorEventsAlpha1", noActors),
		notYet("StartWorkflowBeta1, GetWorkflowBeta1, PurgeWorkflowBeta1, TerminateWorkflowBeta1, PauseWorkflowBeta1, ResumeWorkflowBeta1, RaiseEventWorkflowBeta1, "+
			"StartWorkflowAlpha1, GetWorkflowAlpha1, PurgeWorkflowAlpha1, TerminateWorkflowAlpha1, PauseWorkflowAlpha1, ResumeWorkflowAlpha1, RaiseEventWorkflowAlpha1", noActors),
		notYet("ScheduleJob, GetJob, DeleteJob, DeleteJobsByPrefix, ListJobs, ScheduleJobAlpha1, GetJobAlpha1, DeleteJobAlpha1, DeleteJobsByPrefixAlpha1, ListJobsAlpha1", noJobs),
		works("EncryptAlpha1, DecryptAlpha1", "compat.TestCryptoStreams, gosdk.TestCrypto"),
		works("SubtleGetKeyAlpha1, SubtleEncryptAlpha1, SubtleDecryptAlpha1, SubtleWrapKeyAlpha1, SubtleUnwrapKeyAlpha1, SubtleSignAlpha1, SubtleVerifyAlpha1",
			"compat.TestSubtleCrypto, compat.TestSubtleCryptoThatIsNotThere, compat.TestCryptoProvidersConform", subtleNote),
		differs("ConverseAlpha1, ConverseAlpha2", "compat.TestConversation, compat.TestConversationsThatFail, compat.TestConversationsConform, scrub.TestOverlaps, gosdk.TestConversation", scrubNote),
	}}
}

func callbacks() Area {
	return Area{ID: "callbacks", Title: "gRPC apps", What: "RPC", Intro: "What the sidecar calls of an app with `--app-protocol grpc` or `grpcs`, and services of the app's own.", Rows: []Row{
		differs("AppCallback/OnInvoke", "compat.TestInvocationFromHTTPToGRPC, compat.TestInvocationFromGRPC, appchannel.TestDaprConformance, gosdk.TestInvocation/grpc",
			"The status an app answers with reaches callers as it is, with its details. A call that came over HTTP has no `dapr-content-type` and `dapr-content-length` in its metadata: the request has `content_type` and its data."),
		works("AppCallback/ListTopicSubscriptions, AppCallback/OnTopicEvent", "compat.TestGRPCAppsSubscribe, compat.TestAppsAreAskedForSubscriptionsOnceThereIsABroker, appchannel.TestDaprConformance, gosdk.TestPubSub/grpc",
			"Asked once there is a broker that the app may use, and again whenever the app restarts."),
		differs("AppCallback/OnBulkTopicEvent", "compat.TestGRPCAppsSubscribe", "Each entry says its media type, and an event whose data is binary has its data: daprd leaves both out. Nothing to do."),
		differs("AppCallback/ListInputBindings, AppCallback/OnBindingEvent", "compat.TestInputBindingsOfGRPCApps, compat.TestAnAppThatFailsToTellItsBindingsHasNamedNone",
			"What the answer asks for is done: `states` too, which daprd passes over, and `data` that is no JSON goes on as text. An app that answers with them by mistake stops that."),
		notYet("AppCallback/OnJobEvent, AppCallbackAlpha/OnJobEventAlpha1", "Never called: there are no jobs yet."),
		works("AppCallbackAlpha/OnBulkTopicEventAlpha1", "compat.TestOldGRPCAppsGetBulks", "Called where the app does not have OnBulkTopicEvent."),
		works("AppCallbackHealthCheck/HealthCheck", "compat.TestGRPCAppsSubscribe", "With `--enable-app-health-check`."),
		differs("any service by dapr-app-id", "compat.TestProxying, compat.TestBreakersSeeTheAnswersOfStreams, compat.TestAnUnhealthyAppGetsNoProxiedCalls",
			"Proxied by that metadata in all four kinds, with headers, trailers and status details. Of an app that speaks HTTP the answer is UNIMPLEMENTED (daprd: UNAVAILABLE). An app that fails its health check gets none of these calls, as Dapr's documentation has it, and its callers UNAVAILABLE: daprd passes them on. Nothing to do."),
		differs("policies of proxied calls", "compat.TestPoliciesHoldForProxiedCalls",
			"Timeouts, retries and breaker as in daprd; a call that shows by a second message that it is a stream is not cut and not refused, with `dapr-stream` or without: [resiliency](concepts/resiliency.md#timeouts)."),
	}}
}

func invocation() Area {
	return Area{ID: "invocation", Title: "HTTP API: invocation", What: "Request", Intro: "Verb, path, query, header fields, status and body pass as they are, to apps of either protocol.", Rows: []Row{
		differs("ANY /v1.0/invoke/{app}/method/{path}", "compat.TestInvocationFromHTTPToHTTP, compat.TestInvocationFromHTTPToGRPC, compat.TestFieldsThatAreOfOneConnectionOrOfGRPC, compat.TestBodies, compat.TestAnAppWhosePortIsClosed, compat.TestAGRPCAppWhosePortIsClosed, daprapi.TestTargetOf",
			"An app whose port is closed may be starting anew: it is tried for a second or two, where daprd fails at once. An app id that nobody has is looked for for a second, as with daprd. Any verb passes as it is, where daprd makes POST of those that it does not know and refuses CONNECT; so do paths with an escaped `%` and fields that are not UTF-8, which daprd cannot pass. The error of a gRPC app is JSON and says so; daprd calls the same body `text/plain`. Nothing to do."),
		works("ANY /{path} with the header dapr-app-id", "compat.TestInvocationFromHTTPToHTTP"),
		works("ANY /{path} with Basic authorization dapr-app-id:{app}", "compat.TestInvocationFromHTTPToHTTP"),
		works("ANY /v1.0/invoke/{app}.{namespace}/method/{path}", "compat.TestNamespaceAndHost", "For apps of the sidecar's own namespace."),
		works("ANY /v1.0/invoke/{app}.{another namespace}/method/{path}", "compat.TestAppsOfOtherNamespaces", "Of up to 16 namespaces of the same fabric."),
		differs("ANY /v1.0/invoke/http://{host}/method/{path}, the name of an HTTPEndpoint in the place of an app", "compat.TestHTTPEndpoints",
			"The app's API token is not sent there, and redirects are followed within the host only. Name the final host."),
		works("server-sent events and bodies of unknown length", "compat.TestServerSentEventsComeAsTheyAreWritten, compat.TestBodies", "Passed on as they come."),
		differs("forwarded, x-forwarded-for, x-forwarded-host, dapr-caller-app-id, dapr-callee-app-id", "compat.TestInvocationFromHTTPToHTTP, compat.TestNamespaceAndHost",
			"What a caller claims of `dapr-caller-*` and `dapr-callee-*` is taken out, as is a `dapr-api-token` of its own: daprd passes them on. An app that calls itself gets them, too, and each app `sidecast-caller`. Nothing to do."),
		works("HTTP trailers", "compat.TestTrailersOfHTTP, compat.TestTrailersOfGRPC", "Those that are announced, both ways."),
	}}
}

func routes() Area {
	const all = "v1.0 v1.0-beta1 v1.0-alpha1"
	workflow := "workflows/{workflowComponent}/{instanceID}"
	crypto, alpha := "subtlecrypto/{name}/", "v1.0-alpha1"
	var subtle []string
	for _, what := range []string{"getkey", "encrypt", "decrypt", "wrapkey", "unwrapkey", "sign", "verify"} {
		subtle = append(subtle, versions(alpha, "POST", crypto+what))
	}
	var workflows []string
	for _, what := range []string{"raiseEvent/{eventName}", "pause", "resume", "terminate", "purge"} {
		workflows = append(workflows, versions(all, "POST", workflow+"/"+what))
	}
	return Area{ID: "routes", Title: "HTTP API", What: "Route", Intro: "Statuses, error codes, messages and details are daprd's.", Rows: []Row{
		works("GET /v1.0/state/{storeName}/{key}, DELETE /v1.0/state/{storeName}/{key}, POST PUT /v1.0/state/{storeName}", "compat.TestStateOverHTTP, compat.TestBadStateRequestsOverHTTP",
			"A value is kept as it is written: numbers do not pass through float64."),
		differs("POST PUT /v1.0/state/{storeName}/bulk", "compat.TestStateOverGRPC, compat.TestStateOverHTTP", "A value that is no JSON comes as a string, where daprd's answer breaks off. Nothing to do."),
		differs("POST PUT /v1.0/state/{storeName}/transaction", "compat.TestTransactionsOverHTTP", "At most 1000 operations; more answer ERR_STATE_STORE_TOO_MANY_TRANSACTIONS. Split larger ones."),
		differs("POST PUT /v1.0-alpha1/state/{storeName}/query", "compat.TestStateQueries, compat.TestBadStateRequestsOverHTTP", queryNote),
		works("POST PUT /v1.0/publish/{pubsubname}/{topic}", "compat.TestPublishedEventsAreCloudEvents, compat.TestBadPublishRequests"),
		works(joined(versions("v1.0 v1.0-alpha1", "POST PUT", "publish/bulk/{pubsubname}/{topic}")), "compat.TestBadPublishRequests, compat.TestABulkThatFails, compat.TestDeclaredSubscriptionsAndBulk, compat.TestWhatIsPublishedInMemoryComesWithItsMetadata",
			"What the request says as metadata is said of those entries alone that have metadata, be it `{}`."),
		works("POST /v1.0-alpha1/lock/{storeName}, POST /v1.0-alpha1/unlock/{storeName}", "compat.TestLocksOverHTTP"),
		works("GET /v1.0/metadata, PUT /v1.0/metadata/{key}", "compat.TestMetadata, compat.TestDeclaredSubscriptionsAndBulk"),
		works("GET /v1.0/healthz, GET /v1.0/healthz/outbound", "compat.TestDaprdStartsAndEndsAsDaprdDoes, compat.TestTokensAreAskedForAndSent"),
		works("POST /v1.0/shutdown", "compat.TestDaprdEndsByTheAPI"),
		differs("POST PUT /v1.0/bindings/{name}", "compat.TestOutputBindings", "`data` is passed on as it is written: numbers do not pass through float64. Nothing to do."),
		works("GET /v1.0/secrets/{secretStoreName}/{key}, GET /v1.0/secrets/{secretStoreName}/bulk", "compat.TestSecrets, compat.TestSecretScopes"),
		works(joined(versions("v1.0 v1.0-alpha1", "GET", "configuration/{storeName}"), versions("v1.0 v1.0-alpha1", "GET", "configuration/{storeName}/subscribe"),
			versions("v1.0 v1.0-alpha1", "GET", "configuration/{storeName}/{configurationSubscribeID}/unsubscribe")), "compat.TestConfiguration"),
		notYet(joined("GET POST DELETE PUT /v1.0/actors/{actorType}/{actorId}/method/{method}", "POST PUT /v1.0/actors/{actorType}/{actorId}/state",
			"GET /v1.0/actors/{actorType}/{actorId}/state/{key}", "GET POST PUT DELETE /v1.0/actors/{actorType}/{actorId}/reminders/{name}",
			"POST PUT DELETE /v1.0/actors/{actorType}/{actorId}/timers/{name}"), noActors),
		notYet(joined(append([]string{versions(all, "GET", workflow), versions(all, "POST", "workflows/{workflowComponent}/{workflowName}/start")}, workflows...)...), noActors),
		notYet(joined(versions("v1.0 v1.0-alpha1", "GET POST DELETE", "jobs/{name}")), noJobs),
		works(joined(versions(alpha, "PUT", "crypto/{name}/encrypt"), versions(alpha, "PUT", "crypto/{name}/decrypt")), "compat.TestCryptoOverHTTP"),
		works(joined(subtle...), "compat.TestSubtleCrypto, compat.TestSubtleCryptoThatIsNotThere", subtleNote),
		differs(versions("v1.0-alpha1 v1.0-alpha2", "POST", "conversation/{name}/converse"), "compat.TestConversation, compat.TestConversationsThatFail, compat.TestConversationsAreListedAndReloaded, scrub.TestOverlaps", scrubNote),
	}}
}

func appRoutes() Area {
	return Area{ID: "app routes", Title: "HTTP apps", What: "Request", Intro: "What the sidecar asks of an app with `--app-protocol http`, `https` or `h2c`.", Rows: []Row{
		works("GET /dapr/subscribe", "compat.TestRoutesVerdictsAndDeadLetters, compat.TestDisabledInitEndpoints, compat.TestAppsAreAskedForSubscriptionsOnceThereIsABroker, gosdk.TestPubSub/http", "Once there is a broker that the app may use, and again whenever the app restarts."),
		works("POST {route}", "compat.TestPublishedEventsAreCloudEvents, compat.TestRoutesVerdictsAndDeadLetters", "SUCCESS, RETRY, DROP and statuses mean what they mean to daprd."),
		works("POST {route} with several events", "compat.TestDeclaredSubscriptionsAndBulk, compat.TestBulksAreNoLargerThanWhatTheAppTakesAtOnce, appchannel.TestHTTPBulksOfRawPayloads", "A bulk is no larger than `--app-max-concurrency`."),
		works("GET /healthz", "compat.TestAnUnhealthyAppGetsNothing, compat.TestMetadata", "Or what `--app-health-check-path` names."),
		works("POST /configuration/{storeName}/{key}", "compat.TestConfiguration, blocks.TestTheAppIsToldUntilItTakesIt", "One item a request, which is made again for about half a minute until the app takes it, unless a policy for the component's inbound side says otherwise. An app that subscribes to the same again is told once."),
		differs("GET /dapr/config", "compat.TestAppsAreAskedForTheirConfiguration, compat.TestDisabledInitEndpoints", "Asked once the app is ready, and not used: it is about actors, which there are not yet."),
		differs("OPTIONS POST /{binding}", "compat.TestInputBindingsOfHTTPApps, compat.TestAnswersToBindingsAreObeyed, appchannel.TestHTTPAppsTakeBindings",
			"Metadata of an event becomes header fields, but not `dapr-api-token`, `dapr-caller-*`, `dapr-callee-*` and `sidecast-*`: daprd lets a message pass for a sidecar's own. An app that does not answer is asked again, and what its JSON asks for is done (`storeName`, `state`, `to`, `data`, `concurrency`), as Dapr's documentation has it; daprd passes over it. An event is handled by any answer of 2xx, where daprd with a retry policy asks again for ever until it is 200. An app that answers with them by mistake stops that."),
		notYet("POST /job/{name}", "Never asked: there are no jobs yet."),
	}}
}
