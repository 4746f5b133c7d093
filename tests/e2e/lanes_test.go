package e2e

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/sidecast/sidecast/tests/machine"
)

const lanesPage = "../../docs/operations/lanes.md"

// typed is a command of a page and what the page says that comes of it.
type typed struct {
	line string
	want []string
}

// consoles reads the console blocks of a page: commands start with `$ `, the rest is what they print.
func consoles(t *testing.T, path string) (all []typed) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, block := range regexp.MustCompile("(?s)```console\n(.*?)```").FindAllStringSubmatch(string(text), -1) {
		for line := range strings.Lines(block[1]) {
			line = strings.TrimSuffix(line, "\n")
			if command, ok := strings.CutPrefix(line, "$ sidecast "); ok {
				all = append(all, typed{line: command})
			} else {
				last := &all[len(all)-1]
				last.want = append(last.want, line)
			}
		}
	}
	return all
}

// pattern matches what a page shows: … stands for anything.
func (c typed) pattern() *regexp.Regexp {
	text := regexp.QuoteMeta(strings.Join(c.want, "\n"))
	text = regexp.MustCompile(`(^|\n)…\n`).ReplaceAllString(text, `$1(?s:.*)\n`)
	text = regexp.MustCompile(`\n…$`).ReplaceAllString(text, `(?s:.*)`)
	return regexp.MustCompile(`^` + strings.ReplaceAll(text, "…", `.*`) + `$`)
}

// TestLanesPage types the commands of the page on steering lanes, and its requests to the metrics port.
func TestLanesPage(t *testing.T) {
	m := machine.New(t)
	s := m.Sidecar("pricing")
	machine.Until(t, "the lane of the app", func() error {
		if out := m.Must("lane", "list"); !strings.Contains(out, "app/pricing ") {
			return fmt.Errorf("no lane: %s", out)
		}
		return nil
	})
	commands := consoles(t, lanesPage)
	if len(commands) < 10 {
		t.Fatalf("the page has %d commands", len(commands))
	}
	for _, c := range commands {
		r := m.Command(strings.Fields(c.line)...)
		got := r.Out
		for line := range strings.Lines(r.Err) {
			if strings.HasPrefix(line, "{") {
				got += line
			} else {
				got += "! " + line
			}
		}
		if r.Code != 0 {
			got += fmt.Sprintf("exit %d\n", r.Code)
		}
		if !c.pattern().MatchString(strings.TrimSuffix(got, "\n")) {
			t.Errorf("sidecast %s: the page says\n%s\nit goes\n%s", c.line, strings.Join(c.want, "\n"), got)
		}
	}
	text, err := os.ReadFile(lanesPage)
	if err != nil {
		t.Fatal(err)
	}
	bodies := regexp.MustCompile(`(?m)^curl localhost:9090/lanes .* -d '(.*)'$`).FindAllSubmatch(text, -1)
	if len(bodies) < 4 {
		t.Fatalf("the page has %d requests", len(bodies))
	}
	for _, body := range bodies {
		if code, answer := post(t, s.Admin, string(body[1])); code != http.StatusOK || !strings.Contains(answer, `"changes"`) {
			t.Errorf("%s: %d %s", body[1], code, answer)
		}
	}
	if code, answer := post(t, s.Admin, `{"lane": "app/pricing", "breaker": "opne"}`); code != http.StatusBadRequest || !strings.Contains(answer, "BAD_REQUEST") {
		t.Errorf("a wrong word: %d %s", code, answer)
	}
	for _, line := range []string{
		`level=INFO msg="lane steered" audit=true lane=app/pricing what="in flight" from=2048 to=16 door=grpc peer=127\.0\.0\.1:\d+ subject=anonymous`,
		`audit=true lane=app/pricing what=admission from=admitting to=drained door=admin peer=127\.0\.0\.1:\d+ subject=anonymous`,
	} {
		s.WaitFor(line, machine.Patience)
	}
}

func post(t *testing.T, address, body string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+address+"/lanes", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(answer)
}
