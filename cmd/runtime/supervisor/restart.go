package supervisor

import (
	"time"

	"github.com/cenkalti/backoff/v4"
)

const (
	firstRestart   = 200 * time.Millisecond
	slowestRestart = 30 * time.Second
	// healthyAfter is the life after which a process counts as healthy and its next death as its first.
	healthyAfter = 30 * time.Second
)

// restarts decides how long a process that died waits until it is started again. It reads no clock: it is told how long
// the process lived. There is no jitter, so that the log can say exactly when.
type restarts struct {
	backoff *backoff.ExponentialBackOff
	count   int
}

func newRestarts() *restarts {
	return &restarts{backoff: backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(firstRestart),
		backoff.WithMultiplier(2),
		backoff.WithRandomizationFactor(0),
		backoff.WithMaxInterval(slowestRestart),
		backoff.WithMaxElapsedTime(0), // never give up
	)}
}

// died tells the wait before the next start of a process that lived so long, and the how manieth restart that will be.
func (r *restarts) died(lived time.Duration) (wait time.Duration, nth int) {
	if lived >= healthyAfter {
		r.backoff.Reset()
	}
	r.count++
	return r.backoff.NextBackOff(), r.count
}
