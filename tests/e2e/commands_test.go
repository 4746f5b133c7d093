package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/sidecast/sidecast/tests/machine"
)

func TestEveryCommandTeaches(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	var check func(path ...string)
	check = func(path ...string) {
		help := m.Must(append(path, "--help")...)
		name := "sidecast " + strings.Join(path, " ")
		leaf := !strings.Contains(help, "Available Commands:")
		if leaf && !strings.Contains(help, "Examples:") {
			t.Errorf("%s --help has no examples", name)
		}
		if !strings.Contains(help, "Usage:") {
			t.Errorf("%s --help has no usage", name)
		}
		_, list, _ := strings.Cut(help, "Available Commands:\n")
		list, _, _ = strings.Cut(list, "\n\n")
		for _, line := range strings.Split(list, "\n") {
			if words := strings.Fields(line); len(words) > 1 && words[0] != "help" && words[0] != "completion" {
				check(append(append([]string{}, path...), words[0])...)
			}
		}
	}
	check()
	for _, topic := range []string{"exit-codes", "environment"} {
		if !strings.Contains(m.Must("help", topic), "  ") {
			t.Errorf("help %s says nothing", topic)
		}
	}
}

// documented are the exit codes of `sidecast help exit-codes`, from its own text.
func TestExitCodesAreThoseDocumented(t *testing.T) {
	m := machine.New(t)
	text := m.Must("help", "exit-codes")
	for _, code := range []string{"0", "1", "2", "3", "4", "5", "6", "7", "130"} {
		if !regexp.MustCompile(`(?m)^  ` + code + ` +\S`).MatchString(text) {
			t.Errorf("exit code %s is not documented", code)
		}
	}
}

func TestCommandsWithoutASidecar(t *testing.T) {
	t.Parallel()
	session(t, machine.New(t), []step{
		{run: "version", out: `^sidecast \S+( commit \S+ of \S+)?, go1\S* \S+/\S+\n$`},
		{run: "version -o json", out: `"version":`},
		{run: "completion bash", out: `(?s)__start_sidecast`},
		{run: "components --available", out: `(?s)pubsub.jetstream .*state.badger `},
		{run: "components describe state.badger", out: `(?s)^state.badger\n.*(?m)^dir +.*kind: Component`},
		{run: "components describe state.bagder", code: 3, err: `state\.bagder`},
		{run: "status", out: `No sidecar runs on this machine`},
		{run: "status -o json", out: `\{"machine":\[\],"fabric":\[\]\}`},
		{run: "tree", code: 5, err: `(?s)no sidecar runs.*SIDECAR_NOT_FOUND.*what to do`},
		{run: "invoke a b", code: 5, err: `SIDECAR_NOT_FOUND`},
		{run: "state get k --grpc-address 127.0.0.1:1", code: 5, err: `(?s)nobody listens.*SIDECAR_NOT_FOUND`},
		{run: "stat", code: 2, err: `did you mean.*stat`},
		{run: "state gte k", code: 2, err: `there is no command`},
		{run: "invoke", code: 2, err: `APP is missing`},
		{run: "invoke app", code: 2, err: `METHOD is missing`},
		{run: "invoke a b --no-such-flag", code: 2, err: `(?s)no-such-flag.*--help`},
		{run: "state get", code: 2, err: `KEY is missing`},
		{run: "state get k -o yaml", code: 2, err: `yaml`},
		{run: "state get k --timeout soon", code: 2, err: `soon`},
	})
}

func TestCommandsAgainstASidecar(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	m.Sidecar("solo")
	session(t, m, []step{
		{run: "publish orders.placed -d {}", out: `^[0-9a-f-]{36}\n$`},
		{run: "publish orders.placed --lines", stdin: "one\ntwo\nthree\n", out: `^(\S{36}\n){3}$`},
		{run: "publish orders.placed -d x --id mine -o json", out: `^\{"id":"mine"\}\n$`},
		{run: "publish orders.placed -d x --count 25", out: `^(\S{36}\n){25}$`},
		{run: "publish orders.placed -d x --delay -5s", code: 2, err: `DELAY_INVALID`},
		{run: "publish -d x", args: []string{""}, code: 2, err: `TOPIC_INVALID`},

		{run: "state set k", stdin: "piped", out: `^[0-9a-f]{16}\n$`},
		{run: "state get k", out: `^piped$`},
		{run: "state get k -o json", out: `^\{"key":"k","value":"piped","etag":"[0-9a-f]{16}"\}\n$`},
		{run: "state get missing", code: 3, err: `there is no key "missing"`},
		{run: "state set k2 v --etag 00000000000000ff", code: 4, err: `ETAG_MISMATCH`},
		{run: "state set k2 v --etag zz", code: 2, err: `ETAG_MALFORMED`},
		{run: "state set k2 v --ttl -5s", code: 2, err: `TTL_INVALID`},
		{run: "state set", args: []string{"", "v"}, code: 2, err: `KEY_INVALID`},
		{run: "state get", args: []string{""}, code: 2, err: `KEY_INVALID`},
		{run: "state set k2 v --ttl 1h", out: `^[0-9a-f]{16}\n$`},
		{run: "state list -o json", out: `(?s)"key":"k",.*\n.*"key":"k2",.*"ttl":"`},
		{run: "state list --prefix nothing-", out: `^KEY +ETAG +TTL +VALUE\n$`},
		{run: "state list --prefix k2 --keys-only", out: `^k2\n$`},
		{run: "state delete k", out: ``},
		{run: "state get k", code: 3, err: `there is no key "k"`},
		{run: "state get k --store nowhere", code: 2, err: `(?s)nowhere.*COMPONENT_NOT_FOUND`},

		{run: "lock acquire batch --owner me --ttl 1m", out: `(?s)^name=batch\nowner=me\ntoken=\d+\nttl=\S+\n$`},
		{run: "lock acquire batch", code: 4, err: `(?s)"me".*LOCK_HELD`},
		{run: "lock batch -- echo never", code: 4, err: `LOCK_HELD`},
		{run: "lock renew batch --owner me --token 1", code: 4, err: `LOCK_LOST`},
		{run: "lock acquire", args: []string{""}, code: 2, err: `LOCK_NAME_INVALID`},
		{run: "lock acquire short --ttl 1ms", code: 2, err: `LEASE_INVALID`},

		{run: "invoke nobody method", code: 5, err: `(?s)"nobody".*APP_NOT_FOUND.*what to do`},
		{run: "invoke solo method", code: 5, err: `APP_NOT_CONNECTED`},
		{run: "components", out: `(?m)^statestore +state\.badger +ready`},
		{run: "components -o json", out: `"name":"statestore"`},
		{run: "tree -o json", out: `"name":"state/statestore"`},
		{run: "status --app-id other", out: `(?i)no sidecar of app "?other`},
		{run: "tree --app-id other", code: 5, err: `(?s)"other".*there are: solo.*SIDECAR_NOT_FOUND`},
	})
	for _, line := range []string{
		"state list", "status", "tree", "components", "version", "components --available", "components describe lock.jetstream",
		"lock acquire json", "publish t -d x", "state set j 1", "state get j",
	} {
		args := append(strings.Fields(line), "-o", "json")
		parsesAsJSON(t, line, m.Must(args...))
	}
	for _, line := range []string{"state get missing", "invoke nobody method", "lock acquire batch"} {
		r := m.Command(append(strings.Fields(line), "-o", "json")...)
		parsesAsJSON(t, line, r.Err)
	}
}

func TestLockCommands(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	m.Sidecar("keeper")
	var lease struct {
		Owner string
		Token json.Number
	}
	acquire := func() {
		if err := json.Unmarshal([]byte(m.Must("lock", "acquire", "step", "-o", "json")), &lease); err != nil {
			t.Fatal(err)
		}
	}
	acquire()
	first := lease.Token
	m.Must("lock", "renew", "step", "--owner", lease.Owner, "--token", lease.Token.String(), "--ttl", "2m")
	m.Must("lock", "renew", "step", "--owner", lease.Owner, "--token", lease.Token.String())
	m.Must("lock", "release", "step", "--owner", lease.Owner, "--token", lease.Token.String())
	acquire()
	a, _ := first.Int64()
	b, _ := lease.Token.Int64()
	if b <= a {
		t.Errorf("the fencing token went from %d to %d", a, b)
	}

	script := filepath.Join(t.TempDir(), "held")
	holder := m.Start(machine.Binary(t), "lock", "while", "--", "sh", "-c", `echo held; while [ ! -e "$0" ]; do sleep 0.02; done; exit 9`, script)
	holder.WaitFor("^held$", machine.Patience)
	session(t, m, []step{{run: "lock while -- true", code: 4, err: `LOCK_HELD`}})
	if err := os.WriteFile(script, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if code := holder.Wait(machine.Patience); code != 9 {
		t.Errorf("exit code %d, want that of the command", code)
	}
	session(t, m, []step{{run: "lock while --wait 20s -- echo mine", out: `^mine\n$`}})

	// A holder that is killed lets go at once.
	killed := m.Start(machine.Binary(t), "lock", "while", "--ttl", "1h", "--", "sh", "-c", "echo held; exec sleep 60")
	killed.WaitFor("^held$", machine.Patience)
	killed.Kill()
	session(t, m, []step{{run: "lock while --wait 20s -- echo after", out: `^after\n$`}})
}

func TestWatchCommands(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	m.Sidecar("watched")
	m.Must("state", "set", "w/there", "already")
	watch := m.Start(machine.Binary(t), "state", "watch", "--prefix", "w/", "-o", "json")
	watch.WaitFor(`w/there`, machine.Patience)
	m.Must("state", "set", "w/new", "born")
	m.Must("state", "set", "elsewhere", "unseen")
	m.Must("state", "delete", "w/new")
	watch.WaitFor(`w/new.*born`, machine.Patience)
	watch.WaitFor(`deleted.*w/new`, machine.Patience)
	watch.Interrupt()
	if code := watch.Wait(machine.Patience); code != 0 && code != 130 {
		t.Errorf("exit code %d after Ctrl-C", code)
	}
	if strings.Contains(watch.Output(), "elsewhere") {
		t.Error("the watch shows a key outside its prefix")
	}
	parsesAsJSON(t, "state watch", watch.Output())

	lock := m.Start(machine.Binary(t), "lock", "watch", "gate")
	lock.WaitFor(`gate is free`, machine.Patience)
	m.Must("lock", "gate", "--owner", "me", "--", "true")
	lock.WaitFor(`gate is held by me`, machine.Patience)
	lock.Interrupt()
	lock.Wait(machine.Patience)
}

func TestCompletionIsAScript(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("bash is not installed: ", err)
	}
	script := m.Must("completion", "bash")
	cmd := exec.Command(bash, "-n")
	cmd.Stdin = strings.NewReader(script)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("bash does not read it: %v: %s", err, out)
	}
	if out := m.Must("__complete", "sta"); !strings.Contains(out, "state") || !strings.Contains(out, "status") {
		t.Errorf("`sta` completes to %q", out)
	}
}

func TestLint(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	folder := func(text string) string {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "store.yaml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	const good = `apiVersion: sidecast.dev/v1
kind: Component
metadata:
  name: orders
spec:
  type: state.badger
  version: v1
  metadata:
    - name: sync
      value: "false"
`
	session(t, m, []step{
		{run: "lint " + folder(good), out: `.*`},
		{run: "lint " + folder(good) + " -o json", out: ``},
		{run: "lint " + folder(strings.Replace(good, "name: sync", "name: snyc", 1)), code: 2, err: `BAD_MANIFEST`, out: `store\.yaml:9.*snyc.*sync`},
		{run: "lint " + folder(strings.Replace(good, "state.badger", "state.bagder", 1)), code: 2, err: `BAD_MANIFEST`, out: `store\.yaml:6.*spec\.type.*state\.badger`},
		{run: "lint " + folder(strings.Replace(good, `"false"`, `"flase"`, 1)), code: 2, err: `BAD_MANIFEST`, out: `store\.yaml:10.*flase`},
		{run: "lint " + folder(strings.Replace(good, "metadata:\n  name", "metdata:\n  name", 1)), code: 2, err: `BAD_MANIFEST`, out: `store\.yaml:3.*metdata.*metadata`},
		{run: "lint " + folder("a: [b\n"), code: 2, err: `BAD_MANIFEST`, out: `store\.yaml:\d`},
		{run: "lint /no/such/folder", code: 2, err: `/no/such/folder`},
		{run: "lint", code: 2, err: `DIR is missing`},
	})
}
