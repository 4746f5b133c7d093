package appchannel

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"sync"

	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/fault"
)

const (
	// atOnce is how much of an answer that may pass in pieces is asked for at a time, in bytes: one that comes with a single read
	// is whole at once.
	atOnce = 64 << 10
	// trickle is the size in bytes of pieces so small that a large buffer must not wait for the next.
	trickle = 4 << 10
)

// readBuffers hold slices of atOnce bytes.
var readBuffers = sync.Pool{New: func() any { b := make([]byte, atOnce); return &b }}

// reading is the answer to a call whose caller takes pieces, on its way from an HTTP server.
type reading struct {
	op       string
	response *http.Response
	passage  *call.Passage
	most     int64             // bytes of a failure that is held back
	broken   func(error) error // makes the fault of a body that broke off

	small []byte
	large *[]byte
}

// answer reads the whole body where it is there at once, or where it tells of a failure, which retries and fallbacks want to see
// before the caller does. Any other passes on as it comes.
func (a *reading) answer() (*call.Response, error) {
	defer a.release()
	head := headOf(a.response)
	length := a.response.ContentLength
	switch {
	case a.response.Request.Method == http.MethodHead || length == 0:
		return a.whole(head, nil), nil
	case a.response.StatusCode >= http.StatusBadRequest:
		return a.failure(head)
	case 0 < length && length <= atOnce: // its buffer becomes the body
		body := make([]byte, length)
		n, ended, err := a.read(body)
		switch {
		case err != nil:
			return nil, err
		case ended || n == len(body):
			return a.whole(head, body), nil
		}
		return a.pass(head, body[:n])
	}
	buffer := a.buffer(atOnce)
	n, ended, err := a.read(buffer)
	switch {
	case err != nil:
		return nil, err
	case ended:
		return a.whole(head, bytes.Clone(buffer[:n])), nil
	}
	return a.pass(head, buffer[:n])
}

// read brings what there is of the body, and says whether that was the last of it.
func (a *reading) read(into []byte) (n int, ended bool, err error) {
	for n == 0 && err == nil {
		n, err = a.response.Body.Read(into)
	}
	if errors.Is(err, io.EOF) {
		return n, true, nil
	}
	if err != nil {
		err = a.broken(err)
	}
	return n, false, err
}

func (a *reading) whole(head *call.Response, body []byte) *call.Response {
	head.Body, head.Trailer = body, trailerOf(a.response.Trailer)
	return head
}

// failure holds one back that is not too large.
func (a *reading) failure(head *call.Response) (*call.Response, error) {
	if a.response.ContentLength > a.most {
		return a.pass(head, nil)
	}
	body, err := readInRoom(a.passage, a.response, a.most)
	switch {
	case err != nil:
		return nil, a.broken(err)
	case int64(len(body)) > a.most:
		return a.pass(head, body)
	}
	return a.whole(head, body), nil
}

// pass gives the caller the answer: what was read of it, and the rest as it comes.
func (a *reading) pass(head *call.Response, piece []byte) (*call.Response, error) {
	if err := a.passage.Begin(head); err != nil {
		return nil, notTaken(a.op, err)
	}
	for ended := false; ; {
		if len(piece) > 0 {
			if err := a.passage.Send(piece); err != nil {
				return nil, err
			}
		}
		if ended {
			break
		}
		buffer := a.buffer(len(piece))
		n, last, err := a.read(buffer)
		if err != nil {
			if n > 0 {
				_ = a.passage.Send(buffer[:n]) // that the answer broke off is what counts
			}
			return nil, err
		}
		piece, ended = buffer[:n], last
	}
	a.passage.End(trailerOf(a.response.Trailer))
	head.Passed = true
	return head, nil
}

// buffer is where the next piece is read, when the last had that many bytes.
func (a *reading) buffer(last int) []byte {
	if last < trickle {
		a.release()
		if a.small == nil {
			a.small = make([]byte, trickle)
		}
		return a.small
	}
	if a.large == nil {
		a.large = readBuffers.Get().(*[]byte)
	}
	return *a.large
}

func (a *reading) release() {
	if a.large != nil {
		readBuffers.Put(a.large)
		a.large = nil
	}
}

// notTaken is the fault of an answer that its caller does not take.
func notTaken(op string, err error) error {
	var given *fault.Error
	switch {
	case errors.As(err, &given):
		return err
	case errors.Is(err, context.DeadlineExceeded):
		return fault.E(op, fault.Timeout, fault.DeadlineExceeded, err)
	}
	return fault.E(op, fault.Canceled, fault.CallCanceled, err)
}

// readInRoom reads a body, and no more than one byte beyond most, no faster than there is room for it.
func readInRoom(ctx context.Context, response *http.Response, most int64) ([]byte, error) {
	room := int64(chunkSize)
	if response.ContentLength >= 0 && response.Request.Method != http.MethodHead {
		room = response.ContentLength + 1 // the last is for the end to be seen
	}
	if err := call.GrowRoom(ctx, 0, room); err != nil {
		return nil, err
	}
	body := make([]byte, 0, room)
	for {
		if int64(len(body)) == room { // its size was not told: room for twice as much, so that there are few steps
			more := min(2*room, most+1)
			if err := call.GrowRoom(ctx, room, more); err != nil {
				return nil, err
			}
			room = more
			body = append(make([]byte, 0, room), body...)
		}
		n, err := response.Body.Read(body[len(body):room])
		body = body[:len(body)+n]
		switch {
		case errors.Is(err, io.EOF):
			return body, nil
		case err != nil:
			return nil, err
		case int64(len(body)) > most:
			return body, nil
		}
	}
}
