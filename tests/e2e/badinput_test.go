package e2e

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/sidecast/sidecast/fault"
	sidecast "github.com/sidecast/sidecast/sdk/go"
	sidecastv1 "github.com/sidecast/sidecast/sdk/proto/sidecast/v1"
	"github.com/sidecast/sidecast/tests/machine"
)

// refused runs what cannot start and wants it to end by itself with that code, saying each of the words.
func refused(t *testing.T, p *machine.Process, code int, words ...string) {
	t.Helper()
	if got := p.Wait(machine.Patience); got != code {
		t.Errorf("exit code %d, want %d: %s", got, code, p.Output())
	}
	for _, word := range words {
		if !strings.Contains(p.Output(), word) {
			t.Errorf("the error does not say %q: %s", word, p.Output())
		}
	}
	if strings.Contains(p.Output(), "goroutine ") {
		t.Errorf("the error is a stack: %s", p.Output())
	}
}

func TestWrongFlags(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	for _, c := range []struct{ args, word string }{
		{"", "--app-id"},
		{"--app-id a/b", `"a/b"`},
		{"--app-id x --grpc-port 70000", "70000"},
		{"--app-id x --grpc-port -1", "-1"},
		{"--app-id x --grpc-port many", "many"},
		{"--app-id x --max-body lots", "lots"},
		{"--app-id x --max-body 0", "--max-body"},
		{"--app-id x --app-protocol carrier-pigeon", "carrier-pigeon"},
		{"--app-id x --log-level loud", "loud"},
		{"--app-id x --log-format xml", "xml"},
		{"--app-id x --grace-period -1s", "-1s"},
		{"--app-id x --fabric-sync sometimes", "sometimes"},
		{"--app-id x --fabric-replicas 3", "--fabric"},
		{"--app-id x --app-max-concurrency -1", "-1"},
		{"--app-id x --fabric http://example.com", "http"},
		{"--app-id x --fabric nats://", "nats://"},
		{"--app-id x --listen-address 203.0.113.7", "203.0.113.7"},
		{"--app-id x --resources-path /no/such/folder", "/no/such/folder"},
		{"--app-id x --grpc-socket /no/such/folder/socket", "/no/such/folder/socket"},
		{"--app-id x --fabric nats://127.0.0.1:1 --fabric-creds /no/creds", "/no/creds"},
		{"--app-id x --fabric nats://127.0.0.1:1 --fabric-ca /no/ca.pem", "/no/ca.pem"},
		{"--app-id x --fabric nats://127.0.0.1:1 --fabric-nkey /no/seed", "/no/seed"},
		{"--app-id x --colour blue", "--colour"},
		{"--namespace a.b.c:d --app-id x", "namespace"},
		{"-f /no/such/file.yaml", "/no/such/file.yaml"},
		{"-f /no/such/file.yaml -- app", "-f"},
		{"-- app", "--app-id"},
	} {
		t.Run(c.args, func(t *testing.T) {
			args := strings.Fields(c.args)
			if !strings.Contains(c.args, "--grpc-port") && !strings.Contains(c.args, "-f ") {
				args = append([]string{"--grpc-port", "0", "--metrics-port", "0"}, args...)
			}
			refused(t, m.Run(args...), 2, c.word)
		})
	}
}

func TestWrongComponentFiles(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	dir := t.TempDir()
	write(t, filepath.Join(dir, "store.yaml"), `apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: orders
spec:
  type: state.badger
  version: v1
  metadata:
    - name: snyc
      value: "true"
`)
	refused(t, m.Run("--app-id", "typo", "--grpc-port", "0", "--metrics-port", "0", "--resources-path", dir), 2,
		"store.yaml:9", "snyc", "sync")
}

func TestWrongRunFiles(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	for name, c := range map[string]struct {
		text  string
		words []string
	}{
		"unknown key":   {"version: 1\napps:\n  - appID: a\n    comand: [true]\n", []string{"sidecast.yaml:4", "comand", "command"}},
		"no app":        {"version: 1\napps: []\n", []string{"sidecast.yaml", "app"}},
		"not yaml":      {"version: 1\napps: [\n", []string{"sidecast.yaml:"}},
		"empty":         {"", []string{"sidecast.yaml"}},
		"wrong type":    {"version: 1\napps:\n  - appID: a\n    appPort: eighty\n    command: [true]\n", []string{"sidecast.yaml:4", "eighty"}},
		"bad app id":    {"version: 1\napps:\n  - appID: a/b\n    command: [\"true\"]\n", []string{"a/b"}},
		"missing dir":   {"version: 1\napps:\n  - appID: a\n    appDirPath: ./nowhere\n    command: [\"true\"]\n", []string{"nowhere"}},
		"missing build": {"version: 1\napps:\n  - appID: a\n    build: [no-such-compiler]\n    command: [\"true\"]\n", []string{"no-such-compiler"}},
		"missing app":   {"version: 1\napps:\n  - appID: a\n    command: [no-such-app]\n", []string{"no-such-app"}},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "sidecast.yaml")
			write(t, file, c.text)
			run := m.Run("-f", file)
			if code := run.Wait(machine.Patience); code != 1 && code != 2 {
				t.Errorf("exit code %d", code)
			}
			for _, word := range c.words {
				if !strings.Contains(run.Output(), word) {
					t.Errorf("the error does not say %q: %s", word, run.Output())
				}
			}
		})
	}
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestPortsInUse(t *testing.T) {
	m := machine.New(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	port := strconv.Itoa(taken.Addr().(*net.TCPAddr).Port)
	refused(t, m.Run("--app-id", "x", "--grpc-port", port, "--metrics-port", "0"), 2, port, "--grpc-port", "PORT_IN_USE")
	refused(t, m.Run("--app-id", "x", "--grpc-port", "0", "--metrics-port", port), 2, port, "--metrics-port", "PORT_IN_USE")
	refused(t, m.Run("--app-id", "x", "--grpc-port", "0", "--metrics-port", "0", "--fabric-port", port), 2, port, "--fabric-port", "PORT_IN_USE")
	refused(t, m.Run("--app-id", "x", "--grpc-port", port, "--metrics-port", "0", "--", "sleep", "60"), 2, port, "PORT_IN_USE")
}

func TestUnusableDataDir(t *testing.T) {
	m := machine.New(t)
	file := filepath.Join(t.TempDir(), "file")
	write(t, file, "not a folder")
	run := func(dir string) *machine.Process {
		return m.Start(machine.Binary(t), "run", "--app-id", "x", "--data-dir", dir, "--fabric-port", "0", "--grpc-port", "0", "--metrics-port", "0")
	}
	refused(t, run(file), 2, file)
	if os.Geteuid() == 0 {
		t.Log("root may write anywhere: folders without permission are left out")
		return
	}
	closed := filepath.Join(t.TempDir(), "closed")
	if err := os.Mkdir(closed, 0o500); err != nil {
		t.Fatal(err)
	}
	refused(t, run(closed), 2, closed)
}

func TestBadRequests(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	s := m.Sidecar("strict", "--max-body", "64KiB")
	s.Serve(sidecast.Handle("echo", func(_ context.Context, r *sidecast.Request) ([]byte, error) { return r.Data, nil }),
		sidecast.Handle("large", func(context.Context, *sidecast.Request) ([]byte, error) { return make([]byte, 128<<10), nil }))
	c := s.Client()
	ctx, cancel := context.WithTimeout(t.Context(), machine.Patience)
	defer cancel()
	invoke := func(app, method string, body int) error {
		_, err := c.Invoke(ctx, app, method, make([]byte, body))
		return err
	}
	state, pubsub, lock := sidecastv1.NewStateClient(c.Conn()), sidecastv1.NewPubSubClient(c.Conn()), sidecastv1.NewLockClient(c.Conn())
	second := func(_ any, err error) error { return err }
	for name, check := range map[string]struct {
		err    error
		kind   fault.Kind
		reason fault.Reason
	}{
		"body over the limit":   {invoke("strict", "echo", 64<<10+1), fault.Invalid, fault.BodyTooLarge},
		"answer over the limit": {invoke("strict", "large", 1), fault.Invalid, fault.AnswerTooLarge},
		"unknown app":           {invoke("nobody", "echo", 1), fault.Unavailable, fault.AppNotFound},
		"unknown method":        {invoke("strict", "nothing", 1), fault.NotFound, fault.HandlerNotFound},
		"no app":                {invoke("", "echo", 1), fault.Invalid, fault.BadRequest},
		"no method":             {invoke("strict", "", 1), fault.Invalid, fault.BadRequest},
		"long app":              {invoke(strings.Repeat("a", 5000), "echo", 1), fault.Invalid, fault.BadRequest},
		"unknown store": {second(state.Get(ctx, &sidecastv1.GetRequest{StoreName: "nowhere", Key: "k"})),
			fault.Invalid, fault.ComponentNotFound},
		"store that is a pubsub": {second(state.Get(ctx, &sidecastv1.GetRequest{StoreName: "pubsub", Key: "k"})),
			fault.Invalid, fault.ComponentNotFound},
		"empty key":    {second(state.Get(ctx, &sidecastv1.GetRequest{})), fault.Invalid, fault.KeyInvalid},
		"long key":     {second(state.Get(ctx, &sidecastv1.GetRequest{Key: strings.Repeat("k", 100_000)})), fault.Invalid, fault.KeyInvalid},
		"many keys":    {second(state.BatchGet(ctx, &sidecastv1.BatchGetRequest{Keys: make([]string, 1001)})), fault.Invalid, fault.BadRequest},
		"write twice":  {second(state.Set(ctx, &sidecastv1.SetRequest{Items: []*sidecastv1.Write{{Key: "a"}, {Key: "a"}}})), fault.Invalid, fault.BadRequest},
		"null write":   {second(state.Set(ctx, &sidecastv1.SetRequest{Items: []*sidecastv1.Write{nil}})), fault.Invalid, fault.KeyInvalid},
		"empty op":     {second(state.Transact(ctx, &sidecastv1.TransactRequest{Operations: []*sidecastv1.Operation{{}}})), fault.Invalid, fault.BadRequest},
		"bad page":     {second(state.List(ctx, &sidecastv1.ListRequest{PageToken: "!"})), fault.Invalid, fault.PageInvalid},
		"bad size":     {second(state.List(ctx, &sidecastv1.ListRequest{PageSize: -1})), fault.Invalid, fault.BadRequest},
		"bad mode":     {second(state.Set(ctx, &sidecastv1.SetRequest{Items: []*sidecastv1.Write{{Key: "a", Concurrency: 77}}})), fault.Invalid, fault.BadRequest},
		"no topic":     {second(pubsub.Publish(ctx, &sidecastv1.PublishRequest{Data: []byte("x")})), fault.Invalid, fault.TopicInvalid},
		"wild topic":   {second(pubsub.Publish(ctx, &sidecastv1.PublishRequest{Topic: "a\x00b", Data: []byte("x")})), fault.Invalid, fault.TopicInvalid},
		"no lock":      {second(lock.Acquire(ctx, &sidecastv1.AcquireRequest{})), fault.Invalid, fault.LockName},
		"no owner":     {second(lock.Renew(ctx, &sidecastv1.RenewRequest{Name: "a", Token: 1})), fault.Invalid, fault.LockName},
		"unheld lock":  {second(lock.Release(ctx, &sidecastv1.ReleaseRequest{Name: "a", Owner: "b", Token: 1})), fault.Conflict, fault.LockLost},
		"foreign lock": {second(lock.Acquire(ctx, &sidecastv1.AcquireRequest{StoreName: "statestore", Name: "a"})), fault.Invalid, fault.ComponentNotFound},
	} {
		if check.err == nil || fault.KindOf(check.err) != check.kind || fault.ReasonOf(check.err) != check.reason {
			t.Errorf("%s: %v (%v, %s), want %v, %s", name, check.err, fault.KindOf(check.err), fault.ReasonOf(check.err), check.kind, check.reason)
		}
	}
	if err := invoke("strict", "echo", 64<<10); err != nil {
		t.Errorf("a body of exactly --max-body: %v", err)
	}
}

func TestAPIToken(t *testing.T) {
	m := machine.New(t)
	m.Env = []string{"SIDECAST_API_TOKEN=the-secret"}
	s := m.Sidecar("guarded")
	ctx, cancel := context.WithTimeout(t.Context(), machine.Patience)
	defer cancel()
	for token, denied := range map[string]bool{"": true, "wrong": true, "the-secret ": true, "the-secret": false} {
		_, _, err := s.Client(sidecast.Token(token)).State("").Get(ctx, "k")
		if denied != (fault.ReasonOf(err) == fault.TokenRejected) {
			t.Errorf("token %q: %v", token, err)
		}
	}
	if r := m.Command("state", "list"); r.Code != 0 {
		t.Errorf("the command line does not send the token: %s", r.Err)
	}
	m.Env = []string{"SIDECAST_API_TOKEN=wrong"}
	session(t, m, []step{{run: "state list", code: 7, err: `TOKEN_REJECTED`}})
	m.Env = nil
	session(t, m, []step{{run: "invoke guarded x", code: 7, err: `TOKEN_REJECTED`}})
	if strings.Contains(s.Output(), "the-secret") {
		t.Error("the token is in the log")
	}
}

// Two sidecars of one app share its Badger directory and cannot.
func TestTwoSidecarsOnOneBadger(t *testing.T) {
	m := machine.New(t)
	first, second := m.Sidecar("twin"), m.Sidecar("twin")
	ctx, cancel := context.WithTimeout(t.Context(), machine.Patience)
	defer cancel()
	if _, err := first.Client().State("").Set(ctx, "k", []byte("v")); err != nil {
		t.Fatal(err)
	}
	_, _, err := second.Client().State("").Get(ctx, "k")
	if err == nil {
		t.Fatal("two processes have one Badger directory open")
	}
	for _, word := range []string{strconv.Itoa(first.PID()), "state.jetstream"} {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("the error does not say %q: %v", word, err)
		}
	}
	if out := m.Must("components", "--grpc-address", second.GRPC); !strings.Contains(out, "degraded") {
		t.Errorf("the store is not shown as degraded: %s", out)
	}
	first.Terminate()
	first.Wait(machine.Patience)
	machine.Until(t, "the second has the store when the first is gone", func() error {
		_, _, err := second.Client().State("").Get(ctx, "k")
		return err
	})
}

func TestEmptyEnvironment(t *testing.T) {
	m := machine.New(t)
	m.Env = environmentNames()
	s := m.Sidecar("bare")
	ctx, cancel := context.WithTimeout(t.Context(), machine.Patience)
	defer cancel()
	if _, err := s.Client().State("").Set(ctx, "k", []byte("v")); err != nil {
		t.Error(err)
	}
	// Not even told where to keep its data, it finds a place.
	m.Env = append(m.Env, "TMPDIR="+t.TempDir())
	homeless := m.Start(machine.Binary(t), "run", "--app-id", "homeless", "--fabric-port", "0", "--grpc-port", "0", "--metrics-port", "0")
	homeless.WaitFor("sidecar is up", machine.Patience)
	homeless.Interrupt()
	if code := homeless.Wait(machine.Patience); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// environmentNames are the names of all variables of this process: as Machine.Env they empty the environment.
func environmentNames() []string {
	names := []string{"SIDECAST_DATA_DIR"}
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(v, "=")
		names = append(names, name)
	}
	return names
}
