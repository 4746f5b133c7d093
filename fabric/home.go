package fabric

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/nats-io/nkeys"
	"github.com/sidecast/sidecast/fault"
)

// home is the directory of an embedded fabric: fabric.lock (who hosts), fabric.key (who may join), fabric.addr (where the
// host listens) and jetstream/ (what is stored).
type home struct{ dir string }

func (h home) lock() string    { return filepath.Join(h.dir, "fabric.lock") }
func (h home) keyFile() string { return filepath.Join(h.dir, "fabric.key") }
func (h home) address() string { return filepath.Join(h.dir, "fabric.addr") }

func openHome(dir string) (home, error) {
	const op = "open fabric directory"
	if dir == "" {
		return home{}, fault.New(op, fault.FabricConfig, "an embedded fabric needs a directory for its data and key")
	}
	dir, err := filepath.Abs(dir)
	if err == nil {
		err = os.MkdirAll(dir, 0o700)
	}
	if err != nil {
		return home{}, fault.New(op, fault.DirectoryBad, "%w", err)
	}
	probe, err := os.CreateTemp(dir, ".fabric-*")
	if err != nil {
		return home{}, fault.New(op, fault.DirectoryBad, "the directory cannot be written: %w", err)
	}
	if err := errors.Join(probe.Close(), os.Remove(probe.Name())); err != nil {
		return home{}, fault.New(op, fault.DirectoryBad, "%w", err)
	}
	return home{dir}, nil
}

// key reads the key. A host (locked) that finds none writes one: the one it knew before, or a new one.
func (h home) key(locked bool, known nkeys.KeyPair) (nkeys.KeyPair, error) {
	const op = "read fabric key"
	seed, err := os.ReadFile(h.keyFile())
	switch {
	case errors.Is(err, fs.ErrNotExist) && locked:
		return h.writeKey(known)
	case errors.Is(err, fs.ErrNotExist):
		return nil, fault.New(op, fault.FabricDown, "no sidecar has hosted a fabric in %s yet", h.dir)
	case err != nil:
		return nil, fault.New(op, fault.DirectoryBad, "%w", err)
	}
	info, err := os.Stat(h.keyFile())
	if err == nil && info.Mode().Perm()&0o077 != 0 {
		err = os.Chmod(h.keyFile(), 0o600)
	}
	if err != nil {
		return nil, fault.New(op, fault.DirectoryBad, "others can read the key: %w", err)
	}
	key, err := nkeys.FromSeed(bytes.TrimSpace(seed))
	if err != nil {
		return nil, fault.New(op, fault.DirectoryBad, "%s holds no key; remove it, and the next host writes a new one", h.keyFile())
	}
	return key, nil
}

func (h home) writeKey(key nkeys.KeyPair) (nkeys.KeyPair, error) {
	var err error
	if key == nil {
		key, err = nkeys.CreateUser()
	}
	var seed []byte
	if err == nil {
		seed, err = key.Seed()
	}
	if err == nil {
		err = h.write(h.keyFile(), append(seed, '\n'))
	}
	if err != nil {
		return nil, fault.New("write fabric key", fault.DirectoryBad, "%w", err)
	}
	return key, nil
}

// write replaces a file, all or nothing, readable by its owner alone.
func (h home) write(name string, content []byte) error {
	temp, err := os.CreateTemp(h.dir, ".fabric-*") // its mode is 0600
	if err != nil {
		return err
	}
	_, err = temp.Write(content)
	err = errors.Join(err, temp.Sync(), temp.Close())
	if err == nil {
		err = os.Rename(temp.Name(), name)
	}
	if err != nil {
		return errors.Join(err, os.Remove(temp.Name()))
	}
	return nil
}

func (h home) writeAddress(address string) error {
	if err := h.write(h.address(), []byte(address+"\n")); err != nil {
		return fault.New("host embedded fabric", fault.DirectoryBad, "%w", err)
	}
	return nil
}

func (h home) forgetAddress() error {
	if err := os.Remove(h.address()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fault.New("host embedded fabric", fault.DirectoryBad, "%w", err)
	}
	return nil
}

func (h home) readAddress() (string, error) {
	content, err := os.ReadFile(h.address())
	if errors.Is(err, fs.ErrNotExist) {
		return "", errors.New("no sidecar hosts the fabric of " + h.dir + " now")
	}
	if err != nil {
		return "", err
	}
	address := strings.TrimSpace(string(content))
	host, _, err := net.SplitHostPort(address)
	if err != nil || !net.ParseIP(host).IsLoopback() {
		return "", fmt.Errorf("%s holds %q, which is no loopback address", h.address(), address)
	}
	return address, nil
}
