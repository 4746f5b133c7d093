package admin

import (
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/sidecast/sidecast/resiliency"
)

func limited() resiliency.Policy {
	return resiliency.Policy{
		Name: "p", MaxInFlight: 8, MaxQueue: 64, Breaker: resiliency.Breaker{Failures: 5},
		Limits: []resiliency.RateLimit{{Name: "all", Limit: 100, Per: time.Second}},
	}
}

// TestOrders gives each order there is: what it changes is answered, shown and in the audit log.
func TestOrders(t *testing.T) {
	d := open(t, "")
	d.system.Lane("app/pricing", limited())
	type change struct{ What, From, To string }
	for _, step := range []struct {
		order string
		want  []change
	}{
		{`"breaker": "open"`, []change{{"breaker", "auto", "open"}}},
		{`"breaker": "closed"`, []change{{"breaker", "open", "closed"}}},
		{`"admission": "paused"`, []change{{"admission", "admitting", "paused"}}},
		{`"admission": "drained"`, []change{{"admission", "paused", "drained"}}},
		{`"limits": {"inFlight": 2, "queue": 0, "rates": {"all": "5/m"}}`, []change{{"in flight", "8", "2"}, {"queue", "64", "0"}, {"rate all", "100/1s", "5/1m"}}},
		{`"limits": {"inFlight": 3}`, []change{{"in flight", "2", "3"}}},
	} {
		code, body := d.order(`{"lane": "app/pricing", ` + step.order + `}`)
		if code != http.StatusOK {
			t.Fatalf("%s: %d %s", step.order, code, body)
		}
		lines := d.audit()
		if len(lines) != len(step.want) {
			t.Fatalf("%s: audit log %v", step.order, lines)
		}
		for i, c := range step.want {
			l := lines[i]
			got := change{l["what"].(string), l["from"].(string), l["to"].(string)}
			if got != c || l["lane"] != "app/pricing" || l["level"] != "INFO" || l["door"] != "admin" || l["peer"] != "192.0.2.1:1234" || l["subject"] != "anonymous" {
				t.Errorf("%s: audit log %v, want %v", step.order, l, c)
			}
			if !strings.Contains(body, `"to": "`+c.To+`"`) {
				t.Errorf("%s: answered %s", step.order, body)
			}
		}
	}
	want := []change{{"in flight", "8", "3"}, {"queue", "64", "0"}, {"rate all", "100/1s", "5/1m"}}
	s := d.status("app/pricing")
	var overridden []change
	for _, c := range s.Overridden {
		overridden = append(overridden, change(c))
	}
	if !reflect.DeepEqual(overridden, want) || s.InFlightLimit != 3 || s.QueueLimit != 0 || s.Admission != "drained" || !s.BreakerForced || s.Breaker != "closed" {
		t.Errorf("the lane shows %+v", s)
	}
	if _, body := d.ask("GET", "/tree", ""); !strings.Contains(body, `"breakerForced": true`) || !strings.Contains(body, `"what": "rate all"`) {
		t.Errorf("the tree shows %s", body)
	}
	if code, body := d.order(`{"lane": "app/pricing", "reset": true}`); code != http.StatusOK || strings.Count(body, `"what"`) != 5 || len(d.audit()) != 5 {
		t.Errorf("reset: %d %s", code, body)
	}
	s = d.status("app/pricing")
	if s.Overridden != nil || s.InFlightLimit != 8 || s.Admission != "" || s.BreakerForced {
		t.Errorf("after the reset it shows %+v", s)
	}
	if code, body := d.order(`{"lane": "app/pricing", "reset": true}`); code != http.StatusOK || len(d.audit()) != 0 {
		t.Errorf("nothing to reset: %d %s", code, body)
	}
}

// TestOrdersThatCannotBe: each is refused with what is wrong and what would do, changes nothing and is not in the log.
func TestOrdersThatCannotBe(t *testing.T) {
	d := open(t, "")
	d.system.Lane("app/pricing", limited())
	for body, want := range map[string]string{
		``:   "the body is no order such as",
		`{`:  "the body is no order such as",
		`[]`: "the body is no order such as",
		`{"lane": "app/pricing", "braker": "open"}`:                                   `unknown field \"braker\"`,
		`{"lane": "app/pricing", "breaker": "open"} {}`:                               "something follows the order",
		`{"breaker": "open"}`:                                                         "lane is empty",
		`{"lane": "app/pricing"}`:                                                     "exactly one of breaker, admission, limits and reset; this one has 0",
		`{"lane": "app/pricing", "breaker": "open", "admission": "paused"}`:           "this one has 2",
		`{"lane": "app/pricing", "breaker": "opne"}`:                                  `breaker \"opne\": must be one of auto, closed, open; did you mean \"open\"?`,
		`{"lane": "app/pricing", "admission": "pause"}`:                               `must be one of admitting, drained, paused; did you mean \"paused\"?`,
		`{"lane": "app/pricing", "limits": {}}`:                                       "give at least one of inFlight, queue and rates",
		`{"lane": "app/pricing", "limits": {"inFlight": 2, "queue": -1}}`:             "max queue -1 is not within 0 and 1000000",
		`{"lane": "app/pricing", "limits": {"inFlight": 2, "queue": 2000000000}}`:     "max queue 2000000000 is not within 0 and 1000000",
		`{"lane": "app/pricing", "limits": {"inFlight": 0}}`:                          "max queue 64 has no effect without max in flight",
		`{"lane": "app/pricing", "limits": {"inFlight": 2.5}}`:                        "the body is no order such as",
		`{"lane": "app/pricing", "limits": {"rates": {"all": "fast"}}}`:               `\"fast\" is no rate: write calls/time`,
		`{"lane": "app/pricing", "limits": {"queue": 1, "rates": {"a": "1/s"}}}`:      `no rate limit \"a\"; it has: all`,
		`{"lane": "app", "limits": {"rates": {"a": "1/s"}}}`:                          `no rate limit \"a\", nor any other`,
		`{"lane": "app/pricing", "breaker": "` + strings.Repeat("x", maxOrder) + `"}`: "too large",
	} {
		code, answer := d.order(body)
		if code != http.StatusBadRequest || !strings.Contains(answer, want) || !strings.Contains(answer, `"reason": "BAD_REQUEST"`) {
			t.Errorf("%.100s: %d %s, want %s", body, code, answer, want)
		}
	}
	for name, want := range map[string]string{"pricing": "did you mean app/pricing?", "app/pircing": "did you mean app/pricing?", "zzz": `there is no lane \"zzz\"`} {
		code, answer := d.order(`{"lane": "` + name + `", "breaker": "open"}`)
		if code != http.StatusNotFound || !strings.Contains(answer, want) || !strings.Contains(answer, "LANE_NOT_FOUND") {
			t.Errorf("%s: %d %s", name, code, answer)
		}
	}
	s := d.status("app/pricing")
	if s.Overridden != nil || s.InFlightLimit != 8 || s.QueueLimit != 64 || s.Admission != "" || s.BreakerForced {
		t.Errorf("the lane shows %+v", s)
	}
	if lines := d.audit(); len(lines) != 0 {
		t.Errorf("the audit log has %v", lines)
	}
}

// TestWhoMayGiveOrders: whoever has the token, where there is one; never a page in a browser.
func TestWhoMayGiveOrders(t *testing.T) {
	const order = `{"lane": "app", "breaker": "open"}`
	d := open(t, "open-sesame")
	for name, headers := range map[string][]string{
		"nothing":     {},
		"wrong":       {"sidecast-api-token", "open-says-me"},
		"empty":       {"sidecast-api-token", ""},
		"other place": {"Authorization", "Bearer open-sesame"},
	} {
		if code, body := d.order(order, headers...); code != http.StatusForbidden || !strings.Contains(body, "TOKEN_REJECTED") {
			t.Errorf("%s: %d %s", name, code, body)
		}
	}
	for _, header := range [][]string{{"Origin", "http://example.com"}, {"Sec-Fetch-Site", "same-origin"}} {
		if code, body := d.order(order, append(header, "sidecast-api-token", "open-sesame")...); code != http.StatusForbidden {
			t.Errorf("a browser: %d %s", code, body)
		}
	}
	for _, media := range []string{"", "text/plain", "application/x-www-form-urlencoded"} {
		if code, body := d.order(order, "Content-Type", media, "sidecast-api-token", "open-sesame"); code != http.StatusBadRequest {
			t.Errorf("%q: %d %s", media, code, body)
		}
	}
	if code, _ := d.ask("GET", "/lanes", ""); code != http.StatusMethodNotAllowed {
		t.Errorf("GET: %d", code)
	}
	if s := d.status("app"); s.BreakerForced || len(d.audit()) != 0 {
		t.Errorf("the lane shows %+v", s)
	}
	code, body := d.order(order, "sidecast-api-token", "open-sesame")
	if code != http.StatusOK {
		t.Fatalf("with the token: %d %s", code, body)
	}
	if lines := d.audit(); len(lines) != 1 || lines[0]["subject"] != "api-token" || strings.Contains(body, "open-sesame") {
		t.Errorf("the audit log has %v", lines)
	}
}
