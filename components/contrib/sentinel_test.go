//go:build all_components

package contrib

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"
)

// guardedBy is next behind Sentinel with rules of one kind, of which there is one set in the process.
func guardedBy(t *testing.T, kind, rules string, next http.HandlerFunc) http.Handler {
	t.Helper()
	m, err := heavy(t.Context(), discard, "sentinel", map[string]string{"appName": "app", "logDir": t.TempDir(), kind: rules})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close(context.Background()) })
	return piped(t, m, next)
}

// statuses are those of n answers.
func statuses(h http.Handler, method, path string, n int) (codes []int) {
	for range n {
		codes = append(codes, got(h, method, path, "").Code)
	}
	return codes
}

func wantStatuses(t *testing.T, what string, got []int, want ...int) {
	t.Helper()
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("%s: the statuses are %v, not %v", what, got, want)
		}
	}
}

func TestSentinelLimitsARate(t *testing.T) {
	h := guardedBy(t, "flowRules", `[{"resource": "POST:/limited", "threshold": 2, "tokenCalculateStrategy": 0, "controlBehavior": 0, "statIntervalInMs": 60000}]`, retold)
	wantStatuses(t, "two a minute", statuses(h, "POST", "/limited", 4), 200, 200, 429, 429)
	wantStatuses(t, "another method", statuses(h, "GET", "/limited", 3), 200, 200, 200)
	w := got(h, "POST", "/limited", "body")
	if w.Body.String() != "Too Many Requests" || !strings.HasPrefix(w.Header().Get("Content-Type"), "text/plain") {
		t.Errorf("%q %v", w.Body, w.Header())
	}
	if w := got(h, "POST", "/free", "body"); w.Body.String() != "POST /free body" {
		t.Errorf("%d %q", w.Code, w.Body)
	}
}

func TestSentinelBoundsWhatRunsAtOnce(t *testing.T) {
	inside, leave := make(chan struct{}), make(chan struct{})
	h := guardedBy(t, "isolationRules", `[{"resource": "GET:/alone", "metricType": 0, "threshold": 1}]`, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Wait") != "" {
			close(inside)
			<-leave
		}
	})
	first := make(chan int)
	go func() { first <- got(h, "GET", "/alone", "", "X-Wait", "yes").Code }()
	<-inside
	wantStatuses(t, "beside another", statuses(h, "GET", "/alone", 1), 429)
	close(leave)
	if code := <-first; code != 200 {
		t.Errorf("got %d", code)
	}
	wantStatuses(t, "after it", statuses(h, "GET", "/alone", 2), 200, 200)
}

// staysOpen is a rule of a circuit breaker that stays open.
func staysOpen(resource, more string) string {
	return `[{"resource": "` + resource + `", "retryTimeoutMs": 600000, "minRequestAmount": 2, "statIntervalMs": 600000, ` + more + `}]`
}

func TestSentinelBreaksCircuits(t *testing.T) {
	failing := func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusServiceUnavailable)
		_ = http.NewResponseController(w).Flush()
	}
	h := guardedBy(t, "circuitBreakerRules", staysOpen("GET:/ratio", `"strategy": 1, "threshold": 0.5`), failing)
	wantStatuses(t, "a ratio of errors", statuses(h, "GET", "/ratio", 4), 503, 503, 429, 429)
	wantStatuses(t, "another resource", statuses(h, "GET", "/other", 3), 503, 503, 503)
	h = guardedBy(t, "circuitBreakerRules", staysOpen("GET:/count", `"strategy": 2, "threshold": 2`), failing)
	wantStatuses(t, "a number of errors", statuses(h, "GET", "/count", 3), 503, 503, 429)
	h = guardedBy(t, "circuitBreakerRules", staysOpen("GET:/fine", `"strategy": 2, "threshold": 2`), func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusNotFound)
	})
	wantStatuses(t, "answers that are no errors", statuses(h, "GET", "/fine", 4), 404, 404, 404, 404)
	h = guardedBy(t, "circuitBreakerRules", staysOpen("GET:/slow", `"strategy": 0, "maxAllowedRtMs": 1, "threshold": 0.5`), func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(5 * time.Millisecond)
		_, _ = io.WriteString(w, "late")
	})
	wantStatuses(t, "slow answers", statuses(h, "GET", "/slow", 3), 200, 200, 429)
}

// A panic is an error, unless it is how a server ends what nobody waits for.
func TestSentinelCountsPanics(t *testing.T) {
	h := guardedBy(t, "circuitBreakerRules", staysOpen("GET:/panics", `"strategy": 2, "threshold": 2`), func(http.ResponseWriter, *http.Request) {
		panic(http.ErrAbortHandler)
	})
	ask := func(ctx context.Context) (code int) {
		w := httptest.NewRecorder()
		defer func() {
			if recover() == nil {
				code = w.Code
			}
		}()
		h.ServeHTTP(w, httptest.NewRequest("GET", "/panics", nil).WithContext(ctx))
		return 0
	}
	gone, leave := context.WithCancel(t.Context())
	leave()
	codes := []int{ask(gone), ask(gone), ask(gone), ask(t.Context()), ask(t.Context()), ask(t.Context())}
	wantStatuses(t, "panics", codes, 0, 0, 0, 0, 0, 429)
}

func TestSentinelRefusesRulesItCannotRead(t *testing.T) {
	for _, kind := range []string{"flowRules", "circuitBreakerRules", "hotSpotParamRules", "isolationRules", "systemRules"} {
		if _, err := heavy(t.Context(), discard, "sentinel", map[string]string{"appName": "app", "logDir": t.TempDir(), kind: "nonsense"}); err == nil {
			t.Errorf("%s: nonsense is taken", kind)
		}
	}
}

// What it starts ends with the process, and is the same however often it is opened: a writer and an aggregator of metrics, and
// the collectors of memory, CPU and load.
func TestSentinelLeavesFive(t *testing.T) {
	for range 3 {
		guardedBy(t, "flowRules", "[]", retold)
	}
	all := make([]byte, 4<<20)
	all = all[:runtime.Stack(all, true)]
	for name, want := range map[string]int{"metric.InitTask": 2, "system_metric.InitMemoryCollector": 1, "system_metric.InitCpuCollector": 1, "system_metric.InitLoadCollector": 1, "sentinel-golang/": 5} {
		n := 0
		for goroutine := range strings.SplitSeq(string(all), "\n\n") {
			if _, by, _ := strings.Cut(goroutine, "created by "); strings.Contains(by, name) {
				n++
			}
		}
		if n != want {
			t.Errorf("%s has %d goroutines, not %d", name, n, want)
		}
	}
}
