package natspubsub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/pubsub"
)

const (
	publishWindow = 256                    // messages of one batch on their way at once …
	windowBytes   = 32 << 20               // … unless these many bytes are reached before
	publishWait   = 30 * time.Second       // for an answer, where the caller's deadline is not sooner
	silence       = 500 * time.Millisecond // without an answer that makes a publisher ask why
)

// Publish sends the messages of a window without waiting and then awaits all answers. Within a batch, and within a
// partition across batches of one sidecar, the stored order is the order given. When the server refuses a keyed message,
// later messages of its key that are not on their way yet are refused too, so that a second try keeps their order; those
// of the same window may already be stored before it.
func (b *broker) Publish(ctx context.Context, topic string, messages []pubsub.Message) []error {
	errs := make([]error, len(messages))
	op := b.op("publish " + topic)
	token, err := b.names.topic(op, topic)
	if err == nil {
		err = b.usable(ctx, op)
	}
	if err != nil {
		return fill(errs, err)
	}
	refused := map[string]bool{}
	for start, end := 0, 0; start < len(messages); start = end {
		end = start + 1
		for bytes := len(messages[start].Data); end < len(messages) && end-start < publishWindow; end++ {
			if bytes += len(messages[end].Data); bytes > windowBytes {
				break
			}
		}
		b.publishWindow(ctx, op, token, messages[start:end], errs[start:end], refused)
	}
	return errs
}

func (b *broker) publishWindow(ctx context.Context, op, topic string, messages []pubsub.Message, errs []error, refused map[string]bool) {
	w := &window{op: op, errs: make([]error, len(messages)), left: len(messages), done: make(chan struct{})}
	first := b.acks.expect(w)
	now := time.Now()
	for i := range messages {
		m := &messages[i]
		if err := b.publishable(op, m, refused); err != nil {
			w.answer(i, err)
		} else if err := b.send(op, topic, m, now, b.acks.inbox(first+uint64(i))); err != nil {
			w.answer(i, jsFault(ctx, op, err))
		}
	}
	b.await(ctx, w)
	b.acks.forget(first, len(messages))
	for i, err := range w.results(errs) {
		if errors.Is(err, nats.ErrNoResponders) {
			b.ready.Store(false)
		}
		if k := messages[i].Key; err != nil && k != "" && fault.KindOf(err) != fault.Invalid {
			refused[k] = true
		}
	}
}

// await waits for the answers to w. A server whose disk has filled up answers nothing to the writes that failed, so one
// that is silent is asked whether it takes any.
func (b *broker) await(ctx context.Context, w *window) {
	timer := time.NewTimer(publishWait)
	defer timer.Stop()
	silent := time.NewTimer(silence)
	defer silent.Stop()
	for {
		select {
		case <-w.done:
			return
		case <-silent.C:
			if err := b.full(ctx, w.op); err != nil {
				w.fail(err)
				return
			}
			silent.Reset(silence)
		case <-ctx.Done():
			w.fail(fault.FromContext(w.op, ctx, "JetStream to confirm that the message is stored"))
			return
		case <-timer.C:
			w.fail(fault.New(w.op, fault.DeadlineExceeded, "JetStream did not confirm within %s that the message is stored", publishWait))
			return
		}
	}
}

// suspicion is what a silent JetStream was last found to be. Many who wonder share one question.
type suspicion struct {
	mu    sync.Mutex // held while asking
	asked time.Time
	full  bool
}

// full is an error when the limits of the account let nothing be stored: its storage is used up, or the host of an
// embedded fabric has closed it because its disk is full. It is nil, too, while another publisher asks.
func (b *broker) full(ctx context.Context, op string) error {
	s := &b.suspicion
	if !s.mu.TryLock() {
		return nil
	}
	defer s.mu.Unlock()
	if time.Since(s.asked) >= silence/2 {
		ask, done := context.WithTimeout(ctx, silence)
		info, err := b.js.AccountInfo(ask)
		done()
		s.full = err == nil && info.Limits.MaxStore >= 0 && info.Store >= uint64(info.Limits.MaxStore)
		s.asked = time.Now()
	}
	if !s.full {
		return nil
	}
	return fault.New(op, fault.JetStreamExhausted, "JetStream did not confirm that the message is stored, and stores nothing now: "+
		"its disk is full, or the storage of its account used up").After(time.Second)
}

// publishable refuses what can be known to fail before it is sent.
func (b *broker) publishable(op string, m *pubsub.Message, refused map[string]bool) error {
	switch {
	case m.Key != "" && refused[m.Key]:
		return fault.New(op, fault.JetStreamRefused, "not sent, for an earlier message of key %q failed and their order would change", m.Key)
	case m.Delay < 0:
		return fault.New(op, fault.DelayInvalid, "the delay is negative: %s", m.Delay)
	case m.Delay > 0 && !b.schedules.Load() && b.config.MaxBytes > 0:
		return fault.New(op, fault.NotSupported, "a stream limited by maxBytes cannot hold delayed messages; leave maxBytes out")
	case m.Delay > 0 && !b.schedules.Load():
		return fault.New(op, fault.NotSupported, "delayed messages need NATS server 2.12 or later; this one is %s", b.nc.ConnectedServerVersion())
	case m.Delay >= b.config.MaxAge:
		return fault.New(op, fault.DelayInvalid, "the delay of %s is not shorter than maxAge, %s", m.Delay, b.config.MaxAge)
	}
	return nil
}

func (b *broker) send(op, topic string, m *pubsub.Message, now time.Time, reply string) error {
	msg := b.encode(topic, m, now)
	limit := b.nc.MaxPayload()
	if size := size(msg); size > limit-min(pubsub.LetterRoom, limit/8) {
		return fault.New(op, fault.BodyTooLarge, "the event has %d bytes with its envelope, and this NATS server takes messages of %d, less %d for a dead letter's header: "+
			"raise max_payload in the configuration of a server of yours, or keep the payload in a state store and publish its key",
			size, limit, min(pubsub.LetterRoom, limit/8))
	}
	msg.Reply = reply
	return b.nc.PublishMsg(msg)
}

// size is what a message takes of the server's max_payload, without what differs when it is a dead letter.
func size(msg *nats.Msg) int64 {
	const shortID = pubsub.LetterRoom / 4
	n := len(msg.Data) + len("NATS/1.0\r\n\r\n")
	for k, v := range msg.Header {
		switch {
		case strings.HasPrefix(k, hdrUser+pubsub.LetterPrefix):
		case k == hdrMsgID, k == hdrID:
			n += max(len(v[0])-shortID, 0)
		default:
			n += len(k) + len(v[0]) + len(": \r\n")
		}
	}
	return int64(n)
}

func fill(errs []error, err error) []error {
	for i := range errs {
		errs[i] = err
	}
	return errs
}

// window is a run of messages whose answers are awaited together.
type window struct {
	op   string
	mu   sync.Mutex
	errs []error
	got  []bool // allocated with the first answer of more than one
	left int
	done chan struct{}
}

// answer notes the result of message i; the first one counts.
func (w *window) answer(i int, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.got == nil {
		w.got = make([]bool, len(w.errs))
	}
	if w.got[i] {
		return
	}
	w.got[i], w.errs[i] = true, err
	if w.left--; w.left == 0 {
		close(w.done)
	}
}

// fail answers all that wait.
func (w *window) fail(err error) {
	for i := range w.errs {
		w.answer(i, err)
	}
}

// results copies what was answered to errs.
func (w *window) results(errs []error) []error {
	w.mu.Lock()
	defer w.mu.Unlock()
	copy(errs, w.errs)
	return errs
}

// acks receives the server's answers to everything the broker publishes, on one subscription.
type acks struct {
	prefix string
	sub    *nats.Subscription
	mu     sync.Mutex
	next   uint64
	flying map[uint64]flight
}

type flight struct {
	w *window
	i int
}

func (a *acks) open(nc *nats.Conn) (err error) {
	a.prefix, a.flying = nc.NewInbox()+".", map[uint64]flight{}
	if a.sub, err = nc.Subscribe(a.prefix+"*", a.receive); err != nil {
		return err
	}
	return a.sub.SetPendingLimits(-1, -1) // bounded by the windows
}

// expect prepares for as many answers as w awaits and returns the number of the first.
func (a *acks) expect(w *window) (first uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	first = a.next
	for i := range w.left {
		a.flying[first+uint64(i)] = flight{w, i}
	}
	a.next += uint64(w.left)
	return first
}

func (a *acks) inbox(n uint64) string { return a.prefix + strconv.FormatUint(n, 36) }

func (a *acks) forget(first uint64, count int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for i := range count {
		delete(a.flying, first+uint64(i))
	}
}

// failAll answers everything that waits: the connection is gone, and what was sent may or may not be stored.
func (a *acks) failAll(cause error) {
	a.mu.Lock()
	all := make(map[*window]bool, len(a.flying))
	for _, f := range a.flying {
		all[f.w] = true
	}
	a.mu.Unlock()
	for w := range all {
		w.fail(fault.E(w.op, fault.Unavailable, fault.BackendDown, cause))
	}
}

func (a *acks) receive(m *nats.Msg) {
	n, err := strconv.ParseUint(lastToken(m.Subject), 36, 64)
	if err != nil {
		return
	}
	a.mu.Lock()
	f, ok := a.flying[n]
	a.mu.Unlock()
	if ok {
		f.w.answer(f.i, pubAck(f.w.op, m))
	}
}

// pubAck reads JetStream's answer to a publish. A duplicate is a success: the message is stored.
func pubAck(op string, m *nats.Msg) error {
	if len(m.Data) == 0 {
		if m.Header.Get("Status") == "503" {
			return fault.New(op, fault.FabricDown, "no JetStream stream takes the message: it has no leader now, or was deleted: %w", nats.ErrNoResponders)
		}
		return fault.New(op, fault.JetStreamRefused, "JetStream answered nothing")
	}
	var answer struct {
		Stream string `json:"stream"`
		Error  *struct {
			Code    int    `json:"code"`
			ErrCode int    `json:"err_code"`
			Text    string `json:"description"`
		} `json:"error"`
	}
	if err := json.Unmarshal(m.Data, &answer); err != nil {
		return fault.E(op, fault.None, fault.JetStreamRefused, fmt.Errorf("JetStream's answer cannot be read: %w", err))
	}
	if e := answer.Error; e != nil {
		return apiFault(op, e.Code, e.ErrCode, e.Text)
	}
	if answer.Stream == "" {
		return fault.New(op, fault.JetStreamRefused, "JetStream did not confirm that the message is stored")
	}
	return nil
}
