// Package resiliency decides, for one lane, what becomes of each call: admit, queue or refuse it, on which endpoint, for
// how long, whether to try again and when. It is a pure machine: it starts no goroutine, reads no clock, does no I/O and
// knows no transport. Whoever drives it tells it the time and what happened, and does what it decides:
//
//	m := resiliency.New("app/orders", policy)
//	turn := new(resiliency.Turn)
//	turn.Begin(resiliency.Call{Op: "invoke orders/list", Deadline: deadline}, owner)
//	for _, d := range m.Step(time.Now(), resiliency.Enter{Turn: turn}) {
//		// d.Verb says Go, Again, GiveUp or Done, d.Turn to whom.
//	}
//
// # The order of policies
//
// It is the same for every block and stands here alone:
//
//		deadline → rate limit → semaphore and queue → endpoint → breaker → attempt → outcome → retry or fallback
//
//	  - deadline: a call's deadline is the nearer of its own and the policy's CallTimeout. A call whose deadline is spent
//	    is refused when it arrives and again when it leaves the queue.
//	    Then come those who turn calls away whatever they are: a lane that drains, and overload protection, which sheds a
//	    share of the calls that come for the first time, those of low priority first.
//	  - rate limit: a call passes all of the policy's limits or takes from none. Who does not conform waits outside until it
//	    does, where a limit lets it, or is refused and told when it would. A sidecar's share of a global limit is told by
//	    the driver (SetShare), which asks for the demand (Demands).
//	  - semaphore and queue: MaxInFlight calls run, MaxQueue wait. Higher priorities are served first, equal ones first
//	    come first served, or newest first while CoDel finds the queue overloaded. Who finds it full is refused, waits
//	    anyway, or takes the place of another, who is shed; so is who waited longer than MaxWait. While an operator holds
//	    the lane all wait.
//	    An adaptive limit takes the place of MaxInFlight while it is lower.
//	  - endpoint: a balanced lane chooses one. None known, or none with room, is a failure of this try, not of the call.
//	  - breaker: too many failed or slow calls keep calls away from the target; then probes decide, and the traffic comes
//	    back at once or in steps. An operator may hold it open or closed.
//	  - attempt: done by the driver, until the nearer of the call's deadline and AttemptTimeout.
//	  - outcome: gives back the slot, teaches breaker, endpoint, service time and adaptive limit.
//	  - retry or fallback: a retry waits outside, holding no slot, and enters again at the top. The driver asks
//	    Policy.FallbackFor what answers in place of a failure.
//
// # Promises
//
// Every Enter and every Outcome is answered by exactly one Decision, sooner or later, unless the turn leaves first. No
// more than MaxInFlight turns hold a grant. A turn that ends without an attempt says so (fault.NotSent). The machine is
// total: no event in any order makes it fail, and an event about a turn it does not know changes nothing.
//
// It does not promise fairness between callers, nor to wake anybody: it decides only when it is stepped, so the driver
// ends the wait of a queued turn whose deadline comes with Leave, and of one that waited for MaxWait with Overdue.
package resiliency
