package main

import "testing"

func TestFlagsGoBeforeTheEnvironment(t *testing.T) {
	t.Setenv("SIDECAST_FABRIC", "nats://env")
	t.Setenv("SIDECAST_FABRIC_CREDS", "env.creds")
	for _, c := range []struct{ given, want config }{
		{config{}, config{Fabric: "nats://env", Credentials: "env.creds"}},
		{config{Credentials: "own.creds"}, config{Fabric: "nats://env", Credentials: "own.creds"}},
		{config{NKey: "own.seed"}, config{Fabric: "nats://env", NKey: "own.seed"}},
		{config{Fabric: "nats://own"}, config{Fabric: "nats://own"}},
	} {
		s := &settings{config: c.given}
		if s.fromEnvironment(); s.Fabric != c.want.Fabric || s.Credentials != c.want.Credentials || s.NKey != c.want.NKey {
			t.Errorf("of %q %q %q come %q %q %q", c.given.Fabric, c.given.Credentials, c.given.NKey, s.Fabric, s.Credentials, s.NKey)
		}
	}
}
