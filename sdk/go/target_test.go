package sidecast

import "testing"

func TestTarget(t *testing.T) {
	for endpoint, want := range map[string]struct {
		target string
		secure bool
	}{
		"localhost:50001":          {"passthrough:///127.0.0.1:50001", false},
		"10.0.0.1:7":               {"passthrough:///10.0.0.1:7", false},
		"[::1]:7":                  {"passthrough:///[::1]:7", false},
		"http://localhost:7":       {"passthrough:///127.0.0.1:7", false},
		"https://sidecar.test:443": {"dns:///sidecar.test:443", true},
		"unix:///run/sidecast":     {"unix:///run/sidecast", false},
		"unix:sidecast.sock":       {"unix:sidecast.sock", false},
		"dns:///sidecar.test:7":    {"dns:///sidecar.test:7", false},
	} {
		if target, secure := targetOf(endpoint); target != want.target || secure != want.secure {
			t.Errorf("%s: %s %t", endpoint, target, secure)
		}
	}
	for _, test := range []struct{ endpoint, port, want string }{
		{"", "", "localhost:50001"}, {"", "7", "localhost:7"}, {"a:1", "7", "a:1"},
	} {
		env := map[string]string{"SIDECAST_GRPC_ENDPOINT": test.endpoint, "SIDECAST_GRPC_PORT": test.port}
		if got := endpointOf(func(name string) string { return env[name] }); got != test.want {
			t.Errorf("%+v: %s", test, got)
		}
	}
}
