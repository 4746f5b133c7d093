package badgerstore

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

// directory returns the store's directory, made if need be.
func directory(host components.Host, configured string) (string, error) {
	const op = "state.badger: open"
	dir := configured
	if dir == "" {
		if host.DataDir == "" {
			return "", fault.New(op, fault.DirectoryBad, "there is no directory for the data: set `dir`")
		}
		dir = filepath.Join(host.DataDir, "state", subject.Token(host.AppID))
	}
	dir, err := filepath.Abs(dir)
	if err == nil {
		err = os.MkdirAll(dir, 0o700)
	}
	if err == nil {
		_, err = os.ReadDir(dir)
	}
	if err != nil {
		return "", fault.New(op, fault.DirectoryBad, "%s cannot hold the data: %w", dir, err)
	}
	return dir, nil
}

// claim is the right of this process to a directory. The operating system ends it with the process.
type claim struct {
	lock  *flock.Flock
	owner string // path of the file that says who has the claim, for those who come second
}

// claimDirectory takes dir for this process.
func claimDirectory(dir, app string) (*claim, error) {
	const op = "state.badger: open"
	c := &claim{lock: flock.New(filepath.Join(dir, "owner.lock")), owner: filepath.Join(dir, "owner")}
	got, err := c.lock.TryLock()
	if err != nil {
		return nil, fault.New(op, fault.DirectoryBad, "%s cannot hold the data: %w", dir, err)
	}
	if !got {
		return nil, fault.New(op, fault.DirectoryInUse,
			"%s is in use by %s: stop that process, set another `dir`, or share state between processes with `state.jetstream`", dir, c.reader())
	}
	text := fmt.Sprintf("%s (pid %d) of app %q since %s\n", filepath.Base(os.Args[0]), os.Getpid(), app, time.Now().Format(time.RFC3339))
	if err := os.WriteFile(c.owner, []byte(text), 0o600); err != nil {
		c.release()
		return nil, fault.New(op, fault.DirectoryBad, "%s cannot hold the data: %w", dir, err)
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
