package fabric

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gofrs/flock"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
	"github.com/sidecast/sidecast/fault"
)

const (
	// electEvery is how often a guest that lost its host looks for another, or becomes it.
	electEvery = 25 * time.Millisecond
	// diskEvery is how often a host looks at its disk, healthEvery how often at its server's health; both also when the
	// server tells of an error, health not more often than healthLeast.
	diskEvery   = 500 * time.Millisecond
	healthEvery = 5 * time.Second
	healthLeast = time.Second
	// restartAfter is the least time between two restarts of a server that cannot heal by itself.
	restartAfter = 10 * time.Second
)

// embedded is this process's part in the fabric of a directory: guest, or host while it holds the lock.
//
// One goroutine (join, then keep) elects, starts and stops; the dialer of the connection only asks where the fabric is.
type embedded struct {
	config Config
	log    *slog.Logger
	home   home
	lock   *flock.Flock
	kicked chan struct{} // holds one wake-up for keep

	mu     sync.Mutex // held to write server, and by the dialer to read it
	server *hosted    // nil for a guest

	key         nkeys.KeyPair
	locked      bool // this process holds the lock
	restartedAt time.Time
	hosting     atomic.Bool
}

func newEmbedded(c Config, log *slog.Logger) (*embedded, error) {
	h, err := openHome(c.Dir)
	if err != nil {
		return nil, err
	}
	return &embedded{config: c, log: log, home: h, lock: flock.New(h.lock(), flock.SetPermissions(0o600)), kicked: make(chan struct{}, 1)}, nil
}

func (e *embedded) describe() string {
	if e.hosting.Load() {
		return "embedded host"
	}
	return "embedded guest"
}

func (e *embedded) kick() { wake(e.kicked) }

// join becomes host or guest and connects, or says by the end of ctx what is in the way.
func (e *embedded) join(ctx context.Context, l *link) error {
	for {
		err := e.elect(true)
		if err == nil {
			err = e.connect(ctx, l)
		}
		if err == nil {
			return nil
		}
		if kind := fault.KindOf(err); kind == fault.Invalid {
			return err
		}
		select {
		case <-ctx.Done():
			return e.unreachable(err)
		case <-time.After(electEvery):
		}
	}
}

func (e *embedded) unreachable(last error) error {
	const op = "join embedded fabric"
	switch {
	case errors.Is(last, nats.ErrAuthorization) || errors.Is(last, nats.ErrAuthExpired):
		return fault.New(op, fault.FabricConfig, "the server that %s names refuses the key of %s: %w", e.home.address(), e.home.dir, last)
	case e.config.GuestOnly:
		return fault.New(op, fault.FabricDown, "no sidecar hosts the fabric of %s yet, and this one only joins: %w", e.home.dir, last)
	}
	return fault.New(op, fault.FabricDown, "another process holds %s, and its fabric does not answer: %w", e.home.lock(), last)
}

func (e *embedded) connect(ctx context.Context, l *link) error {
	key, err := e.readKey()
	if err != nil {
		return err
	}
	public, err := key.PublicKey()
	if err != nil {
		return fault.New("join embedded fabric", fault.DirectoryBad, "the key in %s: %w", e.home.dir, err)
	}
	timeout := time.Second // it bounds each attempt to reconnect, too, and those hold up whoever publishes
	if deadline, bounded := ctx.Deadline(); bounded {
		timeout = max(min(timeout, time.Until(deadline)), time.Millisecond)
	}
	// A server that is alive holds up those who send faster than others read, on a busy machine for seconds. One that hangs is
	// found out by the flush that it holds up.
	const flush = 15 * time.Second
	return l.dial("nats://127.0.0.1:1", append(l.options(e.config.AppID+"/"+e.config.Instance),
		nats.SetCustomDialer(e), nats.Nkey(public, key.Sign),
		nats.Timeout(timeout), nats.ReconnectWait(electEvery), nats.ReconnectJitter(electEvery, 0),
		nats.PingInterval(2*time.Second), nats.MaxPingsOutstanding(2), nats.FlusherTimeout(flush),
		nats.IgnoreDiscoveredServers()))
}

// Dial connects to wherever the fabric is now: the server in this process, or the address its host wrote down.
func (e *embedded) Dial(network, _ string) (net.Conn, error) {
	e.mu.Lock()
	server := e.server
	e.mu.Unlock()
	if server != nil {
		return server.nats.InProcessConn()
	}
	address, err := e.home.readAddress()
	if err != nil {
		return nil, err
	}
	conn, err := net.DialTimeout(network, address, time.Second)
	if err == nil && conn.LocalAddr().String() == conn.RemoteAddr().String() {
		// Nobody listens there, and the kernel has joined the socket to itself.
		return nil, errors.Join(errors.New("nobody listens on "+address), conn.Close())
	}
	return conn, err
}

// readKey reads the fabric's key once; a host writes it when there is none.
func (e *embedded) readKey() (nkeys.KeyPair, error) {
	if e.key != nil && !e.locked {
		return e.key, nil
	}
	key, err := e.home.key(e.locked, e.key)
	if err == nil {
		e.key = key
	}
	return key, err
}

// elect tries to become host. It does nothing for a guest whose host lives. first says that a port which something else
// uses is an error to report, and not a reason to take another.
func (e *embedded) elect(first bool) error {
	if e.config.GuestOnly || e.hosting.Load() {
		return nil
	}
	if !e.locked {
		locked, err := e.lock.TryLock()
		if err != nil {
			return fault.New("host embedded fabric", fault.DirectoryBad, "locking %s: %w", e.home.lock(), err)
		}
		if !locked {
			return nil
		}
		e.locked = true
	}
	if err := e.start(first); err != nil {
		e.unlock()
		return err
	}
	return nil
}

// start runs the server. The lock is held.
func (e *embedded) start(first bool) error {
	if err := e.home.forgetAddress(); err != nil { // it is a dead host's
		return err
	}
	key, err := e.readKey()
	if err != nil {
		return err
	}
	port, err := e.choosePort(key, first)
	if err != nil {
		return err
	}
	server, err := startServer(e.config, e.home, key, port, e.log)
	if err != nil {
		return err
	}
	if err := e.home.writeAddress(server.address()); err != nil {
		server.stop()
		return err
	}
	e.mu.Lock()
	e.server = server
	e.mu.Unlock()
	e.hosting.Store(true)
	return nil
}

// choosePort finds out who is on the port, if anyone is, so that the fault can name it.
func (e *embedded) choosePort(key nkeys.KeyPair, first bool) (int, error) {
	if e.config.Port == 0 {
		return 0, nil
	}
	listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", e.config.Port))
	if err == nil {
		return e.config.Port, listener.Close()
	}
	taken := whoListens(e.config.Port, fingerprint(key), err)
	if first {
		return 0, taken
	}
	e.log.Warn("taking over the fabric on another port", "port", e.config.Port, "error", taken)
	return 0, nil
}

// stop ends the server; the lock stays.
func (e *embedded) stop() {
	server := e.server
	e.mu.Lock()
	e.server = nil
	e.mu.Unlock()
	e.hosting.Store(false)
	if server != nil {
		server.stop()
	}
}

func (e *embedded) unlock() {
	e.locked = false
	if err := e.lock.Unlock(); err != nil {
		e.log.Error("the lock of the embedded fabric could not be released", "file", e.home.lock(), "error", err)
	}
}

// leave ends what this process does for the fabric. No other method is running or called after.
func (e *embedded) leave() {
	hosted := e.hosting.Load()
	e.stop()
	if hosted {
		if err := e.home.forgetAddress(); err != nil {
			e.log.Warn("the address of the embedded fabric could not be removed", "error", err)
		}
	}
	if e.locked {
		e.unlock()
	}
	if err := e.lock.Close(); err != nil {
		e.log.Error("the lock file of the embedded fabric could not be closed", "file", e.home.lock(), "error", err)
	}
}

// keep is the goroutine that takes the fabric over when its host is gone, and looks after it while this is the host.
func (e *embedded) keep(ctx context.Context, l *link) {
	disk, health := time.NewTicker(diskEvery), time.NewTicker(healthEvery)
	defer disk.Stop()
	defer health.Stop()
	var checked time.Time
	for {
		var trouble <-chan struct{}
		if e.server != nil {
			trouble = e.server.log.trouble
		}
		thorough := false
		select {
		case <-ctx.Done():
			return
		case <-e.kicked:
			e.takeOver(ctx, l)
			continue
		case <-disk.C:
		case <-trouble:
			thorough = time.Since(checked) >= healthLeast
		case <-health.C:
			thorough = true
		}
		if thorough {
			checked = time.Now()
		}
		e.look(thorough)
	}
}

// look guards the disk of the server here, if there is one. A server that cannot write though there is room, since a write
// failed while there was none, is restarted: look finds it when it is told to be thorough, and when the room has come.
func (e *embedded) look(thorough bool) {
	if e.server == nil {
		return
	}
	was := e.server.full
	roomy := e.server.guardDisk()
	if !roomy || !thorough && !was || time.Since(e.restartedAt) < restartAfter {
		return
	}
	if sick := e.server.sick(); sick != "" {
		e.restart(sick)
	}
}

// takeOver tries to become host until the connection is up again, by this process's doing or another's.
func (e *embedded) takeOver(ctx context.Context, l *link) {
	var told string
	for !l.up.Load() && ctx.Err() == nil {
		was := e.hosting.Load()
		if err := e.elect(false); err != nil && err.Error() != told {
			told = err.Error()
			e.log.Error("the embedded fabric could not be taken over; trying on", "error", err)
		}
		if !was && e.hosting.Load() {
			e.log.Info("this sidecar hosts the embedded fabric now", "dir", e.home.dir)
		}
		select {
		case <-ctx.Done():
		case <-time.After(electEvery):
		}
	}
}

// restart heals a server that stopped writing, once there is room for it.
func (e *embedded) restart(reason string) {
	e.log.Warn("restarting the embedded fabric: it stopped writing", "reason", reason)
	e.restartedAt = time.Now()
	e.stop()
	if err := e.start(false); err != nil {
		e.log.Error("the embedded fabric could not be restarted; trying on", "error", err)
		e.unlock()
	}
}
