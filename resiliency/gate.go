package resiliency

import "time"

// gate is the semaphore of a lane and the queue before it.
type gate struct {
	limit, room int // most in flight (0 = no limit), most waiting
	inFlight    int
	inPieces    int // of them
	queue       queue
	service     time.Duration // moving average of the time an attempt takes; 0 before the first
}

// open reports whether a slot is free.
func (g *gate) open() bool { return g.limit == 0 || g.inFlight < g.limit }

// observe takes in the time of one attempt, with the weight of 1/8 that TCP gives a round trip (RFC 6298).
func (g *gate) observe(took time.Duration) {
	if g.service == 0 {
		g.service = max(took, 1)
		return
	}
	g.service = max(g.service+(took-g.service)/8, 1)
}

// Bounds of what a refused caller is told to wait, and the service time assumed before any is known.
const (
	minRetryAfter = 10 * time.Millisecond
	maxRetryAfter = 30 * time.Second
	guessService  = 100 * time.Millisecond
)

// attemptTakes estimates how long an attempt that begins now takes.
func (g *gate) attemptTakes() time.Duration {
	if g.service == 0 {
		return guessService
	}
	return min(max(g.service, minRetryAfter), maxRetryAfter)
}

// retryAfter estimates when a turn that comes then will find room: when the slots have worked off those who wait.
func (g *gate) retryAfter() time.Duration {
	service := g.service
	if service == 0 {
		service = guessService
	}
	ahead := float64(g.queue.len+1) / float64(max(g.limit, 1))
	return min(max(time.Duration(min(float64(service)*ahead, float64(maxRetryAfter))), minRetryAfter), maxRetryAfter)
}
