package daprapi

import (
	"errors"
	"net/http"

	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/fault"
)

// onward is where an answer that is not whole at once passes on to an HTTP caller. What there is of it is sent at once.
type onward struct {
	w     http.ResponseWriter
	begun bool
}

// Begin implements call.Sink.
func (o *onward) Begin(head *call.Response) error {
	o.begun = true
	writeHead(o.w, head)
	if kindless(o.w) {
		return nil
	}
	return o.flush(nil)
}

// Send implements call.Sink.
func (o *onward) Send(piece []byte) error {
	_, err := o.w.Write(piece)
	return o.flush(err)
}

// End implements call.Sink.
func (o *onward) End(trailer call.Header) { writeTrailer(o.w, trailer) }

// flush sends what was written, unless that failed.
func (o *onward) flush(err error) error {
	if err == nil {
		err = flush(http.NewResponseController(o.w))
	}
	if err != nil {
		return fault.New("pass the answer on", fault.CallCanceled, "the caller takes no more of it: %w", err)
	}
	return nil
}

// kindless tells that an answer does not say its media type: the server's library finds it in the first piece, as with daprd, so
// that the head must wait for that.
func kindless(w http.ResponseWriter) bool { return w.Header().Get("Content-Type") == "" }

// flush sends what was written. Where something on the way cannot, what was written waits for more, or for the end.
func flush(control *http.ResponseController) error {
	if err := control.Flush(); !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	return nil
}
