package appchannel_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sidecast/sidecast/appchannel"
	"github.com/sidecast/sidecast/appchannel/appchanneltest"
	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/routing"
)

// httpApp is an App behind plain HTTP.
type httpApp struct{ app *appchanneltest.App }

func (a httpApp) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch path := r.URL.Path[1:]; path {
	case "sidecast/subscriptions":
		type subscription struct {
			PubSub, Topic, Route, DeadLetterTopic string
			MaxDeliveries                         int
			Raw                                   bool
		}
		list := []subscription{}
		for _, s := range a.app.Subscriptions() {
			list = append(list, subscription{s.PubSub, s.Topic, s.Route, s.DeadLetterTopic, s.MaxDeliveries, s.Raw})
		}
		_ = json.NewEncoder(w).Encode(list)
	case "on-orders", "raw":
		body, _ := io.ReadAll(r.Body)
		outcome := a.app.Event(r.Context(), &appchannel.Event{Data: body})
		_ = json.NewEncoder(w).Encode(map[string]string{"status": []string{"SUCCESS", "RETRY", "DROP"}[outcome.Verdict]})
	case appchanneltest.Garbage:
		conn, _, err := w.(http.Hijacker).Hijack()
		if err == nil {
			_, _ = conn.Write([]byte("this is no HTTP\r\n\r\n"))
			conn.Close()
		}
	case appchanneltest.StreamEcho, appchanneltest.StreamEarly, appchanneltest.StreamFail, appchanneltest.StreamHang:
		control := http.NewResponseController(w)
		_ = control.EnableFullDuplex()
		stream := &httpStream{Reader: r.Body, w: w, control: control}
		if err := a.app.Stream(r.Context(), requestFrom(r), stream); err != nil && !stream.written {
			w.WriteHeader(fault.KindOf(err).HTTP())
		} else if err != nil {
			panic(http.ErrAbortHandler)
		}
	default:
		req := requestFrom(r)
		req.Body, _ = io.ReadAll(r.Body)
		response, err := a.app.Call(r.Context(), req)
		if err != nil {
			http.Error(w, err.Error(), fault.KindOf(err).HTTP())
			return
		}
		if response.ContentType != "" {
			w.Header().Set("Content-Type", response.ContentType)
		}
		for _, f := range response.Header {
			w.Header().Add(f.Key, f.Value)
		}
		_, _ = w.Write(response.Body)
	}
}

func requestFrom(r *http.Request) *call.Request {
	req := &call.Request{
		Method: r.URL.Path[1:], Verb: r.Method, Query: r.URL.RawQuery, Caller: r.Header.Get("Sidecast-Caller"),
		ContentType: r.Header.Get("Content-Type"),
	}
	for key, values := range r.Header {
		for _, value := range values {
			req.Header.Add(strings.ToLower(key), value)
		}
	}
	return req
}

type httpStream struct {
	io.Reader
	w       io.Writer
	control *http.ResponseController
	written bool
}

func (s *httpStream) Write(p []byte) (int, error) {
	s.written = true
	n, err := s.w.Write(p)
	if err == nil {
		err = s.control.Flush()
	}
	return n, err
}

// serveHTTP runs a handler on a port until kill.
func serveHTTP(t *testing.T, handler http.Handler, on string) (address string, kill func()) {
	listener := listen(t, on)
	server := &http.Server{Handler: handler, ErrorLog: log.New(io.Discard, "", 0)}
	served := make(chan struct{})
	go func() { defer close(served); _ = server.Serve(listener) }()
	var once sync.Once
	kill = func() { once.Do(func() { server.Close(); <-served }) }
	t.Cleanup(kill)
	return listener.Addr().String(), kill
}

func openHTTP(t *testing.T, c appchannel.Callback) *appchannel.HTTP {
	t.Helper()
	if c.Log == nil {
		c.Log = quiet
	}
	channel := appchannel.OpenHTTP(c)
	t.Cleanup(func() { _ = channel.Close(context.Background()) })
	return channel
}

func TestHTTPConformance(t *testing.T) {
	appchanneltest.Run(t, func(t *testing.T, app *appchanneltest.App) appchanneltest.Fixture {
		address, kill := serveHTTP(t, httpApp{app}, "")
		return appchanneltest.Fixture{
			Channel:  openHTTP(t, appchannel.Callback{Address: address, Concurrency: 200}),
			Kill:     func() { kill() },
			Restart:  func() { _, kill = serveHTTP(t, httpApp{app}, address) },
			Statuses: true,
		}
	})
}

// seen is what an app was asked.
type seen struct {
	*http.Request
	body string
}

// recorder answers as told and keeps what it was asked.
func recorder(answer func(w http.ResponseWriter, r *http.Request)) (http.Handler, <-chan seen) {
	requests := make(chan seen, 64)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		requests <- seen{r, string(body)}
		answer(w, r)
	}), requests
}

func TestHTTPRequest(t *testing.T) {
	handler, requests := recorder(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Add("X-Many", "1")
		w.Header().Add("X-Many", "2")
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(http.StatusFound)
	})
	address, _ := serveHTTP(t, handler, "")
	channel := openHTTP(t, appchannel.Callback{Address: address, Token: "secret"})
	response, err := channel.Invoke(t.Context(), &call.Request{
		Method: "orders/a%2Fb c?%", Verb: "GET", Query: "q=%20x", Caller: "shop",
		Header: call.Header{
			{Key: "accept", Value: "a"}, {Key: "accept", Value: "b"}, {Key: "connection", Value: "close, x-hop"}, {Key: "x-hop", Value: "1"},
			{Key: "te", Value: "trailers"}, {Key: "transfer-encoding", Value: "chunked"}, {Key: "content-length", Value: "99"},
			{Key: "host", Value: "evil"}, {Key: "traceparent", Value: "00-1-2-01"},
		},
	})
	if err != nil || response.Status != http.StatusFound || response.Header.Get("location") != "/elsewhere" {
		t.Fatalf("a redirect is an answer: %v %v", response, err)
	}
	if many := len(response.Header) - len(call.HeaderOf(response.Header.Map())); many != 1 {
		t.Errorf("header %v", response.Header)
	}
	r := <-requests
	if r.RequestURI != "/orders/a%2Fb%20c%3F%25?q=%20x" || r.Method != "GET" || r.Host != address {
		t.Errorf("%s %s at %s", r.Method, r.RequestURI, r.Host)
	}
	want := map[string]string{
		"Accept": "a,b", "X-Hop": "", "Te": "", "Transfer-Encoding": "", "Content-Length": "", "Traceparent": "00-1-2-01",
		"Sidecast-Caller": "shop", "Sidecast-Api-Token": "secret", "Dapr-Api-Token": "secret", "User-Agent": "", "Content-Type": "",
	}
	for key, value := range want {
		if got := strings.Join(r.Header[key], ","); got != value {
			t.Errorf("%s is %q, want %q", key, got, value)
		}
	}
}

func TestHTTPRefusesBadRequests(t *testing.T) {
	channel := openHTTP(t, appchannel.Callback{Address: "127.0.0.1:1"})
	for name, req := range map[string]*call.Request{
		"verb":  {Verb: "GET /x HTTP/1.1\r\nEvil:"},
		"key":   {Header: call.Header{{Key: "a b", Value: "c"}}},
		"value": {Header: call.Header{{Key: "a", Value: "b\r\nEvil: yes"}}},
	} {
		if _, err := channel.Invoke(t.Context(), req); fault.ReasonOf(err) != fault.BadRequest {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestHTTPMaxBody(t *testing.T) {
	const most = 1000
	for name, test := range map[string]struct {
		size    int
		chunked bool
		reason  fault.Reason
	}{
		"fits": {most, false, ""}, "fits in chunks": {most, true, ""},
		"too large": {most + 1, false, fault.AnswerTooLarge}, "too large in chunks": {most + 1, true, fault.AnswerTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			handler, _ := recorder(func(w http.ResponseWriter, _ *http.Request) {
				if test.chunked {
					w.(http.Flusher).Flush()
				}
				_, _ = w.Write(make([]byte, test.size))
			})
			address, _ := serveHTTP(t, handler, "")
			response, err := openHTTP(t, appchannel.Callback{Address: address, MaxBody: most}).Invoke(t.Context(), &call.Request{Method: "x"})
			if fault.ReasonOf(err) != test.reason || err == nil && len(response.Body) != test.size {
				t.Errorf("%v %v", response, err)
			}
		})
	}
}

func TestHTTPEvents(t *testing.T) {
	var status int
	var body, after string
	handler, requests := recorder(func(w http.ResponseWriter, _ *http.Request) {
		if after != "" {
			w.Header().Set("Retry-After", after)
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	})
	address, _ := serveHTTP(t, handler, "")
	channel := openHTTP(t, appchannel.Callback{Address: address})
	for _, test := range []struct {
		status      int
		body, after string
		want        appchannel.Verdict
		delay       time.Duration
	}{
		{200, "", "", appchannel.Success, 0},
		{204, "", "", appchannel.Success, 0},
		{200, "thanks", "", appchannel.Success, 0},
		{200, `{"status":"SUCCESS"}`, "", appchannel.Success, 0},
		{200, `{"other":1}`, "", appchannel.Success, 0},
		{200, `{"status":"RETRY"}`, "7", appchannel.Retry, 7 * time.Second},
		{200, `{"status":"RETRY","delay":"1m"}`, "", appchannel.Retry, time.Minute},
		{200, `{"status":"DROP"}`, "", appchannel.Drop, 0},
		{200, `{"status":"WHAT"}`, "", appchannel.Retry, 0},
		{404, "", "", appchannel.Drop, 0},
		{302, "", "", appchannel.Retry, 0},
		{429, "", "3", appchannel.Retry, 3 * time.Second},
		{500, "", "", appchannel.Retry, 0},
	} {
		status, body, after = test.status, test.body, test.after
		outcome, err := channel.Deliver(t.Context(), &appchannel.Event{Topic: "orders", Data: []byte("x")})
		if err != nil || outcome.Verdict != test.want || outcome.Delay != test.delay || (outcome.Reason == "") != (test.want == appchannel.Success) {
			t.Errorf("%d %s: %+v %v", test.status, test.body, outcome, err)
		}
		<-requests
	}
	trace := call.Header{{Key: "traceparent", Value: "00-1-2-01"}, {Key: "x-one", Value: "1"}}
	for _, event := range []appchannel.Event{
		{Topic: "orders", Route: "/on/orders", Data: []byte("x"), ContentType: "text/plain", Header: trace, Envelope: []byte(`{"id":"1"}`)},
		{Topic: "orders", Data: []byte("x"), ContentType: "text/plain", Header: trace},
	} {
		if _, err := channel.Deliver(t.Context(), &event); err != nil {
			t.Fatal(err)
		}
	}
	if r := <-requests; r.URL.Path != "/on/orders" || r.body != `{"id":"1"}` || r.Header.Get("Content-Type") != "application/cloudevents+json" ||
		r.Header.Get("Traceparent") == "" || r.Header.Get("X-One") != "" {
		t.Errorf("CloudEvent: %s %q %v", r.URL.Path, r.body, r.Header)
	}
	if r := <-requests; r.URL.Path != "/orders" || r.body != "x" || r.Header.Get("Content-Type") != "text/plain" || r.Header.Get("X-One") != "1" {
		t.Errorf("raw event: %s %q %v", r.URL.Path, r.body, r.Header)
	}
}

// What the app says of a bulk it says of each event.
func TestHTTPBulks(t *testing.T) {
	answer := func(body string) (status int, text string) {
		var bulk struct {
			Entries []struct {
				EntryID string
				Event   map[string]any
			}
		}
		if err := json.Unmarshal([]byte(body), &bulk); err != nil || len(bulk.Entries) != 1 {
			t.Errorf("a bulk is %s: %v", body, err)
			return 200, ""
		}
		said := fmt.Sprint(bulk.Entries[0].Event["data"])
		if said == "503" {
			return 503, ""
		}
		return 200, fmt.Sprintf(`{"statuses":[{"entryId":%q,"status":%q}]}`, bulk.Entries[0].EntryID, said)
	}
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/many" || r.Header.Get("Content-Type") != "application/json" {
			t.Errorf("a bulk came to %s as %s", r.URL.Path, r.Header.Get("Content-Type"))
		}
		body, _ := io.ReadAll(r.Body)
		status, text := answer(string(body))
		w.Header().Set("Retry-After", "3")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, text)
	})
	address, _ := serveHTTP(t, handler, "")
	channel := openHTTP(t, appchannel.Callback{Address: address})
	for say, want := range map[string]appchannel.Outcome{
		"SUCCESS": {Verdict: appchannel.Success}, "DROP": {Verdict: appchannel.Drop}, "RETRY": {Verdict: appchannel.Retry},
		"": {Verdict: appchannel.Retry}, "503": {Verdict: appchannel.Retry, Delay: 3 * time.Second},
	} {
		outcome, err := channel.Deliver(t.Context(), &appchannel.Event{
			Topic: "orders", Route: "/many", Envelope: []byte(`{"id":"1","data":"` + say + `"}`), Bulk: &appchannel.Bulk{Most: 1, Wait: time.Hour},
		})
		if err != nil || outcome.Verdict != want.Verdict || outcome.Delay != want.Delay {
			t.Errorf("%q: %+v %v", say, outcome, err)
		}
	}
}

// Raw payloads are bytes to the app, whatever their publisher called them, in a bulk as alone.
func TestHTTPBulksOfRawPayloads(t *testing.T) {
	came := make(chan string, 1)
	address, _ := serveHTTP(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		came <- string(body)
	}), "")
	channel := openHTTP(t, appchannel.Callback{Address: address})
	_, err := channel.Deliver(t.Context(), &appchannel.Event{
		Topic: "orders", Route: "/many", Raw: true, ContentType: "application/json", Data: []byte(`{"n":1}`), Bulk: &appchannel.Bulk{Most: 1, Wait: time.Hour},
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := <-came; !strings.Contains(got, `"event":"eyJuIjoxfQ==","metadata":null,"contentType":"application/octet-stream"`) {
		t.Errorf("the bulk is %s", got)
	}
}

func TestHTTPSubscriptions(t *testing.T) {
	for name, test := range map[string]struct {
		own, dapr string
		want      []appchannel.Subscription
	}{
		"none": {},
		"own": {
			own:  `[{"pubsub":"bus","topic":"a","route":"on-a","group":"g","deadLetterTopic":"d","maxDeliveries":4,"ackWait":"5s","raw":true,"onlyNew":true}]`,
			want: []appchannel.Subscription{{PubSub: "bus", Topic: "a", Route: "on-a", Group: "g", DeadLetterTopic: "d", MaxDeliveries: 4, AckWait: 5 * time.Second, Raw: true, OnlyNew: true}},
		},
		"dapr": {
			dapr: `[{"pubsubname":"bus","topic":"a","route":"/a"},{"pubsubname":"bus","topic":"b","routes":{"rules":[{"match":"event.type == \"y\"","path":"/y"}],"default":"/b"},"metadata":{"rawPayload":"true"},"deadLetterTopic":"d","bulkSubscribe":{"enabled":true,"maxMessagesCount":7,"maxAwaitDurationMs":20}},{"pubsubname":"bus","topic":"c","routes":{"rules":[{"match":"event.","path":"/y"}]}}]`,
			want: []appchannel.Subscription{{PubSub: "bus", Topic: "a", Route: "/a"}, {
				PubSub: "bus", Topic: "b", Route: "/b", Raw: true, DeadLetterTopic: "d", Bulk: &appchannel.Bulk{Most: 7, Wait: 20 * time.Millisecond},
				Metadata: map[string]string{"rawPayload": "true"}, Routes: []routing.Route{{Rule: rule(t, `event.type == "y"`), Path: "/y"}},
			}},
		},
		"both, and a page": {own: "<html>", dapr: `[{"pubsubname":"bus","topic":"a","route":"a"}]`, want: []appchannel.Subscription{{PubSub: "bus", Topic: "a", Route: "a"}}},
		"in the app's order, without what cannot be": {
			dapr: `[{"pubsubname":"bus","topic":"b","route":"/b"},{"pubsubname":"bus","route":"/none"},{"pubsubname":"bus","topic":"nowhere"},{"pubsubname":"bus","topic":"a","route":"/a"}]`,
			want: []appchannel.Subscription{{PubSub: "bus", Topic: "b", Route: "/b"}, {PubSub: "bus", Topic: "a", Route: "/a"}},
		},
		"no topic":         {own: `[{"pubsub":"bus"}]`},
		"a wrong duration": {own: `[{"topic":"a","ackWait":"soon"}]`},
	} {
		t.Run(name, func(t *testing.T) {
			failures := 1 // an app that is not quite there yet is asked again
			handler, _ := recorder(func(w http.ResponseWriter, r *http.Request) {
				text := map[string]string{"/sidecast/subscriptions": test.own, "/dapr/subscribe": test.dapr}[r.URL.Path]
				if failures--; failures >= 0 {
					w.WriteHeader(http.StatusInternalServerError)
				} else if text == "" {
					w.WriteHeader(http.StatusNotFound)
				}
				_, _ = io.WriteString(w, text)
			})
			address, _ := serveHTTP(t, handler, "")
			channel := openHTTP(t, appchannel.Callback{Address: address})
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var got []appchannel.Subscription
			var told []bool
			err := channel.Subscriptions(ctx, func(list []appchannel.Subscription) {
				if told = append(told, list != nil); list != nil {
					got = list
					cancel()
				}
			})
			if !slices.Equal(told, []bool{false, true}) {
				t.Errorf("told of a failure, and then of the list: %v", told)
			}
			if err != nil || !slices.EqualFunc(got, test.want, appchannel.Subscription.Equal) {
				t.Errorf("got %+v, want %+v: %v", got, test.want, err)
			}
		})
	}
}

func rule(t *testing.T, text string) routing.Rule {
	t.Helper()
	r, err := routing.Compile(text)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestHTTPHealthOfAnAppThatIsThere checks an app that takes connections before its channel is made: the race detector tells
// of a check that does not await the whole channel.
func TestHTTPHealthOfAnAppThatIsThere(t *testing.T) {
	checked := make(chan struct{}, 1000)
	address, _ := serveHTTP(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { checked <- struct{}{} }), "")
	for range 50 {
		channel := appchannel.OpenHTTP(appchannel.Callback{Address: address, Health: appchannel.Health{Enabled: true, Interval: time.Hour}})
		<-checked
		if err := channel.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestHTTPReadiness(t *testing.T) {
	listener := listen(t, "")
	address := listener.Addr().String()
	listener.Close()
	ready := make(chan error, 16)
	channel := openHTTP(t, appchannel.Callback{
		Address: address, OnReady: func(err error) { ready <- err },
		Health: appchannel.Health{Enabled: true, Interval: time.Millisecond, Threshold: 2},
	})
	if err := channel.Ready(); fault.ReasonOf(err) != fault.AppNotConnected {
		t.Errorf("before the port is open: %v", err)
	}
	if _, err := channel.Invoke(t.Context(), &call.Request{Method: "x"}); fault.ReasonOf(err) != fault.AppUnreachable || !fault.NotSent(err) {
		t.Errorf("before the port is open: %v", err)
	}
	var sick atomic.Bool
	_, kill := serveHTTP(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/healthz" && sick.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}), address)
	if err := <-ready; err != nil {
		t.Fatal(err)
	}
	sick.Store(true)
	if err := <-ready; fault.ReasonOf(err) != fault.AppUnhealthy {
		t.Fatal(err)
	}
	if _, err := channel.Invoke(t.Context(), &call.Request{Method: "x"}); fault.ReasonOf(err) != fault.AppUnhealthy || !fault.NotSent(err) {
		t.Errorf("an unhealthy app was called: %v", err)
	}
	sick.Store(false)
	if err := <-ready; err != nil {
		t.Fatal(err)
	}
	kill()
	if err := <-ready; err == nil {
		t.Error("a dead app is ready")
	}
}

// TestHTTPRepeated is a GET on a kept connection that the app cuts when it closes its port. net/http repeats the GET and
// finds the port closed: that must not pass for a call that was never sent.
func TestHTTPRepeated(t *testing.T) {
	listener := listen(t, "")
	served := make(chan struct{})
	go func() {
		defer close(served)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			reader := bufio.NewReader(conn)
			for calls := 0; ; calls++ {
				if _, err := http.ReadRequest(reader); err != nil {
					break
				}
				if calls == 1 {
					listener.Close()
					break
				}
				_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
			}
			conn.Close()
		}
	}()
	channel := openHTTP(t, appchannel.Callback{Address: listener.Addr().String()})
	if _, err := channel.Invoke(t.Context(), &call.Request{Method: "x", Verb: "GET"}); err != nil {
		t.Fatal(err)
	}
	_, err := channel.Invoke(t.Context(), &call.Request{Method: "x", Verb: "GET"})
	if fault.KindOf(err) != fault.Unavailable || fault.NotSent(err) {
		t.Errorf("want a call that may have been done, got %v", err)
	}
	listener.Close()
	<-served
}

func TestNone(t *testing.T) {
	if err := appchannel.None.Ready(); err != nil {
		t.Error(err)
	}
	if _, err := appchannel.None.Invoke(t.Context(), &call.Request{Method: "x"}); fault.ReasonOf(err) != fault.NoApp {
		t.Error(err)
	}
	if _, err := appchannel.None.Deliver(t.Context(), &appchannel.Event{}); !fault.NotSent(err) {
		t.Error(err)
	}
}
