package appchannel

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/pipeline"
	"github.com/sidecast/sidecast/routing"
)

// maxControl bounds the answers that the channel itself reads: outcomes, lists of subscriptions.
const maxControl = 1 << 20

// Deliver posts the event to its route, as a CloudEvent in JSON or raw as it was stored; one that may go with others in a
// bulk, in Dapr's form.
func (h *HTTP) Deliver(ctx context.Context, event *Event) (Outcome, error) {
	route := needOf(event).name
	op := "deliver " + route
	if event.Bulk != nil {
		return h.bulks.deliver(ctx, h.port.Meter, event, h.deliverBulk)
	}
	req := &call.Request{Method: route, ContentType: event.ContentType, Header: event.Header, Body: event.Data}
	switch {
	case h.port.Dapr:
		envelope, err := daprEnvelope(event)
		if err != nil {
			return unsayable(err), nil
		}
		req.ContentType, req.Body = "application/cloudevents+json", envelope
		req.Header = append(traceOf(event.Header), call.Field{Key: "pubsubname", Value: event.PubSub})
		req.Header = append(req.Header, besideFields(event)...)
	case event.Envelope != nil:
		req.ContentType, req.Body, req.Header = "application/cloudevents+json", event.Envelope, traceOf(event.Header)
	}
	r, err := h.request(op, req, bytes.NewReader(req.Body), int64(len(req.Body)))
	if err != nil {
		return Outcome{}, err
	}
	response, done, err := h.send(ctx, op, r)
	if err != nil {
		return Outcome{}, err
	}
	defer done()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxControl))
	if err != nil {
		return Outcome{}, cutOff(ctx, op, err)
	}
	return h.outcome(op, response, body), nil
}

// traceOf keeps the fields by which tracing continues; the envelope holds all others.
func traceOf(header call.Header) call.Header {
	var trace call.Header
	for _, f := range header {
		switch f.Key {
		case "traceparent", "tracestate", "baggage":
			trace = append(trace, f)
		}
	}
	return trace
}

// outcome reads the app's answer to an event, as Dapr apps give it: a 2xx is success unless its JSON says otherwise, a
// body that is no such JSON says nothing, 404 drops, anything else asks for the event again.
func (h *HTTP) outcome(op string, response *http.Response, body []byte) Outcome {
	delay := call.RetryAfter(response.Header.Get("Retry-After"), time.Now())
	switch status := response.StatusCode; {
	case status == http.StatusNotFound:
		return Outcome{Status: response.StatusCode, Verdict: Drop, Reason: NoRoute}
	case status < 200 || status > 299:
		return Outcome{Status: response.StatusCode, Verdict: Retry, Delay: delay, Reason: "the app answered " + response.Status}
	case len(bytes.TrimSpace(body)) == 0:
		return Outcome{Status: response.StatusCode, Verdict: Success}
	}
	var said struct {
		Status, Delay, Reason string
	}
	if err := json.Unmarshal(body, &said); err != nil {
		h.port.Log.Debug("the app's answer to an event is no outcome in JSON; it counts as success", "op", op, "error", err)
		return Outcome{Status: response.StatusCode, Verdict: Success}
	}
	if d, err := time.ParseDuration(said.Delay); err == nil {
		delay = max(0, d)
	}
	switch said.Status {
	case "", "SUCCESS":
		return Outcome{Status: response.StatusCode, Verdict: Success}
	case "RETRY":
		return Outcome{Status: response.StatusCode, Verdict: Retry, Delay: delay, Reason: cmp.Or(said.Reason, "the app answered RETRY")}
	case "DROP":
		return Outcome{Status: response.StatusCode, Verdict: Drop, Reason: cmp.Or(said.Reason, "the app answered DROP")}
	}
	return Outcome{Status: response.StatusCode, Verdict: Retry, Delay: delay, Reason: "the app answered with the unknown status " + strconv.Quote(said.Status)}
}

// Subscriptions asks the app each time it becomes ready.
func (h *HTTP) Subscriptions(ctx context.Context, changed func([]Subscription)) error {
	if h.port.NoSubscribe {
		return h.port.unasked(ctx, changed)
	}
	return h.port.subscriptions(ctx, changed, h.listSubscriptions)
}

// Greet asks an app of Dapr's for its configuration. There are no actors, which is what it would say; but it may wait to be asked.
func (h *HTTP) Greet(ctx context.Context) {
	if h.port.Dapr && h.port.NoConfig {
		h.port.Log.Warn("Skipping programmatic dapr configuration loading (see 'disable-init-endpoints' flag/annotation)")
	}
	if !h.port.Dapr || h.port.NoConfig {
		return
	}
	ctx, done := context.WithCancel(ctx)
	defer done()
	_ = h.port.whileReady(ctx, "configuration", longestPause, func(ctx context.Context) error {
		defer done()
		if status, _, err := h.get(ctx, http.MethodGet, "dapr/config"); err == nil {
			h.port.Log.Debug("the app was asked for its configuration", "status", status)
		}
		return nil
	}, func() {})
}

// listSubscriptions reads both lists an app may have. One that is not there is empty.
func (h *HTTP) listSubscriptions(ctx context.Context) ([]Subscription, error) {
	if h.port.Dapr {
		return h.list(ctx, "dapr/subscribe", h.daprSubscriptions)
	}
	own, err := h.list(ctx, "sidecast/subscriptions", ownSubscriptions)
	if err != nil {
		return nil, err
	}
	dapr, err := h.list(ctx, "dapr/subscribe", h.daprSubscriptions)
	return append(own, dapr...), err
}

func (h *HTTP) list(ctx context.Context, path string, parse func([]byte) ([]Subscription, error)) ([]Subscription, error) {
	status, body, err := h.get(ctx, http.MethodGet, path)
	switch {
	case err != nil:
		return nil, err
	case status >= 500 && status != http.StatusNotImplemented:
		return nil, fault.New("app over http: GET /"+path, fault.AppFailed, "the app answered %d", status)
	case status != http.StatusOK:
		return nil, nil
	}
	all, err := parse(body)
	if err != nil { // asking again would bring the same: some apps answer any path with a page
		h.port.Log.Warn("the app's list of subscriptions is not valid and is ignored", "path", "/"+path, "error", err)
		return nil, nil
	}
	return all, nil
}

// get is ask, measured.
func (h *HTTP) get(ctx context.Context, method, path string) (int, []byte, error) {
	began := time.Now()
	header := make(http.Header, 4)
	if h.port.Dapr { // as daprd has it
		header["Content-Type"] = []string{"application/json"}
		if method == http.MethodGet && h.port.AppID != "" {
			header["Dapr-App-Id"] = []string{h.port.AppID} // by which an app behind a proxy is found
		}
	}
	r, response, body, err := h.ask(ctx, method, path, header, h.port.Pipeline)
	measure(h.port.Meter, r, response, time.Since(began))
	if response == nil {
		return 0, nil, err
	}
	return response.StatusCode, body, err
}

// ask asks the app something on behalf of the channel itself; header is the request's, and is added to. Of an answer the body is read.
func (h *HTTP) ask(ctx context.Context, method, path string, header http.Header, through *pipeline.Client) (*http.Request, *http.Response, []byte, error) {
	r := &http.Request{Method: method, URL: h.url(path), Host: h.port.Address, Header: header}
	h.sign(r.Header)
	response, err := through.RoundTrip(h.transport, r.WithContext(ctx))
	if err != nil {
		return r, nil, nil, cutOff(ctx, "app over http: "+method+" /"+path, err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxControl))
	return r, response, body, err
}

// healthy is one health check.
func (h *HTTP) healthy(ctx context.Context) error {
	began := time.Now()
	_, response, _, err := h.ask(ctx, http.MethodGet, h.port.Health.Path, make(http.Header, 2), nil)
	status := http.StatusInternalServerError
	if response != nil {
		status = response.StatusCode
	}
	if h.port.Meter != nil {
		h.port.Meter.HTTPProbed(status, time.Since(began))
	}
	most := 399
	if h.port.Dapr {
		most = 299
	}
	if err == nil && (status < 200 || status > most) {
		err = fault.New("app over http: GET "+h.port.Health.Path, fault.AppUnhealthy, "the app answered %d", status)
	}
	return err
}

// ownSubscriptions reads the answer of /sidecast/subscriptions: a JSON list whose fields are those of Subscription, in
// lower camel case, durations as in `30s`.
func ownSubscriptions(body []byte) ([]Subscription, error) {
	var list []struct {
		PubSub, Topic, Group, Route, DeadLetterTopic, AckWait string
		MaxDeliveries                                         int
		Raw, OnlyNew                                          bool
	}
	if err := json.Unmarshal(body, &list); err != nil {
		return nil, err
	}
	all := make([]Subscription, 0, len(list))
	for _, s := range list {
		if s.Topic == "" {
			return nil, fault.New("app over http", fault.AppAnswer, "a subscription names no topic")
		}
		var wait time.Duration
		if s.AckWait != "" {
			var err error
			if wait, err = time.ParseDuration(s.AckWait); err != nil {
				return nil, err
			}
		}
		all = append(all, Subscription{
			PubSub: s.PubSub, Topic: s.Topic, Group: s.Group, Route: s.Route, DeadLetterTopic: s.DeadLetterTopic,
			MaxDeliveries: max(0, s.MaxDeliveries), AckWait: max(0, wait), Raw: s.Raw, OnlyNew: s.OnlyNew,
		})
	}
	return all, nil
}

// daprSubscriptions reads the answer of /dapr/subscribe, in both of its versions. A subscription without a topic, without a
// route or with a rule that is no expression is left out: the others are not at fault.
func (h *HTTP) daprSubscriptions(body []byte) ([]Subscription, error) {
	var list []struct {
		PubSubName, Topic, Route, DeadLetterTopic string
		Routes                                    struct {
			Default string
			Rules   []struct{ Match, Path string }
		}
		BulkSubscribe struct {
			Enabled                              bool
			MaxMessagesCount, MaxAwaitDurationMs int64
		}
		Metadata map[string]string
	}
	if len(bytes.TrimSpace(body)) == 0 {
		return nil, nil
	}
	if err := json.Unmarshal(body, &list); err != nil {
		return nil, err
	}
	all := make([]Subscription, 0, len(list))
	for _, s := range list {
		sub := Subscription{
			PubSub: s.PubSubName, Topic: s.Topic, Route: cmp.Or(s.Routes.Default, s.Route), DeadLetterTopic: s.DeadLetterTopic, Metadata: s.Metadata,
		}
		sub.Raw, _ = RawPayload(s.Metadata)
		var wrong error
		switch {
		case s.Topic == "":
			wrong = fault.New("app over http", fault.AppAnswer, "a subscription names no topic")
		case sub.Route == "" && len(s.Routes.Rules) == 0:
			wrong = fault.New("app over http", fault.AppAnswer, "a subscription names no route")
		}
		for _, r := range s.Routes.Rules {
			rule, err := routing.Compile(r.Match)
			wrong = errors.Join(wrong, err)
			sub.Routes = append(sub.Routes, routing.Route{Rule: rule, Path: r.Path})
		}
		if wrong != nil {
			h.port.Log.Error("a subscription of the app is not valid and is ignored", "topic", s.Topic, "error", wrong)
			continue
		}
		if s.BulkSubscribe.Enabled {
			sub.Bulk = bulkOf(s.BulkSubscribe.MaxMessagesCount, s.BulkSubscribe.MaxAwaitDurationMs)
		}
		all = append(all, sub)
	}
	return all, nil
}
