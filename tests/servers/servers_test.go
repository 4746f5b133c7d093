//go:build linux

package servers_test

import (
	"net"
	"net/url"
	"os"
	"testing"

	"github.com/sidecast/sidecast/tests/servers"
)

func TestMain(m *testing.M) { os.Exit(servers.Run(m)) }

func TestEachServerStartsOnceAndAnswers(t *testing.T) {
	for name, start := range map[string]func(testing.TB) string{
		"redis":     func(t testing.TB) string { return "redis://" + servers.Redis(t) },
		"postgres":  servers.Postgres,
		"rabbitmq":  servers.RabbitMQ,
		"mqtt":      servers.MQTT,
		"mysql":     func(t testing.TB) string { return "mysql://" + servers.MySQL(t) },
		"etcd":      func(t testing.TB) string { return "etcd://" + servers.Etcd(t) },
		"mongodb":   func(t testing.TB) string { return "mongodb://" + servers.MongoDB(t) },
		"memcached": func(t testing.TB) string { return "memcached://" + servers.Memcached(t) },
		"kafka":     func(t testing.TB) string { return "kafka://" + servers.Kafka(t) },
	} {
		t.Run(name, func(t *testing.T) {
			address := start(t)
			if again := start(t); again != address {
				t.Errorf("it is at %s, and then at %s", address, again)
			}
			u, err := url.Parse(address)
			if err != nil {
				t.Fatal(err)
			}
			conn, err := net.Dial("tcp", u.Host)
			if err != nil {
				t.Fatal(err)
			}
			conn.Close()
		})
	}
}
