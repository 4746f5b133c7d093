package fault

// Reason is a stable UPPER_SNAKE word for one cause of failure. It is the `reason` of google.rpc.ErrorInfo, a label of
// metrics and the heading of an entry in docs/reference/errors.md.
type Reason string

// Domain is the `domain` of google.rpc.ErrorInfo for every reason of the runtime.
const Domain = "sidecast.dev"

// The reasons, by the room they come from.
const (
	// Requests.
	BadRequest       Reason = "BAD_REQUEST"
	BodyTooLarge     Reason = "BODY_TOO_LARGE"
	AnswerTooLarge   Reason = "ANSWER_TOO_LARGE"
	DeadlineExceeded Reason = "DEADLINE_EXCEEDED"
	CallCanceled     Reason = "CALL_CANCELED"
	TokenRejected    Reason = "TOKEN_REJECTED"
	AccessDenied     Reason = "ACCESS_DENIED"
	Shutdown         Reason = "SHUTTING_DOWN"
	Panicked         Reason = "PANICKED"
	Defect           Reason = "DEFECT"
	NotSupported     Reason = "NOT_SUPPORTED"

	// Lanes.
	QueueFull      Reason = "QUEUE_FULL"
	TargetFull     Reason = "TARGET_FULL"
	QueueShed      Reason = "QUEUE_SHED"
	RateLimited    Reason = "RATE_LIMITED"
	Overloaded     Reason = "OVERLOADED"
	BreakerOpen    Reason = "BREAKER_OPEN"
	BudgetSpent    Reason = "DEADLINE_SPENT"
	AttemptTimeout Reason = "ATTEMPT_TIMEOUT"
	LaneRestarted  Reason = "LANE_RESTARTED"
	LaneDraining   Reason = "LANE_DRAINING"
	LaneNotFound   Reason = "LANE_NOT_FOUND"

	// Invocation and the fabric.
	AppNotFound        Reason = "APP_NOT_FOUND"
	NoResponders       Reason = "NO_RESPONDERS"
	InstanceLost       Reason = "INSTANCE_LOST"
	FabricDown         Reason = "FABRIC_DOWN"
	FabricConfig       Reason = "FABRIC_CONFIG"
	FabricBusy         Reason = "FABRIC_BUSY"
	BodiesFull         Reason = "BODIES_FULL"
	StreamBroken       Reason = "STREAM_BROKEN"
	JetStreamRefused   Reason = "JETSTREAM_REFUSED"
	JetStreamExhausted Reason = "JETSTREAM_EXHAUSTED"

	// The app.
	AppNotConnected Reason = "APP_NOT_CONNECTED"
	NoApp           Reason = "NO_APP"
	AppUnhealthy    Reason = "APP_UNHEALTHY"
	AppUnreachable  Reason = "APP_UNREACHABLE"
	AppFailed       Reason = "APP_FAILED"
	AppAnswer       Reason = "APP_BAD_ANSWER"
	SidecarLost     Reason = "SIDECAR_UNREACHABLE"
	HandlerNotFound Reason = "HANDLER_NOT_FOUND"

	// HTTP servers outside the fabric.
	EndpointUnreachable Reason = "ENDPOINT_UNREACHABLE"
	EndpointBroke       Reason = "ENDPOINT_BROKE"

	// Components.
	ComponentNotFound Reason = "COMPONENT_NOT_FOUND"
	ComponentDegraded Reason = "COMPONENT_DEGRADED"
	ComponentDenied   Reason = "COMPONENT_DENIED"
	ComponentReplaced Reason = "COMPONENT_REPLACED"
	BadManifest       Reason = "BAD_MANIFEST"
	SecretNotFound    Reason = "SECRET_NOT_FOUND"
	SecretDenied      Reason = "SECRET_DENIED"
	SettingNotFound   Reason = "SETTING_NOT_FOUND"
	SubscriptionsFull Reason = "SUBSCRIPTIONS_FULL"
	BackendFailed     Reason = "BACKEND_FAILED"
	BackendDown       Reason = "BACKEND_UNAVAILABLE"
	DirectoryInUse    Reason = "DIRECTORY_IN_USE"
	DirectoryBad      Reason = "DIRECTORY_UNUSABLE"
	DiskFull          Reason = "DISK_FULL"

	// State.
	ETagMismatch   Reason = "ETAG_MISMATCH"
	ETagMalformed  Reason = "ETAG_MALFORMED"
	KeyInvalid     Reason = "KEY_INVALID"
	TTLInvalid     Reason = "TTL_INVALID"
	PageInvalid    Reason = "PAGE_TOKEN_INVALID"
	TransactionBig Reason = "TRANSACTION_TOO_LARGE"
	ValueTooLarge  Reason = "VALUE_TOO_LARGE"
	StoreFull      Reason = "STORE_FULL"
	// ValueUndecryptable is of stores with encryption keys.
	ValueUndecryptable Reason = "VALUE_UNDECRYPTABLE"
	QueryInvalid       Reason = "QUERY_INVALID"
	WatchOverrun       Reason = "WATCH_OVERRUN"
	OutboxFull         Reason = "OUTBOX_FULL"
	OutboxUnusable     Reason = "OUTBOX_UNUSABLE"

	// Pub/sub.
	TopicInvalid  Reason = "TOPIC_INVALID"
	TopicFull     Reason = "TOPIC_FULL"
	TopicDenied   Reason = "TOPIC_DENIED"
	RouteNotFound Reason = "ROUTE_NOT_FOUND"
	EventInvalid  Reason = "EVENT_INVALID"
	// EventUndeliverable is of events that are stored.
	EventUndeliverable Reason = "EVENT_UNDELIVERABLE"
	DelayInvalid       Reason = "DELAY_INVALID"
	EventRejected      Reason = "EVENT_REJECTED"
	AckUnknown         Reason = "ACK_UNKNOWN"

	// Locks.
	LockHeld   Reason = "LOCK_HELD"
	LockLost   Reason = "LOCK_LOST"
	LockName   Reason = "LOCK_NAME_INVALID"
	LeaseShort Reason = "LEASE_INVALID"

	// The command line and start-up.
	PortInUse       Reason = "PORT_IN_USE"
	SidecarNotFound Reason = "SIDECAR_NOT_FOUND"
	ProcessFailed   Reason = "PROCESS_FAILED"
	FlagInvalid     Reason = "FLAG_INVALID"
	RunFile         Reason = "RUN_FILE_INVALID"
)

// Entry documents one reason.
type Entry struct {
	Reason Reason
	// Kind is the kind an error of this reason has unless the place that builds it says otherwise.
	Kind Kind
	// NotSent says that the work never began: trying again is safe even for calls that are not idempotent.
	NotSent bool
	// Cause is what happened, Remedy what the reader can do.
	Cause, Remedy string
}

var reasonTable = []Entry{
	{BadRequest, Invalid, true, "A field of the request is missing or has a value that cannot be.", "Correct the field that the message names."},
	{BodyTooLarge, Invalid, true, "The body is larger than this sidecar accepts.", "Send less, stream it with InvokeStream, or raise `--max-body`."},
	{AnswerTooLarge, Invalid, false, "The answer is larger than the sidecars carry in one piece; the work was done.", "Answer less, stream it with InvokeStream, or raise `--max-body`."},
	{DeadlineExceeded, Timeout, false, "The call's deadline passed before its answer came.", "See in the message what it was waiting for; allow more time or find what is slow."},
	{CallCanceled, Canceled, false, "The caller went away before the answer came.", "Nothing, if the caller meant it."},
	{TokenRejected, Denied, true, "The API token is missing or wrong.", "Send the token of SIDECAST_API_TOKEN as metadata `sidecast-api-token`."},
	{AccessDenied, Denied, true, "The access control of the called app does not let the caller invoke that operation.", "Allow it in accessControl of the called app's Configuration."},
	{Shutdown, Unavailable, true, "The sidecar is draining and takes no new work.", "Try again: another instance, or the restarted one, will answer."},
	{Panicked, Internal, false, "A handler, backend or lane panicked; the panic was contained and logged with its stack.", "Read the log line with the same trace id and report the defect."},
	{Defect, Internal, false, "Something that cannot happen did.", "Report it with the message."},
	{NotSupported, Unsupported, true, "This backend, server version or app protocol cannot do what was asked.", "The message names what can."},

	{QueueFull, Exhausted, true, "The lane has as many calls in flight and waiting as its policy allows.", "Wait for the given retry-after; raise maxInFlight or maxQueue if the target can take more."},
	{TargetFull, Exhausted, true, "Every instance of the target has as many calls of this lane as it takes, and would refuse one more.", "Wait for the given retry-after; run more instances of the target, or raise its concurrency if it can do more."},
	{QueueShed, Exhausted, true, "The call waited in the lane's queue for longer than its policy lets calls wait, or gave its place to another.", "Wait for the given retry-after; the target has more work than it can do."},
	{RateLimited, Exhausted, true, "The call is over a rate limit of the lane's policy.", "Wait for the given retry-after, or raise the limit that the message names."},
	{Overloaded, Exhausted, true, "The machine, or the lane, is overloaded and sheds calls of this priority.", "Wait for the given retry-after; `sidecast tree` shows what is overloaded."},
	{BreakerOpen, Tripped, true, "Too many calls failed or were slow, or an operator holds the breaker open; it keeps calls away until the target had time to recover, and then lets them come back.", "Fix the target. `sidecast tree` shows why the breaker opened and when the next probe goes."},
	{BudgetSpent, Timeout, true, "The deadline had passed, or would have, before the call could start.", "Give the call more time or find which hop spent it."},
	{AttemptTimeout, Timeout, false, "One attempt took longer than the policy's attempt timeout.", "Raise the attempt timeout or find what is slow in the target."},
	{LaneRestarted, Unavailable, true, "The lane failed and is being restarted by its supervisor.", "Try again; the log holds the panic."},
	{LaneDraining, Unavailable, true, "The lane is draining and takes no new calls.", "Try again; another instance will answer. A lane that an operator drained is let in again by `sidecast lane resume`."},
	{LaneNotFound, NotFound, true, "The sidecar has no lane of that name. Lanes of apps and components come with their first use.", "`sidecast lane list` names those that there are."},

	{AppNotFound, Unavailable, true, "No instance of that app id is on the fabric.", "Start the app, check its --app-id and namespace; `sidecast status` lists who is there."},
	{NoResponders, Unavailable, true, "The chosen instance is gone: nobody listened on its subject.", "Try again; presence has already dropped the instance."},
	{InstanceLost, Unavailable, false, "The instance left or died while it worked on the call.", "Try again if the call is idempotent."},
	{FabricDown, Unavailable, true, "The NATS fabric cannot be reached.", "Check the server of --fabric, or whether another sidecar of this machine holds the embedded one."},
	{FabricConfig, Invalid, true, "The fabric's address, credentials or port cannot work.", "Correct what the message names."},
	{FabricBusy, Exhausted, true, "The sidecar already works on as many inbound calls as it may.", "Wait for the given retry-after."},
	{BodiesFull, Exhausted, true, "The large requests that the sidecar works on take all the memory there is for them.", "Wait for the given retry-after; send fewer large bodies at once, or stream them with InvokeStream."},
	{StreamBroken, Unavailable, false, "A stream lost frames or its peer and was reset.", "Open the stream again."},
	{JetStreamRefused, Unavailable, false, "JetStream did not accept the operation.", "The message holds the server's own answer."},
	{JetStreamExhausted, Exhausted, true, "JetStream reached a limit of its account, stream or disk.", "Free space, or raise the limit the message names."},

	{AppNotConnected, Unavailable, true, "No app is connected to its sidecar.", "Start the app; with --app-port check that it listens, without one check that it opens App.Serve."},
	{NoApp, Unavailable, true, "The sidecar that was called was started without an app.", "Check the app id; start that sidecar with --app-port if there is an app."},
	{AppUnhealthy, Unavailable, true, "The app fails its health check, so its sidecar sends it nothing.", "See the app's own log; calls resume when the check passes."},
	{AppUnreachable, Unavailable, true, "The connection to the app's port was refused.", "Check that the app listens on --app-port and speaks --app-protocol there."},
	{AppFailed, Internal, false, "The app's handler answered with an error.", "See the app's own log."},
	{AppAnswer, Internal, false, "The app answered something that is not the protocol.", "The message says what was expected and what came."},
	{SidecarLost, Unavailable, false, "The SDK cannot reach the app's sidecar, or lost it.", "Start the app with `sidecast run`, or name the sidecar in SIDECAST_GRPC_ENDPOINT."},
	{HandlerNotFound, NotFound, true, "The app has no handler of that name.", "Check the method; the message lists what the app registered."},

	{EndpointUnreachable, Unavailable, true, "No connection to the HTTP server outside could be made.", "Check its baseUrl, and clientTLS where it speaks TLS; the message says what failed."},
	{EndpointBroke, Unavailable, false, "The connection to the HTTP server outside broke, or what came over it is no HTTP.", "Try again if the call is idempotent; the message says what happened."},

	{ComponentNotFound, Invalid, true, "No component of that name is configured for this block.", "Check the name; the message lists those that exist."},
	{ComponentDegraded, Unavailable, true, "The component could not start; the runtime keeps trying.", "The message holds the last failure; `sidecast components` shows its state."},
	{ComponentDenied, Denied, true, "The component's scopes do not include this app.", "Add the app id to `scopes`."},
	{ComponentReplaced, Unavailable, false, "The component's file changed while a subscription or watch was using it.", "Subscribe or watch again: the new component answers."},
	{BadManifest, Invalid, true, "A component file is wrong.", "Correct the file, line and key that the message names; `sidecast lint` checks a folder."},
	{SecretNotFound, Invalid, true, "A secretKeyRef, an envRef or a call names a secret that does not exist.", "Create the secret or correct the reference."},
	{SettingNotFound, NotFound, true, "The configuration store holds no item of that key.", "Check the key, the store and the namespace; `sidecast config get` lists what there is."},
	{SubscriptionsFull, Exhausted, true, "The sidecar has as many subscriptions to settings as one may have.", "Unsubscribe from those that nobody needs; one subscription may name many keys."},
	{SecretDenied, Denied, true, "The secret scopes of the Configuration do not let the app read this secret.", "Change `secrets.scopes` of the Configuration, or ask for another secret."},
	{BackendFailed, Internal, false, "The component's backend answered with an error.", "The message holds the backend's own words."},
	{BackendDown, Unavailable, false, "The component's backend cannot be reached.", "Check the backend; calls resume when it answers."},
	{DirectoryInUse, Unavailable, true, "Another process has this data directory open.", "Stop that process, use another directory, or share state with `state.jetstream`."},
	{DirectoryBad, Invalid, true, "The data directory cannot be created, read or written.", "Correct its permissions or name another one."},
	{DiskFull, Exhausted, true, "The disk that holds the data is full, or nearly so; the write was refused before it began.", "Free space; writes resume by themselves."},

	{ETagMismatch, Conflict, true, "The ETag given is not that of the stored item: someone else wrote it, or it is gone.", "Read it again and decide."},
	{ETagMalformed, Invalid, true, "The ETag is not one that this store gives out.", "Use the ETag of the last read, unchanged."},
	{KeyInvalid, Invalid, true, "The key is empty, too long or holds bytes that keys may not.", "Correct the key."},
	{TTLInvalid, Invalid, true, "The time to live is negative or too long.", "Use a positive duration, or none."},
	{PageInvalid, Invalid, true, "The page token is not one that List gave out for this prefix.", "Start again without a token."},
	{TransactionBig, Invalid, true, "The transaction has more operations or bytes than the store can apply at once.", "Split it."},
	{ValueTooLarge, Invalid, true, "The value is larger than the store accepts.", "Store less, or use another store."},
	{StoreFull, Exhausted, true, "The store holds as many bytes as it may.", "Delete something, give items a time to live, or raise the component's limit."},
	{ValueUndecryptable, Invalid, false, "A value of a store with encryption keys is not encrypted with the primary or the secondary one, or is damaged.", "Give the key that the message names as secondaryEncryptionKey, or write the item again."},
	{QueryInvalid, Invalid, true, "The query is not one that the store can answer.", "Correct what the message names; a store with encryption keys answers none."},
	{WatchOverrun, Unavailable, false, "The watcher read more slowly than changes came and was cut off.", "Watch again: the first events are the current state."},
	{OutboxFull, Exhausted, true, "As many transactions as the store's outbox has room for wait for their events to be published; nothing was written.", "Wait for the given retry-after; see why the broker does not take the events. A store that can list its keys has no such limit."},
	{OutboxUnusable, Invalid, true, "The events that the transaction is to publish can be published nowhere, or are not valid; nothing was written.", "Correct outboxPublishPubsub, outboxPublishTopic, the scopes of that broker, or the attributes that the message names."},

	{TopicInvalid, Invalid, true, "The topic is empty or too long.", "Correct the topic."},
	{TopicFull, Exhausted, true, "The topic holds as many messages or bytes that wait for its groups as it may.", "Consume or acknowledge them, or raise maxMessages or maxBytes."},
	{TopicDenied, Denied, true, "The component's scopes do not let this app use the topic.", "Name the app in publishingScopes or subscriptionScopes, or the topic in allowedTopics."},
	{RouteNotFound, NotFound, true, "No rule of the subscription leads the event anywhere.", "Add a default route if it should be handled."},
	{EventInvalid, Invalid, true, "The event is not a valid CloudEvent.", "Correct the attribute that the message names, or publish raw."},
	{EventUndeliverable, Invalid, false, "A stored event cannot be given to the app: a routing rule fails on it, it is not in the format that the subscription reads, or it cannot be said in the app's protocol.", "Correct the rule; or give the subscription a dead-letter topic, which takes such events at once. Without one the event is kept and tried again with growing pauses."},
	{DelayInvalid, Invalid, true, "The delay is negative or too long.", "Correct the delay."},
	{EventRejected, Unavailable, false, "The handler asked for the event again later.", "Nothing; it is redelivered."},
	{AckUnknown, Invalid, true, "The delivery id is not one that waits for an answer.", "Answer each delivery once, on the stream that brought it."},

	{LockHeld, Conflict, true, "Another owner holds the lock, and still held it when the wait ended.", "Try later, or wait longer."},
	{LockLost, Conflict, true, "The lease ran out or was taken over: the caller no longer holds the lock.", "Stop what the lock protected; acquire it again."},
	{LockName, Invalid, true, "The lock's name or owner is empty or too long.", "Correct the name."},
	{LeaseShort, Invalid, true, "The lease is not a duration that the lock store supports.", "Use a lease within the limits the message names."},

	{PortInUse, Invalid, true, "Another process listens on that port.", "Stop it, or choose another port with the flag the message names."},
	{SidecarNotFound, Unavailable, true, "No sidecar that the command line could talk to runs on this machine.", "Start one with `sidecast run`; `sidecast status` lists those that run, --app-id or --grpc-address chooses one."},
	{ProcessFailed, Internal, false, "A build command, an app or a sidecar could not be started, or refused its configuration.", "The message says which; its own output above says why."},
	{FlagInvalid, Invalid, true, "A flag has a value that cannot be.", "Correct the flag; --help explains it."},
	{RunFile, Invalid, true, "The multi-app run file is wrong.", "Correct the file, line and key that the message names."},
}

// Reasons returns the documentation of every reason, in the order of the table.
func Reasons() []Entry { return append([]Entry(nil), reasonTable...) }

var reasonIndex = func() map[Reason]*Entry {
	index := make(map[Reason]*Entry, len(reasonTable))
	for i := range reasonTable {
		index[reasonTable[i].Reason] = &reasonTable[i]
	}
	return index
}()

// Kind is the kind that an error of this reason has by default; Internal for a reason that is not in the table.
func (r Reason) Kind() Kind {
	if e, ok := reasonIndex[r]; ok {
		return e.Kind
	}
	return Internal
}

// NotSent says that an error of this reason means the work never began.
func (r Reason) NotSent() bool {
	e, ok := reasonIndex[r]
	return ok && e.NotSent
}
