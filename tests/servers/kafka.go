//go:build linux

package servers

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"syscall"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

// kafka is no package of Debian's: the test's own executable is the server when its environment says so.
var kafka = &program{name: "kafka", find: ownExecutable, ports: 1, run: runKafka}

// OfKafka is a kind of Own.
var OfKafka = Kind{kafka}

// Kafka is the address, host:port, of a server that speaks Kafka's protocol, without a password. It makes topics when they are
// asked for.
func Kafka(t testing.TB) string {
	t.Helper()
	return kafka.get(t)
}

// KafkaTopics makes topics, of four partitions each. A server that is killed forgets those that it made by itself.
func KafkaTopics(t testing.TB, address string, topics ...string) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(address))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	made, err := kadm.NewClient(client).CreateTopics(t.Context(), 4, 1, nil, topics...)
	if err == nil {
		err = made.Error()
	}
	if err != nil {
		t.Fatal(err)
	}
}

func ownExecutable() (string, bool) {
	path, err := os.Executable()
	return path, err == nil
}

// The environment variables that make a process a server: its port and the folder of its data.
const (
	kafkaPort = "SIDECAST_TEST_KAFKA_PORT"
	kafkaData = "SIDECAST_TEST_KAFKA_DATA"
)

func runKafka(s *instance) error {
	cmd := exec.Command(s.executable)
	cmd.Dir = s.dir
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", kafkaPort, s.ports[0]), kafkaData+"="+s.dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	p, err := s.start(cmd)
	if err != nil {
		return err
	}
	return p.ready(s.address(), func(conn net.Conn) bool {
		// ApiVersions, version 0, without a name of a client: the answer begins with its length and the number of the request.
		_, err := conn.Write([]byte("\x00\x00\x00\x0a\x00\x12\x00\x00\x00\x00\x00\x07\xff\xff"))
		answer := make([]byte, 8)
		n, _ := conn.Read(answer)
		return err == nil && n == len(answer) && answer[7] == 7
	})
}

// A test binary that was started as a server never comes to its tests.
func init() {
	text := os.Getenv(kafkaPort)
	if text == "" {
		return
	}
	port, err := strconv.Atoi(text)
	if err == nil {
		err = serveKafka(port, os.Getenv(kafkaData))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func serveKafka(port int, dir string) error {
	// Groups may settle soon who has gone: a member that is killed is missed after a second.
	cluster, err := kfake.NewCluster(kfake.Ports(port), kfake.NumBrokers(1), kfake.AllowAutoTopicCreation(), kfake.DefaultNumPartitions(4),
		kfake.DataDir(dir), kfake.GroupMinSessionTimeout(1e9))
	if err != nil {
		return err
	}
	defer cluster.Close()
	told := make(chan os.Signal, 1)
	signal.Notify(told, syscall.SIGTERM, os.Interrupt)
	<-told
	return nil
}
