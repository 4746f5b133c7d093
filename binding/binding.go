// Package binding is the contract between the Bindings block and its backends: systems outside that an app asks to do
// something, or that it hears from. An Output does operations, an Input hands over events; a backend may be both. Lanes,
// retries, the choice of apps that are told and the pace of redelivery are the block's.
package binding

import "context"

// Output does operations. All methods may be called concurrently.
type Output interface {
	// Operations names what Invoke can do, in the backend's own order.
	Operations() []string
	// Invoke does r.Operation, which is one of Operations, and returns when it is done or ctx ends. The response is nil when
	// there is nothing to tell. An error may come with a response: of what the system answered it then holds the metadata.
	Invoke(ctx context.Context, r Request) (*Response, error)
	// Close returns when nothing of the backend is running any more.
	Close(ctx context.Context) error
}

// Request is an operation on the system.
type Request struct {
	Operation string
	Data      []byte
	Metadata  map[string]string
}

// Response is what came of it.
type Response struct {
	Data     []byte
	Metadata map[string]string
}

// Input hands over events. All methods may be called concurrently.
type Input interface {
	// Read gives handle the events of the system until ctx ends; then it hands no more over, waits for those that are out and
	// returns nil. A lost connection is healed inside where that is possible; otherwise Read fails and is called again.
	// One call of Read runs at a time.
	Read(ctx context.Context, handle Handler) error
	// Close returns when nothing of the backend is running any more.
	Close(ctx context.Context) error
}

// Event is what the system tells.
type Event struct {
	Data     []byte
	Metadata map[string]string
}

// Handler takes an event and returns the app's answer. It may be called concurrently. After an error the event is handed over
// again, where the system can.
type Handler func(Event) ([]byte, error)
