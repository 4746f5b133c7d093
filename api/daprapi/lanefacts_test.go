package daprapi

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"

	blocks "github.com/sidecast/sidecast/building_blocks"
	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/resiliency"
)

// What a lane knows of a call that it gave up is told beside the words of daprd.
func TestErrorsTellWhichLaneGaveUp(t *testing.T) {
	open := fault.New("invoke orders", fault.BreakerOpen, "its breaker is open").After(1500*time.Millisecond).With("secret", "x")
	p := new(Server).direct("orders", resiliency.Explain("app/orders", "shop/apps.orders", "invoke orders", 2, open)).(*problem)

	w := httptest.NewRecorder()
	p.write(w)
	for field, want := range map[string]string{
		"Sidecast-Reason": "BREAKER_OPEN", "Sidecast-Lane": "app/orders", "Sidecast-Policy": "shop/apps.orders",
		"Sidecast-Attempts": "2", "Retry-After": "2", "Sidecast-Secret": "",
	} {
		if got := w.Header().Get(field); got != want {
			t.Errorf("%s: got %q, want %q", field, got, want)
		}
	}
	if w.Code != http.StatusInternalServerError {
		t.Errorf("daprd answers 500, not %d", w.Code)
	}

	trailer := p.lane.trailer()
	for field, want := range map[string]string{"sidecast-reason": "BREAKER_OPEN", "sidecast-policy": "shop/apps.orders", "sidecast-attempts": "2"} {
		if got := trailer.Get(field); !slices.Equal(got, []string{want}) {
			t.Errorf("%s: got %q in the trailer, want %q", field, got, want)
		}
	}
	var info *errdetails.ErrorInfo
	var wait *errdetails.RetryInfo
	for _, d := range p.GRPCStatus().Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			info = d
		case *errdetails.RetryInfo:
			wait = d
		}
	}
	if info.GetReason() != "BREAKER_OPEN" || info.GetDomain() != fault.Domain || wait.GetRetryDelay().AsDuration() != 1500*time.Millisecond {
		t.Errorf("got %v, %v", info, wait)
	}
	if m := info.GetMetadata(); len(m) != 4 || m["lane"] != "app/orders" || m["policy"] != "shop/apps.orders" || m["attempts"] != "2" || m["kind"] != "tripped" {
		t.Errorf("got %v", m)
	}
}

// What documents name may hold anything; a field that HTTP cannot carry would cost the caller the whole answer.
func TestFactsOfLanesAreFieldsThatHTTPCarries(t *testing.T) {
	for policy, want := range map[string]string{
		"shop/apps.orders, 2 ~": "shop/apps.orders, 2 ~", "bücher\r\nx: y\x7f\xff": "b%C3%BCcher%0D%0Ax: y%7F%FF", "50%41": "50%2541",
	} {
		f := factsOf(resiliency.Explain("app/"+policy, policy, "invoke", 0, fault.New("invoke", fault.QueueFull, "full")))
		md := f.trailer()
		if got := md.Get("sidecast-policy"); !slices.Equal(got, []string{want}) {
			t.Errorf("got %q, want %q", got, want)
		}
		if got := md.Get("sidecast-lane"); !slices.Equal(got, []string{"app/" + want}) {
			t.Errorf("got %q, want app/%q", got, want)
		}
		if got, err := url.PathUnescape(want); err != nil || got != policy {
			t.Errorf("%q comes back as %q, %v", policy, got, err)
		}
		if got := f.detail().GetMetadata()["policy"]; got != policy {
			t.Errorf("the ErrorInfo has %q", got)
		}
	}
}

// Dapr's clients take the last ErrorInfo for the error's own. Where it is the backend that failed, there is no other.
func TestTheErrorInfoOfDaprComesLast(t *testing.T) {
	err := resiliency.Explain("state/store", "p", "get", 1, fault.New("get", fault.QueueFull, "full"))
	details := basic(500, 13, "ERR_STATE_GET", "no").of(err).GRPCStatus().Details()
	if len(details) != 2 || details[1].(*errdetails.ErrorInfo).GetDomain() != domain {
		t.Errorf("got %v", details)
	}
	failed := resiliency.Explain("state/store", "p", "get", 1, fault.New("get", fault.BackendFailed, "no disk"))
	for _, err := range []error{failed, errors.New("no lane"), fault.New("get", fault.NotSupported, "no lane")} {
		if details := plain(500, 13, "ERROR", "no").of(err).GRPCStatus().Details(); len(details) != 0 {
			t.Errorf("got %v", details)
		}
	}
}

// What a client of a backend refuses is told in its own words, as what fails there is.
func TestComponentsAreHeardInTheirOwnWords(t *testing.T) {
	for _, reason := range []fault.Reason{fault.BackendFailed, fault.BackendDown, fault.NotSupported, fault.BadRequest} {
		if text := bindingProblem("b", fault.New("bindings.x: create", reason, "no")).Error(); !strings.HasSuffix(text, "error invoking output binding b: no") {
			t.Errorf("%s: %s", reason, text)
		}
	}
	if text := bindingProblem("b", fault.New("bindings/b", fault.QueueFull, "full")).Error(); !strings.Contains(text, "QUEUE_FULL") {
		t.Errorf("a lane's refusal has lost its reason: %s", text)
	}
}

// What a fallback answered says so; nothing else that is between sidecars passes.
func TestAnswersOfFallbacksSaySo(t *testing.T) {
	w := httptest.NewRecorder()
	writeHead(w, &call.Response{Status: 200, Header: call.Header{{Key: blocks.FallbackHeader, Value: "app"}, {Key: "sidecast-own", Value: "x"}}})
	if got := w.Header(); got.Get(blocks.FallbackHeader) != "app" || got.Get("sidecast-own") != "" {
		t.Errorf("got %v", got)
	}
}
