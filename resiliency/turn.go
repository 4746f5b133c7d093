package resiliency

import (
	"slices"
	"time"

	"github.com/cenkalti/backoff/v4"
)

// Call is what a lane needs to know of a call. It never sees the payload.
type Call struct {
	// Op is what is tried and on what, as errors say it: `invoke orders/list`.
	Op string
	// Caller is who asks: an app id.
	Caller string
	// Idempotent says that an attempt may follow one that was sent. Others are tried again only after failures that say
	// for certain that the work never began.
	Idempotent bool
	// Repeatable says that the call's verb lets it be made twice (RFC 9110 §9.2.2) though its caller did not mark it: it may
	// be hedged, and repeated where the policy says so (Retry.ByVerb, Retry.Lost).
	Repeatable bool
	// InPieces says that its bodies travel in pieces, or that it is a stream: Policy.Pieces is for it. Its driver does not hedge it.
	InPieces bool
	// Decided is what a lane before this one sees to, by a rule for the call's operation: here the policy does not do it too.
	Decided Decided
	// Deadline is when the caller stops waiting; zero is never.
	Deadline time.Time
	// Header is what rate limits by header and priorities are read from; nil has no fields. It is read each time that the
	// call enters, and must not change until the call has ended.
	Header Header
}

// Decided is what the policy of one of the lanes that a call passes does for it in place of the others.
type Decided struct {
	Timeout, Retry, Hedge bool
}

// Header finds the first value of a key, which is lower case; "" when there is none.
type Header interface{ Get(key string) string }

// Turn is one call on its way through a machine. Its driver allocates it, begins it and may reuse it; between Enter and
// the decision that answers, and while it holds a grant, it belongs to the machine.
type Turn struct {
	// Call is what Begin was given.
	Call Call
	// Owner is the driver's own: the machine never looks at it.
	Owner any

	home     *Machine // that knows the turn; nil outside
	place    place
	deadline time.Time
	priority uint8
	conforms bool // to the rate limits, and has waited until it did
	tries    int  // times that it came as far as the choice of an endpoint
	attempts int  // grants
	endpoint *endpoint
	abreast  int    // in flight when it was granted, itself among them
	era      uint64 // of the breaker when it let the turn pass
	tried    []string
	last     error         // of the latest try
	hedge    bool          // of another turn: it takes a free slot or none, and is never tried again
	wait     time.Duration // the latest of decorrelated waits
	delays   backoff.ExponentialBackOff
	arrived  time.Time // in the queue
	next     *Turn     // in the queue
	prev     *Turn
}

// place is where a turn is as its machine sees it.
type place uint8

const (
	outside place = iota
	queued
	inFlight
)

// Begin makes t ready for its first Enter, whatever it was before.
func (t *Turn) Begin(call Call, owner any) {
	clear(t.tried)
	*t = Turn{Call: call, Owner: owner, tried: t.tried[:0]}
}

// BeginHedge makes t ready to enter as a hedge: a second attempt of call beside one that is under way at endpoint avoid. It
// is granted at once or given up, and its outcome is always answered with Done.
func (t *Turn) BeginHedge(call Call, owner any, avoid string) {
	t.Begin(call, owner)
	t.hedge = true
	if avoid != "" {
		t.tried = append(t.tried, avoid)
	}
}

func (t *Turn) hasTried(id string) bool { return slices.Contains(t.tried, id) }

// Event is something that happened to a lane: one of Enter, Begun, Outcome, Leave, Overdue, SetPolicy, SetEndpoints,
// SetAdmission, ForceBreaker, SetShare, Pressure, Drain and Adopt.
type Event interface{ event() }

// Enter asks for a turn: the first time, or again after an Again decision.
type Enter struct{ Turn *Turn }

// Outcome reports what came of an attempt that was granted, nil for success, and how long it took. It is an event as a
// pointer: drivers keep it beside the Turn, so that the most frequent event costs no allocation.
type Outcome struct {
	Turn *Turn
	Err  error
	Took time.Duration
}

// Begun says that the answer to an attempt that was granted has begun, and not as a failure, and how long that took: the attempt goes
// on. It is not answered.
type Begun struct {
	Turn *Turn
	Took time.Duration
}

// Leave says that the caller went away. A turn that waits is forgotten, one that holds a grant gives its slot back and
// says nothing about the target. It is not answered.
type Leave struct{ Turn *Turn }

// Overdue says that a turn has waited for the policy's Queue.MaxWait since it entered. If it still waits it is shed, and
// that is the answer to its Enter; one that is out of the queue is left alone. A lane that is held sheds nobody, and begins
// to count when it is let go: the driver says it again after another MaxWait.
type Overdue struct{ Turn *Turn }

// SetPolicy replaces the policy. Calls that run or wait stay; a breaker whose rule is unchanged keeps its state.
type SetPolicy struct{ Policy Policy }

// SetEndpoints replaces the endpoints that a balanced machine may choose from.
type SetEndpoints struct{ Endpoints []Endpoint }

// SetAdmission is how an operator holds calls back, turns them away, and lets them in again.
type SetAdmission struct{ Admission Admission }

// Admission is what becomes of calls that enter a lane.
type Admission string

// The admissions.
const (
	Admitting  Admission = ""
	Held       Admission = "paused"  // they wait until their deadlines, however many; those in flight go on
	TurnedAway Admission = "drained" // they are refused with fault.LaneDraining; those in flight and waiting go on
)

// ForceBreaker holds a lane's breaker in a state whatever happens, or lets it follow its policy again.
type ForceBreaker struct{ Breaker Forced }

// Forced is what an operator holds a breaker at.
type Forced string

// The forced states.
const (
	NotForced    Forced = "auto"
	ForcedOpen   Forced = "open"
	ForcedClosed Forced = "closed"
)

// SetShare tells a lane how much of a global rate limit is its own for now.
type SetShare struct {
	// Limit is its RateLimit.Name.
	Limit string
	// Share of the limit, 0 to 1.
	Share float64
	// Local says that it is a guess, held on to while the fabric is away.
	Local bool
}

// Pressure is how loaded the machine, or the container, is: shares from 0 to 1.
type Pressure struct {
	CPU    float64 `json:"cpu"`
	Memory float64 `json:"memory"`
}

// Drain refuses new calls from now on. Calls that run or wait go on; nothing is tried again.
type Drain struct{}

// Adopt hands a turn that holds a grant of an earlier machine to this one, so that it keeps its slot.
type Adopt struct{ Turn *Turn }

func (Enter) event()        {}
func (Begun) event()        {}
func (*Outcome) event()     {}
func (Leave) event()        {}
func (Overdue) event()      {}
func (SetPolicy) event()    {}
func (SetEndpoints) event() {}
func (SetAdmission) event() {}
func (ForceBreaker) event() {}
func (SetShare) event()     {}
func (Pressure) event()     {}
func (Drain) event()        {}
func (Adopt) event()        {}

// Verb is what a decision tells the driver to do.
type Verb uint8

// The verbs.
const (
	Go     Verb = iota + 1 // make an attempt and report its Outcome
	Again                  // wait After, then Enter again
	GiveUp                 // answer Err
	Done                   // the success, or the outcome of a hedge, was taken in; nothing is left to do
)

// String is the verb as scripts and logs write it.
func (v Verb) String() string {
	return [...]string{"none", "go", "again", "give-up", "done"}[min(v, Done)]
}

// Decision answers one turn.
type Decision struct {
	Turn *Turn
	Verb Verb
	// Endpoint is where a Go goes, "" when the machine does not choose; Attempt counts grants, the first is 1.
	Endpoint string
	Attempt  int
	// Hedge is how long the attempt of a Go may take before the driver starts another beside it, with a turn begun by
	// BeginHedge, and again after as long, Hedges times at most; 0 is never.
	Hedge  time.Duration
	Hedges int
	// Deadline is when the attempt of a Go must have ended; zero is never.
	Deadline time.Time
	// After is how long an Again waits before it enters.
	After time.Duration
	// Err is what a GiveUp answers: always a fault. Of an Again it is the failure that it follows, nil when nothing failed
	// and the call waits until it conforms to the rate limits.
	Err error
}
