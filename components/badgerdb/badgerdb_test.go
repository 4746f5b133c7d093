package badgerdb

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"
	"go.uber.org/goleak"

	"github.com/sidecast/sidecast/fault"
)

const childDir = "BADGERDB_TEST_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		holdInChild(dir)
	}
	goleak.VerifyTestMain(m)
}

// holdInChild opens the database, writes to it without a flush, and waits to be killed.
func holdInChild(dir string) {
	db, err := Open("test", Options{Dir: dir})
	if err == nil {
		err = db.Update(func(txn *badger.Txn) error { return txn.Set([]byte("k"), []byte("v")) })
	}
	fmt.Println("ready", err)
	time.Sleep(time.Minute)
	os.Exit(1)
}

func TestOneProcessAtATime(t *testing.T) {
	dir := t.TempDir()
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), childDir+"="+dir)
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	if line, _ := bufio.NewReader(out).ReadString('\n'); line != "ready <nil>\n" {
		t.Fatalf("the child said %q", line)
	}
	_, err = Open("test", Options{Dir: dir})
	if fault.ReasonOf(err) != fault.DirectoryInUse || !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), fmt.Sprint(child.Process.Pid)) {
		t.Fatalf("opening a directory in use gave %v", err)
	}
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait()

	db, err := Open("test", Options{Dir: dir})
	if err != nil {
		t.Fatalf("open after the holder died: %v", err)
	}
	if err := db.View(func(txn *badger.Txn) error { _, err := txn.Get([]byte("k")); return err }); err != nil {
		t.Fatalf("what the killed process committed: %v", err)
	}
	_, err = Open("test", Options{Dir: dir})
	if fault.ReasonOf(err) != fault.DirectoryInUse {
		t.Fatalf("opening it twice gave %v", err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestBadDirectory(t *testing.T) {
	file := t.TempDir() + "/file"
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open("test", Options{Dir: file + "/dir"}); fault.ReasonOf(err) != fault.DirectoryBad {
		t.Fatalf("got %v", err)
	}
}

func TestFullDisk(t *testing.T) {
	db, err := Open("test", Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.Room("test"); err != nil {
		t.Fatalf("with room: %v", err)
	}
	db.free.Store(reserve - 1)
	db.asked.Store(time.Now().Add(time.Hour).UnixNano())
	if err := db.Room("test"); fault.ReasonOf(err) != fault.DiskFull {
		t.Fatalf("without room: %v", err)
	}
}
