package quota

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"go.uber.org/goleak"

	"github.com/sidecast/sidecast/actors"
	"github.com/sidecast/sidecast/fabric"
	"github.com/sidecast/sidecast/resiliency"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// member is a sidecar without an app: a fabric, actors and a quota.
type member struct {
	system *actors.System
	fabric *fabric.Fabric
	lane   *actors.Lane
	log    *lines

	admitted atomic.Int64
}

// lines is a log that can be read while it is written.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) count(what string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), what)
}

const perSecond, burst = 200, 20

var shared = resiliency.Policy{Name: "shared", Limits: []resiliency.RateLimit{
	{Name: "api", Limit: perSecond, Per: time.Second, Burst: burst, Global: true},
}}

func join(t *testing.T, url, name string) *member {
	t.Helper()
	m := &member{log: new(lines)}
	var err error
	m.fabric, err = fabric.Open(t.Context(), fabric.Config{Namespace: "test", AppID: name, Instance: name + "-1", URL: url})
	if err != nil {
		t.Fatal(err)
	}
	m.fabric.Announce(fabric.Instance{Ready: true})
	m.system = actors.NewSystem(actors.Options{})
	Start(Options{System: m.system, Fabric: m.fabric, Log: slog.New(slog.NewTextHandler(m.log, nil))})
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		for _, end := range []func(context.Context) error{m.system.Close, m.fabric.Close} {
			if err := end(ctx); err != nil {
				t.Errorf("closing %s: %v", name, err)
			}
		}
	})
	return m
}

// load offers calls until stop is called.
func (m *member) load(every time.Duration) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				_ = m.lane.Do(ctx, resiliency.Call{Op: "op"}, func(context.Context, actors.Grant) error {
					m.admitted.Add(1)
					return nil
				}) // most are refused
			}
		}
	})
	return func() { cancel(); running.Wait() }
}

func (m *member) limit(t *testing.T) resiliency.LimitStatus {
	t.Helper()
	limits := m.lane.Status(t.Context()).Limits
	if len(limits) != 1 {
		t.Fatalf("the lane has the limits %+v", limits)
	}
	return limits[0]
}

func eventually(t *testing.T, what string, holds func() bool, say func() string) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !holds(); {
		if time.Now().After(end) {
			t.Fatalf("never: %s: %s", what, say())
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func serve(t *testing.T, port int) *server.Server {
	t.Helper()
	return serveWith(t, &server.Options{Host: "127.0.0.1", Port: port, NoSigs: true, NoLog: true})
}

func serveWith(t *testing.T, o *server.Options) *server.Server {
	t.Helper()
	s, err := server.NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	go s.Start()
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("the NATS server does not start")
	}
	return s
}

func stop(s *server.Server) {
	s.Shutdown()
	s.WaitForShutdown()
}

// told is the shares of all, for a test that fails.
func told(t *testing.T, members []*member) func() string {
	return func() string {
		var all []string
		for _, m := range members {
			limit := m.limit(t)
			all = append(all, fmt.Sprintf("%.3f %s", limit.Share, limit.State))
		}
		return strings.Join(all, ", ")
	}
}

// acquainted waits until each has heard of all others.
func acquainted(t *testing.T, members []*member) {
	t.Helper()
	eventually(t, "all know each other", func() bool {
		for _, m := range members {
			if len(m.fabric.Instances("")) != len(members) {
				return false
			}
		}
		return true
	}, func() string { return "" })
}

// TestThreeMembers: sidecars of unequal demand, once each has its part, admit together no more than the limit.
func TestThreeMembers(t *testing.T) {
	s := serve(t, -1)
	t.Cleanup(func() { stop(s) })
	members := []*member{join(t, s.ClientURL(), "a"), join(t, s.ClientURL(), "b"), join(t, s.ClientURL(), "c")}
	acquainted(t, members)
	for _, m := range members {
		m.lane = m.system.Lane("app/orders", shared)
		if share := m.limit(t).Share; share != 1./3 {
			t.Errorf("a newcomer has %v", share)
		}
	}
	shares := told(t, members)

	// The first wants little, the others more than there is.
	for i, every := range []time.Duration{50 * time.Millisecond, 4 * time.Millisecond, 2 * time.Millisecond} {
		defer members[i].load(every)()
	}
	modest, busy := members[0], members[1:]
	eventually(t, "each has its part", func() bool {
		return modest.limit(t).Share < .25 && busy[0].limit(t).Share > .36 && busy[1].limit(t).Share > .36
	}, shares)
	began, before := time.Now(), total(members)
	eventually(t, "many calls pass", func() bool { return total(members)-before > 3*perSecond }, shares)
	passed := float64(total(members) - before)
	if most := perSecond*1.05*time.Since(began).Seconds() + burst; passed > most {
		t.Errorf("%v calls passed, of %v", passed, most)
	}
}

func total(members []*member) (sum int64) {
	for _, m := range members {
		sum += m.admitted.Load()
	}
	return sum
}

// TestLoneMemberAndLostFabric: one that is busy alone gets nearly all. Without the fabric each keeps an equal part and
// says so once; when it is back they share again; and when the last limit goes, nothing is left of it.
func TestLoneMemberAndLostFabric(t *testing.T) {
	s := serve(t, -1)
	port := s.Addr().(*net.TCPAddr).Port
	url := fmt.Sprintf("nats://127.0.0.1:%d", port)
	members := []*member{join(t, url, "a"), join(t, url, "b"), join(t, url, "c")}
	acquainted(t, members)
	for _, m := range members {
		m.lane = m.system.Lane("app/orders", shared)
	}
	say := told(t, members)
	all := func(holds func(l resiliency.LimitStatus) bool) func() bool {
		return func() bool {
			for _, m := range members {
				if !holds(m.limit(t)) {
					return false
				}
			}
			return true
		}
	}
	defer members[0].load(2 * time.Millisecond)()
	eventually(t, "the only busy one has nearly all", func() bool { return members[0].limit(t).Share > .95 }, say)

	stop(s)
	eventually(t, "each keeps an equal part", all(func(l resiliency.LimitStatus) bool {
		return l.State == "local share (fabric lost)" && l.Share == 1./3
	}), say)
	for _, m := range members {
		if n := m.log.count("level=WARN"); n != 1 {
			t.Errorf("the loss is told %d times", n)
		}
	}
	s = serve(t, port)
	defer stop(s)
	eventually(t, "the only busy one has nearly all again", func() bool {
		return members[0].limit(t).Share > .95 && all(func(l resiliency.LimitStatus) bool { return l.State == "shared" })()
	}, say)
	if n := members[0].log.count("shared again"); n != 1 {
		t.Errorf("the return is told %d times", n)
	}

	for _, m := range members[1:] {
		m.lane.SetPolicy(resiliency.Policy{})
	}
	eventually(t, "who has no limit any more leaves", func() bool { return members[0].limit(t).Share == 1 }, say)
}

// TestForbiddenMember: a sidecar that may not speak on the subject knows that the others do not hear it.
func TestForbiddenMember(t *testing.T) {
	mute := &server.Permissions{Publish: &server.SubjectPermission{Deny: []string{"sc.test." + topic + ".>"}}}
	s := serveWith(t, &server.Options{Host: "127.0.0.1", Port: -1, NoSigs: true, NoLog: true, Users: []*server.User{
		{Username: "free", Password: "pw"}, {Username: "mute", Password: "pw", Permissions: mute},
	}})
	t.Cleanup(func() { stop(s) })
	url := func(user string) string { return "nats://" + user + ":pw@" + s.Addr().String() }
	members := []*member{join(t, url("free"), "free"), join(t, url("mute"), "mute")}
	for _, m := range members {
		m.lane = m.system.Lane("app/orders", shared)
	}
	eventually(t, "it says that its share is its own", func() bool {
		return members[1].limit(t).State == "local share (fabric lost)" && members[0].limit(t).State == "shared"
	}, told(t, members))
	if share := members[1].limit(t).Share; share > .5 {
		t.Errorf("unheard, it takes %v", share)
	}
}

// TestIdleQuota: without a global limit nothing is subscribed to and nothing said.
func TestIdleQuota(t *testing.T) {
	s := serve(t, -1)
	defer stop(s)
	m := join(t, s.ClientURL(), "a")
	m.lane = m.system.Lane("app/orders", resiliency.Policy{Limits: []resiliency.RateLimit{{Name: "own", Limit: 1, Per: time.Hour}}})
	listeners := func() int {
		subs, err := s.Subsz(&server.SubszOptions{Subscriptions: true, Test: "sc.test." + topic + ".a.b"})
		if err != nil {
			t.Fatal(err)
		}
		return len(subs.Subs)
	}
	told := func() string { return fmt.Sprintf("%d listen", listeners()) }
	m.lane.SetPolicy(shared)
	eventually(t, "it takes part", func() bool { return listeners() == 1 }, told)
	m.lane.SetPolicy(resiliency.Policy{})
	eventually(t, "it takes part no more", func() bool { return listeners() == 0 }, told)
}
