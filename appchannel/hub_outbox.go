package appchannel

import "google.golang.org/grpc"

// outgoing is one encoded frame.
type outgoing struct {
	message grpc.PreparedMsg
	opens   uint64 // the work that the frame begins; 0 for other frames
	chunkOf *flow  // the stream that the frame carries bytes of; nil for other frames
}

// outbox is a queue in a slice.
type outbox struct {
	frames []outgoing
	head   int
}

func (o *outbox) push(frame outgoing) {
	if o.head > 64 && o.head > len(o.frames)/2 {
		n := copy(o.frames, o.frames[o.head:])
		clear(o.frames[n:])
		o.frames, o.head = o.frames[:n], 0
	}
	o.frames = append(o.frames, frame)
}

func (o *outbox) pop(frame *outgoing) bool {
	if o.head == len(o.frames) {
		*frame = outgoing{}
		return false
	}
	*frame = o.frames[o.head]
	o.frames[o.head] = outgoing{}
	if o.head++; o.head == len(o.frames) {
		o.head, o.frames = 0, o.frames[:0]
		if cap(o.frames) > 1024 { // a burst has passed: do not keep its memory
			o.frames = nil
		}
	}
	return true
}
