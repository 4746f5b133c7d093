//go:build linux

package servers

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"testing"
)

// Servers of state stores, beside those that serve other blocks too.
var (
	mysql     = &program{name: "mariadb", debian: "mariadb-server", find: existing("/usr/sbin/mariadbd"), ports: 1, run: runMySQL}
	etcd      = &program{name: "etcd", debian: "etcd-server", find: inPath("etcd"), ports: 2, run: runEtcd}
	memcached = &program{name: "memcached", debian: "memcached", find: inPath("memcached"), ports: 1, run: runMemcached}
)

// Kinds of servers that keep nothing when they end.
var (
	OfMemcached = Kind{memcached}
	OfMongoDB   = Kind{mongo}
)

// MySQL is the address, host:port, of a MariaDB server, whose root has no password. Databases are for tests to make.
func MySQL(t testing.TB) string {
	t.Helper()
	return mysql.get(t)
}

// Etcd is the address, host:port, of an etcd server. Prefixes of keys are for tests to share out.
func Etcd(t testing.TB) string {
	t.Helper()
	return etcd.get(t)
}

// Memcached is the address, host:port, of a memcached server. It is everybody's.
func Memcached(t testing.TB) string {
	t.Helper()
	return memcached.get(t)
}

// mongo speaks MongoDB's protocol, and has no replica set: `make mongo` fetches it.
var mongo = &program{name: "a stand-in for mongodb", debian: "maven default-jdk-headless, then make mongo", find: findMongo, ports: 1, run: runMongo}

// MongoDB is the address, host:port, of a stand-in for a MongoDB server. Collections are for tests to make.
func MongoDB(t testing.TB) string {
	t.Helper()
	return mongo.get(t)
}

// mongoFolder is where its source is, and below it what Maven has fetched.
func mongoFolder() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "mongo")
}

func findMongo() (string, bool) {
	if _, fetched := existing(filepath.Join(mongoFolder(), "target/dependency/mongo-java-server-*.jar"))(); !fetched {
		return "", false
	}
	return inPath("java")()
}

func runMongo(s *instance) error {
	folder := mongoFolder()
	// It changes documents where they are, and writes answers from them without a lock: with more than one thread a read may have
	// a document half changed.
	cmd := exec.Command(s.executable, "-Dio.netty.eventLoopThreads=1", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", filepath.Join(folder, "target/dependency", "*"),
		filepath.Join(folder, "Mongo.java"), strconv.Itoa(s.ports[0]))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	p, err := s.start(cmd)
	if err != nil {
		return err
	}
	return p.ready(s.address(), func(net.Conn) bool { return true })
}

func runMySQL(s *instance) error {
	data := filepath.Join(s.dir, "data")
	common := []string{"--no-defaults", "--datadir=" + data, "--innodb-flush-log-at-trx-commit=" + map[bool]string{false: "0", true: "2"}[s.durable]}
	if _, err := os.Stat(data); err != nil {
		// What mariadb-install-db does, without its search for programs and its sample accounts.
		install := exec.Command("mariadb-install-db", append(common, "--auth-root-authentication-method=normal", "--skip-test-db")...)
		if err := as("mysql", s.dir, install); err != nil {
			return err
		}
		if output, err := install.CombinedOutput(); err != nil {
			return fmt.Errorf("%w: %s", err, output)
		}
	}
	// Neither disk nor memory is asked for more than tests need; a packet holds the longest value of a store in base64.
	cmd := exec.Command(s.executable, append(common, "--port="+strconv.Itoa(s.ports[0]), "--bind-address=127.0.0.1",
		"--socket="+filepath.Join(s.dir, "socket"), "--pid-file="+filepath.Join(s.dir, "pid"), "--skip-name-resolve",
		"--max-allowed-packet=128M", "--max-connections=400", "--innodb-doublewrite=OFF", "--performance-schema=OFF")...)
	if err := as("mysql", s.dir, cmd); err != nil {
		return err
	}
	p, err := s.start(cmd)
	if err != nil {
		return err
	}
	return p.ready(s.address(), func(conn net.Conn) bool {
		greeting := make([]byte, 5)
		n, err := conn.Read(greeting)
		return err == nil && n == len(greeting) && greeting[4] == 10 // of protocol 10; 255 is an error
	})
}

func runEtcd(s *instance) error {
	clients, peers := "http://"+s.address(), "http://"+address(s.ports[1])
	// The largest transaction and request of a test; the fsyncs of each write are for power cuts.
	cmd := exec.Command(s.executable, "--name=test", "--data-dir="+filepath.Join(s.dir, "data"), "--listen-client-urls="+clients,
		"--advertise-client-urls="+clients, "--listen-peer-urls="+peers, "--initial-advertise-peer-urls="+peers,
		"--initial-cluster=test="+peers, "--max-txn-ops=2048", "--max-request-bytes="+strconv.Itoa(64<<20), "--unsafe-no-fsync",
		"--logger=zap", "--log-level=error", "--quota-backend-bytes="+strconv.Itoa(4<<30))
	if err := as("etcd", s.dir, cmd); err != nil {
		return err
	}
	p, err := s.start(cmd)
	if err != nil {
		return err
	}
	return p.ready(s.address(), func(conn net.Conn) bool {
		_, err := fmt.Fprintf(conn, "GET /health HTTP/1.0\r\n\r\n")
		answer := make([]byte, 15)
		n, _ := conn.Read(answer)
		return err == nil && n == len(answer) && string(answer[9:12]) == "200"
	})
}

func runMemcached(s *instance) error {
	// Items as large as the longest value of a store, with what it costs.
	cmd := exec.Command(s.executable, "-l", "127.0.0.1", "-p", strconv.Itoa(s.ports[0]), "-U", "0", "-m", "512", "-I", "40m", "-t", "2")
	if err := as("memcache", s.dir, cmd); err != nil {
		return err
	}
	p, err := s.start(cmd)
	if err != nil {
		return err
	}
	return p.ready(s.address(), func(conn net.Conn) bool {
		_, err := fmt.Fprint(conn, "version\r\n")
		answer := make([]byte, 8)
		n, _ := conn.Read(answer)
		return err == nil && string(answer[:n]) == "VERSION "
	})
}
