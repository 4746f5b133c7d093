package fabric_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sidecast/sidecast/fabric"
)

func TestJoinChangeLeave(t *testing.T) {
	dir := t.TempDir()
	a := open(t, config(dir, "a", "a1"))
	var mu sync.Mutex
	var seen []string
	cancel := a.OnChange(func(app string, instances []fabric.Instance) {
		a.Instances(app) // no lock is held
		mu.Lock()
		defer mu.Unlock()
		line := app
		for _, i := range instances {
			line += " " + i.ID + "/" + i.Version
		}
		seen = append(seen, line)
	})
	last := func() string {
		mu.Lock()
		defer mu.Unlock()
		if len(seen) == 0 {
			return ""
		}
		return seen[len(seen)-1]
	}
	b := open(t, config(dir, "b", "b1"))
	started := time.Now().Round(time.Microsecond)
	b.Announce(fabric.Instance{App: "forged", ID: "forged", Version: "1", Host: "h", Zone: "z", PID: 7, Weight: 3, Load: 2, Room: 40,
		Tags: map[string]string{"k": "v"}, Started: started, Ready: true})
	eventually(t, "b is told of", func() bool { return last() == "b b1/1" })
	got := a.Instances("b")
	if len(got) != 1 || got[0].App != "b" || got[0].ID != "b1" || got[0].Host != "h" || got[0].Zone != "z" || got[0].PID != 7 ||
		got[0].Weight != 3 || got[0].Load != 2 || got[0].Room != 40 || got[0].Tags["k"] != "v" || !got[0].Started.Equal(started) || !got[0].Ready {
		t.Errorf("b is known as %+v", got)
	}
	b.Announce(fabric.Instance{Version: "2"})
	eventually(t, "the change is told of", func() bool { return last() == "b b1/2" })
	if got[0].Version != "1" {
		t.Error("a snapshot changed")
	}
	b.Announce(fabric.Instance{Version: "2", Load: 9})
	eventually(t, "the load is told of", func() bool { i := a.Instances("b"); return len(i) == 1 && i[0].Load == 9 })
	if mine := b.Instances("b"); len(mine) != 1 || mine[0].Load != 9 {
		t.Errorf("b knows itself as %+v", mine)
	}
	cancel()
	b.Announce(fabric.Instance{Version: "3"})
	eventually(t, "the change", func() bool { i := a.Instances("b"); return len(i) == 1 && i[0].Version == "3" })
	if last() == "b b1/3" {
		t.Error("a cancelled callback was called")
	}
	if err := b.Leave(within(t)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "b has left", func() bool { return len(a.Instances("b")) == 0 })
	if everyone := b.Instances("b"); len(everyone) != 0 {
		t.Errorf("b still knows itself: %+v", everyone)
	}
}

func TestNewcomerLearnsAtOnce(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a", "b", "c"} {
		open(t, config(dir, name, name+"1")).Announce(fabric.Instance{Ready: true})
	}
	d := open(t, config(dir, "d", "d1"))
	d.Settle(within(t))
	if all := d.Instances(""); len(all) != 3 || all[0].App != "a" || all[2].App != "c" {
		t.Errorf("a newcomer that settled knows %+v", all)
	}
	d.Settle(within(t)) // there is nothing to wait for any more
}

func TestSettleAlone(t *testing.T) {
	f := open(t, config(t.TempDir(), "a", "a1"))
	f.Settle(within(t))
	if all := f.Instances(""); len(all) != 0 {
		t.Errorf("%+v", all)
	}
}

func TestMissedHeartbeatsEject(t *testing.T) {
	dir := t.TempDir()
	a, b := open(t, config(dir, "a", "a1")), open(t, config(dir, "b", "b1"))
	b.Announce(fabric.Instance{})
	a.Announce(fabric.Instance{})
	ghost := `{"version":"ghost"}`
	if err := b.Conn().Publish("sc.test.presence.ghost.g1", []byte(ghost)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the ghost appears", func() bool { return len(a.Instances("ghost")) == 1 })
	eventually(t, "the ghost is dropped", func() bool { return len(a.Instances("ghost")) == 0 })
	if len(a.Instances("a")) != 1 || len(a.Instances("b")) != 1 {
		t.Error("a live instance was dropped with it")
	}
}

func TestBadHeartbeatsAreCounted(t *testing.T) {
	dir := t.TempDir()
	a := open(t, config(dir, "a", "a1"))
	for subject, payload := range map[string]string{
		"sc.test.presence.x.1":         "no json",
		"sc.test.presence.x=zz.1":      "{}",
		"sc.test.presence.x.2":         `{"version":"` + strings.Repeat("x", 10_000) + `"}`,
		"sc.test.presence.ask":         "a.b",
		"sc.test.presence.x.2=.a1":     "{}",
		"sc.test.presence.y.3":         `{"weight":"heavy"}`,
		"sc.test.presence.z.empty":     "",
		"sc.other.presence.unheard.1":  "no json",
		"sc.test.presence.a.a1":        "no json, and as if from itself",
		"sc.test.presence.four.t.o.ns": "unheard",
	} {
		if err := a.Conn().Publish(subject, []byte(payload)); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "they are counted", func() bool { return a.Stats().PresenceIgnored == 7 })
	if all := a.Instances(""); len(all) != 0 {
		t.Errorf("they were believed: %+v", all)
	}
}

func TestAnnounceWithTooManyTags(t *testing.T) {
	dir := t.TempDir()
	a, b := open(t, config(dir, "a", "a1")), open(t, config(dir, "b", "b1"))
	b.Announce(fabric.Instance{Version: "1", Tags: map[string]string{"long": strings.Repeat("x", 1<<20)}})
	eventually(t, "b is known without them", func() bool { i := a.Instances("b"); return len(i) == 1 && i[0].Tags == nil })
}

func TestNamespacesAreApart(t *testing.T) {
	dir := t.TempDir()
	one, two := config(dir, "a", "a1"), config(dir, "b", "b1")
	two.Namespace = "other"
	a, b := open(t, one), open(t, two)
	serve(t, b, handler{})
	a.Settle(context.Background())
	if len(a.Instances("")) != 0 {
		t.Error("an instance of another namespace is known")
	}
}
