package routing

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/sidecast/sidecast/fault"
)

// What a rule costs is bounded, whatever the event holds: none of these ends in less than seconds without a bound, and some
// only after minutes. CEL alone takes a comparison of lists, and a text that it learns from the event, for one thing.
func TestRulesThatCostTooMuchAreCut(t *testing.T) {
	list := "[" + strings.Repeat("1,", 2000) + "1]"
	deep := `[` + strings.Repeat(`[1,2,3,4,5,6,7,8,9,10],`, 2000) + `[1]]`
	text := `"` + strings.Repeat("a", 1<<16) + `"`
	for _, c := range []struct{ rule, n, m string }{
		{`event.l.all(a, event.l.all(b, event.l.all(c, a + b + c > -1)))`, `0`, `0`},
		{`event.l.all(x, event.n == event.n)`, `[` + deep + `]`, `0`},
		{`event.l.all(x, event.n != event.m || true)`, `{"a":` + deep + `}`, `{"a":` + deep + `}`},
		{`event.l.all(x, event.n in [event.m, event.n])`, `[` + deep + `]`, `[[]]`},
		{`event.l.all(x, event.n.map(y, y) == event.n)`, deep, `0`},
		{`event.l.all(x, event.n.size() > 0)`, text, `0`},
		{`event.l.all(x, (event.n + event.n).size() > 0)`, text, `0`},
		{`event.l.all(x, string(bytes(event.n)) > "")`, text, `0`},
		{`event.l.all(x, event.n.matches("(a*)*b") || true)`, text, `0`},
		{`event.l.map(x, event.l.map(y, event.l)).size() > 0`, `0`, `0`},
	} {
		event := `{"l":` + list + `,"n":` + c.n + `,"m":` + c.m + `}`
		if _, _, err := Choose(routes(t, c.rule, "/a"), []byte(event)); err == nil || !strings.Contains(err.Error(), "cost limit") {
			t.Errorf("%s: %v", c.rule, err)
		}
	}
	for _, rule := range []string{
		strings.Repeat("event.a && ", 1000) + "true", `"` + strings.Repeat("a", maxText) + `" == "a"`, strings.Repeat("[", 240) + "1" + strings.Repeat("]", 240) + " == 1",
		strings.Repeat("event.l.map(x, ", 61) + "x" + strings.Repeat(")", 61) + " == 1",
	} {
		if _, err := Compile(rule); fault.KindOf(err) != fault.Invalid || len(err.Error()) > 1000 {
			t.Errorf("%.30s…: %.300v", rule, err)
		}
	}
}

func TestOrdinaryRulesCostLittle(t *testing.T) {
	event := map[string]any{}
	if err := json.Unmarshal([]byte(`{"type":"order.placed","data":{"items":[`+strings.Repeat(`{"sku":"a","n":1},`, 999)+`{"sku":"b","n":2}],"tags":["x","y"],"note":"`+strings.Repeat("z", 10000)+`"}}`), &event); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{
		`event.type == "order.placed" && event.data.items.exists(i, i.sku == "b" && i.n > 1)`,
		`"y" in event.data.tags && event.data.note.contains("zzz") && event.data.note.matches("^z+$")`,
		`size(event.data.items) == 1000 && event.data.tags == ["x", "y"] && event.data == event.data`,
		strings.Repeat(`event.type == "x" || `, 100) + `true`,
	} {
		rule, err := Compile(text)
		if err != nil {
			t.Fatal(err)
		}
		if holds, err := rule.Match(event); err != nil || !holds {
			t.Errorf("%s: %v %v", text, holds, err)
		}
	}
}
