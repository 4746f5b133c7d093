package call

import "context"

// Room is the memory that a call's answer may take. Whoever reads a large answer asks for room before it does; whoever
// made the room gets it back when the answer is no longer used.
type Room interface {
	// Take waits until there is room for that many bytes, as long as ctx allows. Its error is a fault.
	Take(ctx context.Context, bytes int64) error
}

// Grower is a Room for answers whose size nobody knows before their end.
type Grower interface {
	Room
	// Grow takes room for an answer that turns out to have more than the from bytes that it has room for, up to to bytes. It
	// waits only as long as the answer holds no room: two that held some could wait for each other.
	Grow(ctx context.Context, from, to int64) error
}

// Keeper is a Room that has room, apart from that of answers, for what is kept of the request to be sent again.
type Keeper interface {
	Room
	// Keep takes room for that many bytes more, and is false when there is none now.
	Keep(bytes int64) bool
	// Drop gives all of it back. What was not given back is when the call has ended.
	Drop()
}

type roomKey struct{}

// WithRoom returns ctx with the room of its call.
func WithRoom(ctx context.Context, r Room) context.Context {
	return context.WithValue(ctx, roomKey{}, r)
}

// RoomOf is the room of ctx, or nil.
func RoomOf(ctx context.Context) Room {
	r, _ := ctx.Value(roomKey{}).(Room)
	return r
}

// TakeRoom asks the room of ctx for bytes. Without a room there is no bound.
func TakeRoom(ctx context.Context, bytes int64) error {
	if r, ok := ctx.Value(roomKey{}).(Room); ok {
		return r.Take(ctx, bytes)
	}
	return nil
}

// GrowRoom asks the room of ctx for more of an answer that has room for from bytes, 0 at first: up to to bytes in all.
func GrowRoom(ctx context.Context, from, to int64) error {
	if r, ok := ctx.Value(roomKey{}).(Grower); ok {
		return r.Grow(ctx, from, to)
	}
	return TakeRoom(ctx, to-from)
}
