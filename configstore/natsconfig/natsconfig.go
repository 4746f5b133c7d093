// Package natsconfig is `configuration.jetstream`: settings in a key-value bucket on the fabric, which every sidecar of the
// namespace that has a component of that name reads, or that names the bucket. It is an ordinary bucket: `sidecast config`
// writes to it, and so does `nats kv put`.
//
// A change is pushed to those who watch. The version of an item is its revision in the bucket, which grows with each write. Keys
// are those of NATS: letters, digits and -_=./ without a dot at an end; no others exist. A value may be as large as the
// server's max_payload.
//
//	apiVersion: dapr.io/v1alpha1
//	kind: Component
//	metadata: {name: settings}
//	spec:
//	  type: configuration.jetstream
package natsconfig

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/configstore"
	"github.com/sidecast/sidecast/fault"
)

// Config is what the user writes under spec.metadata.
type Config struct {
	Bucket string `meta:"bucket" doc:"Key-value bucket that holds the settings; created if it is not there. Left out: sidecast-config-<namespace>__<component>."`
}

// Component makes the backend known to the runtime.
var Component = components.Configuration("jetstream", "Settings in a JetStream key-value bucket, pushed to all sidecars of the fabric that watch them.", open)

var _ configstore.Store = (*store)(nil)

// patience bounds a request whose caller set no deadline.
const patience = 10 * time.Second

type store struct {
	bucket string
	kv     jetstream.KeyValue

	life context.Context // ends when the store is closed
	end  context.CancelFunc
	gate sync.RWMutex // held for reading by each call, for writing by Close
}

func open(ctx context.Context, host components.Host, c Config) (configstore.Store, error) {
	conn, err := host.NATS(ctx)
	if err != nil {
		return nil, err
	}
	bucket := c.Bucket
	if bucket == "" {
		bucket = Bucket(host.Namespace, host.Component)
	}
	kv, err := Open(ctx, conn, bucket, host.Replicas)
	if err != nil {
		return nil, err
	}
	s := &store{bucket: bucket, kv: kv}
	s.life, s.end = context.WithCancel(context.Background())
	return s, nil
}

// Bucket is that of a component which names none.
func Bucket(namespace, component string) string {
	return "sidecast-config-" + plain(namespace) + "__" + plain(component)
}

// plain is text in the letters that a bucket's name may have; different texts stay different.
func plain(text string) string {
	var b strings.Builder
	for _, c := range []byte(text) {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "_%02x", c)
		}
	}
	return b.String()
}

var validBucket = regexp.MustCompile(`^[a-zA-Z0-9_-]+$`)

// Find gives a bucket that is there; the error of one that is not is jetstream.ErrBucketNotFound.
func Find(ctx context.Context, conn *nats.Conn, bucket string) (jetstream.KeyValue, error) {
	kv, _, err := find(ctx, conn, bucket)
	if err != nil {
		return nil, failure(ctx, "find bucket "+bucket, err)
	}
	return kv, nil
}

func find(ctx context.Context, conn *nats.Conn, bucket string) (jetstream.KeyValue, jetstream.JetStream, error) {
	if !validBucket.MatchString(bucket) {
		return nil, nil, fault.New("bucket "+bucket, fault.BadManifest, "a bucket is named by letters, digits, - and _")
	}
	js, err := jetstream.New(conn, jetstream.WithDefaultTimeout(patience))
	if err != nil {
		return nil, nil, err
	}
	kv, err := js.KeyValue(ctx, bucket)
	return kv, js, err
}

// Open gives a bucket, which it makes if it is not there.
func Open(ctx context.Context, conn *nats.Conn, bucket string, replicas int) (jetstream.KeyValue, error) {
	op := "open bucket " + bucket
	kv, js, err := find(ctx, conn, bucket)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		kv, err = js.CreateKeyValue(ctx, jetstream.KeyValueConfig{
			Bucket: bucket, Description: "Settings of Sidecast apps", Replicas: max(replicas, 1), History: 1,
		})
		if errors.Is(err, jetstream.ErrBucketExists) { // another sidecar was faster
			kv, err = js.KeyValue(ctx, bucket)
		}
	}
	if err != nil {
		return nil, failure(ctx, op, err)
	}
	return kv, nil
}

var validKey = regexp.MustCompile(`^[-/_=.a-zA-Z0-9]+$`)

// ValidKey says whether an item can have that key.
func ValidKey(key string) bool {
	return validKey.MatchString(key) && !strings.HasPrefix(key, ".") && !strings.HasSuffix(key, ".") && !strings.Contains(key, "..")
}

// enter begins a call: its context ends with the store too.
func (s *store) enter(ctx context.Context, op string) (context.Context, func(), error) {
	s.gate.RLock()
	if s.life.Err() != nil {
		s.gate.RUnlock()
		return nil, nil, fault.New(op, fault.Shutdown, "the component is closed")
	}
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(s.life, cancel)
	return ctx, func() {
		stop()
		cancel()
		s.gate.RUnlock()
	}, nil
}

// failed is the fault of a call of ctx, which may have been cut short because the store closes.
func (s *store) failed(ctx context.Context, op string, err error) error {
	if s.life.Err() != nil && ctx.Err() == nil {
		return fault.New(op, fault.Shutdown, "the component is closed")
	}
	return failure(ctx, op, err)
}

func failure(ctx context.Context, op string, err error) error {
	var known *fault.Error
	switch {
	case errors.As(err, &known):
		return err
	case ctx.Err() != nil:
		return fault.E(op, fault.KindOf(ctx.Err()), fault.FromContext(op, ctx, "JetStream").Reason, ctx.Err())
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, nats.ErrTimeout), errors.Is(err, context.Canceled):
		return fault.New(op, fault.BackendDown, "JetStream did not answer within %v", patience)
	case errors.Is(err, nats.ErrConnectionClosed), errors.Is(err, nats.ErrDisconnected), errors.Is(err, nats.ErrConnectionReconnecting),
		errors.Is(err, nats.ErrNoResponders), errors.Is(err, jetstream.ErrNoStreamResponse), errors.Is(err, jetstream.ErrStreamNotFound),
		errors.Is(err, jetstream.ErrBucketNotFound):
		return fault.E(op, fault.None, fault.FabricDown, err)
	}
	return fault.E(op, fault.None, fault.BackendFailed, err)
}

// Get implements configstore.Store.
func (s *store) Get(ctx context.Context, keys []string, _ map[string]string) (map[string]configstore.Item, error) {
	const op = "configuration.jetstream: get"
	calling, leave, err := s.enter(ctx, op)
	if err != nil {
		return nil, err
	}
	defer leave()
	items := make(map[string]configstore.Item, len(keys))
	if len(keys) == 0 {
		err = s.all(calling, items)
	} else {
		err = s.each(calling, keys, items)
	}
	if err != nil {
		return nil, s.failed(ctx, op, err)
	}
	return items, nil
}

func (s *store) each(ctx context.Context, keys []string, items map[string]configstore.Item) error {
	for _, key := range keys {
		if !ValidKey(key) {
			continue
		}
		entry, err := s.kv.Get(ctx, key)
		switch {
		case err == nil:
			items[key] = itemOf(entry)
		case !errors.Is(err, jetstream.ErrKeyNotFound):
			return err
		}
	}
	return nil
}

// all reads what there is by a watch that ends where the present does.
func (s *store) all(ctx context.Context, items map[string]configstore.Item) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	watcher, err := s.kv.WatchAll(ctx, jetstream.IgnoreDeletes())
	if err != nil {
		return err
	}
	defer func() { _ = watcher.Stop() }()
	for {
		select {
		case entry, ok := <-watcher.Updates():
			if !ok {
				return fmt.Errorf("the bucket %s ended its answer: %w", s.bucket, nats.ErrNoResponders)
			}
			if entry == nil {
				return nil
			}
			items[entry.Key()] = itemOf(entry)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func itemOf(entry jetstream.KeyValueEntry) configstore.Item {
	return configstore.Item{Value: string(entry.Value()), Version: strconv.FormatUint(entry.Revision(), 10)}
}

// Watch implements configstore.Store. The consumer behind it comes back by itself when the server does; what it missed comes
// then.
func (s *store) Watch(ctx context.Context, keys []string, _ map[string]string, changed func(keys []string)) error {
	const op = "configuration.jetstream: watch"
	calling, leave, err := s.enter(ctx, op)
	if err != nil {
		return err
	}
	defer leave()
	wanted := make([]string, 0, len(keys))
	for _, key := range keys {
		if ValidKey(key) && !slices.Contains(wanted, key) { // or else the server finds that filters overlap
			wanted = append(wanted, key)
		}
	}
	if len(keys) > 0 && len(wanted) == 0 { // of keys that cannot be
		changed(nil)
		<-calling.Done()
		return s.failed(ctx, op, calling.Err())
	}
	watcher, err := s.kv.WatchFiltered(calling, wanted, jetstream.UpdatesOnly(), jetstream.MetaOnly())
	if err != nil {
		return s.failed(ctx, op, err)
	}
	defer func() { _ = watcher.Stop() }()
	changed(nil)
	for {
		select {
		case entry, ok := <-watcher.Updates():
			switch {
			case !ok:
				return s.failed(ctx, op, fmt.Errorf("the bucket %s tells no more of changes: %w", s.bucket, nats.ErrNoResponders))
			case entry != nil:
				changed([]string{entry.Key()})
			}
		case <-calling.Done():
			return s.failed(ctx, op, calling.Err())
		}
	}
}

// Close implements configstore.Store: watches end.
func (s *store) Close(context.Context) error {
	s.end()
	s.gate.Lock() // all calls have left
	defer s.gate.Unlock()
	return nil
}
