// Package natsstore is `state.jetstream`: state in a key-value bucket on the fabric, shared by every sidecar of the namespace
// that has a component of that name, or names the bucket.
//
// # What is promised
//
// A write is acknowledged when JetStream has it: in the file of one server, or of a majority when the fabric has replicas.
// Whether that server fsyncs first is the server's setting (`sync_always`); the majority of three does not need it.
// Writes are linearizable per key. Reads are answered by the leader of the bucket, never by a replica that may be behind;
// a leader that was cut off from its peers and does not know it yet may answer a read with what was true a moment ago.
//
// The ETag is the revision, which JetStream never uses again, and the time the item expires. Expiry is exact to the
// millisecond by the clock of the sidecar that reads, which tells its watchers half a second later; the server removes the
// item after a minute. Clocks of sidecars that share a bucket must agree as closely as their times to live demand.
//
// # What depends on the server
//
// Batches of more than one op are JetStream's atomic batches: NATS 2.12. On older servers they fail with
// fault.Unsupported before anything changes. The server removes what has expired from NATS 2.11 on; on 2.10 an item that
// has expired is hidden until its key is written again.
//
// # Limits
//
// A value may be as large as the server's max_payload allows, less a KiB for headers: 8 MiB on the embedded fabric, and 1 MiB
// on a server that says nothing else. A key has at most 3000 bytes, where every byte but [A-Za-z0-9_-] and `||` counts three. A
// batch holds at most 1000 ops, beside Checks. What JetStream has no room for fails with JETSTREAM_EXHAUSTED.
//
// A Scan reads the names of all keys under its prefix, sorts them, and then reads the items of the page. It is cheapest
// when the prefix ends in `||`, as the prefix of an app does: `||` is the dot of the bucket's subjects. A deleted key
// leaves a marker of some bytes for ten minutes.
//
// A slow watcher is not cut off: the bucket holds what it has yet to see, folded to the latest of each key. A watcher keeps
// the keys in mind of the items that expire, at most 262144 of them; it begins with reading the headers of all items under
// its prefix, also when it wants only changes. One that was cut off from the server for most of a minute ends with
// WATCH_OVERRUN: what has expired meanwhile may be gone without a trace.
//
//	apiVersion: dapr.io/v1alpha1
//	kind: Component
//	metadata: {name: shared}
//	spec:
//	  type: state.jetstream
package natsstore

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/fabric/subject"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/state"
)

// Config is what the user writes under spec.metadata.
type Config struct {
	Bucket string `meta:"bucket" doc:"Key-value bucket that holds the items; created if it is not there. Stores with one bucket share their items. Left out: sidecast-<namespace>_<component>."`
}

// Component makes the backend known to the runtime.
var Component = components.State("jetstream", "Durable store in a JetStream key-value bucket, shared by all sidecars of the fabric.", open)

var (
	_ state.Store   = (*store)(nil)
	_ state.Scanner = (*store)(nil)
	_ state.Watcher = (*store)(nil)
)

const (
	// patience bounds a request whose caller set no deadline.
	patience = 10 * time.Second
	// parallel is how many reads of one call are under way at a time.
	parallel = 16
	// batches is how many batches of this sidecar are under way at a time; a stream takes 50 of all.
	batches = 8
)

type store struct {
	log    *slog.Logger
	conn   *nats.Conn
	js     jetstream.JetStream
	stream jetstream.Stream
	keys   keyspace
	ttl    bool          // the server removes what has expired,
	kept   time.Duration // so long after it has
	atomic chan struct{} // a token for each batch under way; nil when the server has no batches

	life context.Context // ends when the store is closed
	end  context.CancelFunc
	gate sync.RWMutex // held for reading by each call, for writing by Close
}

func open(ctx context.Context, host components.Host, c Config) (state.Store, error) {
	const op = "state.jetstream: open"
	conn, err := host.NATS(ctx)
	if err != nil {
		return nil, err
	}
	s := &store{log: host.Log, conn: conn, kept: keptTTL}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	bucket := c.Bucket
	if bucket == "" {
		bucket = defaultBucket(host)
	}
	if s.keys, err = newKeyspace(bucket); err != nil {
		return nil, fault.New(op, fault.BadManifest, "%w", err)
	}
	s.life, s.end = context.WithCancel(context.Background())
	if s.js, err = jetstream.New(conn, jetstream.WithDefaultTimeout(patience)); err != nil {
		return nil, s.failed(ctx, op, "", err)
	}
	level, err := s.prepareStream(ctx, max(host.Replicas, 1))
	if err != nil {
		return nil, s.failed(ctx, op, "", err)
	}
	if level >= levelAtomic {
		s.atomic = make(chan struct{}, batches)
	}
	s.ttl = level >= levelTTL
	return s, nil
}

// defaultBucket is one for each component of a namespace. The namespace's own _ is escaped, so that no two pairs share one.
func defaultBucket(host components.Host) string {
	namespace := strings.ReplaceAll(subject.Token(host.Namespace), "_", "=5F")
	return "sidecast-" + namespace + "_" + subject.Token(host.Component)
}

// enter begins a call: its context ends with the store as well, and after patience if it has no deadline. The caller
// calls leave.
func (s *store) enter(ctx context.Context, op string) (_ context.Context, leave func(), err error) {
	if ctx.Err() != nil {
		return nil, nil, fault.FromContext(op, ctx, "the store")
	}
	s.gate.RLock()
	if s.life.Err() != nil {
		s.gate.RUnlock()
		return nil, nil, fault.New(op, fault.Shutdown, "the store is closed")
	}
	if !s.conn.IsConnected() {
		s.gate.RUnlock()
		return nil, nil, fault.New(op, fault.FabricDown, "the connection to NATS is down (%v)", s.conn.Status())
	}
	var cancel context.CancelFunc
	if _, bounded := ctx.Deadline(); bounded {
		ctx, cancel = context.WithCancel(ctx)
	} else {
		ctx, cancel = context.WithTimeout(ctx, patience)
	}
	stop := context.AfterFunc(s.life, cancel)
	return ctx, func() {
		stop()
		cancel()
		s.gate.RUnlock()
	}, nil
}

// Get implements state.Store.
func (s *store) Get(ctx context.Context, keys []string) ([]state.Item, error) {
	const op = "state.jetstream: get"
	call, leave, err := s.enter(ctx, op)
	if err != nil {
		return nil, err
	}
	defer leave()
	entries, err := s.read(call, ctx, op, keys)
	if err != nil {
		return nil, err
	}
	return live(entries, time.Now(), true), nil
}

// read returns the last entry of each key, in order.
func (s *store) read(call, ctx context.Context, op string, keys []string) ([]entry, error) {
	entries := make([]entry, len(keys))
	one := func(ctx context.Context, i int) (err error) {
		entries[i], err = s.last(ctx, keys[i])
		if err != nil {
			return s.failed(ctx, op, keys[i], err)
		}
		return nil
	}
	if len(keys) == 1 { // most often
		if err := one(call, 0); err != nil {
			return nil, s.sooner(ctx, op, err)
		}
		return entries, nil
	}
	all, call := errgroup.WithContext(call)
	all.SetLimit(parallel)
	for i := range keys {
		all.Go(func() error { return one(call, i) })
	}
	if err := all.Wait(); err != nil {
		return nil, s.sooner(ctx, op, err)
	}
	return entries, nil
}

// Scan implements state.Scanner.
func (s *store) Scan(ctx context.Context, prefix, after string, limit int, keysOnly bool) ([]state.Item, error) {
	const op = "state.jetstream: scan"
	call, leave, err := s.enter(ctx, op)
	if err != nil {
		return nil, err
	}
	defer leave()
	info, err := s.stream.Info(call, jetstream.WithSubjectFilter(s.keys.filter(prefix)))
	if err != nil {
		return nil, s.failed(ctx, op, prefix, err)
	}
	keys := s.keys.sorted(info.State.Subjects, prefix, after)
	var found []state.Item
	for len(keys) > 0 && len(found) < limit { // some of the keys are markers of what is gone
		page := keys[:min(limit-len(found), len(keys))]
		keys = keys[len(page):]
		entries, err := s.read(call, ctx, op, page)
		if err != nil {
			return nil, err
		}
		found = append(found, live(entries, time.Now(), !keysOnly)...)
	}
	return found, nil
}

// Close implements state.Store. It cuts off calls under way; the connection is the fabric's and stays.
func (s *store) Close(context.Context) error {
	s.end()
	s.gate.Lock() // all calls have left
	defer s.gate.Unlock()
	return nil
}
