package contrib

import (
	"context"
	"sync/atomic"
	"time"

	"go.mongodb.org/mongo-driver/bson"
)

// mongoClock knows what time it is at the server, which says when an item is over. The server could reckon that itself, in an
// update by a pipeline; but an insert, which is how an item is made that must not be there, takes no expressions.
type mongoClock struct {
	asking chan struct{} // room for the one call that asks the server
	last   atomic.Pointer[clockReading]
}

// clockReading compares the server's clock and this one.
type clockReading struct {
	at    time.Time     // by this clock, which a step does not move
	shown time.Time     // what this clock showed then
	ahead time.Duration // the server's, of this one
}

const (
	// clockAge is how long a reading counts: a server's clock may be set, and another server have become the primary.
	clockAge = time.Minute
	// clockStep is what this clock may be set by, or a machine have slept, before a reading counts no more: less is a clock that
	// is being slewed.
	clockStep = 20 * time.Millisecond
	// clockUnit is what clocks may differ in without being said to: the server tells milliseconds.
	clockUnit = 2 * time.Millisecond
)

func newMongoClock() *mongoClock { return &mongoClock{asking: make(chan struct{}, 1)} }

// now is the time at the server, as it was last read.
func (c *mongoClock) now() time.Time { return time.Now().Add(c.last.Load().ahead) }

// counts says whether r is good enough to go by, now.
func (r *clockReading) counts(now time.Time) bool {
	if r == nil {
		return false
	}
	passed := now.Sub(r.at)
	return passed <= clockAge && (now.Round(0).Sub(r.shown)-passed).Abs() <= clockStep
}

// tell reads the server's clock, unless that was done lately. It must not be called within a transaction.
func (m *mongoStore) tell(ctx context.Context) error {
	c := m.clock
	if c.last.Load().counts(time.Now()) {
		return nil
	}
	select {
	case c.asking <- struct{}{}:
		defer func() { <-c.asking }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if c.last.Load().counts(time.Now()) {
		return nil // another call has asked meanwhile
	}
	var hello struct{ LocalTime time.Time }
	asked := time.Now()
	if err := m.client.Database("admin").RunCommand(ctx, bson.D{{Key: "isMaster", Value: 1}}).Decode(&hello); err != nil {
		return err
	}
	took := time.Since(asked)
	r := &clockReading{at: asked, shown: asked.Round(0)}
	if ahead := hello.LocalTime.Sub(asked.Add(took / 2)); !hello.LocalTime.IsZero() && ahead.Abs() > took+clockUnit {
		r.ahead = ahead
	}
	c.last.Store(r)
	return nil
}
