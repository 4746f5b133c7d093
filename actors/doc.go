// Package actors supervises what runs inside a sidecar: lanes, through which every call passes, and workers, goroutines
// that must not die. It is the only package that knows the actor library.
//
//	system := actors.NewSystem(actors.Options{Log: log})
//	defer system.Close(ctx)
//	lane := system.Lane("statestore", policy)
//	err := lane.Do(ctx, resiliency.Call{Op: "state statestore: get", Idempotent: true},
//		func(ctx context.Context, grant actors.Grant) error {
//			items, err = store.Get(ctx, keys)
//			return err
//		})
//
// # Lanes
//
// A lane is an actor that owns one machine of package resiliency and does what it decides. It does no work of a call: the
// caller's own goroutine asks for a turn, makes the attempt under the grant's deadline, and reports the outcome. A call
// that succeeds at once costs two messages and one wait.
//
// Every call is answered: with the attempt's own success, or with a fault that names lane, policy and attempts. When a
// lane panics, those who wait on it are answered at once with a retryable fault, those who come while it is down are
// refused at once, and those whose attempt runs keep their slots: the semaphore holds across the restart. A panic in an
// attempt is contained and answered.
//
// # Supervision
//
// All lanes and workers are children of one supervisor. It restarts whoever fails, after waits that grow from RestartAfter
// to RestartAtMost and start over when the child has run longer than that. One child's failure touches no other.
//
// Not promised: fairness between callers of a lane beyond first come first served, and an end to attempts that ignore
// their context.
package actors
