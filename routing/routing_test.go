package routing

import (
	"testing"

	"github.com/sidecast/sidecast/fault"
)

func routes(t testing.TB, pairs ...string) []Route {
	t.Helper()
	var all []Route
	for i := 0; i < len(pairs); i += 2 {
		rule, err := Compile(pairs[i])
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, Route{rule, pairs[i+1]})
	}
	return all
}

func TestChooseTakesTheFirstRuleThatHolds(t *testing.T) {
	all := routes(t,
		`event.type == "order.placed" && event.data.total > 100`, "/large",
		`event.type.startsWith("order.")`, "/orders",
		`has(event.data.vip) && event.data.vip`, "/vip",
		"", "/rest")
	for _, c := range []struct{ event, path string }{
		{`{"type":"order.placed","data":{"total":101}}`, "/large"},
		{`{"type":"order.placed","data":{"total":100}}`, "/orders"},
		{`{"type":"visit","data":{"vip":true}}`, "/vip"},
		{`{"type":"visit","data":{}}`, "/rest"},
	} {
		if path, ok, err := Choose(all, []byte(c.event)); err != nil || !ok || path != c.path {
			t.Errorf("%s goes to %q (%v, %v), not %s", c.event, path, ok, err, c.path)
		}
	}
	if _, ok, err := Choose(all[:1], []byte(`{"type":"visit"}`)); ok || err != nil {
		t.Errorf("no rule holds, but there is a route or an error: %v", err)
	}
}

func TestBadRulesAreErrors(t *testing.T) {
	for _, text := range []string{`event.type ==`, `other.type == "a"`, `"a" + 1`, `event.type == "a" ? 1`} {
		if _, err := Compile(text); fault.KindOf(err) != fault.Invalid {
			t.Errorf("%q compiles: %v", text, err)
		}
	}
	for text, event := range map[string]string{
		`event.data.total > 1`: `{"data":{}}`,
		`event.type`:           `{"type":"a"}`,
		`event.data.all(a, event.data.all(b, event.data.all(c, event.data.all(d, a + b + c + d > -1))))`: `{"data":` + many() + `}`,
	} {
		if _, _, err := Choose(routes(t, text, "/a"), []byte(event)); err == nil {
			t.Errorf("%.40s… over %.20s… has a result", text, event)
		}
	}
	if _, _, err := Choose(routes(t, "event.a == 1", "/a"), []byte(`[`)); fault.ReasonOf(err) != fault.EventInvalid {
		t.Errorf("what is no JSON is routed: %v", err)
	}
}

// many is a list that four nested loops over cost too much.
func many() string {
	text := "[0"
	for range 99 {
		text += ",1"
	}
	return text + "]"
}

func FuzzChoose(f *testing.F) {
	f.Add(`event.type == "a"`, `{"type":"a"}`)
	f.Add(`event.data[0] > 1 || has(event.b)`, `{"data":[2]}`)
	f.Add(`event.data.all(a, event.data.exists(b, a == b))`, `{"data":[1,[2],{"c":null}]}`)
	f.Add(`event.id.matches("^a+$") && size(event.id) < 9`, `{"id":"aaa"}`)
	f.Add(`timestamp(event.time) < timestamp("2030-01-01T00:00:00Z") && duration("1h") > duration("1s")`, `{"time":"2026-01-01T00:00:00Z"}`)
	f.Add(`{"a": event}.a.b + [1] == event.c`, `{"b":[2],"c":[2,1]}`)
	f.Add(`[[[[event]]]] in [event.x] ? 1 : true`, `{"x":1e999}`)
	f.Fuzz(func(t *testing.T, text, event string) {
		rule, err := Compile(text)
		if err != nil {
			return
		}
		// No input may panic or hang, and what a rule says does not depend on when it is asked.
		path, ok, err := Choose([]Route{{rule, "/a"}}, []byte(event))
		again, okAgain, errAgain := Choose([]Route{{rule, "/a"}}, []byte(event))
		if path != again || ok != okAgain || (err == nil) != (errAgain == nil) || ok && (path != "/a" || err != nil) {
			t.Errorf("%q over %q: %q %v %v, then %q %v %v", text, event, path, ok, err, again, okAgain, errAgain)
		}
	})
}
