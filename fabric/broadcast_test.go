package fabric_test

import (
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/sidecast/sidecast/fabric"
	"github.com/sidecast/sidecast/fault"
)

func TestBroadcastReachesEveryListener(t *testing.T) {
	dir := t.TempDir()
	a, b := open(t, config(dir, "app.a", "a1")), open(t, config(dir, "b", "b1"))
	for _, f := range []*fabric.Fabric{a, b} {
		heard := make(chan *nats.Msg, 8)
		stop, err := f.Listen("quota", heard)
		if err != nil {
			t.Fatal(err)
		}
		defer stop()
		if err := f.Conn().Flush(); err != nil {
			t.Fatal(err)
		}
		if err := a.Broadcast("quota", []byte("hello")); err != nil {
			t.Fatal(err)
		}
		if err := a.Broadcast("other", []byte("unheard")); err != nil {
			t.Fatal(err)
		}
		m := <-heard
		if from, ok := fabric.Speaker(m); !ok || from != a.Self() || from.App != "app.a" || string(m.Data) != "hello" {
			t.Errorf("heard %q from %v", m.Data, from)
		}
	}
	for _, nobody := range []string{"sc.test.quota.x=zz.1", "sc.test.quota.x.", "x"} {
		if from, ok := fabric.Speaker(&nats.Msg{Subject: nobody}); ok {
			t.Errorf("%s names %v", nobody, from)
		}
	}
}

func TestBroadcastWithoutFabric(t *testing.T) {
	f := open(t, config(t.TempDir(), "a", "a1"))
	if err := f.Close(within(t)); err != nil {
		t.Fatal(err)
	}
	if err := f.Broadcast("quota", nil); fault.ReasonOf(err) != fault.FabricDown {
		t.Errorf("broadcast on a closed fabric: %v", err)
	}
	if _, err := f.Listen("quota", make(chan *nats.Msg)); fault.ReasonOf(err) != fault.FabricDown {
		t.Errorf("listened on a closed fabric: %v", err)
	}
}
