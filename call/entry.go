package call

import "context"

// Entry is a call's place among the few that are worked on at a time between their front door and their first lane. The lane
// gives it back as soon as the call has been granted or has to wait; the place of a call that is refused lasts until it has
// been answered.
type Entry interface {
	// Leave gives the place back. Only the first time counts. It does not wait.
	Leave()
}

// EntryOf is the place of ctx, or nil. It comes with the room of its call.
func EntryOf(ctx context.Context) Entry {
	e, _ := ctx.Value(roomKey{}).(Entry)
	return e
}
