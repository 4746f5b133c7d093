package compat

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/sidecast/sidecast/tests/machine"
)

// TestAnInstanceIsKilledWithACall: a call of a verb that may be repeated goes to another instance, and the caller of any other is told.
func TestAnInstanceIsKilledWithACall(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		verb, body, want string
		status           int
	}{
		{"GET", "", "the other", 200},
		{"PUT", "what is put", "the other: what is put", 200},
		{"POST", "what is posted", `{"errorCode":"ERR_DIRECT_INVOKE","message":"failed to invoke, id: app, err: …`, 500},
	} {
		t.Run(c.verb, func(t *testing.T) {
			t.Parallel()
			m := machine.New(t)
			caller := start(t, m, "caller")
			begun, ended := make(chan struct{}), make(chan struct{})
			first := start(t, m, "app", "--app-port", serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/calls" {
					_, _ = io.ReadAll(r.Body)
					close(begun)
					<-ended
				}
			})))
			defer close(ended)
			answered := make(chan answer, 1)
			go func() { answered <- caller.do(c.verb, "/v1.0/invoke/app/method/calls", c.body) }()
			receive(t, begun)
			start(t, m, "app", "--app-port", serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if body, _ := io.ReadAll(r.Body); r.URL.Path == "/calls" {
					_, _ = io.WriteString(w, strings.TrimSuffix("the other: "+string(body), ": "))
				}
			})))
			first.Kill()
			got := receive(t, answered)
			if want, cut := strings.CutSuffix(c.want, "…"); got.status != c.status || got.body != c.want && !(cut && strings.HasPrefix(got.body, want)) {
				t.Errorf("%d %s", got.status, got.body)
			}
		})
	}
}
