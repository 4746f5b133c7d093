package fabric

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"
	"github.com/shirou/gopsutil/v4/disk"
	"github.com/sidecast/sidecast/fault"
)

const (
	serverStart = 20 * time.Second
	// syncEvery is the longest time between an acknowledgement and the disk, when SyncAlways is off.
	syncEvery = 10 * time.Second
	// serverMemory bounds JetStream's memory streams, serverPending what one connection may leave unread.
	serverMemory  = 128 << 20
	serverPending = 128 << 20
	// serverPayload is the largest message, an event or a value of the state: a request of 4 MiB, Dapr's default, as a
	// CloudEvent. It is the most that NATS recommends.
	serverPayload = 8 << 20
	serverPrefix  = "sidecast-"
)

// hosted is the NATS server in this process.
type hosted struct {
	nats *server.Server
	log  *serverLog
	dir  string
	full bool // writes are refused for want of disk
}

// fingerprint names a fabric by its key without telling it.
func fingerprint(key nkeys.KeyPair) string {
	public, err := key.PublicKey()
	if err != nil {
		return ""
	}
	sum := sha256.Sum256([]byte(public))
	return hex.EncodeToString(sum[:8])
}

// startServer returns a server that takes connections, with JetStream recovered.
func startServer(c Config, h home, key nkeys.KeyPair, port int, log *slog.Logger) (*hosted, error) {
	const op = "host embedded fabric"
	public, err := key.PublicKey()
	if err != nil {
		return nil, fault.New(op, fault.DirectoryBad, "the key in %s: %w", h.dir, err)
	}
	if port == 0 {
		port = server.RANDOM_PORT
	}
	s, err := server.NewServer(&server.Options{
		ServerName: serverPrefix + fingerprint(key),
		Host:       "127.0.0.1", Port: port,
		Nkeys:  []*server.NkeyUser{{Nkey: public}},
		NoSigs: true, DisableJetStreamBanner: true,
		JetStream: true, StoreDir: h.dir, JetStreamMaxMemory: serverMemory,
		SyncInterval: syncEvery, SyncAlways: c.SyncAlways,
		MaxPayload: serverPayload, MaxPending: serverPending, PingInterval: 10 * time.Second, MaxPingsOut: 2,
		MaxClosedClients: 100,
	})
	if err != nil {
		return nil, fault.New(op, fault.FabricConfig, "%w", err)
	}
	hs := &hosted{nats: s, log: &serverLog{log: log, trouble: make(chan struct{}, 1)}, dir: h.dir}
	s.SetLoggerV2(hs.log, log.Enabled(context.Background(), slog.LevelDebug), false, false)
	s.Start()
	if fatal := hs.log.fatal.Load(); fatal != nil {
		hs.stop()
		return nil, fault.New(op, fault.FabricDown, "the embedded server did not start: %s", *fatal)
	}
	if !s.ReadyForConnections(serverStart) {
		hs.stop()
		return nil, fault.New(op, fault.FabricDown, "the embedded server did not start within %v", serverStart)
	}
	hs.guardDisk()
	return hs, nil
}

func (h *hosted) address() string { return h.nats.Addr().String() }

func (h *hosted) stop() {
	h.nats.Shutdown()
	h.nats.WaitForShutdown()
}

// sick says why JetStream does not write any more, or "". After a failed write a stream refuses all others until the
// server is started again.
func (h *hosted) sick() string {
	status := h.nats.Healthz(&server.HealthzOptions{})
	if status == nil || status.Error == "" {
		return ""
	}
	return status.Error
}

// Of a large disk the last reserveMost bytes are left alone, of a small one the last reserveShare-th.
const (
	reserveMost  = 256 << 20
	reserveShare = 50
)

// guardDisk makes JetStream refuse writes while the disk is nearly full, whoever filled it, and accept them again when
// there is room. So publishers get an error at once: a write that fails in the server gets no answer, and stops its
// stream. Those whose write failed before the guard looked find the limit when they ask why nobody answers. It returns
// whether there is room.
func (h *hosted) guardDisk() bool {
	usage, err := disk.Usage(h.dir)
	if err != nil {
		return true // nothing is known against it
	}
	full := usage.Free < min(usage.Total/reserveShare, reserveMost)
	if full != h.full {
		h.setFull(full)
	}
	return !full
}

func (h *hosted) setFull(full bool) {
	limits := server.JetStreamAccountLimits{
		MaxMemory: -1, MaxStore: -1, MaxStreams: -1, MaxConsumers: -1, MaxAckPending: -1, MemoryMaxStreamBytes: -1, StoreMaxStreamBytes: -1,
	}
	if full {
		limits.MaxStore = 0
	}
	if err := h.nats.GlobalAccount().UpdateJetStreamLimits(map[string]server.JetStreamAccountLimits{"": limits}); err != nil {
		h.log.log.Error("JetStream's limits could not be changed; trying on", "error", err)
		return
	}
	h.full = full
	if full {
		h.log.log.Error("the disk is nearly full: JetStream refuses writes until there is room", "dir", h.dir)
	} else {
		h.log.log.Info("there is room on the disk again: JetStream accepts writes", "dir", h.dir)
	}
}

// whoListens explains why the port could not be bound.
func whoListens(port int, ours string, bind error) error {
	const op = "host embedded fabric"
	conn, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", port), 300*time.Millisecond)
	if err != nil {
		return fault.New(op, fault.PortInUse, "port %d cannot be bound: %w", port, bind)
	}
	defer conn.Close()
	_ = conn.SetReadDeadline(time.Now().Add(300 * time.Millisecond)) // without it the read fails at once, which is as good
	line, _ := bufio.NewReaderSize(conn, 4096).ReadSlice('\n')       // what came tells enough
	info, isNATS := strings.CutPrefix(string(line), "INFO ")
	var who struct {
		Name string `json:"server_name"`
	}
	if !isNATS || json.Unmarshal([]byte(info), &who) != nil {
		return fault.New(op, fault.PortInUse, "port %d is used by something that is no Sidecast fabric: choose another port for the fabric: %w", port, bind)
	}
	theirs, isOurs := strings.CutPrefix(who.Name, serverPrefix)
	switch {
	case !isOurs:
		return fault.New(op, fault.PortInUse, "port %d is used by the NATS server %q: join it by its URL, or choose another port for the fabric: %w", port, who.Name, bind)
	case theirs != ours:
		return fault.New(op, fault.FabricConfig, "port %d serves the fabric of another directory, with another key: use the same directory to join it, or another port to be apart", port)
	}
	return fault.New(op, fault.PortInUse, "port %d is held by a server of this very directory that has lost its lock: stop that process: %w", port, bind)
}

// serverLog gives the server's words to slog. What it tells about its ordinary life is for debugging.
type serverLog struct {
	log     *slog.Logger
	fatal   atomic.Pointer[string]
	trouble chan struct{} // holds one word of an error: nothing else tells of a write that failed at once
}

func (l *serverLog) say(level slog.Level, format string, v ...any) {
	if l.log.Enabled(context.Background(), level) {
		l.log.Log(context.Background(), level, "nats: "+fmt.Sprintf(format, v...))
	}
}

func (l *serverLog) Noticef(format string, v ...any) { l.say(slog.LevelDebug, format, v...) }
func (l *serverLog) Debugf(format string, v ...any)  { l.say(slog.LevelDebug-4, format, v...) }
func (l *serverLog) Tracef(format string, v ...any)  { l.say(slog.LevelDebug-8, format, v...) }
func (l *serverLog) Warnf(format string, v ...any)   { l.say(slog.LevelWarn, format, v...) }

func (l *serverLog) Errorf(format string, v ...any) {
	l.say(slog.LevelError, format, v...)
	wake(l.trouble)
}

// Fatalf is what the server calls before it would end the process. Here it ends only the start.
func (l *serverLog) Fatalf(format string, v ...any) {
	text := fmt.Sprintf(format, v...)
	l.fatal.CompareAndSwap(nil, &text)
	l.say(slog.LevelError, format, v...)
}
