package fabric_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/fabric"
)

// A child is this test binary run again as a sidecar of its own, so that it can be killed.
const (
	childRole = "SIDECAST_FABRIC_TEST_CHILD"
	childDir  = "SIDECAST_FABRIC_TEST_DIR"
	childName = "SIDECAST_FABRIC_TEST_NAME"
	childPort = "SIDECAST_FABRIC_TEST_PORT"
)

type child struct {
	t     testing.TB
	cmd   *exec.Cmd
	lines *bufio.Scanner
}

// spawn starts a child with the role "serve" or "publish" and returns when it is ready.
func spawn(t testing.TB, role, dir, name string) *child {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childRole+"="+role, childDir+"="+dir, childName+"="+name)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	c := &child{t, cmd, bufio.NewScanner(out)}
	t.Cleanup(c.kill)
	c.await("ready")
	return c
}

// await reads the child's output up to a line that starts with prefix.
func (c *child) await(prefix string) string {
	c.t.Helper()
	for c.lines.Scan() {
		if strings.HasPrefix(c.lines.Text(), prefix) {
			return c.lines.Text()
		}
	}
	c.t.Fatalf("the child ended before it said %q", prefix)
	return ""
}

func (c *child) kill() {
	if c.cmd.ProcessState == nil {
		_ = c.cmd.Process.Kill()
		_ = c.cmd.Wait()
	}
}

func runChild(role string) int {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	name := os.Getenv(childName)
	port, _ := strconv.Atoi(os.Getenv(childPort)) // none is 0, any free port
	f, err := fabric.Open(ctx, fabric.Config{Namespace: "test", AppID: name, Instance: name + "1", Dir: os.Getenv(childDir), Port: port})
	if err == nil {
		err = f.Serve(handler{call: childCall})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "child:", err)
		return 1
	}
	f.Announce(fabric.Instance{PID: os.Getpid(), Ready: true})
	fmt.Println("ready", f.Describe())
	if role == "publish" {
		if err := publishForEver(ctx, f); err != nil {
			fmt.Fprintln(os.Stderr, "child:", err)
			return 1
		}
	}
	<-ctx.Done()
	return 0
}

func childCall(ctx context.Context, req *call.Request) (*call.Response, error) {
	if req.Method == "hang" {
		fmt.Println("hanging")
		<-ctx.Done()
		fmt.Println("cancelled")
		return nil, ctx.Err()
	}
	return &call.Response{Body: req.Body}, nil
}

// publishForEver says `acked <sequence>` after each acknowledgement.
func publishForEver(ctx context.Context, f *fabric.Fabric) error {
	js, err := jetstream.New(f.Conn())
	if err != nil {
		return err
	}
	if _, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: "DURABLE", Subjects: []string{"durable.>"}}); err != nil {
		return err
	}
	for n := 1; ; n++ {
		ack, err := js.Publish(ctx, "durable.x", fmt.Appendf(nil, "event %d", n))
		if err != nil {
			return err
		}
		fmt.Println("acked", ack.Sequence)
	}
}
