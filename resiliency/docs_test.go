package resiliency_test

import (
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/sidecast/sidecast/governance"
	"github.com/sidecast/sidecast/manifest"
	"github.com/sidecast/sidecast/resiliency"
)

const page = "../docs/concepts/resiliency.md"

// block is a fenced block of the page, and what it is written in.
var block = regexp.MustCompile("(?s)```(yaml|play)\n(.*?)```")

// TestExamplesOfThePage: each YAML example is read without a finding, and where a play follows it, a lane to the app
// `orders` under it decides as the page says. With -update the page is rewritten.
func TestExamplesOfThePage(t *testing.T) {
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	var rules *governance.Rules
	plays := 0
	now := block.ReplaceAllStringFunc(string(text), func(b string) string {
		parts := block.FindStringSubmatch(b)
		if parts[1] == "yaml" {
			rules = read(t, parts[2])
			return b
		}
		plays++
		base := resiliency.Policy{Name: "default-app", CallTimeout: 30 * time.Second}
		return "```play\n" + resiliency.PlayUnder(t, rules.App("orders", base).Policy, parts[2]) + "```"
	})
	if plays == 0 {
		t.Fatal("the page has no plays")
	}
	if now == string(text) {
		return
	}
	if resiliency.Rewrite() {
		if err := os.WriteFile(page, []byte(now), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Errorf("the page says otherwise than lanes decide; what they decide:\n%s", now)
}

func read(t *testing.T, example string) *governance.Rules {
	t.Helper()
	var docs []manifest.Raw
	for _, part := range manifest.Split([]byte(example)) {
		kind := regexp.MustCompile(`(?m)^kind: (\w+)$`).FindStringSubmatch(string(part.Text))
		if kind == nil {
			t.Fatalf("an example has no kind:\n%s", part.Text)
		}
		docs = append(docs, manifest.Raw{Kind: kind[1], Source: manifest.Source{File: page, Line: part.Line}, YAML: part.Text})
	}
	rules, findings := governance.Read(docs, governance.Who{})
	for _, f := range findings {
		t.Errorf("%s\nin\n%s", f, strings.TrimSpace(example))
	}
	return rules
}
