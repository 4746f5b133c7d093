package components

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/state"
)

// cart is a manifest of a store for tests.
func cart(entries ...Entry) Manifest {
	return Manifest{
		Name: "cart", Type: "state.test", Source: Source{File: "cart.yaml", Line: 1},
		Metadata: append([]Entry{{Key: "dir", Value: "/tmp", Line: 5}}, entries...),
	}
}

func docs(m ...Manifest) *Documents { return &Documents{Components: m} }

func closeSet(t *testing.T, s *Set) {
	t.Helper()
	if err := s.Close(context.Background()); err != nil {
		t.Errorf("close: %v", err)
	}
}

func TestSetOpensOnFirstUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var opened, closed atomic.Int32
		slow := stateTest(func(ctx context.Context, h Host, c testConfig) (state.Store, error) {
			opened.Add(1)
			time.Sleep(time.Second)
			return &fakeStore{config: c, close: func() error { closed.Add(1); return nil }}, nil
		})
		s := NewSet(Options{Host: Host{AppID: "orders"}, Known: []Component{slow}, Documents: docs(cart())})
		if got := s.Statuses(); !reflect.DeepEqual(got[0], Status{Name: "cart", Type: "state.test", Version: "v1", State: "idle", Origin: "cart.yaml"}) || opened.Load() != 0 {
			t.Errorf("before use: %+v, opened %d", got, opened.Load())
		}
		var users sync.WaitGroup
		for range 20 {
			users.Go(func() {
				use, err := s.State(context.Background(), "cart")
				if err != nil {
					t.Error(err)
					return
				}
				defer use.Release()
				store := use.Backend.(*fakeStore)
				if store.config.Dir != "/tmp" || store.config.Size != 8<<20 || !store.config.Sync || store.config.Wait != 5*time.Second {
					t.Errorf("config %+v", store.config)
				}
				if use.Name != "cart" || use.Type != "state.test" || use.KeyPrefix != "orders" {
					t.Errorf("use %+v", use)
				}
			})
		}
		users.Wait()
		if got := s.Statuses(); got[0].State != "ready" || opened.Load() != 1 {
			t.Errorf("after use: %+v, opened %d", got, opened.Load())
		}
		closeSet(t, s)
		if closed.Load() != 1 {
			t.Errorf("closed %d times", closed.Load())
		}
		if _, err := s.State(context.Background(), "cart"); fault.ReasonOf(err) != fault.Shutdown {
			t.Errorf("after close: %v", err)
		}
	})
}

func TestSetKeepsTryingWhatCannotStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tries []time.Duration // read once the Set is closed
		began := time.Now()
		var broken atomic.Bool
		broken.Store(true)
		flaky := stateTest(func(_ context.Context, _ Host, c testConfig) (state.Store, error) {
			tries = append(tries, time.Since(began))
			if broken.Load() {
				return nil, fault.New("dial", fault.BackendDown, "connection refused")
			}
			return &fakeStore{}, nil
		})
		s := NewSet(Options{Known: []Component{flaky}, Documents: docs(cart())})
		_, err := s.State(context.Background(), "cart")
		if fault.ReasonOf(err) != fault.ComponentDegraded || !strings.Contains(err.Error(), "connection refused") {
			t.Fatalf("got %v", err)
		}
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		began2 := time.Now()
		_, err = s.State(context.Background(), "cart")
		if fault.ReasonOf(err) != fault.ComponentDegraded || time.Since(began2) != 0 {
			t.Errorf("a degraded component does not fail at once: %v after %v", err, time.Since(began2))
		}
		if after := fault.RetryAfter(err); after <= 0 || after > lastRetry {
			t.Errorf("retry after %v", after)
		}
		if got := s.Statuses()[0]; got.State != "degraded" || !strings.Contains(got.Error, "connection refused") {
			t.Errorf("status %+v", got)
		}
		broken.Store(false)
		time.Sleep(lastRetry)
		synctest.Wait()
		use, err := s.State(context.Background(), "cart")
		if err != nil {
			t.Fatal(err)
		}
		use.Release()
		closeSet(t, s)
		if tries[1]-tries[0] > time.Second {
			t.Errorf("the first retry comes after %v", tries[1]-tries[0])
		}
		for i := 1; i < len(tries); i++ {
			if gap := tries[i] - tries[i-1]; gap > lastRetry {
				t.Errorf("retry %d comes after %v", i, gap)
			}
		}
	})
}

func TestSetInitTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		deaf := stateTest(func(context.Context, Host, testConfig) (state.Store, error) {
			time.Sleep(7 * time.Second) // and does not listen to its context
			return &fakeStore{}, nil
		})
		m := cart()
		m.InitTimeout = 2 * time.Second
		s := NewSet(Options{Known: []Component{deaf}, Documents: docs(m)})
		defer closeSet(t, s)
		began := time.Now()
		_, err := s.State(context.Background(), "cart")
		if fault.ReasonOf(err) != fault.ComponentDegraded || !strings.Contains(err.Error(), "init timeout of 2s") || time.Since(began) != 2*time.Second {
			t.Errorf("got %v after %v", err, time.Since(began))
		}
		time.Sleep(6 * time.Second)
		use, err := s.State(context.Background(), "cart")
		if err != nil {
			t.Fatalf("what opened late is not used: %v", err)
		}
		use.Release()
	})
}

func TestSetCallerMayStopWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := stateTest(func(context.Context, Host, testConfig) (state.Store, error) {
			time.Sleep(3 * time.Second)
			return &fakeStore{}, nil
		})
		s := NewSet(Options{Known: []Component{slow}, Documents: docs(cart())})
		defer closeSet(t, s)
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if _, err := s.State(ctx, "cart"); fault.KindOf(err) != fault.Timeout {
			t.Errorf("got %v", err)
		}
		use, err := s.State(context.Background(), "cart")
		if err != nil {
			t.Fatalf("the attempt ended with its first user: %v", err)
		}
		use.Release()
	})
}

func TestSetContainsPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bad := stateTest(func(context.Context, Host, testConfig) (state.Store, error) { panic("no hunter2") })
		s := NewSet(Options{Known: []Component{bad}, Documents: docs(cart(Entry{Key: "password", Value: "hunter2"}))})
		_, err := s.State(context.Background(), "cart")
		if fault.ReasonOf(err) != fault.ComponentDegraded || !strings.Contains(err.Error(), "panicked while it opened: no (secret)") {
			t.Errorf("got %v", err)
		}
		closeSet(t, s)
	})
}

func TestSetRefusesByName(t *testing.T) {
	scoped := cart()
	scoped.Name, scoped.Scopes = "theirs", []string{"billing"}
	elsewhere := cart()
	elsewhere.Name, elsewhere.Namespace = "elsewhere", "prod"
	s := NewSet(Options{
		Host: Host{AppID: "orders", Namespace: "test"}, Known: testComponents, Documents: docs(cart(), scoped, elsewhere),
		BuiltIn: []Manifest{{Name: "statestore", Type: "state.test"}, {Name: "pubsub", Type: "pubsub.test"}, {Name: "lockstore", Type: "lock.test"}},
	})
	defer closeSet(t, s)
	ctx := context.Background()
	_, missing := s.State(ctx, "card")
	_, denied := s.State(ctx, "theirs")
	_, wrong := s.State(ctx, "pubsub")
	_, foreign := s.State(ctx, "elsewhere")
	for _, c := range []struct {
		err    error
		reason fault.Reason
		text   string
	}{
		{missing, fault.ComponentNotFound, `state card: no component has that name; there are: cart, statestore; did you mean "cart"?`},
		{denied, fault.ComponentDenied, `state theirs: the scopes of the component (cart.yaml:1) do not include app "orders"`},
		{wrong, fault.ComponentNotFound, "state pubsub: the component of that name is pubsub.test (built in); there are: cart, statestore"},
		{foreign, fault.ComponentNotFound, "state elsewhere: no component has that name; there are: cart, statestore"},
	} {
		if fault.ReasonOf(c.err) != c.reason || !strings.HasPrefix(c.err.Error(), c.text) {
			t.Errorf("got  %v\nwant %s", c.err, c.text)
		}
	}
	broker, err := s.PubSub(ctx, "")
	if err != nil {
		t.Error(err)
	}
	broker.Release()
	locker, err := s.Lock(ctx, "")
	if err != nil {
		t.Error(err)
	}
	locker.Release()
}

func TestSetStartOpensWhatIsRequired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down := stateTest(func(context.Context, Host, testConfig) (state.Store, error) { return nil, errors.New("down") })
		needed := cart()
		needed.Required = true
		other := cart()
		other.Name = "other"
		s := NewSet(Options{Known: []Component{down}, Documents: docs(needed, other)})
		defer closeSet(t, s)
		err := s.Start(context.Background())
		if fault.ReasonOf(err) != fault.ComponentDegraded || strings.Contains(err.Error(), "other") {
			t.Errorf("got %v", err)
		}
		if got := s.Statuses(); got[0].State != "degraded" || got[1].State != "idle" {
			t.Errorf("got %+v", got)
		}
	})
}

func TestSetSupervise(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var names []string
		var stopped atomic.Bool
		down := stateTest(func(context.Context, Host, testConfig) (state.Store, error) { return nil, errors.New("down") })
		s := NewSet(Options{
			Known: []Component{down}, Documents: docs(cart()),
			Supervise: func(name string, run func(context.Context) error) func(context.Context) error {
				names = append(names, name)
				stop := supervised(name, run)
				return func(ctx context.Context) error { stopped.Store(true); return stop(ctx) }
			},
		})
		if _, err := s.State(context.Background(), "cart"); err == nil {
			t.Error("opened")
		}
		synctest.Wait()
		closeSet(t, s)
		if len(names) != 1 || names[0] != "cart" || !stopped.Load() {
			t.Errorf("supervised %v, stopped %v", names, stopped.Load())
		}
	})
}

func TestABackendKnowsItsComponent(t *testing.T) {
	var names []string
	named := stateTest(func(_ context.Context, h Host, c testConfig) (state.Store, error) {
		names = append(names, h.AppID+" "+h.Component)
		return &fakeStore{config: c}, nil
	})
	other := cart()
	other.Name = "users"
	s := NewSet(Options{Host: Host{AppID: "orders"}, Known: []Component{named}, Documents: docs(cart(), other)})
	defer closeSet(t, s)
	for _, name := range []string{"cart", "users"} {
		use, err := s.State(context.Background(), name)
		if err != nil {
			t.Fatal(err)
		}
		use.Release()
	}
	if !slices.Equal(names, []string{"orders cart", "orders users"}) {
		t.Errorf("opened %q", names)
	}
}

func TestSecretsStayOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		log := slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))
		leaky := stateTest(func(_ context.Context, h Host, c testConfig) (state.Store, error) {
			h.Log.With("dsn", c.Password).Info("connecting with "+c.Token, "config", c, slog.Group("g", "pin", c.Password))
			return nil, fault.New("dial", fault.BackendDown, "redis://:%s@host?token=%s", c.Password, c.Token)
		})
		env := map[string]string{"REDIS": "hunter2", "TOKEN": "hunter3"}
		m := cart(Entry{Key: "password", Secret: &SecretRef{"REDIS", "REDIS"}, Line: 7}, Entry{Key: "token", Env: "TOKEN", Line: 9})
		s := NewSet(Options{
			Host: Host{Log: log}, Known: []Component{leaky}, Documents: docs(m),
			LookupEnv: func(name string) (string, bool) { v, ok := env[name]; return v, ok },
		})
		_, err := s.State(context.Background(), "cart")
		synctest.Wait()
		status := s.Statuses()[0]
		closeSet(t, s)
		shown := out.String() + err.Error() + status.Error + errors.Unwrap(err).Error()
		if strings.Contains(shown, "hunter") || !strings.Contains(err.Error(), "redis://:(secret)@host?token=(secret)") {
			t.Errorf("shown: %s", shown)
		}
		if got := errors.Unwrap(errors.Unwrap(err)); fault.ReasonOf(got) != fault.BackendDown {
			t.Errorf("the cause lost its reason: %v", got)
		}
	})
}

// A store that keeps secrets by namespace is asked for those of the manifest's own.
func TestAReferenceTellsItsNamespace(t *testing.T) {
	m := cart(Entry{Key: "password", Secret: &SecretRef{"said", "namespace"}})
	m.SecretStore, m.Namespace = "vault", "shop"
	s := NewSet(Options{Host: Host{Namespace: "shop"}, Known: testComponents, Documents: docs(m, Manifest{Name: "vault", Type: "secretstores.test"})})
	defer closeSet(t, s)
	use, err := s.State(t.Context(), "cart")
	must(t, err)
	defer use.Release()
	if got := use.Backend.(*fakeStore).config.Password; got != "shop" {
		t.Errorf("the store was told the namespace %q", got)
	}
}

func TestSecretReferences(t *testing.T) {
	pin := Entry{Key: "pin", Secret: &SecretRef{"redis", "pin"}, Line: 8}
	env := map[string]string{"SHARDS": "12"}
	for _, c := range []struct {
		name  string
		store string
		entry Entry
		want  string // part of the error; "" means that it opens
	}{
		{"a store", "vault", Entry{Key: "password", Secret: &SecretRef{"redis", "password"}}, ""},
		{"the environment", "", Entry{Key: "shards", Secret: &SecretRef{"SHARDS", "SHARDS"}}, ""},
		{"envRef", "", Entry{Key: "shards", Env: "SHARDS"}, ""},
		{"no secret", "vault", Entry{Key: "password", Secret: &SecretRef{"redis", "nope"}, Line: 8},
			`cart.yaml:8: spec.metadata.password: secret "redis" of secret store vault has no key "nope" [SECRET_NOT_FOUND]`},
		{"no variable", "", Entry{Key: "password", Env: "NOPE", Line: 8},
			"cart.yaml:8: spec.metadata.password: the environment variable NOPE that its envRef names is not set [SECRET_NOT_FOUND]"},
		{"no store", "nowhere", Entry{Key: "password", Secret: &SecretRef{"redis", "redis"}, Line: 8},
			"cart.yaml:8: spec.metadata.password: secretstores nowhere: no component has that name"},
		{"a wrong value", "vault", pin, "cart.yaml:8: spec.metadata.pin: the secret value is not a whole number [BAD_MANIFEST]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := cart(c.entry)
			m.SecretStore = c.store
			s := NewSet(Options{
				Known: testComponents, Documents: docs(m, Manifest{Name: "vault", Type: "secretstores.test"}),
				LookupEnv: func(name string) (string, bool) { v, ok := env[name]; return v, ok },
			})
			defer closeSet(t, s)
			use, err := s.State(context.Background(), "cart")
			use.Release()
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %v\nwant %s", err, c.want)
			}
			if err != nil && strings.Contains(err.Error(), "hunter") {
				t.Errorf("a secret is shown: %v", err)
			}
		})
	}
}

func TestKeyPrefix(t *testing.T) {
	for strategy, want := range map[string]string{
		"": "orders", "appid": "orders", "name": "cart", "Namespace": "test.orders", "none": "", "shared": "shared", "{appID}-x": "orders-x",
	} {
		s := NewSet(Options{
			Host: Host{AppID: "orders", Namespace: "test"}, Known: testComponents, Documents: docs(cart(Entry{Key: "keyPrefix", Value: strategy})),
		})
		use, err := s.State(context.Background(), "cart")
		if err != nil || use.KeyPrefix != want {
			t.Errorf("keyPrefix %q is %q, %v; want %q", strategy, use.KeyPrefix, err, want)
		}
		use.Release()
		closeSet(t, s)
	}
}

func TestUnknownTypeMadeByHandIsDegraded(t *testing.T) {
	m := cart()
	m.Type = "state.nothing"
	s := NewSet(Options{Known: testComponents, Documents: docs(m)})
	defer closeSet(t, s)
	if _, err := s.State(context.Background(), "cart"); fault.ReasonOf(err) != fault.ComponentDegraded || !strings.Contains(err.Error(), `no component of type "state.nothing"`) {
		t.Errorf("got %v", err)
	}
}

func TestUseAllocatesNothing(t *testing.T) {
	s := NewSet(Options{Known: testComponents, Documents: docs(cart())})
	defer closeSet(t, s)
	ctx := context.Background()
	if n := testing.AllocsPerRun(100, func() {
		use, err := s.State(ctx, "cart")
		if err != nil {
			t.Fatal(err)
		}
		use.Release()
	}); n != 0 {
		t.Errorf("a use allocates %v times", n)
	}
}

func BenchmarkUse(b *testing.B) {
	s := NewSet(Options{Known: testComponents, Documents: docs(cart())})
	defer s.Close(context.Background())
	ctx := context.Background()
	b.ReportAllocs()
	for b.Loop() {
		use, err := s.State(ctx, "cart")
		if err != nil {
			b.Fatal(err)
		}
		use.Release()
	}
}
