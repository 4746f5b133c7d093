// Package fabric is the one thing between sidecars: NATS, embedded or remote. It knows who is there (presence), carries
// calls and streams from one sidecar to another, and lends its connection to whoever needs JetStream.
//
//	f, err := fabric.Open(ctx, fabric.Config{Namespace: "default", AppID: "orders", Instance: "a1", Dir: dir})
//	…
//	defer f.Close(ctx)
//	f.Serve(handler)                        // take calls
//	f.Announce(fabric.Instance{Ready: true}) // be found
//	resp, err := f.Call(ctx, fabric.Target{App: "pricing", Instance: "b7"}, req)
//
// # Embedded
//
// With no URL the sidecars that name the same directory share one NATS server, run by one of them: the holder of a file
// lock in that directory. The lock is the right to the port and to the JetStream store. The server listens on loopback
// only and asks every connection to prove that it can read the key in the directory (0600, in a directory of 0700). When
// the host leaves or is killed the kernel frees the lock, another sidecar takes port and store over, and every
// connection finds the new host by itself; subscriptions survive.
//
// What JetStream acknowledged to a publisher of a file stream was handed to the operating system before: it survives the
// death of the process, SIGKILL included. It is on disk at the latest ten seconds later: a machine that loses power may
// lose those seconds. With SyncAlways it is on disk before it is acknowledged. Acknowledgements that a consumer sent are
// written a moment after: a killed host may deliver an event again, never lose one. When the disk is nearly full JetStream
// refuses what is published with an error, and accepts again when there is room; what it stored stays.
//
// # Remote
//
// With URLs the fabric is a NATS cluster of the user's. What an acknowledgement is worth is the cluster's configuration:
// with R1 the store of one server, with R3 two of three. Open fails when no server can be reached before ctx ends; from
// then on the connection is kept for ever.
//
// # In both
//
// A call is sent at most once and always gets an answer: the target's, or a fault that says truthfully whether the work
// may have begun. While the fabric is away, calls and publishes fail at once with fault.FabricDown. Calls that were under
// way when it went away are settled when it is back, or given up after a few seconds. Streams end with
// fault.StreamBroken. Nothing is buffered beyond one window for each stream.
//
// Not promised: order between calls, and presence that is the same everywhere at the same time.
package fabric

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/sidecast/sidecast/fabric/subject"
	"github.com/sidecast/sidecast/fault"
)

// Config says which fabric to join, and as whom.
type Config struct {
	// Namespace keeps fabrics that share servers apart; empty means "default".
	Namespace string
	// AppID and Instance are who this sidecar is. Instance is unique in the namespace; empty takes a random one.
	AppID, Instance string

	// URL holds the servers of a remote fabric, separated by commas: nats://host:port or tls://host:port. Empty means
	// embedded.
	URL string
	// Credentials is a file of NATS credentials, NKeySeedFile one with an nkey seed.
	Credentials, NKeySeedFile string
	// CAFile, CertFile and KeyFile are PEM files for TLS.
	CAFile, CertFile, KeyFile string

	// Dir holds the data and the key of an embedded fabric. It is created with mode 0700.
	Dir string
	// Port is the loopback port of an embedded fabric; 0 takes any free one.
	Port int
	// GuestOnly never hosts the embedded fabric: it waits for a host.
	GuestOnly bool
	// SyncAlways makes the embedded JetStream fsync before it acknowledges.
	SyncAlways bool

	// MaxBody bounds the body of a unary call and of its answer, in bytes; 0 means 64 MiB.
	MaxBody int64
	// Replicas is the replica count of JetStream things; 0 means 1. The fabric itself has none.
	Replicas int
	// Log receives what happens to the fabric; nil discards it.
	Log *slog.Logger
}

// Target is the sidecar that a call goes to.
type Target struct{ App, Instance string }

// Stats counts what the fabric refused or lost since it was opened.
type Stats struct {
	// PresenceIgnored counts heartbeats that were malformed, too large or over the limit of instances.
	PresenceIgnored uint64
	// FramesIgnored counts messages of the call protocol that could not be read.
	FramesIgnored uint64
	// CallsRefused counts inbound calls refused because too many, or too large ones, were running.
	CallsRefused uint64
	// Running is how many inbound calls and streams are running now, Waiting how many outbound ones.
	Running, Waiting int
}

const (
	defaultMaxBody = 64 << 20
	// maxName bounds what becomes a token of a subject: the server closes connections that send it long lines.
	maxName = 256
)

// Fabric is a sidecar's membership of a fabric. All methods may be called concurrently.
type Fabric struct {
	config   Config
	log      *slog.Logger
	prefix   string // sc.<namespace>.
	embedded *embedded
	link     *link
	presence *presence
	outbound outbound
	inbound  inbound

	badFrames atomic.Uint64
	denied    atomic.Pointer[string] // the subject that the server last refused
	clock     atomic.Int64           // pulses since Open; the age of an exchange is counted in them

	stop    context.CancelFunc
	workers sync.WaitGroup
	closing sync.Once
	closed  chan struct{}
}

// Open joins the fabric and returns connected, or says in a fault what to do about it. ctx bounds only Open; without a
// deadline it waits ten seconds for a server.
func Open(ctx context.Context, c Config) (*Fabric, error) {
	c.Namespace = cmp.Or(c.Namespace, "default")
	c.Instance = cmp.Or(c.Instance, strings.ToLower(rand.Text()[:12]))
	c.MaxBody = cmp.Or(c.MaxBody, defaultMaxBody)
	c.Log = cmp.Or(c.Log, slog.New(slog.DiscardHandler))
	if max(len(c.Namespace), len(c.AppID), len(c.Instance)) > maxName {
		return nil, fault.New("open fabric", fault.FabricConfig, "the namespace, the app id and the instance may have %d bytes each", maxName)
	}
	if _, bounded := ctx.Deadline(); !bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
	}
	running, stop := context.WithCancel(context.Background())
	f := &Fabric{
		config: c, log: c.Log, stop: stop, closed: make(chan struct{}),
		prefix: "sc." + subject.Token(c.Namespace) + ".",
	}
	f.link = newLink(f.lost, f.restored, f.refused)
	f.presence = newPresence(f)
	f.outbound.init()
	f.inbound.init(f)
	if err := f.connect(ctx); err != nil {
		stop()
		return nil, err
	}
	if err := f.begin(running); err != nil {
		return nil, errors.Join(err, f.Close(context.WithoutCancel(ctx)))
	}
	return f, nil
}

func (f *Fabric) connect(ctx context.Context) error {
	if f.config.URL != "" {
		return f.connectRemote(ctx)
	}
	var err error
	f.embedded, err = newEmbedded(f.config, f.log)
	if err != nil {
		return err
	}
	if err := f.embedded.join(ctx, f.link); err != nil {
		f.embedded.leave()
		return err
	}
	return nil
}

// begin subscribes to what every member needs and starts the goroutines that Close waits for.
func (f *Fabric) begin(running context.Context) error {
	if f.embedded != nil {
		f.workers.Go(func() { f.embedded.keep(running, f.link) })
	}
	f.workers.Go(func() { f.pulse(running) })
	f.workers.Go(func() { f.presence.run(running) })
	f.workers.Go(func() { f.presence.notify(running) })
	if err := f.subscribeInbox(); err != nil {
		return fault.New("open fabric", fault.FabricDown, "subscribing to answers: %w", err)
	}
	if err := f.presence.subscribe(); err != nil {
		return fault.New("open fabric", fault.FabricDown, "subscribing to presence: %w", err)
	}
	return nil
}

// Conn is the connection to the fabric. It is shared: never close or drain it. It outlives the loss of the server.
func (f *Fabric) Conn() *nats.Conn { return f.link.nc }

// Describe is "embedded host", "embedded guest", or the URLs without credentials.
func (f *Fabric) Describe() string {
	if f.embedded != nil {
		return f.embedded.describe()
	}
	return describeURLs(f.config.URL)
}

// Connected tells whether the fabric can be reached now.
func (f *Fabric) Connected() bool { return f.link.up.Load() }

// Replicas is how many replicas JetStream things of this fabric should have; at least 1.
func (f *Fabric) Replicas() int { return max(f.config.Replicas, 1) }

// Stats tells what the fabric refused or lost so far.
func (f *Fabric) Stats() Stats {
	return Stats{
		PresenceIgnored: f.presence.ignored.Load(),
		FramesIgnored:   f.badFrames.Load(),
		CallsRefused:    f.inbound.refused.Load(),
		Running:         f.inbound.count(),
		Waiting:         f.outbound.count(),
	}
}

// Leaving says that this instance takes no more calls.
func (f *Fabric) Leaving() bool { return f.inbound.leaving.Load() }

// Leave tells everyone that this sidecar goes, refuses new calls with fault.Shutdown and waits for running ones until ctx
// ends. Calls of its own still go out: those that run may need them. Only Close may follow.
func (f *Fabric) Leave(ctx context.Context) error {
	f.inbound.leaving.Store(true)
	f.presence.leave()
	return f.inbound.wait(ctx, "leave fabric")
}

// Close leaves, ends what still runs, and returns when nothing of the fabric is running any more. ctx bounds how long
// handlers may take to return after their context was cancelled; a host then closes its server in any case.
func (f *Fabric) Close(ctx context.Context) error {
	var err error
	f.closing.Do(func() {
		defer close(f.closed)
		f.inbound.leaving.Store(true)
		f.presence.leave()
		f.inbound.cancelAll()
		err = f.inbound.wait(ctx, "close fabric")
		f.outbound.failAll(nil, fault.New("", fault.InstanceLost, "this sidecar closed its fabric before the answer came"))
		f.stop()
		f.link.close()
		f.workers.Wait()
		if f.embedded != nil {
			f.embedded.leave()
		}
	})
	<-f.closed
	return err
}

// lost is told when the connection breaks, by one goroutine that also calls restored.
func (f *Fabric) lost(err error) {
	f.log.Warn("the fabric went away", "fabric", f.Describe(), "error", err)
	f.presence.freeze()
	broken := fault.New("", fault.StreamBroken, "the fabric went away")
	f.outbound.failStreams(broken)
	f.inbound.failStreams(broken)
	if f.embedded != nil {
		f.embedded.kick()
	}
}

// restored is told when the connection is back and every subscription with it.
func (f *Fabric) restored() {
	f.log.Warn("the fabric is back", "fabric", f.Describe())
	f.presence.thaw()
}

// refused is told of what the server refuses asynchronously.
func (f *Fabric) refused(err error) {
	if to, ok := deniedSubject(err); ok {
		f.outbound.failSubject(to, fault.E("", fault.Denied, fault.FabricConfig, err))
		if was := f.denied.Swap(&to); was != nil && *was == to {
			return // what is said again and again, such as a broadcast, is refused as often
		}
	}
	f.log.Error("the fabric refused something", "error", err)
}
