package badgerdb

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gofrs/flock"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/fabric/subject"
	"github.com/sidecast/sidecast/fault"
)

// directory returns the database's directory, made if need be.
func directory(op string, host components.Host, o Options) (string, error) {
	dir := o.Dir
	if dir == "" {
		if host.DataDir == "" {
			return "", fault.New(op, fault.DirectoryBad, "there is no directory for the data: set `dir`")
		}
		dir = filepath.Join(host.DataDir, string(o.Block), subject.Token(host.AppID), subject.Token(host.Component))
	}
	dir, err := filepath.Abs(dir)
	if err == nil {
		err = os.MkdirAll(dir, 0o700)
	}
	if err == nil {
		_, err = os.ReadDir(dir)
	}
	if err != nil {
		return "", unfit(op, dir, err)
	}
	return dir, nil
}

func unfit(op, dir string, err error) error {
	return fault.New(op, fault.DirectoryBad, "%s cannot hold the data: %w", dir, err)
}

// claim is the right of this database to a directory. The operating system ends it with the process.
type claim struct {
	lock  *flock.Flock
	owner string // path of the file that says who has the claim, for those who come second
}

// claimDirectory takes dir for a component of this process.
func claimDirectory(op, dir string, host components.Host, block components.Block) (*claim, error) {
	c := &claim{lock: flock.New(filepath.Join(dir, "owner.lock"), flock.SetPermissions(0o600)), owner: filepath.Join(dir, "owner")}
	got, err := c.lock.TryLock()
	if err != nil {
		return nil, unfit(op, dir, err)
	}
	if !got {
		return nil, fault.New(op, fault.DirectoryInUse,
			"%s is in use by %s: stop that process, set another `dir`, or use `%s.jetstream`, which processes share",
			dir, c.reader(), block).With("dir", dir)
	}
	text := fmt.Sprintf("%s (pid %d) for component %q of app %q since %s\n",
		filepath.Base(os.Args[0]), os.Getpid(), host.Component, host.AppID, time.Now().Format(time.RFC3339))
	if err := os.WriteFile(c.owner, []byte(text), 0o600); err != nil {
		c.release()
		return nil, unfit(op, dir, err)
	}
	return c, nil
}

// reader is who has the claim, as far as can be known.
func (c *claim) reader() string {
	text, err := os.ReadFile(c.owner)
	if owner := strings.TrimSpace(string(text)); err == nil && owner != "" {
		return owner
	}
	return "another process"
}

func (c *claim) release() {
	_ = os.Remove(c.owner) // only says who has the lock
	_ = c.lock.Unlock()
}
