package natslock

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/sidecast/sidecast/fabric/subject"
	"github.com/sidecast/sidecast/fault"
)

const (
	// askTime is how long the fabric has for one answer.
	askTime = 3 * time.Second
	// markTime is how long the mark of a freed lock stays, for watchers to see; rounding and clocks leave a part of it.
	markTime = 10 * time.Second
	// spareTime is how long the entry of a lease stays after its end, should nobody want the lock.
	spareTime = time.Minute
)

// errChanged says that the entry is not at the revision that the write expected.
var errChanged = errors.New("the entry was changed")

// bucket is the key-value bucket, read and written at its leader. What is stored is published again, as news.
type bucket struct {
	conn   *nats.Conn
	js     jetstream.JetStream
	config jetstream.StreamConfig
	bound  atomic.Pointer[binding]
	keys   string // prefix of the subjects of entries
	news   string // prefix of the subjects of news
}

// binding is the stream as it was last found.
type binding struct {
	jetstream.Stream
	ttl bool // the server lets entries live for a time
}

func keyOf(name string) string { return subject.Token(name) }

func openBucket(ctx context.Context, conn *nats.Conn, namespace string, c Config) (*bucket, error) {
	js, err := jetstream.New(conn)
	if err != nil {
		return nil, fault.New("lock jetstream: open", fault.JetStreamRefused, "%w", err)
	}
	// The namespace's own _ is escaped, so that no two pairs of namespace and bucket share a name.
	name := strings.ReplaceAll(subject.Token(namespace), "_", "=5F") + "_" + subject.Token(c.Bucket)
	b := &bucket{
		conn: conn, js: js,
		keys: "$KV." + name + ".",
		news: "sc." + subject.Token(namespace) + ".lock." + subject.Token(c.Bucket) + ".",
	}
	b.config = jetstream.StreamConfig{
		Name:              "KV_" + name,
		Description:       "Locks of Sidecast",
		Subjects:          []string{b.keys + ">"},
		MaxMsgsPerSubject: 1,
		Discard:           jetstream.DiscardNew,
		Storage:           jetstream.FileStorage,
		Replicas:          c.Replicas,
		AllowRollup:       true,
		AllowMsgTTL:       true,
		DenyDelete:        true,
		RePublish:         &jetstream.RePublish{Source: b.keys + ">", Destination: b.news + ">"},
	}
	if err := b.bind(ctx); err != nil {
		return nil, err
	}
	return b, nil
}

// bind finds the bucket, or makes it.
func (b *bucket) bind(ctx context.Context) error {
	const op = "lock jetstream: open"
	if !b.conn.IsConnected() {
		return down(op)
	}
	ask, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	stream, err := b.js.Stream(ask, b.config.Name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		config := b.config
		config.FirstSeq = uint64(time.Now().UnixMicro())
		stream, err = b.js.CreateStream(ask, config)
		if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) { // another sidecar was faster
			stream, err = b.js.Stream(ask, b.config.Name)
		}
	}
	if err != nil {
		return refused(op, ctx, err)
	}
	is := stream.CachedInfo().Config
	if is.MaxMsgsPerSubject != 1 || is.AllowDirect || is.RePublish == nil || is.RePublish.Destination != b.config.RePublish.Destination {
		return fault.New(op, fault.JetStreamRefused, "bucket %s exists but was not made for locks: name another one", b.config.Name)
	}
	b.bound.Store(&binding{stream, is.AllowMsgTTL})
	return nil
}

// serverTime is what the clock of the bucket's leader shows.
func (b *bucket) serverTime(ctx context.Context) (time.Time, error) {
	const op = "lock jetstream: ask the time"
	if !b.conn.IsConnected() {
		return time.Time{}, down(op)
	}
	ask, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	info, err := b.bound.Load().Info(ask)
	if err != nil {
		return time.Time{}, refused(op, ctx, err)
	}
	return info.TimeStamp, nil
}

// read returns what the bucket's leader has.
func (b *bucket) read(ctx context.Context, op, key string) (state, error) {
	if !b.conn.IsConnected() {
		return state{}, down(op)
	}
	ask, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	msg, err := b.bound.Load().GetLastMsgForSubject(ask, b.keys+key)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return state{}, nil
	}
	if err != nil {
		return state{}, refused(op, ctx, err)
	}
	s, err := decode(msg.Data, msg.Sequence, msg.Time)
	if err != nil {
		return state{}, fault.New(op, fault.BackendFailed, "the entry of key %s at revision %d is not one of a lock: %w", key, msg.Sequence, err)
	}
	return s, nil
}

// write stores s if the entry is at revision expected, and returns the new revision. A blank state leaves a mark that
// vanishes. It fails with errChanged when the entry is at another revision; whether any other error stored s or not is
// told by unsure.
func (b *bucket) write(ctx context.Context, op, key string, s state, expected uint64) (uint64, error) {
	if !b.conn.IsConnected() { // a write now would be kept and sent when nobody waits for it any more
		return 0, down(op)
	}
	msg := &nats.Msg{Subject: b.keys + key, Header: nats.Header{
		jetstream.ExpectedLastSubjSeqHeader: {strconv.FormatUint(expected, 10)},
	}}
	life := markTime
	if s.blank() {
		msg.Header["KV-Operation"] = []string{"DEL"}
	} else {
		msg.Data = s.encode()
		life = spareTime
		if s.holder != nil {
			life += s.holder.TTL
		}
	}
	ttl := b.bound.Load().ttl
	if ttl {
		msg.Header[jetstream.MsgTTLHeader] = []string{strconv.Itoa(int(life/time.Second) + 1)}
	}
	ask, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	ack, err := b.js.PublishMsg(ask, msg, jetstream.WithRetryAttempts(0))
	if errors.Is(err, jetstream.ErrNoStreamResponse) {
		if err = b.bind(ctx); err != nil {
			return 0, err
		}
		ack, err = b.js.PublishMsg(ask, msg, jetstream.WithRetryAttempts(0))
	}
	var api *jetstream.APIError
	switch {
	case err == nil:
	case errors.As(err, &api) && (api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence || api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant):
		return 0, errChanged
	case ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) && b.full(ctx):
		return 0, &doubtful{fault.New(op, fault.JetStreamExhausted, "the fabric did not confirm the write, and stores nothing now: "+
			"its disk is full, or the storage of its account used up: %w", err).After(time.Second)}
	default:
		return 0, refused(op, ctx, err)
	}
	if s.blank() && !ttl {
		b.sweep(ask, key, ack.Sequence)
		return 0, nil
	}
	return ack.Sequence, nil
}

// full says that the limits of the account let nothing be stored: its storage is used up, or the host of an embedded
// fabric has closed it because its disk is full. To the writes that failed as it filled up a server answers nothing.
func (b *bucket) full(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	info, err := b.js.AccountInfo(ctx)
	return err == nil && info.Limits.MaxStore >= 0 && info.Store >= uint64(info.Limits.MaxStore)
}

// sweep removes the mark of a freed lock where marks do not vanish by themselves. Should it fail, the lock is free all
// the same, and the next one to free it sweeps again.
func (b *bucket) sweep(ctx context.Context, key string, mark uint64) {
	_ = b.bound.Load().Purge(ctx, jetstream.WithPurgeSubject(b.keys+key), jetstream.WithPurgeSequence(mark+1))
}

func (b *bucket) subscribe(op, key string, ch chan *nats.Msg) (*nats.Subscription, error) {
	sub, err := b.conn.ChanSubscribe(b.news+key, ch)
	if err != nil {
		return nil, fault.New(op, fault.FabricDown, "%w", err)
	}
	return sub, nil
}

// told reads news. It is not ok when the server left out what is needed.
func (b *bucket) told(msg *nats.Msg) (key string, s state, ok bool) {
	if len(msg.Subject) <= len(b.news) {
		return "", state{}, false
	}
	key = msg.Subject[len(b.news):]
	rev, err := strconv.ParseUint(msg.Header.Get(jetstream.SequenceHeader), 10, 64)
	if err != nil {
		return key, state{}, false
	}
	at, err := time.Parse(time.RFC3339Nano, msg.Header.Get(jetstream.TimeStampHeaer))
	if err != nil {
		return key, state{}, false
	}
	s, err = decode(msg.Data, rev, at)
	return key, s, err == nil
}

func down(op string) error {
	return fault.New(op, fault.FabricDown, "the fabric is not connected")
}

// refused turns an error of the client library into a fault. ctx is the caller's: its end is told apart from a server
// that did not answer in time.
func refused(op string, ctx context.Context, err error) error {
	var api *jetstream.APIError
	switch {
	case ctx.Err() != nil:
		return &doubtful{fault.FromContext(op, ctx, "the fabric")}
	case errors.As(err, &api) && exhausted[api.ErrorCode]:
		return fault.New(op, fault.JetStreamExhausted, "%w", err)
	case errors.As(err, &api):
		return fault.New(op, fault.JetStreamRefused, "%w", err)
	case errors.Is(err, nats.ErrNoResponders), errors.Is(err, jetstream.ErrNoStreamResponse):
		return fault.New(op, fault.FabricDown, "no server of the fabric answers for the bucket: it has no leader now, or JetStream is off: %w", err)
	}
	return &doubtful{fault.New(op, fault.BackendDown, "the fabric did not answer: %w", err)}
}

// exhausted are JetStream's codes for limits of an account, a server or a stream; the client library has no names for
// them (errors.json of nats-server does).
var exhausted = map[jetstream.ErrorCode]bool{10002: true, 10023: true, 10028: true, 10047: true, 10077: true}

// doubtful is an error after which a write may have been stored or not.
type doubtful struct{ error }

func (d *doubtful) Unwrap() error { return d.error }

// unsure says that the write which failed with err may have been stored.
func unsure(err error) bool {
	var d *doubtful
	return errors.As(err, &d)
}
