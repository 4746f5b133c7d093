package components

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/pipeline"
)

// livingVault is a secret store whose secrets change.
type livingVault struct {
	mu       sync.Mutex
	password string // "" is none
	changed  chan struct{}
}

func (v *livingVault) Close(context.Context) error { return nil }

func (v *livingVault) Secret(_ context.Context, name string, _ map[string]string) (map[string]string, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.password == "" {
		return nil, fault.New("secret "+name, fault.SecretNotFound, "there is none")
	}
	return map[string]string{"password": v.password}, nil
}

func (v *livingVault) Secrets(context.Context, map[string]string) (map[string]map[string]string, error) {
	return nil, nil
}

func (v *livingVault) Watch(ctx context.Context, changed func()) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-v.changed:
			changed()
		}
	}
}

// set changes the secret and returns when everybody has dealt with it.
func (v *livingVault) set(password string) {
	v.mu.Lock()
	v.password = password
	v.mu.Unlock()
	v.changed <- struct{}{}
	synctest.Wait()
}

// secretive is a store that takes its password from the vault, and the vault.
func secretive(s *livingVault, log *slog.Logger) *Set {
	vault := Secrets("living", "Secrets that change.", func(context.Context, Host, none) (SecretStore, error) { return s, nil })
	cart := at("a")
	cart.SecretStore = "vault"
	cart.Metadata = append(cart.Metadata, Entry{Key: "password", Secret: &SecretRef{Name: "cart", Key: "password"}, Line: 6})
	plain := at("b")
	plain.Name, plain.SecretStore = "plain", "vault"
	return NewSet(Options{
		Known: []Component{testStore, vault}, FollowSecrets: true, Log: log,
		Documents: docs(cart, plain, Manifest{Name: "vault", Type: "secretstores.living"}),
	})
}

func TestAChangedSecretSwapsWhatTookIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var written bytes.Buffer
		v := &livingVault{password: "hunter2", changed: make(chan struct{})}
		s := secretive(v, slog.New(slog.NewTextHandler(&written, nil)))
		old := mustState(t, s)
		plain, err := s.State(t.Context(), "plain")
		if err != nil {
			t.Fatal(err)
		}
		version := s.SecretsVersion()
		v.set("hunter2") // another secret, maybe
		again := mustState(t, s)
		if again.Backend != old.Backend || s.SecretsVersion() == version {
			t.Error("a component was opened again whose secret stayed, or nobody knows that one may have changed")
		}
		again.Release()
		v.set("hunter3")
		select {
		case <-old.Replaced():
		default:
			t.Error("who holds the old one is not told")
		}
		fresh := mustState(t, s)
		if got := fresh.Backend.(*fakeStore).config.Password; got != "hunter3" {
			t.Errorf("it has %q", got)
		}
		select {
		case <-plain.Replaced():
			t.Error("a component without a secret was swapped")
		default:
		}
		v.set("") // a file that is half written, say
		kept := mustState(t, s)
		if kept.Backend != fresh.Backend || !strings.Contains(written.String(), "goes on with those it has") {
			t.Errorf("a secret that cannot be read took the component away: %s", &written)
		}
		for _, use := range []interface{ Release() }{old, plain, fresh, kept} {
			use.Release()
		}
		closeSet(t, s)
		if strings.Contains(written.String(), "hunter") {
			t.Errorf("the log tells secrets: %s", &written)
		}
	})
}

// turnstile is middleware that knows its password.
type turnstile struct{ password string }

func (*turnstile) Wrap(next http.Handler) http.Handler { return next }
func (*turnstile) Close(context.Context) error         { return nil }

func TestAPipelineIsToldOfAChangedSecret(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := &livingVault{password: "hunter2", changed: make(chan struct{})}
		type config struct {
			Password string `meta:"password" secret:"true" doc:"Whom to let through."`
		}
		s := NewSet(Options{
			Known: []Component{
				Secrets("living", "Secrets that change.", func(context.Context, Host, none) (SecretStore, error) { return v, nil }),
				Middleware("turnstile", "Lets some pass.", func(_ context.Context, _ Host, c config) (pipeline.Middleware, error) {
					return &turnstile{c.Password}, nil
				}),
			},
			FollowSecrets: true,
			Documents: docs(Manifest{Name: "vault", Type: "secretstores.living"}, Manifest{
				Name: "gate", Type: "middleware.http.turnstile", SecretStore: "vault",
				Metadata: []Entry{{Key: "password", Secret: &SecretRef{Name: "gate", Key: "password"}}},
			}),
		})
		link := func() pipeline.Link {
			l, err := s.Middleware(t.Context(), pipeline.Handler{Name: "gate", Type: "middleware.http.turnstile"})
			if err != nil {
				t.Fatal(err)
			}
			return l
		}
		replaced := func(l pipeline.Link) bool {
			select {
			case <-l.Replaced:
				return true
			default:
				return false
			}
		}
		old := link()
		v.set("hunter2")
		if replaced(old) {
			t.Error("the middleware has not changed")
		}
		v.set("hunter3")
		if !replaced(old) {
			t.Error("a pipeline goes on with the old secret")
		}
		fresh := link()
		if got := fresh.Middleware.(*turnstile).password; got != "hunter3" || replaced(fresh) {
			t.Errorf("it has %q", got)
		}
		// Of other manifests a pipeline is told by Set: until then what it has checks requests.
		s.Reload(nil)
		if replaced(fresh) {
			t.Error("a middleware that is gone was taken out of a pipeline")
		}
		old.Release()
		fresh.Release()
		closeSet(t, s)
	})
}

func TestASecretThatComesMendsWhatMissedIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := &livingVault{changed: make(chan struct{})}
		s := secretive(v, nil)
		if _, err := s.State(t.Context(), "cart"); fault.ReasonOf(err) != fault.ComponentDegraded {
			t.Fatalf("got %v", err)
		}
		v.set("hunter2")
		mustState(t, s).Release() // at once, and not when it is tried again
		closeSet(t, s)
	})
}

func TestSecretsOfTheSecretStoreSwapToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := &livingVault{password: "hunter2", changed: make(chan struct{})}
		root := Secrets("root", "Secrets that change.", func(context.Context, Host, none) (SecretStore, error) { return v, nil })
		type sealed struct {
			Password string `meta:"password" secret:"true" doc:"What opens it."`
		}
		middle := Secrets("middle", "Secrets behind a secret.", func(_ context.Context, _ Host, c sealed) (SecretStore, error) {
			return fakeVault{"cart": {"password": "of " + c.Password}}, nil
		})
		reference := Entry{Key: "password", Secret: &SecretRef{Name: "cart", Key: "password"}, Line: 6}
		cart := at("a")
		cart.SecretStore, cart.Metadata = "middle", append(cart.Metadata, reference)
		s := NewSet(Options{Known: []Component{testStore, root, middle}, FollowSecrets: true, Documents: docs(cart,
			Manifest{Name: "middle", Type: "secretstores.middle", SecretStore: "root", Metadata: []Entry{reference}}, Manifest{Name: "root", Type: "secretstores.root"})})
		mustState(t, s).Release()
		v.set("hunter3")
		fresh := mustState(t, s)
		if got := fresh.Backend.(*fakeStore).config.Password; got != "of hunter3" {
			t.Errorf("it has %q", got)
		}
		fresh.Release()
		closeSet(t, s)
	})
}

func TestSecretsAreFollowedWhileThatIsAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := &livingVault{password: "hunter2", changed: make(chan struct{}, 1)}
		s := secretive(v, nil)
		expect := func(want string) {
			t.Helper()
			synctest.Wait()
			use := mustState(t, s)
			defer use.Release()
			if got := use.Backend.(*fakeStore).config.Password; got != want {
				t.Errorf("it has %q, not %q", got, want)
			}
		}
		s.FollowSecrets(t.Context(), false) // before the store is open
		expect("hunter2")
		v.set("hunter3")
		expect("hunter2")
		if len(v.changed) != 1 {
			t.Error("somebody watches the store")
		}
		<-v.changed
		s.FollowSecrets(t.Context(), true)
		expect("hunter3") // what has changed meanwhile
		v.set("hunter4")
		expect("hunter4")
		s.FollowSecrets(t.Context(), false)
		v.set("hunter5")
		expect("hunter4")
		closeSet(t, s)
	})
}

func TestTheSidecarsOwnVariablesAreNoSecrets(t *testing.T) {
	for _, e := range []Entry{{Key: "password", Env: "DAPR_API_TOKEN"}, {Key: "password", Secret: &SecretRef{Name: "app_api_token", Key: "app_api_token"}}} {
		m := at("a")
		m.Metadata = append(m.Metadata, e)
		s := NewSet(Options{Known: []Component{testStore}, Documents: docs(m), LookupEnv: func(string) (string, bool) { return "hunter2", true }})
		if _, err := s.State(t.Context(), "cart"); fault.ReasonOf(err) != fault.ComponentDegraded || !strings.Contains(err.Error(), "not given out") {
			t.Errorf("got %v", err)
		}
		closeSet(t, s)
	}
}
