package appchannel

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/fault"
)

// slowBody brings pieces, each after a while, until its call ends.
type slowBody struct {
	ctx    context.Context
	pieces []string
	after  time.Duration
}

func (b *slowBody) Read(into []byte) (int, error) {
	select {
	case <-time.After(b.after):
	case <-b.ctx.Done():
		return 0, b.ctx.Err()
	}
	if len(b.pieces) == 0 {
		return 0, io.EOF
	}
	n := copy(into, b.pieces[0])
	b.pieces = b.pieces[1:]
	return n, nil
}

func (*slowBody) Close() error { return nil }

// slowSink is a caller that takes its time with each piece.
type slowSink struct {
	strings.Builder
	takes time.Duration
}

func (*slowSink) Begin(*call.Response) error { return nil }
func (*slowSink) End(call.Header)            {}
func (s *slowSink) Send(piece []byte) error {
	time.Sleep(s.takes)
	s.Write(piece)
	return nil
}

// A server is given up for its own silence, between any two pieces, and not for that of its caller.
func TestOnlyServersThatSayNothingAreGivenUp(t *testing.T) {
	for name, c := range map[string]struct {
		status       int
		after, takes time.Duration
		passed, held string
		reason       fault.Reason
	}{
		"a slow caller":  {200, time.Second, endpointQuiet + time.Minute, "abc", "", ""},
		"a slow server":  {200, endpointQuiet - time.Minute, 0, "abc", "", ""},
		"a slow failure": {500, endpointQuiet - time.Minute, 0, "", "abc", ""},
		"no answer":      {200, endpointQuiet + time.Minute, 0, "", "", fault.EndpointBroke},
		"no failure":     {500, endpointQuiet + time.Minute, 0, "", "", fault.EndpointBroke},
	} {
		synctest.Test(t, func(t *testing.T) {
			to := &slowSink{takes: c.takes}
			passage := call.PiecesTo(t.Context(), to).Open(t.Context())
			defer passage.Close()
			response := &http.Response{
				StatusCode: c.status, ContentLength: -1, Request: &http.Request{Method: http.MethodGet},
				Body: &slowBody{passage, []string{"a", "b", "c"}, c.after},
			}
			e := &Endpoint{base: &url.URL{Host: "server"}, maxBody: 1 << 10}
			resp, err := e.answer("ask", response, passage)
			if fault.ReasonOf(err) != c.reason || to.String() != c.passed {
				t.Fatalf("%s: %v; %q passed", name, err, to.String())
			}
			if err == nil && (string(resp.Body) != c.held || resp.Passed != (c.passed != "")) {
				t.Errorf("%s: %+v", name, resp)
			}
		})
	}
}
