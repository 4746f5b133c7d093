package natsstore

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/state"
)

// attempts bounds how often a batch is tried over a key that should be absent and is, while others create and delete it.
const attempts = 16

// step is an op as the store sends it.
type step struct {
	state.Op
	want    tag    // for Exact
	expires int64  // for Set, Unix milliseconds
	over    uint64 // for Exact and Absent: the revision of the key's last message, 0 for none
}

// writes reports whether the step changes anything. To delete what must not exist is to check.
func (st step) writes() bool {
	return st.Kind == state.Set || st.Kind == state.Delete && st.Match != state.Absent
}

// Transacts implements state.Transactor: servers before NATS 2.12 have no batches.
func (s *store) Transacts() bool { return s.atomic != nil }

// Apply implements state.Store.
func (s *store) Apply(ctx context.Context, ops []state.Op) ([]string, error) {
	const op = "state.jetstream: apply"
	if len(ops) == 0 {
		return nil, nil
	}
	steps, writes, err := s.prepare(op, ops, time.Now())
	if err != nil {
		return nil, err
	}
	call, leave, err := s.enter(ctx, op)
	if err != nil {
		return nil, err
	}
	defer leave()
	if len(ops) > 1 && s.atomic == nil {
		return nil, fault.New(op, fault.NotSupported, "a batch of %d ops needs NATS 2.12 or later, %s is older: apply them one by one", len(ops), s.conn.ConnectedServerVersion())
	}
	if writes == 0 {
		return make([]string, len(ops)), s.survey(call, ctx, op, steps)
	}
	// One op that expects a new key to be new is right most often: the first look is its own.
	if len(ops) > 1 {
		if err := s.survey(call, ctx, op, steps); err != nil {
			return nil, err
		}
	}
	for range attempts {
		revisions, err := s.send(call, steps)
		if err == nil {
			return etags(steps, revisions), nil
		}
		if !lostRace(err) {
			return nil, s.sooner(ctx, op, s.failed(ctx, op, steps[0].Key, err))
		}
		if err := s.survey(call, ctx, op, steps); err != nil {
			return nil, err
		}
	}
	return nil, fault.New(op, fault.ETagMismatch, "%q is being created and deleted by others all the time", steps[0].Key).With("key", steps[0].Key)
}

// prepare checks ops by themselves.
func (s *store) prepare(op string, ops []state.Op, now time.Time) (steps []step, writes int, err error) {
	steps = make([]step, len(ops))
	most := int(s.conn.MaxPayload()) - headerRoom
	for i, o := range ops {
		st := step{Op: o}
		if n := len(tokens(o.Key)); len(o.Key) == 0 || n > maxKey {
			return nil, 0, fault.New(op, fault.KeyInvalid, "a key takes 1 to %d bytes of a subject, this one of %d bytes takes %d", maxKey, len(o.Key), n)
		}
		if len(o.Value) > most {
			return nil, 0, fault.New(op, fault.ValueTooLarge, "the value of %q has %d bytes, the server's max_payload allows %d", o.Key, len(o.Value), most).With("key", o.Key)
		}
		if o.Match == state.Exact {
			var ok bool
			if st.want, ok = parseTag(o.ETag); !ok {
				return nil, 0, fault.New(op, fault.ETagMalformed, "%q is no ETag of this store: it is a revision", o.ETag).With("key", o.Key)
			}
			st.over = st.want.revision
		}
		if o.Kind == state.Set && o.TTL > 0 {
			st.expires = max(now.Add(o.TTL).UnixMilli(), 1)
		}
		if st.writes() {
			writes++
		}
		steps[i] = st
	}
	for _, st := range steps { // after all ops were found well formed
		if st.Match == state.Exact && st.want.expired(now) {
			return nil, 0, mismatch(op, st)
		}
	}
	return steps, writes, nil
}

// survey reads the keys that steps expect something of. It fails with the first that is not as expected, and notes what
// to write over where an item must be absent.
func (s *store) survey(call, ctx context.Context, op string, steps []step) error {
	var keys []string
	var at []int
	for i, st := range steps {
		if st.Match != state.Any {
			keys, at = append(keys, st.Key), append(at, i)
		}
	}
	entries, err := s.read(call, ctx, op, keys)
	if err != nil {
		return err
	}
	now := time.Now()
	for n, e := range entries {
		st := &steps[at[n]]
		if st.Match == state.Absent {
			st.over = e.tag.revision
		}
		if exists := e.exists(now); st.Match == state.Absent && exists || st.Match == state.Exact && (!exists || e.tag != st.want) {
			return mismatch(op, *st)
		}
	}
	return nil
}

func mismatch(op string, st step) error {
	if st.Match == state.Absent {
		return fault.New(op, fault.ETagMismatch, "%q exists", st.Key).With("key", st.Key)
	}
	return fault.New(op, fault.ETagMismatch, "%q is not at ETag %s", st.Key, st.ETag).With("key", st.Key)
}

// etags is what Apply returns for the steps that were written with these revisions.
func etags(steps []step, revisions []uint64) []string {
	all := make([]string, len(steps))
	for i, st := range steps {
		if st.Kind == state.Set {
			all[i] = tag{revisions[i], st.expires}.String()
		}
	}
	return all
}

// The error codes of JetStream that the store knows; server/errors.json names them all.
const (
	codeWrongLastSequence    jetstream.ErrorCode = 10071
	codeLastSequenceInFlight jetstream.ErrorCode = 10164 // another write of the key is under way
	codeTooLarge             jetstream.ErrorCode = 10054
	codeBatchTooLarge        jetstream.ErrorCode = 10199
	codeAtomicDisabled       jetstream.ErrorCode = 10174
)

// exhausted are the codes for something that is used up: bytes, streams, consumers, batches under way.
var exhausted = map[jetstream.ErrorCode]bool{
	10002: true, 10023: true, 10026: true, 10027: true, 10028: true, 10047: true, 10077: true, 10120: true, 10122: true, 10210: true,
}

// lostRace reports whether a write was refused because a key was not at the revision given.
func lostRace(err error) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) && (api.ErrorCode == codeWrongLastSequence || api.ErrorCode == codeLastSequenceInFlight)
}

func number(n uint64) string { return strconv.FormatUint(n, 10) }

// ttlHeader is a time to live as the server takes it: whole seconds, and never before the item expires by our clock.
func ttlHeader(d time.Duration) string {
	return strconv.FormatInt(int64(d/time.Second)+2, 10)
}

// header of a message that writes a step.
func (s *store) header(st step) map[string][]string {
	h := make(map[string][]string, 4)
	var ttl time.Duration
	switch {
	case st.Kind == state.Delete:
		h[operationHeader] = []string{gone}
		ttl = markerTTL
	case st.TTL > 0:
		ttl = st.TTL + s.kept
	}
	if st.expires != 0 {
		h[expiresHeader] = []string{strconv.FormatInt(st.expires, 10)}
	}
	if ttl > 0 && s.ttl {
		h[jetstream.MsgTTLHeader] = []string{ttlHeader(ttl)}
	}
	if st.Match != state.Any {
		h[jetstream.ExpectedLastSubjSeqHeader] = []string{number(st.over)}
	}
	return h
}

func (s *store) value(st step) []byte {
	if st.Kind == state.Delete {
		return nil
	}
	return st.Value
}

// sooner tells the end of the caller's context rather than what it caused.
func (s *store) sooner(ctx context.Context, op string, err error) error {
	if ctx.Err() != nil && fault.KindOf(err) != fault.Conflict {
		return fault.FromContext(op, ctx, "JetStream")
	}
	return err
}
