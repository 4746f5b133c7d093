package mischief

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/lock"
	"github.com/sidecast/sidecast/pubsub"
	"github.com/sidecast/sidecast/state"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func parse(t *testing.T, rules string) *Plan {
	t.Helper()
	p, err := Parse(rules)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestScriptWinsOverChance(t *testing.T) {
	p := parse(t, "2:panic 4-5:error=STORE_FULL 100%:delay=3ms")
	for i, want := range []Harm{{Delay, 3 * time.Millisecond, ""}, {Kind: Panic}, {Delay, 3 * time.Millisecond, ""},
		{Kind: Error, Reason: fault.StoreFull}, {Kind: Error, Reason: fault.StoreFull}, {Delay, 3 * time.Millisecond, ""}} {
		if got := p.Next(); got != want {
			t.Errorf("call %d meets %+v, want %+v", i+1, got, want)
		}
	}
	if p.Met(Error) != 2 || p.Met(Panic) != 1 || p.Met(Hang) != 0 {
		t.Error("it does not count what it does")
	}
	if h := (*Plan)(nil).Next(); h != (Harm{}) {
		t.Errorf("no plan does %+v", h)
	}
}

// TestChance: shares are what they were said to be, and a seed repeats them, whatever a script does in between.
func TestChance(t *testing.T) {
	draw := func(rules string) (all []Kind) {
		p := parse(t, rules)
		for range 10_000 {
			all = append(all, p.Next().Kind)
		}
		return all
	}
	first, again := draw("20%:hang 5%:cut seed=7"), draw("20%:hang 5%:cut 1-3:panic seed=7")
	met := map[Kind]int{}
	for i, k := range first {
		met[k]++
		if i > 2 && again[i] != k {
			t.Fatalf("call %d met %q, and then %q", i, k, again[i])
		}
	}
	if met[Hang] < 1800 || met[Hang] > 2200 || met[Cut] < 400 || met[Cut] > 600 || met[Hang]+met[Cut]+met[None] != 10_000 {
		t.Errorf("of 10000 calls %v", met)
	}
	if a, b := parse(t, "1%:hang"), parse(t, "1%:hang"); a.Seed == b.Seed {
		t.Error("two plans have one seed")
	}
}

func TestRulesThatMeanNothing(t *testing.T) {
	for _, rules := range []string{"panic", "0:panic", "3-2:panic", "x:panic", "1:explode", "1:delay", "1:delay=x", "1:hang=3",
		"1:error=NO_SUCH_REASON", "60%:hang 50%:cut", "-1%:hang", "seed=x"} {
		if _, err := Parse(rules); err == nil {
			t.Errorf("%q is taken", rules)
		}
	}
}

func TestMeet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := parse(t, "1:delay=5s 2:hang 3:cut 4:error 5:panic 6:delay=1h")
		done := 0
		work := func() error { done++; return nil }
		began := time.Now()
		if err := p.Meet(t.Context(), "op", work); err != nil || time.Since(began) != 5*time.Second || done != 1 {
			t.Errorf("delay: %v after %v", err, time.Since(began))
		}
		meet := func(reason fault.Reason, doneAfter int) {
			t.Helper()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if err := p.Meet(ctx, "op", work); fault.ReasonOf(err) != reason || done != doneAfter {
				t.Errorf("%v with the work done %d times, want %s and %d", err, done, reason, doneAfter)
			}
		}
		meet(fault.DeadlineExceeded, 1)
		meet(fault.InstanceLost, 2)
		meet(fault.InstanceLost, 2)
		func() {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			_ = p.Meet(t.Context(), "op", work)
		}()
		meet(fault.DeadlineExceeded, 2)
	})
}

type oneItem struct{ state.Store }

func (oneItem) Get(context.Context, []string) ([]state.Item, error) {
	return []state.Item{{Key: "k"}}, nil
}
func (oneItem) Apply(context.Context, []state.Op) ([]string, error) { return []string{"1"}, nil }

type quiet struct{ pubsub.Broker }

func (quiet) Publish(_ context.Context, _ string, m []pubsub.Message) []error {
	return make([]error, len(m))
}

type grants struct {
	lock.Locker
	released int
}

func (g *grants) Acquire(context.Context, string, string, time.Duration, bool) (lock.Lease, error) {
	return lock.Lease{Token: 3}, nil
}

func (g *grants) Release(context.Context, lock.Lease) error { g.released++; return nil }

func TestBackends(t *testing.T) {
	s := Store(oneItem{}, parse(t, "2:error=STORE_FULL 3:cut"))
	if items, err := s.Get(t.Context(), nil); err != nil || len(items) != 1 {
		t.Error(items, err)
	}
	if items, err := s.Get(t.Context(), nil); fault.ReasonOf(err) != fault.StoreFull || items != nil {
		t.Error(items, err)
	}
	if etags, err := s.Apply(t.Context(), nil); fault.ReasonOf(err) != fault.InstanceLost || etags != nil {
		t.Error(etags, err)
	}
	if results := Broker(quiet{}, parse(t, "1:cut")).Publish(t.Context(), "t", make([]pubsub.Message, 2)); len(results) != 2 ||
		fault.ReasonOf(results[0]) != fault.InstanceLost || fault.ReasonOf(results[1]) != fault.InstanceLost {
		t.Error(results)
	}
	g := &grants{}
	if lease, err := Locker(g, parse(t, "1:cut")).Acquire(t.Context(), "n", "o", time.Second, false); err == nil ||
		lease.Token != 0 || g.released != 1 {
		t.Errorf("an Acquire that fails holds %+v: %v", lease, err)
	}
}

func TestHTTP(t *testing.T) {
	app := &App{Plan: parse(t, "1:cut 2:error=QUEUE_FULL 3:slow=1us 4:hang")}
	server := httptest.NewServer(app)
	defer server.Close()
	client := server.Client()
	defer client.CloseIdleConnections()
	post := func(ctx context.Context, path string) (int, string, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, server.URL+path, strings.NewReader("hello"))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			return 0, "", err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		return resp.StatusCode, string(body), err
	}
	if code, _, err := post(t.Context(), "/m"); err == nil {
		t.Errorf("a cut connection answers %d", code)
	}
	if code, _, err := post(t.Context(), "/m"); err != nil || code != http.StatusTooManyRequests {
		t.Error(code, err)
	}
	if code, body, err := post(t.Context(), "/m"); err != nil || code != http.StatusOK || body != "hello" {
		t.Error(code, body, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var hanging sync.WaitGroup
	hanging.Go(func() {
		if _, _, err := post(ctx, "/m"); !errors.Is(err, context.Canceled) {
			t.Errorf("a call that hangs: %v", err)
		}
	})
	for app.Plan.Met(Hang) == 0 {
		time.Sleep(time.Millisecond)
	}
	if code, body, err := post(t.Context(), "/well/x"); err != nil || code != http.StatusOK || body != "hello" {
		t.Error(code, body, err)
	}
	if app.Most() != 2 {
		t.Errorf("at most %d at once", app.Most())
	}
	cancel()
	hanging.Wait()
}
