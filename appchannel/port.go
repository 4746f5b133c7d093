package appchannel

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/pipeline"
)

// Callback says how an app with a port is reached, over gRPC or HTTP.
type Callback struct {
	// Address is host:port of the app. A loopback port that refuses on 127.0.0.1 is tried on ::1 as well, because some
	// runtimes bind `localhost` to one of them only.
	Address string
	// MaxBody bounds the body of an answer in bytes; 0 means 4 MiB. Streams are not bounded.
	MaxBody int64
	// Concurrency is about how many calls run at a time: so many idle connections are kept. 0 means 100.
	Concurrency int
	// Token is sent with every call as `sidecast-api-token` and `dapr-api-token`, so that the app knows its sidecar; may be
	// empty.
	Token string
	// TLS says that the port speaks TLS, whatever its certificate says; H2C that it speaks HTTP/2 without TLS, over HTTP only.
	TLS, H2C bool
	// Dapr speaks to the app as Dapr's sidecar does: events that are no CloudEvents are wrapped into one, only /dapr/subscribe
	// is asked, only a 2xx passes a health check, and no content type is made up.
	Dapr bool
	// AppID and Namespace are the app's own, for the headers that tell it who calls whom.
	AppID, Namespace string
	// NoSubscribe leaves the app unasked what it subscribes to, NoConfig what it is (of Dapr's HTTP apps: GET /dapr/config).
	NoSubscribe, NoConfig bool
	// BindingTimeout is how long the app may take to say whether it wants the events of a binding: at most an hour,
	// 3 s if 0 or less.
	BindingTimeout time.Duration
	// Health is how the app is watched.
	Health Health
	// Pipeline is the middleware that requests to an HTTP app pass, all but health checks; nil is none.
	Pipeline *pipeline.Client
	// OnReady is called when the app starts (nil) and stops (why) taking work, one call at a time; may be nil.
	OnReady func(error)
	// Meter measures what is asked of the app; nil measures nothing.
	Meter Meter
	// Log is slog.Default() when nil.
	Log *slog.Logger
}

// Meter measures what a channel asks of its app. All methods may be called concurrently.
type Meter interface {
	// HTTPCalled is told of a request when the head of its answer is there, or none will be: its status is 500 then. The lengths
	// of the bodies are -1 where they are not known.
	HTTPCalled(method, path string, status int, sent, received int64, took time.Duration)
	// RPCCalled is told of a gRPC call that has ended, with the word for its status. Sizes of streams are -1.
	RPCCalled(method, status string, sent, received int, took time.Duration)
	// BulkDelivered is told of events that the app got in one delivery.
	BulkDelivered(pubsub, topic string, took time.Duration)
	// HTTPProbed and RPCProbed are told of health checks.
	HTTPProbed(status int, took time.Duration)
	RPCProbed(status string, took time.Duration)
}

// Health is a check that the app must pass to be given work. The zero Health only waits until the port takes connections.
type Health struct {
	// Enabled turns the check on: GET Path for HTTP apps, grpc.health.v1 for gRPC apps.
	Enabled bool
	// Path of the check of an HTTP app; empty means /healthz. Any status below 400 passes.
	Path string
	// Interval between checks, 5 s if 0; Timeout of one, 500 ms if 0.
	Interval, Timeout time.Duration
	// Threshold is how many checks in a row must fail before the app counts as unhealthy, 3 if 0. One that passes makes it
	// healthy.
	Threshold int
}

func (c Callback) withDefaults() Callback {
	set := func(d *time.Duration, value time.Duration) {
		if *d <= 0 {
			*d = value
		}
	}
	set(&c.Health.Interval, 5*time.Second)
	set(&c.Health.Timeout, 500*time.Millisecond)
	set(&c.BindingTimeout, 3*time.Second)
	c.BindingTimeout = min(c.BindingTimeout, time.Hour)
	if c.Health.Threshold <= 0 {
		c.Health.Threshold = 3
	}
	if c.Health.Path == "" {
		c.Health.Path = "/healthz"
	}
	if c.MaxBody <= 0 {
		c.MaxBody = 4 << 20
	}
	if c.Concurrency <= 0 {
		c.Concurrency = 100
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	return c
}

const (
	firstPoll = 5 * time.Millisecond   // after the first refused connection
	longStart = 5 * time.Second        // without a connection that is worth a word
	lastPoll  = 250 * time.Millisecond // at most between connections to a port that refuses
)

// port watches the app's port in one goroutine: it polls until the port takes connections, then checks the app's health
// if told to, and starts again when a call finds the port closed.
type port struct {
	Callback
	op    string
	check func(context.Context) error // one health check
	open  func(context.Context)       // told that the port takes connections

	stop    context.CancelFunc
	stopped chan struct{}
	refused chan struct{} // holds one: a call found the port closed

	mu      sync.Mutex
	closing bool
	running int           // calls
	idle    chan struct{} // closed when closing and running is 0
	why     error         // why the app is not ready; nil when it is
	epoch   int           // how often the app became ready
	changed chan struct{} // closed and replaced when why changes
}

// newPort returns a port that nobody watches before start, since check and open may ask it for what it knows.
func newPort(c Callback, op string, check func(context.Context) error, open func(context.Context)) *port {
	p := &port{
		Callback: c, op: op, check: check, open: open,
		stopped: make(chan struct{}), refused: make(chan struct{}, 1), idle: make(chan struct{}), changed: make(chan struct{}),
	}
	p.why = fault.New(op, fault.AppNotConnected, "the app has not yet opened its port %s", c.Address)
	return p
}

// start begins to watch.
func (p *port) start() {
	ctx, stop := context.WithCancel(context.Background())
	p.stop = stop
	go func() {
		defer close(p.stopped)
		p.watch(ctx)
	}()
}

// Ready is nil when the app takes work.
func (p *port) Ready() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closing && p.why == nil { // the watching goroutine has not yet ended
		return shuttingDown(p.op)
	}
	return p.why
}

func shuttingDown(op string) error {
	return fault.New(op, fault.Shutdown, "the sidecar is shutting down and sends its app nothing more")
}

// begin counts a call in. It fails when ctx has ended, the channel is closing or the app fails its health check; a port
// that was closed when last seen is tried all the same.
func (p *port) begin(ctx context.Context, op string) error {
	if ctx.Err() != nil {
		return neverSent(ctx, op, "the app, before the call was sent")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closing {
		return shuttingDown(op)
	}
	if fault.ReasonOf(p.why) == fault.AppUnhealthy {
		return fault.E(op, fault.Unavailable, fault.AppUnhealthy, p.why)
	}
	p.running++
	return nil
}

// end counts a call out.
func (p *port) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running--; p.running == 0 && p.closing {
		close(p.idle)
	}
}

// close stops watching, refuses new calls and waits for running ones. When ctx ends first it cuts their connections.
func (p *port) close(ctx context.Context, cut func()) (err error) {
	p.mu.Lock()
	first := !p.closing
	p.closing = true
	if first && p.running == 0 {
		close(p.idle)
	}
	p.mu.Unlock()
	p.stop()
	<-p.stopped
	p.set(shuttingDown(p.op))
	select {
	case <-p.idle:
	case <-ctx.Done():
		err = fault.New(p.op+": close", fault.Shutdown, "the sidecar stopped before the app had answered")
	}
	cut()
	<-p.idle
	return err
}

// watch runs until ctx ends.
func (p *port) watch(ctx context.Context) {
	for p.awaitPort(ctx) {
		if p.Health.Enabled {
			p.checkHealth(ctx)
			continue
		}
		p.set(nil)
		for open := true; open; {
			select {
			case <-p.refused:
				open = p.reopened(ctx)
			case <-ctx.Done():
				return
			}
		}
	}
}

// reopened looks whether a port that was lost is open again already: then the app has only restarted, or closed one
// connection, and is asked for its subscriptions anew. Otherwise it is no longer ready.
func (p *port) reopened(ctx context.Context) bool {
	if p.takes(ctx) {
		p.mu.Lock()
		p.epoch++
		p.signal()
		p.mu.Unlock()
		return true
	}
	p.set(fault.New(p.op, fault.AppUnreachable, "the app has closed its port %s", p.Address))
	return false
}

// takes tells whether the port takes a connection.
func (p *port) takes(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	conn, err := dial(ctx, p.Address)
	if err != nil {
		return false
	}
	conn.Close()
	p.open(ctx)
	return true
}

// signal needs p.mu.
func (p *port) signal() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// awaitPort polls until the port takes a connection; false when ctx ends. It tells once of one that takes none for long: apps
// are started with wrong ports.
func (p *port) awaitPort(ctx context.Context) bool {
	late := time.AfterFunc(longStart, func() { p.Log.Warn("nothing listens on the app's port yet", "address", p.Address) })
	defer late.Stop()
	for pause := firstPoll; ; pause = min(2*pause, lastPoll) {
		if p.takes(ctx) {
			select {
			case <-p.refused: // of calls made before
			default:
			}
			return true
		}
		if !sleep(ctx, pause) {
			return false
		}
	}
}

// checkHealth checks until a call finds the port closed or ctx ends.
func (p *port) checkHealth(ctx context.Context) {
	for failures, passed := 0, false; ; {
		checking, cancel := context.WithTimeout(ctx, p.Health.Timeout)
		err := p.check(checking)
		cancel()
		pause := p.Health.Interval
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			failures, passed = 0, true
			p.set(nil)
		default:
			failures++
			if !passed { // the app is still starting: look again soon
				pause = min(pause, lastPoll)
			}
			if !passed || failures >= p.Health.Threshold {
				p.set(fault.New(p.op, fault.AppUnhealthy, "app is not in a healthy state: its health check failed %d times in a row: %w", failures, err))
			}
		}
		wait := time.NewTimer(pause)
		select {
		case <-wait.C:
		case <-p.refused:
			wait.Stop()
			if !p.reopened(ctx) {
				return
			}
		case <-ctx.Done():
			wait.Stop()
			return
		}
	}
}

// lost says that a call found the port closed, or that a connection that should stay open has broken.
func (p *port) lost() {
	select {
	case p.refused <- struct{}{}:
	default:
	}
}

// set changes readiness and tells whoever wants to know. Only the watching goroutine and close call it.
func (p *port) set(why error) {
	p.mu.Lock()
	if p.closing && fault.ReasonOf(why) != fault.Shutdown {
		p.mu.Unlock()
		return
	}
	flipped := (p.why == nil) != (why == nil)
	p.why = why
	if flipped {
		if why == nil {
			p.epoch++
		}
		p.signal()
	}
	p.mu.Unlock()
	if !flipped {
		return
	}
	if why == nil {
		p.Log.Info("app is ready", "address", p.Address)
	} else if fault.ReasonOf(why) != fault.Shutdown {
		p.Log.Warn("app is not ready", "error", why)
	}
	if p.OnReady != nil {
		p.OnReady(why)
	}
}

// unasked is subscriptions for an app that is not to be asked.
func (p *port) unasked(ctx context.Context, changed func([]Subscription)) error {
	p.Log.Warn("Skipping programmatic subscription loading (see 'disable-init-endpoints' flag/annotation)")
	changed(nil)
	<-ctx.Done()
	return nil
}

// subscriptions asks the app each time it becomes ready.
func (p *port) subscriptions(ctx context.Context, changed func([]Subscription), list func(context.Context) ([]Subscription, error)) error {
	return p.whileReady(ctx, "subscriptions", longestPause, func(ctx context.Context) error {
		all, err := list(ctx)
		if err == nil {
			changed(append([]Subscription{}, all...)) // not nil: it was told
		} else {
			changed(nil)
		}
		return err
	}, func() {})
}

// longestPause is the most between two times that an app is asked for what it does not tell.
const longestPause = 15 * time.Second

// whileReady calls ask each time the app becomes ready, which may take it as long as within, and again after a pause when that
// failed, until ctx ends. It calls lost while the app is not ready.
func (p *port) whileReady(ctx context.Context, what string, within time.Duration, ask func(context.Context) error, lost func()) error {
	for asked := 0; ; {
		p.mu.Lock()
		ready, epoch, next := p.why == nil, p.epoch, p.changed
		p.mu.Unlock()
		if !ready || epoch == asked {
			if !ready {
				lost()
			}
			select {
			case <-next:
				continue
			case <-ctx.Done():
				return nil
			}
		}
		for pause := 100 * time.Millisecond; p.Ready() == nil; pause = min(2*pause, longestPause) {
			asking, cancel := context.WithTimeout(ctx, within)
			err := ask(asking)
			cancel()
			if err == nil {
				break
			}
			if ctx.Err() != nil {
				return nil
			}
			p.Log.Warn("the app did not tell its "+what+"; asking again", "error", err, "after", pause)
			if !sleep(ctx, pause) {
				return nil
			}
		}
		asked = epoch
	}
}

// now is which time in a row the app is ready, or was.
func (p *port) now() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.epoch
}

// dial connects to the app. Its errors are *net.OpError with Op "dial".
func dial(ctx context.Context, address string) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", address)
	if err == nil || ctx.Err() != nil {
		return conn, err
	}
	if host, number, splitErr := net.SplitHostPort(address); splitErr == nil && host == "127.0.0.1" {
		if conn, other := d.DialContext(ctx, "tcp", net.JoinHostPort("::1", number)); other == nil {
			return conn, nil
		}
	}
	return nil, err
}

// dialFailed tells whether err means that no connection came about, so that nothing was sent.
func dialFailed(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// sleep is false when ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
