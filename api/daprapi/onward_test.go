package daprapi

import (
	"net/http"
	"strings"
	"testing"

	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/fault"
)

// A writer that cannot flush, as some middleware has, is no caller that went away.
func TestAnswersPassWritersThatCannotFlush(t *testing.T) {
	to := &onward{w: nowhere{http.Header{}}}
	if err := to.Begin(&call.Response{Status: 200}); err != nil {
		t.Errorf("the head: %v", err)
	}
	if err := to.Send([]byte("piece")); err != nil {
		t.Errorf("a piece: %v", err)
	}
	if err := flush(http.NewResponseController(nowhere{http.Header{}})); err != nil {
		t.Errorf("a piece of a stream: %v", err)
	}
	closed := &onward{w: goneAway{nowhere{http.Header{}}}}
	if err := closed.Begin(&call.Response{Status: 200, ContentType: "text/plain"}); fault.ReasonOf(err) != fault.CallCanceled {
		t.Errorf("a caller that went away: %v", err)
	}
}

// goneAway is a writer whose caller went away.
type goneAway struct{ nowhere }

func (goneAway) FlushError() error { return http.ErrAbortHandler }

// Who accepts documents without an end, or says so, gets the answer as it comes.
func TestWhoWantsPieces(t *testing.T) {
	for field, want := range map[string]bool{
		"Accept: text/event-stream": true, "Accept: application/json, application/x-ndjson;q=0.5": true, "Dapr-Stream: true": true,
		"Dapr-Stream: no": false, "Accept: application/json": false, "Accept: */*": false,
	} {
		name, value, _ := strings.Cut(field, ": ")
		if got := wantsPieces(http.Header{name: {value}}); got != want {
			t.Errorf("%s: %v", field, got)
		}
	}
}
