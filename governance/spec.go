package governance

import (
	"time"

	"github.com/sidecast/sidecast/manifest"
)

// resiliencySpec is a document of kind Resiliency. The tags of these structs are the one description of the format: the
// reader, the JSON Schema and the reference page follow them. `ext` marks what Dapr does not have.
type resiliencySpec struct {
	Policies policies `yaml:"policies" doc:"Policies by name, for targets to refer to."`
	Targets  targets  `yaml:"targets" doc:"What the policies are for."`
}

type policies struct {
	Timeouts        map[string]timeoutSpec     `yaml:"timeouts" doc:"How long things may take."`
	Retries         map[string]retrySpec       `yaml:"retries" doc:"Whether and when a failed attempt is followed by another."`
	CircuitBreakers map[string]breakerSpec     `yaml:"circuitBreakers" doc:"When calls are kept away from a failing target."`
	RateLimits      map[string]rateLimitSpec   `yaml:"rateLimits" ext:"1" doc:"How many calls are admitted in how much time."`
	Concurrency     map[string]concurrencySpec `yaml:"concurrency" ext:"1" doc:"How many calls run at once, and what becomes of more."`
	Protections     map[string]protectionSpec  `yaml:"protections" ext:"1" doc:"When calls are shed because the machine is overloaded."`
	Hedges          map[string]hedgeSpec       `yaml:"hedges" ext:"1" doc:"When a slow call gets a second attempt."`
	Fallbacks       map[string]fallbackSpec    `yaml:"fallbacks" ext:"1" doc:"What is answered in place of a failure."`
}

// timeoutParts is a timeout in its long form.
type timeoutParts struct {
	manifest.Where
	Call     duration              `yaml:"call" ext:"1" doc:"Bound of a whole call, its waits and retries included; none when left out."`
	Attempt  duration              `yaml:"attempt" ext:"1" doc:"Bound of one attempt; none when left out."`
	Adaptive *adaptiveTimeoutParts `yaml:"adaptive" ext:"1" doc:"Takes the place of attempt once enough attempts were seen."`
}

type adaptiveTimeoutParts struct {
	Quantile   positiveShare `yaml:"quantile" ext:"1" doc:"Which of the observed times counts: 99.9% is the p99.9, and the default."`
	Multiplier float64       `yaml:"multiplier" ext:"1" min:"1" doc:"What it is multiplied by; 1.5 when left out."`
	Min        duration      `yaml:"min" ext:"1" doc:"Least bound; 10ms when left out."`
	Max        duration      `yaml:"max" ext:"1" doc:"Greatest bound; that of an attempt or else 30s when left out."`
	MinCalls   int           `yaml:"minCalls" ext:"1" min:"1" doc:"Attempts that must have been seen first; 100 when left out."`
}

type retrySpec struct {
	manifest.Where
	Policy          string          `yaml:"policy" oneof:"constant|exponential|full-jitter|decorrelated" doc:"How the waits grow: constant (the default) and exponential as in Dapr; full-jitter and decorrelated beyond it."`
	Duration        *duration       `yaml:"duration" doc:"The wait of policy constant; 5s when left out. The others begin at initialInterval."`
	MaxInterval     *duration       `yaml:"maxInterval" doc:"The longest wait of a growing policy, before jitter; 60s when left out."`
	MaxRetries      *int            `yaml:"maxRetries" min:"-1" doc:"Attempts after the first; -1, the default, as many as the caller's patience allows."`
	Matching        *matchSpec      `yaml:"matching" doc:"Which failures are tried again; all when left out."`
	InitialInterval *duration       `yaml:"initialInterval" ext:"1" doc:"The first wait of a growing policy; 500ms when left out."`
	Multiplier      float64         `yaml:"multiplier" ext:"1" min:"1" doc:"What a growing wait is multiplied by; 1.5 when left out."`
	Jitter          *manifest.Share `yaml:"jitter" ext:"1" doc:"Share by which a wait is spread up and down; 50% for exponential, none for constant when left out."`
	NonIdempotent   *bool           `yaml:"nonIdempotent" ext:"1" doc:"Whether calls that are neither marked idempotent nor of an idempotent verb (GET, HEAD, OPTIONS, PUT, DELETE) are repeated after they were sent; true, as in Dapr, when left out."`
	Elsewhere       bool            `yaml:"elsewhere" ext:"1" doc:"Try only instances that the call has not tried, at once."`
	Budget          *budgetSpec     `yaml:"budget" ext:"1" doc:"Bounds retries and hedges as a share of traffic; no bound when left out."`
}

type budgetSpec struct {
	Share     manifest.Share `yaml:"share" ext:"1" doc:"Share of the calls of the last ten seconds that may be retries."`
	PerSecond float64        `yaml:"perSecond" ext:"1" min:"0" doc:"Retries a second that are allowed beyond the share."`
}

// matchSpec says which failures are meant.
type matchSpec struct {
	HTTPStatusCodes codes    `yaml:"httpStatusCodes" doc:"HTTP statuses and ranges of them, like 429,500-599."`
	GRPCStatusCodes codes    `yaml:"gRPCStatusCodes" doc:"gRPC codes and ranges of them, like 4,8-14."`
	Kinds           []string `yaml:"kinds" ext:"1" doc:"Kinds of error, as docs/reference/errors.md names them."`
	Reasons         []string `yaml:"reasons" ext:"1" doc:"Reasons of errors, as docs/reference/errors.md names them."`
}

type breakerSpec struct {
	manifest.Where
	MaxRequests  int           `yaml:"maxRequests" min:"0" doc:"Calls that may pass while half-open, and must succeed to close it; 1 when left out."`
	Interval     duration      `yaml:"interval" doc:"Clears all counts while closed, each time it has passed; never when left out."`
	Timeout      duration      `yaml:"timeout" doc:"How long it stays open before it lets probes pass; 60s when left out."`
	Trip         trip          `yaml:"trip" doc:"CEL expression over requests, totalSuccesses, totalFailures, consecutiveSuccesses and consecutiveFailures that opens it; consecutiveFailures > 5 when nothing else does."`
	Failures     int           `yaml:"failures" ext:"1" min:"1" doc:"Failures in a row that open it."`
	FailureRatio positiveShare `yaml:"failureRatio" ext:"1" doc:"Share of failed calls within the window that opens it."`
	SlowRatio    positiveShare `yaml:"slowRatio" ext:"1" doc:"Share of slow calls within the window that opens it."`
	SlowAfter    positive      `yaml:"slowAfter" ext:"1" doc:"How long a call must take to be slow."`
	Window       positive      `yaml:"window" ext:"1" doc:"The calls of so much time are looked at; 10s when left out."`
	WindowCalls  int           `yaml:"windowCalls" ext:"1" min:"1" max:"1048576" doc:"The last so many calls are looked at, instead of a time."`
	MinCalls     int           `yaml:"minCalls" ext:"1" min:"1" doc:"Calls the window must hold before a ratio counts; 10 when left out."`
	OpenShare    openShare     `yaml:"openShare" ext:"1" doc:"Share of calls that may pass even while it is open; true is 0.01%, none when left out."`
	Ramp         *rampSpec     `yaml:"ramp" ext:"1" doc:"Lets the traffic come back in steps after the probes; at once when left out."`
}

type rampSpec struct {
	Step  positiveShare `yaml:"step" ext:"1" doc:"Share that each step adds; 10% when left out."`
	Every positive      `yaml:"every" ext:"1" doc:"Time between steps; 10s when left out."`
}

type rateLimitSpec struct {
	manifest.Where
	Algorithm string        `yaml:"algorithm" ext:"1" oneof:"token-bucket|leaky-bucket|fixed-window|sliding-log|sliding-counter" doc:"How the rate is measured; token-bucket when left out."`
	Limit     int           `yaml:"limit,required" ext:"1" min:"1" doc:"How many calls are admitted."`
	Per       positive      `yaml:"per" ext:"1" doc:"In how much time; 1s when left out."`
	Burst     int           `yaml:"burst" ext:"1" min:"1" doc:"Calls a token bucket holds, or a leaky bucket takes at once; limit and 1 when left out."`
	MaxWait   duration      `yaml:"maxWait" ext:"1" doc:"How long a call may wait until it conforms; it is refused at once when left out."`
	By        string        `yaml:"by" ext:"1" oneof:"caller|operation|header" doc:"Gives each caller, operation or value of a header a limit of its own."`
	Header    string        `yaml:"header" ext:"1" doc:"The header of by: header."`
	MaxKeys   int           `yaml:"maxKeys" ext:"1" min:"1" max:"65536" doc:"Callers, operations or values that are kept; the least used goes; 1024 when left out."`
	Scope     string        `yaml:"scope" ext:"1" oneof:"local|global" doc:"Whether each sidecar has the limit (local, the default) or all of them share it."`
	Answer    manifest.Name `yaml:"answer" ext:"1" doc:"The fallback that refused calls are answered with; the target's fallback or an error when left out."`
}

type concurrencySpec struct {
	manifest.Where
	MaxInFlight *int          `yaml:"maxInFlight" ext:"1" min:"0" max:"1000000" doc:"Calls that may run at once; 0 is no limit; the target's default when left out."`
	MaxQueue    *int          `yaml:"maxQueue" ext:"1" min:"0" max:"1000000" doc:"Calls that may wait for their turn; the target's default when left out."`
	Queue       *queueSpec    `yaml:"queue" ext:"1" doc:"Who waits, who is next and who goes."`
	Adaptive    *adaptiveSpec `yaml:"adaptive" ext:"1" doc:"Lets the limit follow the latency that attempts show."`
}

type queueSpec struct {
	Full           string   `yaml:"full" ext:"1" oneof:"refuse|wait|shed-oldest|shed-lowest-priority" doc:"What becomes of a call that finds the queue full; refuse when left out."`
	MaxWait        duration `yaml:"maxWait" ext:"1" doc:"Longest time in the queue; the call's deadline when left out."`
	PriorityHeader string   `yaml:"priorityHeader" ext:"1" doc:"The header that holds a call's priority, 0 (least) to 9; 5 without it."`
	Target         positive `yaml:"target" ext:"1" doc:"Turns on CoDel: when calls have waited longer than this for all of interval, the newest are served first and who waited longer is shed."`
	Interval       positive `yaml:"interval" ext:"1" doc:"The interval of CoDel; 100ms when left out."`
}

type adaptiveSpec struct {
	Algorithm string  `yaml:"algorithm" ext:"1" oneof:"gradient|vegas" doc:"How the limit follows: gradient (the default) or vegas."`
	Min       int     `yaml:"min" ext:"1" min:"1" max:"1000000" doc:"Least limit; 4 when left out."`
	Initial   int     `yaml:"initial" ext:"1" min:"1" max:"1000000" doc:"Limit to begin with; 20 when left out."`
	Max       int     `yaml:"max" ext:"1" min:"1" max:"1000000" doc:"Greatest limit; maxInFlight or else 1000 when left out."`
	Tolerance float64 `yaml:"tolerance" ext:"1" min:"1" doc:"How much slower than at rest attempts may become before the limit falls; 1.5 when left out."`
}

type protectionSpec struct {
	manifest.Where
	CPU        manifest.Share `yaml:"cpu" ext:"1" doc:"Shed calls while more of the machine's CPU than this is used."`
	Memory     manifest.Share `yaml:"memory" ext:"1" doc:"Shed calls while more of the machine's memory than this is used."`
	QueueDelay positive       `yaml:"queueDelay" ext:"1" doc:"Shed calls while calls have waited longer than this in the queue."`
}

type hedgeSpec struct {
	manifest.Where
	After positive `yaml:"after,required" ext:"1" doc:"How long an attempt may take before another is started beside it."`
	Max   int      `yaml:"max" ext:"1" min:"1" max:"5" doc:"How many more attempts may run beside the first; 1 when left out."`
}

type fallbackSpec struct {
	manifest.Where
	Status   int               `yaml:"status" ext:"1" min:"200" max:"599" doc:"HTTP status of the answer."`
	Headers  map[string]string `yaml:"headers" ext:"1" doc:"Header fields of the answer."`
	Body     string            `yaml:"body" ext:"1" doc:"Body of the answer."`
	App      string            `yaml:"app" ext:"1" doc:"Another app id to ask, once."`
	LastGood *lastGoodSpec     `yaml:"lastGood" ext:"1" doc:"Answer a read with the last good answer to the same request."`
	On       *matchSpec        `yaml:"on" ext:"1" doc:"Which failures it answers; all when left out. Quote the key where a tool of YAML 1.1 handles the file: it takes a bare on for true."`
}

type lastGoodSpec struct {
	MaxAge     positive `yaml:"maxAge" ext:"1" doc:"How old it may be; 1m when left out."`
	MaxEntries int      `yaml:"maxEntries" ext:"1" min:"1" max:"65536" doc:"How many answers are kept; 256 when left out."`
}

type targets struct {
	App        *policySet                 `yaml:"app" ext:"1" doc:"Calls and events that reach the app beside this sidecar."`
	Apps       map[string]appTarget       `yaml:"apps" doc:"Calls to other apps, by app id."`
	Actors     map[string]actorTarget     `yaml:"actors" doc:"Calls to actors, by type. Read and checked; there are no actors yet."`
	Components map[string]componentTarget `yaml:"components" doc:"Operations of components, by name."`
}

// policyNames are the policies of a target.
type policyNames struct {
	Timeout        manifest.Name   `yaml:"timeout" doc:"One of policies.timeouts."`
	Retry          manifest.Name   `yaml:"retry" doc:"One of policies.retries."`
	CircuitBreaker manifest.Name   `yaml:"circuitBreaker" doc:"One of policies.circuitBreakers."`
	RateLimit      manifest.Name   `yaml:"rateLimit" ext:"1" doc:"One of policies.rateLimits."`
	RateLimits     []manifest.Name `yaml:"rateLimits" ext:"1" doc:"Several of policies.rateLimits; a call must pass all of them."`
	Concurrency    manifest.Name   `yaml:"concurrency" ext:"1" doc:"One of policies.concurrency."`
	Protection     manifest.Name   `yaml:"protection" ext:"1" doc:"One of policies.protections."`
	Hedge          manifest.Name   `yaml:"hedge" ext:"1" doc:"One of policies.hedges."`
	Fallback       manifest.Name   `yaml:"fallback" ext:"1" doc:"One of policies.fallbacks."`
	FailureMode    string          `yaml:"failureMode" ext:"1" oneof:"failfast|failover|failback|failcache|failsafe" doc:"What becomes of a call whose attempt failed: failfast tries once; failover tries another instance at once; failback returns the failure for the caller to decide; failcache tries again later; failsafe answers with the fallback."`
}

// policySet is a target with rules for single operations of it.
type policySet struct {
	manifest.Where
	policyNames `yaml:",inline"`
	Operations  map[string]operationTarget `yaml:"operations" ext:"1" doc:"Rules for single operations, by a path or method, with * for any text, or VERB:/path; the most specific one counts. Its timeout, retry, hedge, failureMode and fallback take the place of the target's, all else comes before the target's."`
}

type operationTarget struct {
	manifest.Where
	policyNames `yaml:",inline"`
}

type appTarget struct {
	policySet               `yaml:",inline"`
	CircuitBreakerCacheSize int `yaml:"circuitBreakerCacheSize" min:"0" doc:"Read for Dapr's sake: one breaker guards all methods of an app here."`
}

type actorTarget struct {
	manifest.Where
	Timeout                 manifest.Name `yaml:"timeout" doc:"One of policies.timeouts."`
	Retry                   manifest.Name `yaml:"retry" doc:"One of policies.retries."`
	CircuitBreaker          manifest.Name `yaml:"circuitBreaker" doc:"One of policies.circuitBreakers."`
	CircuitBreakerScope     string        `yaml:"circuitBreakerScope" oneof:"type|id|both" doc:"What has a breaker of its own; needed with circuitBreaker."`
	CircuitBreakerCacheSize int           `yaml:"circuitBreakerCacheSize" min:"0" doc:"How many breakers are kept; 5000 when left out."`
}

type componentTarget struct {
	manifest.Where
	Timeout        manifest.Name `yaml:"timeout" doc:"The same for both directions, as an example of Dapr's documentation has it; daprd itself does not read it."`
	Retry          manifest.Name `yaml:"retry" doc:"Likewise."`
	CircuitBreaker manifest.Name `yaml:"circuitBreaker" doc:"Likewise."`
	Inbound        *policySet    `yaml:"inbound" doc:"Events that a pub/sub component delivers. Their operations are topics."`
	Outbound       *policySet    `yaml:"outbound" doc:"Operations on the component: get, apply, list; publish, publish_batch; acquire, renew, release and others."`
}

// positive is a duration that zero is no value of: who wants none leaves it out.
type positive duration

// duration is a time that Dapr's rules read: a plain number is milliseconds.
type duration time.Duration
