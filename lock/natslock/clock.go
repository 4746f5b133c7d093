package natslock

import (
	"context"
	"sync"
	"time"
)

// skew is how far the clocks of the servers of a remote fabric may be apart.
const skew = 500 * time.Millisecond

// sampleAge is how long one answer of the server is good: its clock and ours do not drift apart measurably in that time.
const sampleAge = time.Minute

// clock tells the time of the server that stamps the entries, never ahead of it: late by at most one way of a message.
type clock struct {
	local bool // this machine's clock is the server's
	ask   func(context.Context) (time.Time, error)

	mu     sync.Mutex
	server time.Time // what the server's clock showed when it was last asked
	heard  time.Time // when the answer came, by our clock
}

// now may ask the server.
func (c *clock) now(ctx context.Context) (time.Time, error) {
	if c.local {
		return time.Now(), nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.heard.IsZero() || time.Since(c.heard) > sampleAge {
		server, err := c.ask(ctx)
		if err != nil {
			return time.Time{}, err
		}
		c.server, c.heard = server, time.Now()
	}
	return c.server.Add(time.Since(c.heard)), nil
}

// guess is now without asking.
func (c *clock) guess() time.Time {
	if c.local {
		return time.Now()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.heard.IsZero() {
		return time.Now()
	}
	return c.server.Add(time.Since(c.heard))
}

// grace is how long after its end a lease is left alone.
func (c *clock) grace() time.Duration {
	if c.local {
		return 0
	}
	return skew
}
