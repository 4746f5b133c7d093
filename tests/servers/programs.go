//go:build linux

package servers

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
)

var (
	redis     = &program{name: "redis", debian: "redis-server", find: inPath("redis-server"), ports: 1, run: runRedis}
	postgres  = &program{name: "postgresql", debian: "postgresql", find: existing("/usr/lib/postgresql/*/bin/postgres"), ports: 1, run: runPostgres}
	mosquitto = &program{name: "mosquitto", debian: "mosquitto", find: existing("/usr/sbin/mosquitto"), ports: 1, run: runMosquitto}
	rabbit    = &program{name: "rabbitmq", debian: "rabbitmq-server", find: existing("/usr/lib/rabbitmq/bin/rabbitmq-server"), ports: 3, run: runRabbit}
)

// Kind is a kind of server that a test may have for itself.
type Kind struct{ *program }

// The kinds of Own.
var (
	OfRedis    = Kind{redis}
	OfPostgres = Kind{postgres}
	OfRabbitMQ = Kind{rabbit}
	OfMQTT     = Kind{mosquitto}
	OfMySQL    = Kind{mysql}
	OfEtcd     = Kind{etcd}
)

// Redis is the address, host:port, of a Redis server without a password. Its 1000 databases are for tests to share out.
func Redis(t testing.TB) string {
	t.Helper()
	return redis.get(t)
}

// HasPostgres says whether there can be a PostgreSQL server; where one is required and cannot be, the test fails.
func HasPostgres(t testing.TB) bool {
	t.Helper()
	_, ok := postgres.find()
	if !ok && os.Getenv("SIDECAST_SERVERS") == "required" {
		postgres.executable(t) // tells what to install
	}
	return ok
}

// Postgres is the URL of a PostgreSQL server's database "postgres", with its superuser.
func Postgres(t testing.TB) string {
	t.Helper()
	return "postgres://postgres@" + postgres.get(t) + "/postgres?sslmode=disable"
}

// RabbitMQ is the amqp URL of a RabbitMQ server, with its guest.
func RabbitMQ(t testing.TB) string {
	t.Helper()
	return "amqp://guest:guest@" + rabbit.get(t)
}

// MQTT is the URL of an MQTT server, which asks for no name.
func MQTT(t testing.TB) string {
	t.Helper()
	return "mqtt://" + mosquitto.get(t)
}

func runMosquitto(s *instance) error {
	settings := fmt.Sprintf("listener %d 127.0.0.1\nallow_anonymous true\nmax_inflight_messages 100\npersistence %t\npersistence_location %s/\nautosave_interval 1\nautosave_on_changes true\n",
		s.ports[0], s.durable, s.dir)
	file := filepath.Join(s.dir, "mosquitto.conf")
	if err := os.WriteFile(file, []byte(settings), 0o644); err != nil {
		return err
	}
	cmd := exec.Command(s.executable, "-c", file)
	if err := as("mosquitto", s.dir, cmd); err != nil {
		return err
	}
	p, err := s.start(cmd)
	if err != nil {
		return err
	}
	return p.ready(s.address(), func(conn net.Conn) bool {
		// CONNECT of MQTT 3.1.1 with a name, a clean session and 60 s; the answer is CONNACK.
		_, err := conn.Write([]byte("\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01t"))
		answer := make([]byte, 4)
		n, _ := conn.Read(answer)
		return err == nil && n > 0 && answer[0] == 0x20
	})
}

func runRedis(s *instance) error {
	persist := []string{"--appendonly", "no"}
	if s.durable {
		// What the server has written outlives it without fsync, which is for power cuts.
		persist = []string{"--appendonly", "yes", "--appendfsync", "no"}
	}
	cmd := exec.Command(s.executable, append(persist, "--port", strconv.Itoa(s.ports[0]), "--bind", "127.0.0.1",
		"--databases", "1000", "--save", "", "--dir", s.dir)...)
	if err := as("redis", s.dir, cmd); err != nil {
		return err
	}
	p, err := s.start(cmd)
	if err != nil {
		return err
	}
	return p.ready(s.address(), func(conn net.Conn) bool {
		answer := make([]byte, 5)
		_, err := fmt.Fprint(conn, "PING\r\n")
		n, _ := conn.Read(answer)
		return err == nil && string(answer[:n]) == "+PONG"
	})
}

func runPostgres(s *instance) error {
	data := filepath.Join(s.dir, "data")
	if _, err := os.Stat(data); err != nil {
		initialise := exec.Command(filepath.Join(filepath.Dir(s.executable), "initdb"),
			"-D", data, "-U", "postgres", "-A", "trust", "--no-sync", "--encoding=UTF8", "--locale=C")
		if err := as("postgres", s.dir, initialise); err != nil {
			return err
		}
		if output, err := initialise.CombinedOutput(); err != nil {
			return fmt.Errorf("%w: %s", err, output)
		}
	}
	commit := "off"
	if s.durable { // or else it writes up to half a second later
		commit = "on"
	}
	cmd := exec.Command(s.executable, "-D", data, "-p", strconv.Itoa(s.ports[0]), "-c", "listen_addresses=127.0.0.1",
		"-c", "unix_socket_directories=", "-c", "fsync=off", "-c", "full_page_writes=off",
		"-c", "synchronous_commit="+commit, "-c", "max_connections=200")
	if err := as("postgres", s.dir, cmd); err != nil {
		return err
	}
	p, err := s.start(cmd)
	if err != nil {
		return err
	}
	return p.ready(s.address(), func(conn net.Conn) bool {
		// The start of protocol 3.0: a server that still starts up answers with an error, one that is ready with R.
		message := "\x00\x03\x00\x00user\x00postgres\x00\x00"
		_, err := conn.Write(append([]byte{0, 0, 0, byte(len(message) + 4)}, message...))
		answer := make([]byte, 1)
		n, _ := conn.Read(answer)
		return err == nil && n == 1 && answer[0] == 'R'
	})
}

func runRabbit(s *instance) error {
	ports := s.ports // of clients, of other nodes, of the register of names
	names := fmt.Sprintf("ERL_EPMD_PORT=%d", ports[2])
	env := append(os.Environ(), names, "ERL_EPMD_ADDRESS=127.0.0.1", "HOME="+s.dir,
		fmt.Sprintf("RABBITMQ_NODENAME=test%d@localhost", ports[0]),
		fmt.Sprintf("RABBITMQ_NODE_PORT=%d", ports[0]), "RABBITMQ_NODE_IP_ADDRESS=127.0.0.1",
		fmt.Sprintf("RABBITMQ_DIST_PORT=%d", ports[1]),
		"RABBITMQ_MNESIA_BASE="+s.dir, "RABBITMQ_LOG_BASE="+s.dir, "RABBITMQ_LOGS=-",
		"RABBITMQ_ENABLED_PLUGINS_FILE="+filepath.Join(s.dir, "plugins"), "RABBITMQ_CONF_ENV_FILE=/dev/null",
		"RABBITMQ_CONFIG_FILE="+filepath.Join(s.dir, "rabbitmq"), // Two schedulers, which sleep when they have nothing to do.
		"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none",
	)
	epmd, err := exec.LookPath("epmd")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(s.dir, "plugins"), []byte("[].\n"), 0o644); err != nil {
		return err
	}
	// Erlang's register of names would start as a daemon that outlives the server: this one is ours.
	register := exec.Command(epmd, "-port", strconv.Itoa(ports[2]), "-address", "127.0.0.1")
	server := exec.Command(s.executable)
	for _, cmd := range []*exec.Cmd{register, server} {
		cmd.Env = env
		if err := as("rabbitmq", s.dir, cmd); err != nil {
			return err
		}
	}
	registered, err := s.start(register)
	if err != nil {
		return err
	}
	if err := registered.ready(address(ports[2]), func(net.Conn) bool { return true }); err != nil {
		return err
	}
	p, err := s.start(server)
	if err != nil {
		return err
	}
	return p.ready(s.address(), func(conn net.Conn) bool {
		_, err := conn.Write([]byte("AMQP\x00\x00\x09\x01"))
		answer := make([]byte, 1)
		n, _ := conn.Read(answer)
		return err == nil && n == 1 && answer[0] == 1 // the frame of connection.start
	})
}
