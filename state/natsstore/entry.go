package natsstore

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/sidecast/sidecast/state"
)

// Headers of a bucket's messages. Those that start with Nats and KV are JetStream's.
const (
	expiresHeader   = "Sidecast-Expires" // Unix milliseconds
	operationHeader = "KV-Operation"     // DEL, PURGE: the message marks that the key is gone
)

// gone is the operation of our markers, as the tools of NATS know it.
const gone = "PURGE"

// For watchers that were away, the marker of a deleted key stays for markerTTL and an item that has expired for keptTTL, which
// is shorter because it has a value. A watcher that was away for longer than mostAway has to begin again.
const (
	markerTTL = 10 * time.Minute
	keptTTL   = time.Minute
	mostAway  = keptTTL - 10*time.Second
)

// entry is the last message of a key. The zero entry is that of a key without one.
type entry struct {
	key     string
	value   []byte
	tag     tag
	deleted bool // a marker
}

// exists reports whether there is an item at now.
func (e entry) exists(now time.Time) bool {
	return e.tag.revision != 0 && !e.deleted && !e.tag.expired(now)
}

func (e entry) item() state.Item {
	return state.Item{Key: e.key, Value: e.value, ETag: e.tag.String(), Expires: e.tag.when()}
}

func newEntry(key string, value []byte, header nats.Header, revision uint64) entry {
	e := entry{key: key, value: value, tag: tag{revision: revision}}
	e.deleted = header.Get(operationHeader) != "" || header.Get(jetstream.MarkerReasonHeader) != ""
	if text := header.Get(expiresHeader); text != "" {
		e.tag.expires, _ = strconv.ParseInt(text, 10, 64) // another writer's nonsense never expires
	}
	if e.value == nil {
		e.value = []byte{}
	}
	return e
}

// last reads the last entry of key from the leader of the bucket. It asks again where an answer was lost with a connection.
func (s *store) last(ctx context.Context, key string) (entry, error) {
	var msg *jetstream.RawStreamMsg
	read := func(ctx context.Context) (err error) {
		msg, err = s.stream.GetLastMsgForSubject(ctx, s.keys.subject(key))
		return err
	}
	err := s.ask(ctx, nil, read)
	for err == errMoved && ctx.Err() == nil {
		err = s.ask(ctx, nil, read)
	}
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return entry{key: key}, nil
	}
	if err != nil {
		return entry{}, err
	}
	return newEntry(key, msg.Data, msg.Header, msg.Sequence), nil
}

// live is the items of those entries that have one.
func live(entries []entry, now time.Time, withValue bool) []state.Item {
	items := make([]state.Item, 0, len(entries))
	for _, e := range entries {
		if !e.exists(now) {
			continue
		}
		item := e.item()
		if !withValue {
			item.Value = nil
		}
		items = append(items, item)
	}
	return items
}

// tag is an ETag: the revision, and when the item expires, so that a write over an item that has expired is known to
// fail without reading it. Its text is "17" or "17.1767225600000".
type tag struct {
	revision uint64
	expires  int64 // Unix milliseconds; 0: never
}

func (t tag) expired(now time.Time) bool { return t.expires != 0 && now.UnixMilli() >= t.expires }

func (t tag) when() time.Time {
	if t.expires == 0 {
		return time.Time{}
	}
	return time.UnixMilli(t.expires)
}

func (t tag) String() string {
	text := strconv.FormatUint(t.revision, 10)
	if t.expires != 0 {
		text += "." + strconv.FormatInt(t.expires, 10)
	}
	return text
}

// parseTag is the inverse of String; ok is false for what String never returns.
func parseTag(text string) (t tag, ok bool) {
	revision, expires, timed := strings.Cut(text, ".")
	var err error
	if t.revision, err = strconv.ParseUint(revision, 10, 64); err != nil || t.revision == 0 {
		return t, false
	}
	if timed {
		if t.expires, err = strconv.ParseInt(expires, 10, 64); err != nil || t.expires <= 0 {
			return t, false
		}
	}
	return t, t.String() == text
}
