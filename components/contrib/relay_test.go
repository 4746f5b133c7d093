//go:build linux

package contrib

import (
	"net"
	"sync"
	"testing"
)

// relay stands before a server. Once it is silent it passes nothing on: the connections stay, and nobody answers.
type relay struct {
	target   string
	listener net.Listener
	silent   chan struct{} // closed when it is silent
	hush     sync.Once
	gate     sync.RWMutex // held for writing while nothing passes
	running  sync.WaitGroup

	mu     sync.Mutex
	conns  []net.Conn
	closed bool
}

func relayTo(t *testing.T, target string) *relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{target: target, listener: l, silent: make(chan struct{})}
	r.running.Go(func() {
		for {
			from, err := l.Accept()
			if err != nil {
				return
			}
			r.running.Go(func() { r.pass(from) })
		}
	})
	t.Cleanup(r.close)
	return r
}

func (r *relay) address() string { return r.listener.Addr().String() }

func (r *relay) silence() { r.hush.Do(func() { close(r.silent) }) }

// hold keeps what is on its way, both ways, until release.
func (r *relay) hold()    { r.gate.Lock() }
func (r *relay) release() { r.gate.Unlock() }

// pass carries bytes both ways until one end closes.
func (r *relay) pass(from net.Conn) {
	if !r.keep(from) {
		return
	}
	to, err := net.Dial("tcp", r.target)
	if err != nil || !r.keep(to) {
		from.Close()
		return
	}
	var both sync.WaitGroup
	both.Go(func() { r.copy(to, from) })
	both.Go(func() { r.copy(from, to) })
	both.Wait()
}

func (r *relay) copy(to, from net.Conn) {
	defer to.Close()
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if err != nil {
			return
		}
		select {
		case <-r.silent:
			continue
		default:
		}
		r.gate.RLock()
		_, err = to.Write(buffer[:n])
		r.gate.RUnlock()
		if err != nil {
			return
		}
	}
}

// keep remembers a connection for close; when that was called, it closes it.
func (r *relay) keep(c net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		c.Close()
		return false
	}
	r.conns = append(r.conns, c)
	return true
}

// cut ends the connections that there are. Others may be made.
func (r *relay) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.conns {
		c.Close()
	}
	r.conns = nil
}

// close cuts all connections.
func (r *relay) close() {
	r.listener.Close()
	r.mu.Lock()
	r.closed = true
	for _, c := range r.conns {
		c.Close()
	}
	r.mu.Unlock()
	r.running.Wait()
}
