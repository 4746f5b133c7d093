package compat

import (
	"net"
	"testing"

	runtimev1 "github.com/dapr/dapr/pkg/proto/runtime/v1"

	"github.com/sidecast/sidecast/tests/machine"
	"github.com/sidecast/sidecast/tests/servers"
)

// TestConfigurationOutlivesItsServer: a stream goes on when Redis is killed, and tells what changed when it is back.
func TestConfigurationOutlivesItsServer(t *testing.T) {
	t.Parallel()
	server := servers.Own(t, servers.OfRedis)
	set := func(key, value string) {
		t.Helper()
		machine.Until(t, "Redis takes "+key, func() error {
			conn, err := net.Dial("tcp", server.Address())
			if err != nil {
				return err
			}
			defer conn.Close()
			if _, err := conn.Write([]byte("SET " + key + " " + value + "\r\n")); err != nil {
				return err
			}
			_, err = conn.Read(make([]byte, 5))
			return err
		})
	}
	d := startWith(t, machine.New(t), resources+`---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: settings}
spec: {type: configuration.redis, version: v1, initTimeout: 1m, metadata: [{name: redisHost, value: "`+server.Address()+`"}]}
`, "app")
	set("a", "1||1")
	d.expect(200, `{"a":{"value":"1","version":"1"}}`, "GET", "/v1.0/configuration/settings?key=a", "")
	stream, err := d.client().SubscribeConfiguration(t.Context(), &runtimev1.SubscribeConfigurationRequest{StoreName: "settings", Keys: []string{"a"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"", "2", "3"} {
		switch want {
		case "2":
			set("a", "2||2")
		case "3":
			server.Kill()
			server.Start(t)
			set("a", "3||3")
		}
		got, err := stream.Recv()
		if err != nil || got.GetItems()["a"].GetValue() != want {
			t.Fatalf("got %v, %v; want %q", got, err, want)
		}
	}
}
