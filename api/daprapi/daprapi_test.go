package daprapi

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/sidecast/sidecast/call"
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
		if app, method := targetOf(r); app != c.app || method != c.method {
			t.Errorf("%s names %q and %q, not %q and %q", c.path, app, method, c.app, c.method)
		}
	}
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
		app, method := targetOf(&http.Request{URL: u, Header: http.Header{}})
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
		s := &Server{o: Options{AppID: "app"}}
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
