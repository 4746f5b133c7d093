//go:build all_components

package contrib

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/pipeline"
)

// Sentinel's own goroutines end with the process.
func init() {
	tolerated = append(tolerated, goleak.IgnoreAnyFunction("github.com/alibaba/sentinel-golang/util.RunWithRecover"))
}

func TestHeavyMiddleware(t *testing.T) {
	open := func(kind string, settings map[string]string) (pipeline.Middleware, error) {
		for _, c := range heavyMiddleware {
			if c.Type() == "middleware.http."+kind {
				b, err := c.Open(t.Context(), components.Host{Log: discard}, settings)
				if err != nil {
					return nil, err
				}
				return b.(pipeline.Middleware), nil
			}
		}
		panic(kind)
	}
	ask := func(m pipeline.Middleware, path string) int {
		w := httptest.NewRecorder()
		m.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) })).
			ServeHTTP(w, httptest.NewRequest("POST", path, strings.NewReader("body")))
		return w.Code
	}
	opa, err := open("opa", map[string]string{"defaultStatus": "418", "rego": "package http\ndefault allow = false\nallow { input.request.path == \"/open\" }"})
	if err != nil {
		t.Fatal(err)
	}
	if ask(opa, "/open") != 200 || ask(opa, "/closed") != 418 {
		t.Error("the policy does not decide")
	}
	if _, err := open("opa", map[string]string{"rego": "nonsense"}); err == nil {
		t.Error("a policy that is none is taken")
	}
	sentinel, err := open("sentinel", map[string]string{"appName": "app", "logDir": t.TempDir(),
		"flowRules": `[{"resource": "POST:/limited", "threshold": 1, "tokenCalculateStrategy": 0, "controlBehavior": 0, "statIntervalInMs": 60000}]`})
	if err != nil {
		t.Fatal(err)
	}
	if first, second := ask(sentinel, "/limited"), ask(sentinel, "/limited"); first != 200 || second != 429 {
		t.Errorf("the rule lets %d and %d through", first, second)
	}
	if _, err := open("wasm", map[string]string{"url": "file:///nowhere.wasm"}); err == nil || !strings.Contains(err.Error(), "nowhere.wasm") {
		t.Errorf("got %v", err)
	}
}
