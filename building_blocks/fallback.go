package blocks

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/sidecast/sidecast/actors"
	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/resiliency"
)

// FallbackHeader marks an answer that a fallback gave from the past or from another app: `last-good` or `app`.
const FallbackHeader = "sidecast-fallback"

// maxKept is the largest answer that is kept as a last good one, in bytes.
const maxKept = 64 << 10

// invokeFallback answers unary calls in place of a lane that gave up on them.
type invokeFallback struct {
	// invoke asks another app, once and without a fallback of its own.
	invoke func(ctx context.Context, req *call.Request) (*call.Response, error)
	last   lastGood[*call.Response]
}

// settlement is settle, or what does without a fallback.
type settlement func(f *invokeFallback, ctx context.Context, lane *actors.Lane, req *call.Request, resp *call.Response, err error) (*call.Response, error)

// ignore passes on what came of req, whatever the lane's fallback is.
func (f *invokeFallback) ignore(_ context.Context, _ *actors.Lane, _ *call.Request, resp *call.Response, err error) (*call.Response, error) {
	return resp, err
}

// settle passes on what came of req in lane, or what the lane's fallback answers in its place.
func (f *invokeFallback) settle(ctx context.Context, lane *actors.Lane, req *call.Request, resp *call.Response, err error) (*call.Response, error) {
	if err == nil {
		if rule := lane.Policy().Keeps(); rule != nil && isRead(req) {
			if good := wholeOf(req, resp); good != nil && len(good.Body) <= maxKept {
				f.last.keep(rule, requestKey(req), good)
			}
		}
		return resp, nil
	}
	if req.Pieces.Taken() {
		return resp, err // the caller has had the beginning of an answer, in place of which nothing comes
	}
	rule := lane.FallbackFor(err)
	switch {
	case rule == nil:
		return resp, err
	case rule.App != "":
		other := attempted(actors.Grant{}, req)
		if other == req {
			other = new(*req)
		}
		other.App = rule.App
		other.Pieces = other.Pieces.Through(func(to call.Sink) call.Sink { return fromOther{to} })
		answer, otherErr := f.invoke(ctx, other)
		if otherErr != nil {
			if err = alsoFailed(err, "the fallback app "+rule.App, otherErr); req.Pieces.Taken() {
				return nil, brokenOff(err, otherErr)
			}
			return resp, err
		}
		fellBack(ctx, lane, "app")
		return marked(answer, "app"), nil
	case rule.LastGood:
		if !isRead(req) {
			return resp, err
		}
		kept, age, ok := f.last.find(rule, requestKey(req))
		if !ok {
			return resp, err
		}
		fellBack(ctx, lane, "last-good")
		answer := marked(kept, "last-good")
		answer.Header.Set("age", strconv.Itoa(int(age/time.Second)))
		return answer, nil
	}
	fellBack(ctx, lane, "static")
	return staticAnswer(rule), nil
}

// brokenOff is err of a call whose caller has had the beginning of another answer in its place, before other broke it off. That a
// caller went away says nothing of a target.
func brokenOff(err, other error) error {
	if fault.KindOf(other) == fault.Canceled {
		return other
	}
	return err
}

// writtenAnswer is what the policy of a lane writes down in place of err, for a call in pieces: nil where it has the past or
// another app answer, which such a call cannot have.
func writtenAnswer(lane *actors.Lane, err error) *call.Response {
	if err == nil {
		return nil
	}
	if rule := lane.FallbackFor(err); rule != nil && rule.Status != 0 {
		return staticAnswer(rule)
	}
	return nil
}

// keeping is a caller that takes an answer in pieces of which a copy is kept, unless it is too large, or breaks off.
type keeping struct {
	call.Sink
	answer *call.Response
	whole  bool
}

// keepingLast is req, of which the answer is kept if it passes in pieces and the lanes of g answer with the last good one.
func keepingLast(g *guard, req *call.Request) *call.Request {
	if req.Pieces == nil || !isRead(req) || !g.keeps(req.Verb, req.Method) {
		return req
	}
	own := *req
	own.Pieces = req.Pieces.Through(func(to call.Sink) call.Sink { return &keeping{Sink: to} })
	return &own
}

// Begin implements call.Sink.
func (k *keeping) Begin(head *call.Response) error {
	own := *head
	k.answer = &own
	return k.Sink.Begin(head)
}

// Send implements call.Sink.
func (k *keeping) Send(piece []byte) error {
	switch {
	case k.answer == nil:
	case len(k.answer.Body)+len(piece) > maxKept:
		k.answer = nil
	default:
		k.answer.Body = append(k.answer.Body, piece...)
	}
	return k.Sink.Send(piece)
}

// End implements call.Sink.
func (k *keeping) End(trailer call.Header) {
	if k.answer != nil {
		k.answer.Trailer, k.whole = trailer, true
	}
	k.Sink.End(trailer)
}

// wholeOf is the whole answer to req, or nil if it has passed and was not kept.
func wholeOf(req *call.Request, resp *call.Response) *call.Response {
	if !resp.Passed {
		return resp
	}
	if k, ok := req.Pieces.Sink().(*keeping); ok && k.whole {
		return k.answer
	}
	return nil
}

// staticAnswer is the answer that a policy writes down.
func staticAnswer(rule *resiliency.Fallback) *call.Response {
	answer := &call.Response{Status: rule.Status, Body: rule.Body, Header: make(call.Header, 0, len(rule.Header))}
	for _, field := range rule.Header {
		if field.Key == "content-type" {
			answer.ContentType = field.Value
			continue
		}
		answer.Header.Add(field.Key, field.Value)
	}
	return answer
}

// marked is a copy of an answer that says where it comes from. The body is shared: nobody writes to it.
func marked(resp *call.Response, from string) *call.Response {
	own := *resp
	own.Header = append(make(call.Header, 0, len(resp.Header)+2), resp.Header...)
	own.Header.Set(FallbackHeader, from)
	return &own
}

// fromOther marks an answer in pieces as one of another app.
type fromOther struct{ call.Sink }

// Begin implements call.Sink.
func (o fromOther) Begin(head *call.Response) error { return o.Sink.Begin(marked(head, "app")) }

// alsoFailed is err of a call whose fallback failed with other.
func alsoFailed(err error, who string, other error) error {
	e, ok := err.(*fault.Error)
	if !ok {
		return err
	}
	own := *e
	own.Err = fmt.Errorf("%w (%s failed too: %w)", e.Err, who, other)
	return &own
}

// isRead reports whether the answer to req says something about the answer to the same request later. A write that may be
// repeated is none: an old answer to it would claim that it was done. Of calls without a verb only their callers know.
func isRead(req *call.Request) bool {
	switch req.Verb {
	case http.MethodGet, http.MethodHead:
		return true
	case "":
		return req.Idempotent
	}
	return false
}

// key is a request, condensed.
type key [sha256.Size]byte

// requestKey is the same for requests that ask the same as the same user: all but their traces is in it.
func requestKey(req *call.Request) key {
	parts := []string{req.App, req.Namespace, req.Method, req.Caller, req.CallerNamespace, req.Verb, req.Query, req.ContentType, string(req.Body)}
	for _, field := range req.Header {
		switch field.Key {
		case "traceparent", "tracestate", "baggage", "x-request-id":
			continue
		}
		parts = append(parts, field.Key, field.Value)
	}
	return partsKey(parts...)
}

// partsKey condenses words, each with its length, so that no two lists of them run into one.
func partsKey(parts ...string) key {
	h := sha256.New()
	for _, part := range parts {
		var size [8]byte
		binary.LittleEndian.PutUint64(size[:], uint64(len(part)))
		h.Write(size[:])
		h.Write([]byte(part))
	}
	return key(h.Sum(nil))
}

// lastGood keeps the last good answers to reads, the least recently used of them least long. The zero value keeps none
// yet.
type lastGood[T any] struct {
	mu      sync.Mutex
	answers *lru.Cache[key, kept[T]]
}

type kept[T any] struct {
	answer T
	at     time.Time
}

// room returns the cache with as many places as rule says.
func (g *lastGood[T]) room(rule *resiliency.Fallback) *lru.Cache[key, kept[T]] {
	places := rule.MaxEntries
	if places <= 0 {
		places = resiliency.DefaultMaxEntries
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.answers == nil {
		g.answers, _ = lru.New[key, kept[T]](places) // fails only for no places
	}
	g.answers.Resize(places)
	return g.answers
}

func (g *lastGood[T]) keep(rule *resiliency.Fallback, k key, answer T) {
	g.room(rule).Add(k, kept[T]{answer, time.Now()})
}

// find returns the answer kept for k and its age, if it is not too old.
func (g *lastGood[T]) find(rule *resiliency.Fallback, k key) (answer T, age time.Duration, ok bool) {
	most := rule.MaxAge
	if most <= 0 {
		most = resiliency.DefaultMaxAge
	}
	found, ok := g.room(rule).Get(k)
	age = time.Since(found.at)
	if !ok || age > most {
		return answer, 0, false
	}
	return found.answer, age, true
}
