//go:build all_components

package contrib

import (
	"maps"
	"net/http"
	"testing"

	"go.uber.org/goleak"
)

// Sentinel's own goroutines end with the process, see TestSentinelLeavesFive, as do those that libraries start when they are
// linked.
func init() {
	tolerated = append(tolerated, goleak.IgnoreCurrent(), goleak.IgnoreAnyFunction("github.com/alibaba/sentinel-golang/util.RunWithRecover"))
}

func TestHeavyMiddleware(t *testing.T) {
	open := func(more map[string]string, rego string) http.Handler {
		settings := map[string]string{"rego": "package http\ndefault allow = false\n" + rego}
		maps.Copy(settings, more)
		m, err := heavy(t.Context(), discard, "opa", settings)
		if err != nil {
			t.Fatal(err)
		}
		return piped(t, m, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Seen", r.Header.Get("X-By"))
			retold(w, r)
		})
	}
	opa := open(map[string]string{"defaultStatus": "418"}, `
		allow { input.request.path == "/open" }
		allow = {"allow": false, "status_code": 301, "additional_headers": {"Location": "/open"}} { input.request.path == "/moved" }
		allow = {"allow": true, "additional_headers": {"X-By": "opa"}} { input.request.path == "/marked" }`)
	for path, want := range map[string]int{"/open": 200, "/closed": 418, "/moved": 301, "/marked": 200} {
		if w := got(opa, "POST", path, "body"); w.Code != want || want == 200 && w.Body.String() != "POST "+path+" body" {
			t.Errorf("%s: %d %q", path, w.Code, w.Body)
		}
	}
	if to := got(opa, "GET", "/moved", "").Header().Get("Location"); to != "/open" {
		t.Errorf("moved to %q", to)
	}
	if by := got(opa, "GET", "/marked", "").Header().Get("X-Seen"); by != "opa" {
		t.Errorf("marked by %q", by)
	}
	reading := open(map[string]string{"readBody": "true", "includedHeaders": "x-role"}, `allow { input.request.body == "please"; input.request.headers["X-Role"] == "user"; not input.request.headers["X-More"] }`)
	for body, want := range map[string]int{"please": 200, "now": 403} {
		if w := got(reading, "POST", "/", body, "X-Role", "user", "X-More", "much"); w.Code != want || want == 200 && w.Body.String() != "POST / please" {
			t.Errorf("%s: %d %q", body, w.Code, w.Body)
		}
	}
	if _, err := heavy(t.Context(), discard, "opa", map[string]string{"rego": "nonsense"}); err == nil {
		t.Error("a policy that is none is taken")
	}
}
