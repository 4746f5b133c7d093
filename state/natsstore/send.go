package natsstore

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/state"
)

// headerRoom is what the headers of a message may take of the server's max_payload.
const headerRoom = 1 << 10

// silence is how long a write is not answered until the store asks why.
const silence = 500 * time.Millisecond

// ack is the server's answer to a publish.
type ack struct {
	Error  *jetstream.APIError `json:"error"`
	Stream string              `json:"stream"`
	Seq    uint64              `json:"seq"`
	Count  int                 `json:"count"` // of the batch
}

// send writes steps, all or none, and returns the revision of each that writes.
func (s *store) send(ctx context.Context, steps []step) (revisions []uint64, err error) {
	if len(steps) == 1 {
		a, err := s.publish(ctx, &nats.Msg{Subject: s.keys.subject(steps[0].Key), Header: s.header(steps[0]), Data: s.value(steps[0])})
		return []uint64{a.Seq}, err
	}
	select {
	case s.atomic <- struct{}{}:
		defer func() { <-s.atomic }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	msgs, place := s.batch(steps)
	last := len(msgs) - 1
	for i, msg := range msgs[:last] {
		if i > 0 {
			err = s.conn.PublishMsg(msg)
		} else {
			err = s.begin(ctx, msg)
		}
		if err != nil {
			return nil, err
		}
	}
	a, err := s.publish(ctx, msgs[last])
	if err != nil {
		return nil, err
	}
	if a.Count != len(msgs) {
		return nil, errors.New("the server acknowledged another batch than it was sent")
	}
	revisions = make([]uint64, len(steps))
	for i := range steps {
		revisions[i] = a.Seq - uint64(last-place[i]) // a batch has consecutive revisions
	}
	return revisions, nil
}

// batch is steps as the messages of an atomic batch (NATS ADR-50), and the place of each step's message in it. A Check
// writes nothing, but every expectation needs a message to ride on: it rides on one of no key, which is gone in a moment.
// Those come first: an expectation of a key may not follow a write of it, and no key occurs twice.
func (s *store) batch(steps []step) (msgs []*nats.Msg, place []int) {
	place = make([]int, len(steps))
	for i, st := range steps {
		if !st.writes() && st.Match != state.Any {
			place[i] = len(msgs)
			msgs = append(msgs, &nats.Msg{Subject: s.keys.carrier(), Header: nats.Header{
				operationHeader:                         {gone},
				jetstream.MsgTTLHeader:                  {"1s"},
				jetstream.ExpectedLastSubjSeqHeader:     {number(st.over)},
				jetstream.ExpectedLastSubjSeqSubjHeader: {s.keys.subject(st.Key)},
			}})
		}
	}
	for i, st := range steps {
		if st.writes() {
			place[i] = len(msgs)
			msgs = append(msgs, &nats.Msg{Subject: s.keys.subject(st.Key), Header: s.header(st), Data: s.value(st)})
		}
	}
	id := nuid.Next()
	for i, msg := range msgs {
		msg.Header["Nats-Batch-Id"] = []string{id}
		msg.Header["Nats-Batch-Sequence"] = []string{number(uint64(i + 1))}
	}
	msgs[len(msgs)-1].Header["Nats-Batch-Commit"] = []string{"1"}
	return msgs, place
}

// begin sends the first message of a batch and waits until the server has room for the batch: the only answer that comes
// before the last.
func (s *store) begin(ctx context.Context, msg *nats.Msg) error {
	answer, err := s.request(ctx, msg)
	if err != nil || len(answer.Data) == 0 {
		return err
	}
	var a ack
	if err := json.Unmarshal(answer.Data, &a); err != nil || a.Error == nil {
		return errors.New("the server does not know atomic batches")
	}
	return a.Error
}

// publish sends a message and waits for the server's answer. It tries once.
func (s *store) publish(ctx context.Context, msg *nats.Msg) (a ack, err error) {
	answer, err := s.request(ctx, msg)
	if err != nil {
		return a, err
	}
	if err := json.Unmarshal(answer.Data, &a); err != nil {
		return a, err
	}
	if a.Error != nil {
		return a, a.Error
	}
	if a.Stream != s.keys.stream() {
		return a, errors.New("something else than the bucket answered on its subjects: " + a.Stream)
	}
	return a, nil
}

// request sends a message and waits for its answer.
func (s *store) request(ctx context.Context, msg *nats.Msg) (answer *nats.Msg, err error) {
	err = s.ask(ctx, s.full, func(ctx context.Context) (err error) {
		answer, err = s.conn.RequestMsgWithContext(ctx, msg)
		return err
	})
	return answer, err
}

// ask waits for an answer of the server, but not for one that will not come: a server whose disk has filled up answers nothing to
// the writes that failed, which full tells, if it is not nil; and one that was left for another answers nothing any more.
func (s *store) ask(ctx context.Context, full func(context.Context) bool, ask func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	connection := s.conn.Stats().Reconnects
	doubted := make(chan struct{})
	doubt := time.AfterFunc(silence, func() {
		defer close(doubted)
		for moved := false; ctx.Err() == nil; {
			switch {
			case moved: // what waited for the connection to come back had its time
				cancel(errMoved)
			case full != nil && full(ctx):
				cancel(errFull)
			}
			moved = s.conn.Stats().Reconnects != connection
			select {
			case <-ctx.Done():
			case <-time.After(silence):
			}
		}
	})
	err := ask(ctx)
	cause := context.Cause(ctx)
	cancel(nil)
	if !doubt.Stop() {
		<-doubted
	}
	if err != nil && (cause == errFull || cause == errMoved) {
		return cause
	}
	return err
}

// errMoved ends the wait for an answer of a server that this one is connected to no more.
var errMoved = errors.New("the connection to the fabric broke, and what was sent on it was not answered")

// errFull ends the wait for an answer of a server that stores nothing.
var errFull = errors.New("JetStream did not confirm the write, and stores nothing now: its disk is full, or the storage of its account used up")

// full says that the limits of the account let nothing be stored: its storage is used up, or the host of an embedded
// fabric has closed it because its disk is full.
func (s *store) full(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, silence)
	defer cancel()
	info, err := s.js.AccountInfo(ctx)
	return err == nil && info.Limits.MaxStore >= 0 && info.Store >= uint64(info.Limits.MaxStore)
}

// failed makes a fault of what the server or the client library said.
func (s *store) failed(ctx context.Context, op, key string, err error) *fault.Error {
	var api *jetstream.APIError
	switch {
	case s.life != nil && s.life.Err() != nil:
		return fault.New(op, fault.BackendDown, "the store was closed before JetStream answered").With("key", key)
	case err == errMoved:
		return fault.New(op, fault.BackendDown, "on %q: %w", key, err).With("key", key)
	case err == errFull:
		return fault.New(op, fault.JetStreamExhausted, "on %q: %w", key, err).With("key", key).After(time.Second)
	case ctx.Err() != nil:
		return fault.FromContext(op, ctx, "JetStream")
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, nats.ErrTimeout), errors.Is(err, context.Canceled):
		return fault.New(op, fault.BackendDown, "JetStream did not answer within %v", patience)
	case errors.Is(err, nats.ErrConnectionClosed), errors.Is(err, nats.ErrDisconnected), errors.Is(err, nats.ErrConnectionReconnecting):
		return fault.New(op, fault.FabricDown, "%w", err)
	case errors.Is(err, nats.ErrNoResponders), errors.Is(err, jetstream.ErrNoStreamResponse), errors.Is(err, jetstream.ErrStreamNotFound):
		return fault.New(op, fault.FabricDown, "no server answers for the bucket %s: it was deleted, it has no leader, or JetStream is off: %w", s.keys.bucket, err)
	case errors.Is(err, nats.ErrMaxPayload):
		return fault.New(op, fault.ValueTooLarge, "%q: %w", key, err).With("key", key)
	case errors.As(err, &api):
		return refused(op, key, api)
	}
	return fault.New(op, fault.BackendFailed, "on %q: %w", key, err).With("key", key)
}

func refused(op, key string, api *jetstream.APIError) *fault.Error {
	reason := fault.JetStreamRefused
	switch {
	case exhausted[api.ErrorCode]:
		reason = fault.JetStreamExhausted
	case api.ErrorCode == codeTooLarge:
		reason = fault.ValueTooLarge
	case api.ErrorCode == codeBatchTooLarge:
		reason = fault.TransactionBig
	case api.ErrorCode == codeAtomicDisabled:
		reason = fault.NotSupported
	}
	return fault.New(op, reason, "on %q: %w", key, api).With("key", key)
}
