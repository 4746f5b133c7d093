package appchannel

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	commonv1 "github.com/dapr/dapr/pkg/proto/common/v1"
	runtimev1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/fault/faultgrpc"
)

// BindingTaker is a Channel to an app that takes the events of input bindings. Dapr's protocols have them.
type BindingTaker interface {
	// Bindings tells which of inputs the app takes events of: none while it is not ready, and again whenever that changes,
	// until ctx ends.
	Bindings(ctx context.Context, inputs []InputBinding, changed func(wanted []string)) error
	// TakeBinding hands the app an event.
	TakeBinding(ctx context.Context, event *BindingEvent) (*BindingAnswer, error)
}

var (
	_ BindingTaker = (*HTTP)(nil)
	_ BindingTaker = (*Dapr)(nil)
)

// InputBinding is a binding whose events the app may want.
type InputBinding struct {
	// Name is the component's, Route the path of an HTTP app. Declared says that the app wants the events unasked.
	Name, Route string
	Declared    bool
}

// BindingEvent is an event of an input binding.
type BindingEvent struct {
	InputBinding
	Data     []byte
	Metadata map[string]string
	// Header holds the trace context.
	Header call.Header
}

// BindingAnswer is what the app answers to an event of a binding: bytes for the binding, and in Dapr's form what is to be done.
type BindingAnswer struct {
	// Status is that of an HTTP app, 0 of others.
	Status int
	Header call.Header
	Body   []byte
	// To names output bindings that Data, which is JSON, goes to, one after the other or at once.
	To       []string
	Data     []byte
	Parallel bool
	// State is saved in the state store of the name StoreName.
	StoreName string
	State     []StateItem
}

// StateItem is an item that the app wants saved.
type StateItem struct {
	Key, ETag string
	Value     []byte
	Metadata  map[string]string
	// Concurrency is `first-write`, `last-write` or "".
	Concurrency string
}

// Bindings asks the app each time it becomes ready: OPTIONS of the path of each binding says that there is such a path. One that
// does not answer is asked again and holds up no other.
func (h *HTTP) Bindings(ctx context.Context, inputs []InputBinding, changed func([]string)) error {
	q := &options{http: h, inputs: inputs, takes: make(map[string]bool)}
	return h.port.whileReady(ctx, "bindings", h.port.BindingTimeout*time.Duration(len(inputs)), func(ctx context.Context) error {
		if epoch := h.port.now(); epoch != q.epoch { // an app that is new says it anew
			q.epoch = epoch
			clear(q.takes)
		}
		if declared := q.wanted(); !q.told && len(declared) > 0 {
			changed(declared)
		}
		err := q.ask(ctx)
		q.told = true
		changed(q.wanted())
		return err
	}, func() {
		q.told = false
		changed(nil)
	})
}

// options are what an HTTP app says about bindings.
type options struct {
	http   *HTTP
	inputs []InputBinding
	told   bool            // of the app that is ready, something is told
	epoch  int             // when it was asked
	takes  map[string]bool // its answers since, by name
}

// ask asks about those that have no answer yet.
func (q *options) ask(ctx context.Context) error {
	var failed []error
	for _, in := range q.inputs {
		if _, known := q.takes[in.Name]; known || in.Declared {
			continue
		}
		asking, cancel := context.WithTimeout(ctx, q.http.port.BindingTimeout)
		status, _, err := q.http.get(asking, http.MethodOptions, in.Route)
		cancel()
		if err != nil {
			failed = append(failed, err)
			continue
		}
		q.takes[in.Name] = status/100 == 2 || status == http.StatusMethodNotAllowed
	}
	return errors.Join(failed...)
}

// wanted are the bindings that the app wants, as far as it is known.
func (q *options) wanted() []string {
	var names []string
	for _, in := range q.inputs {
		if in.Declared || q.takes[in.Name] {
			names = append(names, in.Name)
		}
	}
	return names
}

// TakeBinding posts the event to its route. Metadata becomes header fields, as far as it can and does not pass for what only a
// sidecar says.
func (h *HTTP) TakeBinding(ctx context.Context, event *BindingEvent) (*BindingAnswer, error) {
	op := "binding " + event.Name
	req := &call.Request{Method: event.Route, ContentType: "application/json", Header: traceOf(event.Header), Body: event.Data}
	for _, key := range slices.Sorted(maps.Keys(event.Metadata)) {
		name, value := strings.ToLower(key), event.Metadata[key]
		if isToken(key) && !sidecars(name) && !strings.ContainsFunc(value, forbidden) && req.Header.Get(name) == "" {
			req.Header.Add(name, value)
		}
	}
	r, err := h.request(op, req, bytes.NewReader(req.Body), int64(len(req.Body)))
	if err != nil {
		return nil, err
	}
	response, done, err := h.send(ctx, op, r)
	if err != nil {
		return nil, err
	}
	defer done()
	answer := &BindingAnswer{Status: response.StatusCode, Header: headOf(response).Header}
	if answer.Body, err = h.readBody(ctx, op, response); err != nil {
		return nil, err
	}
	if response.StatusCode/100 == 2 {
		answer.read()
	}
	return answer, nil
}

// sidecars says whether a header field is one by which an app knows its sidecar, or the caller of an invocation. Who sends an
// event to a system outside must not be able to write it.
func sidecars(name string) bool {
	return name == "dapr-api-token" || strings.HasPrefix(name, "sidecast-") || strings.HasPrefix(name, "dapr-caller-") || strings.HasPrefix(name, "dapr-callee-")
}

// read finds in the body what Dapr's API says that an answer may ask for. What is no such JSON asks for nothing.
func (a *BindingAnswer) read() {
	var said struct {
		Data        json.RawMessage
		To          []string
		StoreName   string
		Concurrency string
		State       []struct {
			Key      string
			Value    json.RawMessage
			ETag     *string
			Metadata map[string]string
			Options  struct{ Concurrency string }
		}
	}
	if trimmed := bytes.TrimSpace(a.Body); len(trimmed) == 0 || trimmed[0] != '{' || json.Unmarshal(trimmed, &said) != nil {
		return
	}
	a.To, a.Data, a.StoreName, a.Parallel = said.To, asJSON(said.Data), said.StoreName, said.Concurrency == "parallel"
	for _, s := range said.State {
		item := StateItem{Key: s.Key, Value: asJSON(s.Value), Metadata: s.Metadata, Concurrency: s.Options.Concurrency}
		if s.ETag != nil {
			item.ETag = *s.ETag
		}
		a.State = append(a.State, item)
	}
}

// asJSON is data without white space: text when it is no JSON, and null when it is nothing.
func asJSON(data []byte) []byte {
	var compact bytes.Buffer
	switch {
	case len(data) == 0:
		return []byte("null")
	case json.Compact(&compact, data) == nil:
		return compact.Bytes()
	}
	text, _ := json.Marshal(string(data))
	return text
}

// Bindings asks the app each time it becomes ready. One that fails to tell has named none, as with daprd: some SDKs panic there.
func (d *Dapr) Bindings(ctx context.Context, inputs []InputBinding, changed func([]string)) error {
	return d.port.whileReady(ctx, "bindings", d.port.BindingTimeout, func(ctx context.Context) error {
		answer, err := d.app.ListInputBindings(d.outgoing(ctx, nil), &emptypb.Empty{}, grpc.WaitForReady(true))
		switch code := status.Code(err); {
		case code == codes.Unavailable || code == codes.DeadlineExceeded || ctx.Err() != nil:
			return faultgrpc.From(err)
		case code != codes.OK && code != codes.Unimplemented:
			d.port.Log.Warn("the app failed to tell its bindings, so it has named none", "error", err)
		}
		var wanted []string
		for _, in := range inputs {
			if in.Declared || slices.Contains(answer.GetBindings(), in.Name) {
				wanted = append(wanted, in.Name)
			}
		}
		changed(wanted)
		return nil
	}, func() { changed(nil) })
}

// TakeBinding makes one OnBindingEvent.
func (d *Dapr) TakeBinding(ctx context.Context, event *BindingEvent) (*BindingAnswer, error) {
	op := "binding " + event.Name
	if err := d.port.begin(ctx, op); err != nil {
		return nil, err
	}
	defer d.port.end()
	var from peer.Peer
	answer, err := d.app.OnBindingEvent(d.outgoing(ctx, traceOf(event.Header)),
		&runtimev1.BindingEventRequest{Name: event.Name, Data: event.Data, Metadata: event.Metadata}, grpc.Peer(&from))
	if err != nil {
		return nil, d.answered(ctx, op, &from, false, err)
	}
	out := &BindingAnswer{
		Body: answer.GetData(), To: answer.GetTo(), Data: asJSON(answer.GetData()), StoreName: answer.GetStoreName(),
		Parallel: answer.GetConcurrency() == runtimev1.BindingEventResponse_PARALLEL,
	}
	for _, s := range answer.GetStates() {
		item := StateItem{Key: s.GetKey(), Value: s.GetValue(), ETag: s.GetEtag().GetValue(), Metadata: s.GetMetadata()}
		if s.GetOptions().GetConcurrency() == commonv1.StateOptions_CONCURRENCY_FIRST_WRITE {
			item.Concurrency = "first-write"
		}
		out.State = append(out.State, item)
	}
	return out, nil
}
