package requestlimit

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/fault"
)

func limit(t *testing.T, text string) *middleware {
	t.Helper()
	b, err := Component.Open(t.Context(), components.Host{Component: "limit"}, map[string]string{"maxRequestsPerSecond": text})
	if err != nil {
		t.Fatal(err)
	}
	return b.(*middleware)
}

func TestRates(t *testing.T) {
	m := limit(t, "2.5")
	now := time.Now()
	for i, c := range []struct {
		after time.Duration
		key   string
		left  int
		ok    bool
	}{
		{0, "a", 1, true}, {0, "a", 0, true}, {0, "a", 0, false}, {0, "b", 1, true}, {200 * time.Millisecond, "a", 0, false}, {200 * time.Millisecond, "a", 0, true},
	} {
		now = now.Add(c.after)
		if left, ok := m.take(c.key, now); left != c.left || ok != c.ok {
			t.Errorf("%d: %d %v", i, left, ok)
		}
	}
	for _, text := range []string{"0", "-1", "NaN", "+Inf", "many"} {
		if _, err := Component.Open(t.Context(), components.Host{}, map[string]string{"maxRequestsPerSecond": text}); fault.ReasonOf(err) != fault.BadManifest {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestBucketsAreForgotten(t *testing.T) {
	m := limit(t, "10")
	now := time.Now()
	for i := range mostBuckets + 100 {
		m.take(fmt.Sprint(i), now)
	}
	if len(m.buckets) != mostBuckets {
		t.Errorf("%d buckets", len(m.buckets))
	}
	for range 20 { // those beyond share one
		m.take("another", now)
	}
	if _, ok := m.take("one more", now); ok {
		t.Error("what has no bucket of its own is not limited")
	}
	now = now.Add(2 * time.Second)
	if _, ok := m.take("fresh", now); !ok || len(m.buckets) != 1 {
		t.Errorf("%v, %d buckets", ok, len(m.buckets))
	}
	for range 9 {
		m.take("fresh", now)
	}
	now = now.Add(time.Second / 2)
	m.swept = now.Add(-time.Minute)
	m.take("other", now)
	if len(m.buckets) != 2 {
		t.Error("a bucket that is not full again is forgotten")
	}
}

func TestAddresses(t *testing.T) {
	for _, c := range []struct{ remote, forwarded, real, want string }{
		{"192.0.2.1:5", "", "", "192.0.2.1"}, {"192.0.2.1:5", "198.51.100.1, 198.51.100.2", "203.0.113.1", "198.51.100.2"}, {"192.0.2.1:5", "", "203.0.113.1", "203.0.113.1"},
		{"[2001:db8:1:2:3:4:5:6]:5", "", "", "2001:db8:1:2::"}, {"@", "", "", "@"}, {"", "", "", ""},
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.RemoteAddr = c.remote
		for name, value := range map[string]string{"X-Forwarded-For": c.forwarded, "X-Real-IP": c.real} {
			if value != "" {
				r.Header.Set(name, value)
			}
		}
		if got := address(r); got != c.want {
			t.Errorf("%+v: %s", c, got)
		}
	}
}
