package commands_test

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/goleak"

	"github.com/sidecast/sidecast/cmd/runtime/commands"
	"github.com/sidecast/sidecast/cmd/runtime/rundir"
	"github.com/sidecast/sidecast/fault"
)

var update = flag.Bool("update", false, "write the sessions in testdata anew")

func TestMain(m *testing.M) {
	for _, name := range []string{"SIDECAST_GRPC_ENDPOINT", "SIDECAST_API_TOKEN", "SIDECAST_DATA_DIR"} {
		os.Unsetenv(name)
	}
	goleak.VerifyTestMain(m)
}

type catalogue []commands.ComponentType

func (c catalogue) List() []commands.ComponentType { return c }

func (c catalogue) Describe(name string) (commands.ComponentType, bool) {
	at := slices.IndexFunc(c, func(t commands.ComponentType) bool { return t.Type == name })
	if at < 0 {
		return commands.ComponentType{}, false
	}
	return c[at], true
}

var known = catalogue{
	{Type: "pubsub.jetstream", Doc: "Events on the fabric's own JetStream. It keeps them on disk."},
	{Type: "state.badger", Doc: "Durable store in a local directory. For one process at a time.", Keys: []commands.ComponentKey{
		{Key: "dir", Accepts: "text", Required: true, Doc: "Directory that holds the data."},
		{Key: "sync", Accepts: "true or false", Default: "true", Doc: "Fsync before a write is acknowledged."},
		{Key: "password", Accepts: "text", Secret: true, Doc: "Key of the encryption."},
	}, Example: "apiVersion: dapr.io/v1alpha1\nkind: Component\n"},
}

// lint finds what the names of the files say.
func lint(paths []string) ([]commands.Finding, []commands.Explanation) {
	var findings []commands.Finding
	var said []commands.Explanation
	for _, path := range paths {
		names, _ := filepath.Glob(filepath.Join(path, "*.yaml"))
		for _, name := range names {
			f := commands.Finding{File: filepath.Base(name), Severity: "warning", Message: "nobody uses it"}
			if strings.Contains(name, "wrong") {
				f = commands.Finding{
					File: filepath.Base(name), Line: 7, Key: "spec.metadata.dirr", Severity: "error", Message: "there is no such key", Suggestion: "dir",
				}
			}
			findings = append(findings, f)
			if strings.Contains(name, "policy") {
				said = append(said, commands.Explanation{Target: "calls to orders", Policy: "give up after 5s"})
			}
		}
	}
	return findings, said
}

func newRoot() *cobra.Command {
	root := &cobra.Command{Use: "sidecast", Short: "A sidecar runtime", Long: "Sidecast is a runtime that sits beside one app."}
	root.AddCommand(commands.New(commands.Deps{Catalogue: known, Lint: lint, Version: "v0.1.0", Commit: "0123456789abcdef", Date: "2026-11-20"})...)
	return root
}

// result is what a command did.
type result struct {
	stdout, stderr string
	code           int
}

func execute(ctx context.Context, stdin io.Reader, args ...string) result {
	var stdout, stderr bytes.Buffer
	root := newRoot()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(&stdout)
	root.SetErr(&stderr)
	code := commands.Execute(ctx, root)
	return result{stdout.String(), stderr.String(), code}
}

// TestSessions types what the sessions in testdata type and compares what is printed.
func TestSessions(t *testing.T) {
	files, err := filepath.Glob("testdata/*.session")
	if err != nil || len(files) == 0 {
		t.Fatal("no sessions", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := playSession(t, string(text))
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if got != string(text) {
				t.Errorf("the session goes differently; -update accepts it:\n%s", got)
			}
		})
	}
}

// playSession plays the lines that start with `$ sidecast`. `sidecars a b` says which run; `<text` at the end of a line is
// its standard input. Lines from standard error start with `! `; an exit code other than 0 stands at the end.
func playSession(t *testing.T, text string) string {
	dir := t.TempDir()
	t.Setenv("SIDECAST_DATA_DIR", filepath.Join(dir, "data"))
	places := []string{dir, "DIR"}
	var b strings.Builder
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case strings.HasPrefix(line, "sidecars "):
			for _, app := range strings.Fields(line)[1:] {
				s := startSidecar(t, app)
				release, err := rundir.Register(filepath.Join(dir, "data"), rundir.Entry{
					AppID: app, Instance: app + "-1", PID: 4242, GRPCAddress: s.address, AdminAddress: "127.0.0.1:9090", Started: time.Now(), Version: "v0.1.0",
				})
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(release)
				places = append(places, s.address, app+":PORT")
			}
			fmt.Fprintln(&b, line)
		case strings.HasPrefix(line, "$ sidecast"):
			fmt.Fprintln(&b, line)
			words, stdin := split(strings.TrimPrefix(line, "$ sidecast"))
			r := execute(t.Context(), strings.NewReader(stdin), words...)
			b.WriteString(ended(r.stdout))
			for line := range strings.Lines(r.stderr) {
				b.WriteString("! " + ended(line))
			}
			if r.code != 0 {
				fmt.Fprintf(&b, "exit %d\n", r.code)
			}
			fmt.Fprintln(&b)
		case strings.HasPrefix(line, "#"):
			fmt.Fprintln(&b, line)
		}
	}
	places = append(places, runtime.Version(), "GO", runtime.GOOS+"/"+runtime.GOARCH, "PLATFORM")
	got := strings.NewReplacer(places...).Replace(b.String())
	got = regexp.MustCompile(` 1h0m\d+s `).ReplaceAllString(got, " 1h0m0s ")
	got = regexp.MustCompile(`"started":"[^"]*"`).ReplaceAllString(got, `"started":"THEN"`)
	got = regexp.MustCompile(`(?m)^(APP +INSTANCE.*?GRPC) +`).ReplaceAllString(got, "$1 ")
	return regexp.MustCompile(` +(\w+:PORT) +`).ReplaceAllString(got, "  $1  ")
}

func ended(text string) string {
	if text != "" && !strings.HasSuffix(text, "\n") {
		return text + "⏎\n"
	}
	return text
}

// split splits a line into words as a shell does, as far as single and double quotes go.
func split(line string) (words []string, stdin string) {
	line, stdin, _ = strings.Cut(line, " <")
	stdin = strings.ReplaceAll(stdin, `\n`, "\n")
	var word strings.Builder
	quote, open := rune(0), false
	for _, r := range line {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '\'' || r == '"':
			quote, open = r, true
		case r == ' ':
			if open || word.Len() > 0 {
				words = append(words, word.String())
			}
			word.Reset()
			open = false
		default:
			word.WriteRune(r)
		}
	}
	if open || word.Len() > 0 {
		words = append(words, word.String())
	}
	return words, stdin
}

func TestEveryCommandTeaches(t *testing.T) {
	root := newRoot()
	var visit func(*cobra.Command)
	visit = func(cmd *cobra.Command) {
		if cmd != root && cmd.IsAvailableCommand() {
			if cmd.Short == "" || cmd.Long == "" || cmd.Example == "" && !cmd.HasSubCommands() {
				t.Errorf("%s has no short, long or example", cmd.CommandPath())
			}
			for line := range strings.Lines(cmd.Long) {
				if len([]rune(strings.TrimRight(line, "\n"))) > 100 {
					t.Errorf("%s: a line of its help is too long: %s", cmd.CommandPath(), line)
				}
			}
		}
		for _, child := range cmd.Commands() {
			visit(child)
		}
	}
	visit(root)
}

func TestReferenceIsComplete(t *testing.T) {
	write := func() string {
		var b bytes.Buffer
		if err := commands.Reference(&b, newRoot()); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	text := write()
	if text != write() {
		t.Error("the reference differs from one time to the next")
	}
	for _, want := range []string{
		"## sidecast state\n", "### sidecast state transact\n", "### sidecast lock hold\n", "## sidecast completion\n",
		"| `--pubsub string` |  | name of the pub/sub component (default pubsub) |", "| 4 | the lock is held or was lost",
		"```\n[\n", "sidecast invoke pricing price --data",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the reference lacks %q", want)
		}
	}
	if home, _ := os.UserHomeDir(); home != "" && home != "/" && strings.Contains(text, home+"/") {
		t.Error("the reference depends on who writes it")
	}
	if n := strings.Count(text, "```"); n%2 != 0 {
		t.Errorf("%d fences", n)
	}
}

func TestTokenIsSentAndNeverShown(t *testing.T) {
	s := startSidecar(t, "orders")
	s.token = "open-sesame"
	r := execute(t.Context(), nil, "state", "list", "--grpc-address", s.address)
	if r.code != commands.ExitDenied || !strings.Contains(r.stderr, "TOKEN_REJECTED") {
		t.Errorf("without a token: %+v", r)
	}
	t.Setenv("SIDECAST_API_TOKEN", "open-sesame")
	if r := execute(t.Context(), nil, "state", "list", "--grpc-address", s.address); r.code != 0 {
		t.Errorf("with the token: %+v", r)
	}
	s.token = "changed"
	r = execute(t.Context(), nil, "state", "list", "--grpc-address", s.address, "-o", "json")
	if strings.Contains(r.stdout+r.stderr, "open-sesame") {
		t.Errorf("the token is shown: %+v", r)
	}
}

func TestEndpointOfTheEnvironment(t *testing.T) {
	s := startSidecar(t, "orders")
	t.Setenv("SIDECAST_DATA_DIR", t.TempDir())
	t.Setenv("SIDECAST_GRPC_ENDPOINT", s.address)
	for _, args := range [][]string{{"state", "set", "k", "v"}, {"tree"}, {"publish", "t", "-d", "x"}, {"components"}} {
		if r := execute(t.Context(), strings.NewReader(""), args...); r.code != 0 {
			t.Errorf("%v: %+v", args, r)
		}
	}
}

func TestTimeoutAndInterrupt(t *testing.T) {
	s := startSidecar(t, "orders")
	r := execute(t.Context(), nil, "invoke", "pricing", "slow", "-d", "", "--timeout", "50ms", "--grpc-address", s.address)
	if r.code != commands.ExitTimeout || !strings.Contains(r.stderr, "DEADLINE_EXCEEDED") {
		t.Errorf("timeout: %+v", r)
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	r = execute(ctx, nil, "invoke", "pricing", "slow", "-d", "", "--timeout", "0", "--grpc-address", s.address)
	if r.code != commands.ExitInterrupted || r.stderr != "" {
		t.Errorf("interrupt: %+v", r)
	}
}

func TestBodyThatNeverComes(t *testing.T) {
	s := startSidecar(t, "orders")
	r, w := io.Pipe()
	defer w.Close() // lets the reader end
	got := execute(t.Context(), r, "invoke", "pricing", "echo", "--timeout", "50ms", "--grpc-address", s.address)
	if got.code != commands.ExitTimeout || !strings.Contains(got.stderr, "give the body with --data") {
		t.Errorf("%+v", got)
	}
}

func TestBinaryBodies(t *testing.T) {
	s := startSidecar(t, "orders")
	body := []byte{0, 1, 0xff, '\n', 0xfe}
	file := filepath.Join(t.TempDir(), "body")
	if err := os.WriteFile(file, body, 0o600); err != nil {
		t.Fatal(err)
	}
	at := "--grpc-address=" + s.address
	if r := execute(t.Context(), nil, "invoke", "pricing", "echo", "--data-file", file, at); r.stdout != string(body) {
		t.Errorf("echo changed the bytes: %q", r.stdout)
	}
	r := execute(t.Context(), nil, "invoke", "pricing", "echo", "--data-file", file, "-o", "json", at)
	var view struct{ DataBase64 []byte }
	if err := json.Unmarshal([]byte(r.stdout), &view); err != nil || !bytes.Equal(view.DataBase64, body) {
		t.Errorf("JSON: %s (%v)", r.stdout, err)
	}
	if r := execute(t.Context(), bytes.NewReader(body), "state", "set", "k", at); r.code != 0 {
		t.Errorf("set: %+v", r)
	}
	if r := execute(t.Context(), nil, "state", "get", "k", at); r.stdout != string(body) {
		t.Errorf("get changed the bytes: %q", r.stdout)
	}
	if r := execute(t.Context(), nil, "state", "list", at); !strings.Contains(r.stdout, "(5 B, binary)") {
		t.Errorf("list: %q", r.stdout)
	}
}

func TestPublishManyInBatches(t *testing.T) {
	s := startSidecar(t, "orders")
	r := execute(t.Context(), nil, "publish", "load", "-d", "x", "--count", "2500", "--key", "k", "--delay", "1s", "--grpc-address", s.address)
	if r.code != 0 || strings.Count(r.stdout, "\n") != 2500 || len(s.published) != 2500 {
		t.Fatalf("code %d, %d ids, %d events", r.code, strings.Count(r.stdout, "\n"), len(s.published))
	}
	for _, e := range s.published {
		if e.PartitionKey != "k" || e.Delay.AsDuration() != time.Second || e.ContentType != "text/plain" {
			t.Fatalf("event %v", e)
		}
	}
}

func TestEveryKindHasAnExitCode(t *testing.T) {
	for _, kind := range fault.Kinds() {
		if code := commands.ExitCode(fault.E("op", kind, "", nil)); code == 0 {
			t.Errorf("%s ends with 0", kind)
		}
	}
	if code := commands.ExitCode(nil); code != 0 {
		t.Errorf("no error ends with %d", code)
	}
}

func TestCompletion(t *testing.T) {
	s := startSidecar(t, "orders")
	t.Setenv("SIDECAST_DATA_DIR", t.TempDir())
	release, err := rundir.Register(os.Getenv("SIDECAST_DATA_DIR"), rundir.Entry{AppID: "orders", Instance: "1", GRPCAddress: s.address})
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	if r := execute(t.Context(), nil, "state", "set", "order-7", "x"); r.code != 0 {
		t.Fatalf("%+v", r)
	}
	for typed, want := range map[string]string{
		"invoke |":                       "intake pricing",
		"tree --app-id |":                "orders",
		"state get --store |":            "orders-db statestore",
		"state get or|":                  "order-7",
		"publish --pubsub |":             "pubsub",
		"components describe |":          "pubsub.jetstream state.badger",
		"tree -o |":                      "json text",
		"lane pause app/|":               "app/pricing app/web",
		"lane breaker app/web |":         "auto closed open",
		"state get x --app-id unknown |": "",
	} {
		words := strings.Fields(strings.TrimSuffix(typed, "|"))
		if strings.HasSuffix(typed, " |") {
			words = append(words, "")
		} else {
			words = append(words[:len(words)-1], words[len(words)-1])
		}
		r := execute(t.Context(), nil, append([]string{"__complete"}, words...)...)
		var got []string
		for line := range strings.Lines(r.stdout) {
			if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, ":") {
				got = append(got, line)
			}
		}
		slices.Sort(got)
		if strings.Join(got, " ") != want {
			t.Errorf("%q completes to %v, want %s", typed, got, want)
		}
	}
}
