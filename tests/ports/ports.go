// Package ports shares out ports among the tests of a computer, several test binaries at once included. A port is chosen before
// the program that shall listen on it starts: nobody else may take it in between, or while a server is down that a test starts
// again. So it is one that no system gives to sockets which name none, and it belongs to this process until it ends.
package ports

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"testing"
)

// Ports come in blocks. A process owns a block as long as it listens on its first port, so no two of them share one.
const (
	first, last = 10000, 20000 // supervisors go on from here, the Go SDK's tests from 32000, systems from 32768
	block       = 100
)

var (
	mu     sync.Mutex
	guards []net.Listener // on the first ports of this process's blocks, until it ends
	next   int            // the port to try next; a multiple of block when its block is used up
)

// Free is a port on which nobody listens, and another one each time.
func Free() (int, error) {
	mu.Lock()
	defer mu.Unlock()
	for range last - first {
		if next%block == 0 {
			if err := claim(); err != nil {
				return 0, err
			}
		}
		port := next
		next++
		if l, err := listen(port); err == nil { // or else it is somebody's who knows nothing of blocks
			return port, l.Close()
		}
	}
	return 0, errors.New("no port is free")
}

// claim makes a block this process's own.
func claim() error {
	var last error
	for _, i := range rand.Perm(blocks) {
		guard, err := listen(first + i*block)
		if err != nil {
			last = err
			continue
		}
		guards = append(guards, guard)
		next = first + i*block + 1
		return nil
	}
	return fmt.Errorf("no block of ports is free: %w", last)
}

const blocks = (last - first) / block

func listen(port int) (net.Listener, error) {
	return net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
}

// Get is Free for a test, which fails without one.
func Get(t testing.TB) int {
	t.Helper()
	port, err := Free()
	if err != nil {
		t.Fatal(err)
	}
	return port
}
