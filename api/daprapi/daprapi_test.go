package daprapi

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/dapr/dapr/pkg/messages/errorcodes"
	commonv1 "github.com/dapr/dapr/pkg/proto/common/v1"
	runtimev1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"pgregory.net/rapid"

	"github.com/sidecast/sidecast/api/bodies"
	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/call/rawjson"
	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/telemetry"
)

func TestTargetOf(t *testing.T) {
	for _, c := range []struct{ path, app, method string }{
		{"/v1.0/invoke/app/method/a/b", "app", "a/b"},
		{"/v1.0/invoke/app/method/", "app", ""},
		{"//v1.0//invoke//app/method/a//b/../c", "app", "a/c"},
		{"/v1.0/invoke/http://example.com/method/x", "http://example.com", "x"},
		{"/v1.0/invoke/app.space/method/x", "app.space", "x"},
		{"/v1.0/invoke/app/method/x/method/y", "app", "x/method/y"},
		{"/v1.0/invoke/app", "", ""},
		{"/v1.0/invoke//method/x", "", ""},
		{"/v1.0/other/app/method/x", "", ""},
		{"/", "", ""},
	} {
		r := &http.Request{URL: &url.URL{Path: c.path}, Header: http.Header{}}
		if app, method, _ := targetOf(r); app != c.app || method != c.method {
			t.Errorf("%s names %q and %q, not %q and %q", c.path, app, method, c.app, c.method)
		}
	}
}

// Middleware sees one path of every place, however it is written, and what is invoked gets the path that came.
func TestMiddlewareSeesWhereRequestsGo(t *testing.T) {
	all := newTable(routes(&Server{}), nil)
	for _, c := range []struct{ uri, header, shown string }{
		{"/v1.0/invoke/app/method/a/b?c=d", "", "/v1.0/invoke/app/method/a/b"},
		{"//v1.0//invoke//app/method//a/./b/", "", "/v1.0/invoke/app/method/a/b"},
		{"/v1.0/invoke/app/method/%2e%2e/%2e%2e/a%2Fb", "", "/v1.0/invoke/app/method/a/b"},
		{"/v1.0/invoke/app/method/../../../../healthz", "", "/v1.0/invoke/app/method/healthz"},
		{"/v1.0/invoke/app/method/../../../healthz", "", "/v1.0/healthz"}, // a route's
		{"/v1.0/invoke/%2561pp/method/a", "", "/v1.0/invoke/app/method/a"},
		{"/v1.0/%69nvoke/app/method/a", "", "/v1.0/invoke/app/method/a"},
		{"/v1.0/invoke/http://host/method/a", "", "/v1.0/invoke/http://host/method/a"},
		{"/v1.0/invoke/http%3A%2F%2Fhost/method//a", "", "/v1.0/invoke/http://host/method/a"},
		{"//v1.0/x/../state/store/a%2Fb/", "", "/v1.0/state/store/a/b"},
		{"//a/../b//c", "app", "/b/c"},
		{"//nowhere/", "", "/nowhere"},
	} {
		r := httptest.NewRequest("GET", "http://sidecar"+c.uri, nil)
		if c.header != "" {
			r.Header.Set(appIDHeader, c.header)
		}
		was := *r.URL
		through := passThrough(r, &all, nil)
		if through.URL.Path != c.shown || *r.URL != was {
			t.Errorf("%s is shown as %s, not %s", c.uri, through.URL.Path, c.shown)
		}
		if again := passThrough(through, &all, nil); again.URL.Path != c.shown {
			t.Errorf("%s is shown as %s, and that as %s", c.uri, c.shown, again.URL.Path)
		}
		through.Context().Value(passingKey{}).(*passing).restore(through)
		if *through.URL != was {
			t.Errorf("%s arrives as %s", c.uri, through.URL)
		}
		through = passThrough(r, &all, nil)
		through.URL.Path = "/elsewhere"
		through.Context().Value(passingKey{}).(*passing).restore(through)
		if through.URL.Path != "/elsewhere" {
			t.Errorf("middleware has led %s to %s", c.uri, through.URL.Path)
		}
	}
}

// The messages of a stream count among the bodies of all calls.
func TestCryptoStreamsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		budget := bodies.NewBudget(1 << 20)
		others, own := budget.Open(), budget.Open()
		defer own.Close()
		from := func() io.Reader {
			return &payloads{stream: endedStream{ctx: t.Context()}, share: own, message: &runtimev1.EncryptRequest{Payload: &commonv1.StreamPayload{Data: make([]byte, 1<<20)}}}
		}
		if err := others.Next(t.Context(), "take all", 128<<20); err != nil {
			t.Fatal(err)
		}
		_, err := from().Read(make([]byte, 1))
		if s := status.Convert(cryptoRefused(err)); s.Code() != codes.ResourceExhausted || fault.ReasonOf(err) != fault.BodiesFull || len(s.Proto().GetDetails()) == 0 {
			t.Errorf("got %v", err)
		}
		others.Close()
		if text, err := io.ReadAll(from()); err != nil || len(text) != 1<<20 {
			t.Errorf("%d bytes %v", len(text), err)
		}
	})
}

// endedStream is one that has ended.
type endedStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s endedStream) Context() context.Context { return s.ctx }
func (s endedStream) RecvMsg(any) error        { return io.EOF }

// A body that the others leave no room for is refused as every call is, wherever it is read.
func TestBodiesThatHaveNoRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		budget := bodies.NewBudget(1 << 20)
		s := &Server{o: Options{AppID: "app", Bodies: budget}}
		others := budget.Open()
		defer others.Close()
		if err := others.Next(t.Context(), "take all", 128<<20); err != nil {
			t.Fatal(err)
		}
		for how, read := range map[string]func(*http.Request) error{
			"as it is": func(r *http.Request) error { _, err := s.whole(r); return unreadable(err) },
			"JSON":     func(r *http.Request) error { return malformed(s.decode(r, new(any))) },
			"message":  func(r *http.Request) error { return s.message(r, &runtimev1.TryLockRequest{}) },
			"metadata": func(r *http.Request) error { return s.putMetadata(nil, r, params{"key": "k"}) },
		} {
			share := budget.Open()
			r := httptest.NewRequest("POST", "/", strings.NewReader(strings.Repeat(" ", 1<<20)))
			w := httptest.NewRecorder()
			s.refuse(w, read(r.WithContext(share.Context(t.Context()))))
			share.Close()
			if w.Code != http.StatusTooManyRequests || w.Header().Get("Retry-After") != "1" {
				t.Errorf("%s: %d %v %s", how, w.Code, w.Header(), w.Body)
			}
		}
	})
}

func TestNormal(t *testing.T) {
	for in, want := range map[string]string{"a/b": "a/b", "../../a": "a", "a/../..": "", "..": "", "": "", "/a": "/a", "a//b/.": "a/b"} {
		if got, err := normal(in); err != nil || got != want {
			t.Errorf("%q becomes %q (%v), not %q", in, got, err, want)
		}
	}
	for _, in := range []string{"a#b", "a?b", "a\x00b", "a\nb", "a\x7f"} {
		if _, err := normal(in); err == nil {
			t.Errorf("%q is taken", in)
		}
	}
}

func TestProblemsAreSaidTwice(t *testing.T) {
	p := storeProblem(400, codes.InvalidArgument, "ERR_X", "DAPR_X", "store", "no \"good\"", map[string]string{"a": "b"})
	w := httptest.NewRecorder()
	p.write(w)
	var body struct {
		ErrorCode, Message string
		Details            []map[string]any
	}
	if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil || w.Code != 400 || body.ErrorCode != "ERR_X" || body.Message != `no "good"` || len(body.Details) != 2 {
		t.Errorf("over HTTP: %d %s", w.Code, w.Body)
	}
	if s := p.GRPCStatus(); s.Code() != codes.InvalidArgument || s.Message() != `no "good"` || len(s.Details()) != 2 {
		t.Errorf("over gRPC: %v", s)
	}
	b := basic(500, codes.Internal, "ERR_Y", "why: %v", errors.New("z"))
	w = httptest.NewRecorder()
	b.write(w)
	if w.Body.String() != `{"errorCode":"ERR_Y","message":"why: z"}` || len(b.GRPCStatus().Details()) != 1 {
		t.Errorf("%s %v", w.Body, b.GRPCStatus())
	}
}

// Error codes are counted under daprd's categories.
func TestCategories(t *testing.T) {
	for _, code := range []errorcodes.ErrorCode{
		errorcodes.StateGet, errorcodes.StateSave, errorcodes.StateStoreNotFound, errorcodes.StateStoreNotConfigured, errorcodes.StateNotSupportedOperation,
		errorcodes.StateMalformedRequest, errorcodes.PubSubEmpty, errorcodes.PubSubTopicNameEmpty, errorcodes.PubsubPublishMessage, errorcodes.PubsubPublishOutbox,
		errorcodes.PubSubEventsSerEnvelope, errorcodes.ServiceInvocationDirectInvoke, errorcodes.LockTry, errorcodes.LockUnlock, errorcodes.LockStoreNotFound,
		errorcodes.HealthNotReady, errorcodes.HealthOutboundNotReady, errorcodes.CommonAPIUnimplemented, errorcodes.CommonBodyRead, errorcodes.CommonInternal,
		errorcodes.CommonMalformedRequest, errorcodes.CommonGeneric, errorcodes.SecretGet, errorcodes.SecretStoreNotFound, errorcodes.SecretStoreNotConfigured,
		errorcodes.SecretPermissionDenied, errorcodes.ConfigurationGet, errorcodes.ConfigurationStoreNotConfigured, errorcodes.ConfigurationUnsubscribe,
		errorcodes.BindingInvokeOutputBinding, errorcodes.Crypto, errorcodes.CryptoKey, errorcodes.CryptoProviderNotFound, errorcodes.CryptoProvidersNotConfigured,
		errorcodes.CommonBadRequest, errorcodes.ConversationInvalidParms, errorcodes.ConversationInvoke, errorcodes.ConversationMissingInputs, errorcodes.ConversationNotFound,
	} {
		counted := cmp.Or(code.GrpcCode, code.Code)
		if got := category(counted); got != string(code.Category) {
			t.Errorf("%s is of %s, not %s", counted, got, code.Category)
		}
	}
}

// An error is counted whether the request has passed middleware or not.
func TestErrorsBehindMiddlewareAreCounted(t *testing.T) {
	m := telemetry.NewMetrics()
	m.EnableDapr("app", "default", telemetry.DaprOptions{ErrorCodes: true})
	s := &Server{o: Options{Metrics: m.Dapr()}}
	failing := &table{otherwise: func(http.ResponseWriter, *http.Request) error {
		return plain(http.StatusNotFound, codes.NotFound, "ERR_DIRECT_INVOKE", "nobody")
	}}
	w := httptest.NewRecorder()
	s.passed(w, passThrough(httptest.NewRequest("GET", "/nobody", nil), failing, nil))
	n, err := testutil.GatherAndCount(m.Registry(), "dapr_error_code_total")
	if w.Code != http.StatusNotFound || n != 1 || err != nil {
		t.Errorf("%d, and %d errors are counted (%v)", w.Code, n, err)
	}
}

func TestEveryCodeHasItsStatus(t *testing.T) {
	for code := codes.OK; code <= codes.Unauthenticated; code++ {
		if status := httpOfCode(code); status < 200 || status > 599 {
			t.Errorf("%s is %d", code, status)
		}
	}
	for status, code := range map[int]codes.Code{200: codes.OK, 204: codes.OK, 301: codes.Unknown, 400: codes.Internal, 404: codes.NotFound, 409: codes.AlreadyExists, 418: codes.Unknown, 500: codes.Unknown, 503: codes.Unavailable} {
		if got := codeOfHTTP(status); got != code {
			t.Errorf("%d is %s, not %s", status, got, code)
		}
	}
}

// Envelopes are written as encoding/json writes them.
func TestEnvelopesAreWrittenAsJSON(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e, want := map[string]any{}, map[string]any{}
		for range rapid.IntRange(1, 8).Draw(t, "attributes") {
			name, text := rapid.String().Draw(t, "name"), rapid.String().Draw(t, "text")
			raw, _ := json.MarshalIndent(map[string]string{text: "<" + text}, "", " ")
			switch rapid.IntRange(0, 3).Draw(t, "kind") {
			case 0:
				e[name], want[name] = text, text
			case 1:
				value, ok := rawjson.AppendValue(nil, raw)
				if !ok {
					t.Fatal("not JSON")
				}
				e[name], want[name] = written(value), json.RawMessage(raw)
			case 2:
				e[name], want[name] = json.RawMessage(raw), json.RawMessage(raw)
			case 3:
				e[name], want[name] = len(text), len(text)
			}
		}
		got, err := writeEnvelope(e, 0)
		encoded, _ := json.Marshal(want)
		if err != nil || string(got) != string(encoded) {
			t.Fatalf("%s\nis not\n%s (%v)", got, encoded, err)
		}
	})
}

// A body comes whole whatever its reads bring, in pieces that take little more memory than they hold.
func TestPiecesOfABody(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		sent := make([]byte, rapid.IntRange(0, 4*buffered).Draw(t, "size"))
		for i := range sent {
			sent[i] = byte(i % 251)
		}
		cut := io.ErrUnexpectedEOF
		end := rapid.SampledFrom([]error{io.EOF, cut}).Draw(t, "end")
		body := pieces{from: &reads{left: sent, end: end, with: rapid.Bool().Draw(t, "end comes with the last"), size: func() int {
			return rapid.SampledFrom([]int{1, 100, leastFree, buffered - leastFree, buffered}).Draw(t, "read")
		}}}
		var all [][]byte
		held, takes := 0, 0
		for {
			piece, err := body.next()
			if err != nil {
				if !errors.Is(err, end) || body.whole.Load() != errors.Is(end, io.EOF) {
					t.Fatalf("ended with %v, whole: %v", err, body.whole.Load())
				}
				break
			}
			all = append(all, piece)
			held, takes = held+len(piece), takes+cap(piece)
		}
		if got := bytes.Join(all, nil); !bytes.Equal(got, sent) {
			t.Fatalf("%d bytes came of %d, or others", len(got), len(sent))
		}
		if takes > held+held/4+leastFree {
			t.Errorf("%d bytes take %d", held, takes)
		}
	})
}

// reads is a body each of whose reads brings at most size bytes.
type reads struct {
	left []byte
	end  error
	with bool
	size func() int
}

func (r *reads) Read(p []byte) (int, error) {
	if len(r.left) == 0 {
		return 0, r.end
	}
	n := copy(p[:min(len(p), r.size())], r.left)
	if r.left = r.left[n:]; len(r.left) == 0 && r.with {
		return n, r.end
	}
	return n, nil
}

func FuzzRoutes(f *testing.F) {
	s := &Server{}
	all := routes(s)
	f.Add("/v1.0/state/store/key")
	f.Add("/v1.0/publish/bus/a/b%2Fc")
	f.Add("//v1.0/./invoke/http%3A%2F%2Fx/method/y")
	f.Add("/%")
	f.Fuzz(func(t *testing.T, p string) {
		u, err := url.ParseRequestURI(p)
		if err != nil {
			return
		}
		segments := strings.Split(strings.TrimPrefix(u.EscapedPath(), "/"), "/")
		for _, r := range all {
			_, _, _ = match(strings.Split(r.path, "/"), segments)
		}
		app, method, _ := targetOf(&http.Request{URL: u, Header: http.Header{}})
		if clean, err := normal(method); app != "" && err == nil && (strings.HasPrefix(clean, "../") || clean == "..") {
			t.Errorf("%q leaves the app with %q", p, clean)
		}
	})
}

func FuzzEnvelope(f *testing.F) {
	f.Add("application/json", `{"a":1}`, "cloudevent.type", "t")
	f.Add("application/cloudevents+json", `{"id":"1","data":[1]}`, "ttlInSeconds", "9")
	f.Add("application/octet-stream", "\x00", "ttlInSeconds", "99999999999999999999")
	f.Fuzz(func(t *testing.T, contentType, data, key, value string) {
		s := &Server{o: Options{AppID: "app"}, typeOf: func(string) string { return "" }}
		id, envelope, err := s.envelope("bus", "topic", contentType, []byte(data), map[string]string{key: value}, call.Header{})
		if err != nil {
			return
		}
		var e map[string]any
		if json.Unmarshal(envelope, &e) != nil || e["topic"] != "topic" || e["pubsubname"] != "bus" || e["specversion"] == nil || e["source"] == nil {
			t.Errorf("%s is no envelope (id %q)", envelope, id)
		}
	})
}

// FuzzInvokePaths asks for an app and a method in each form that Dapr knows: nothing but the app's own paths is reached, and
// what is escaped comes out as it was meant.
func FuzzInvokePaths(f *testing.F) {
	f.Add("/v1.0/invoke/app/method/a/b", "", "")
	f.Add("//v1.0//invoke/app.space/method/../../x", "", "")
	f.Add("/v1.0/invoke/http%3A%2F%2Fhost%3A80/method/x%2Fy%3Fz", "", "")
	f.Add("/v1.0/invoke/http://host/method/x", "", "")
	f.Add("/a/../b//c", "app", "")
	f.Add("/v1.0/invoke/other/method/x", "", "Basic ZGFwci1hcHAtaWQ6YXBw")
	f.Add("/%2e%2e/%00", "", "Basic !")
	all := routes(&Server{})
	f.Fuzz(func(t *testing.T, path, header, authorization string) {
		u, err := url.ParseRequestURI(path)
		if err != nil {
			return
		}
		r := &http.Request{Method: "POST", URL: u, Header: http.Header{}}
		if header != "" {
			r.Header.Set(appIDHeader, header)
		}
		if authorization != "" {
			r.Header.Set("Authorization", authorization)
		}
		segments := strings.Split(strings.TrimPrefix(u.EscapedPath(), "/"), "/")
		for _, route := range all {
			p, ok, err := match(strings.Split(route.path, "/"), segments)
			for name, value := range p {
				if ok && err == nil && name != "*" && value == "" && !strings.Contains(u.EscapedPath(), "//") && !strings.HasSuffix(u.EscapedPath(), "/") {
					t.Errorf("%s of %s is empty in %q", name, route.path, path)
				}
			}
		}
		app, method, _ := targetOf(r)
		if header != "" && app != r.Header.Get(appIDHeader) && app != header {
			t.Errorf("the header names %q, not %q", app, header)
		}
		clean, err := normal(method)
		if err != nil || app == "" {
			return
		}
		if again, err := normal(clean); err != nil || again != clean {
			t.Errorf("%q is %q, and then %q (%v)", method, clean, again, err)
		}
		if clean == ".." || strings.HasPrefix(clean, "../") || strings.Contains("/"+clean+"/", "/../") || strings.ContainsFunc(clean, func(c rune) bool { return c < ' ' || c == '#' || c == '?' }) {
			t.Errorf("%q reaches %q", path, clean)
		}
	})
}

// FuzzOutboxEnvelope is an item of a transaction that says anything: its event is a whole one of this store's.
func FuzzOutboxEnvelope(f *testing.F) {
	f.Add([]byte(`{"a":1}`), "contentType", "application/json", true)
	f.Add([]byte(`"text"`), "cloudevent.type", "order.placed", true)
	f.Add([]byte{0xff}, "cloudevent.id", "", false)
	f.Add([]byte(`null`), "topic", "another", true)
	f.Fuzz(func(t *testing.T, value []byte, key, text string, fromJSON bool) {
		if fromJSON && !json.Valid(value) {
			return
		}
		s := &Server{o: Options{AppID: "app"}}
		item := &stateItem{key: "k", value: value, metadata: map[string]string{key: text}, fromJSON: fromJSON}
		_, envelope, err := s.outboxEnvelope(components.Outbox{PubSub: "bus", Topic: "written"}, item, item, nil)
		if err != nil {
			t.Fatal(err)
		}
		var e map[string]any
		if json.Unmarshal(envelope, &e) != nil || e["topic"] != "written" || e["pubsubname"] != "bus" || e["specversion"] == nil || e["id"] == nil {
			t.Errorf("%s is no envelope", envelope)
		}
	})
}
