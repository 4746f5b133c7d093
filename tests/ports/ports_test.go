package ports

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// count is the environment variable that makes this binary print as many ports, and end when its standard input does.
const count = "SIDECAST_TEST_PORTS"

func TestMain(m *testing.M) {
	if os.Getenv(count) == "" {
		os.Exit(m.Run())
	}
	for range 3 * block {
		port, err := Free()
		fmt.Println(port, err)
	}
	_, _ = os.Stdin.Read(make([]byte, 1))
}

func TestNoTwoAreTheSame(t *testing.T) {
	given := map[string]bool{}
	var children []*exec.Cmd
	for range 4 {
		child := exec.Command(os.Args[0])
		child.Env = append(os.Environ(), count+"=1")
		in, err := child.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := child.StdoutPipe()
		if err == nil {
			err = child.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = in.Close()
			_ = child.Wait()
		})
		children = append(children, child)
		lines := bufio.NewScanner(out)
		for i := 0; i < 3*block && lines.Scan(); i++ {
			port, problem, _ := strings.Cut(lines.Text(), " ")
			if problem != "<nil>" || given[port] {
				t.Fatalf("got %s, %s", port, problem)
			}
			given[port] = true
		}
	}
	for range 2 * block {
		given[fmt.Sprint(Get(t))] = true
	}
	if want := (3*len(children) + 2) * block; len(given) != want {
		t.Errorf("%d of %d ports are different", len(given), want)
	}
}
