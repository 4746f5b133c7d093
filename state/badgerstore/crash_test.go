package badgerstore

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/state"
)

// childDir is the environment variable that makes the test binary the process that is killed.
const childDir = "BADGERSTORE_TEST_DIR"

// writeUntilKilled writes batches from several goroutines and prints the key of each that was acknowledged.
func writeUntilKilled(dir string) {
	s, err := open(context.Background(), components.Host{AppID: "child"}, Config{Dir: dir, Sync: os.Getenv(childDir+"_SYNC") != "", MinFree: 1 << 20})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	var out sync.Mutex
	for w := range 4 {
		go func() {
			for i := 0; ; i++ {
				key := fmt.Sprintf("w%d/%06d", w, i)
				ops := []state.Op{
					{Kind: state.Set, Key: key + "/a", Value: []byte(key)},
					{Kind: state.Set, Key: key + "/b", Value: []byte(strings.Repeat(key, 500))}, // in the value log
				}
				if _, err := s.Apply(context.Background(), ops); err != nil {
					fmt.Fprintln(os.Stderr, err)
					os.Exit(1)
				}
				out.Lock()
				fmt.Println(key)
				out.Unlock()
			}
		}()
	}
	select {}
}

func TestAcknowledgedWritesSurviveAKill(t *testing.T) {
	for name, sync := range map[string]string{"Sync": "1", "NoSync": ""} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			acked := make(map[string]bool)
			for range 3 { // each time over the remains of the last
				for _, key := range runAndKill(t, dir, sync, 400) {
					acked[key] = true
				}
				s := openAt(t, dir, true)
				for key := range acked {
					items, err := s.Get(t.Context(), []string{key + "/a", key + "/b"})
					if err != nil || len(items) != 2 || string(items[0].Value) != key || string(items[1].Value) != strings.Repeat(key, 500) {
						t.Fatalf("%s was acknowledged; now there are %d items of it, %v", key, len(items), err)
					}
				}
				wholeBatches(t, s)
				shut(t, s)
			}
		})
	}
}

// runAndKill starts a child, kills it after n acknowledgments and returns all it gave.
func runAndKill(t *testing.T, dir, sync string, n int) (keys []string) {
	t.Helper()
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), childDir+"="+dir, childDir+"_SYNC="+sync)
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if keys = append(keys, lines.Text()); len(keys) == n {
			if err := child.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	_ = child.Wait() // killed
	if len(keys) < n {
		t.Fatalf("the child ended after %d writes", len(keys))
	}
	return keys[:len(keys)-1] // the last line may have been cut
}

// wholeBatches fails the test if one key of a batch is there without the other.
func wholeBatches(t *testing.T, s *store) {
	t.Helper()
	items, err := s.Scan(t.Context(), "w", "", 1_000_000, true)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(items); i += 2 {
		if i+1 == len(items) || items[i].Key[:len(items[i].Key)-1] != items[i+1].Key[:len(items[i+1].Key)-1] {
			t.Fatalf("%s is there without the rest of its batch", items[i].Key)
		}
	}
}
