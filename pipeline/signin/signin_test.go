package signin

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/fault"
)

func TestSessionsAreBounded(t *testing.T) {
	s := newSessions()
	now := time.Now()
	signed := s.add(session{authorization: "Bearer x"}, now)
	first := s.add(session{state: "first"}, now)
	for range mostOpen {
		s.add(session{state: "more"}, now)
	}
	if s.open.Len() != mostOpen || s.get(first, now).state != "" {
		t.Errorf("%d browsers are about to sign in, the first among them: %v", s.open.Len(), s.get(first, now))
	}
	if s.get(signed, now).authorization == "" {
		t.Error("browsers that are about to sign in have pushed one out that has")
	}
	for range mostSignedIn {
		s.add(session{authorization: "Bearer y"}, now)
	}
	if s.signedIn.Len() != mostSignedIn || len(s.byName) != mostOpen+mostSignedIn {
		t.Errorf("%d have signed in, %d names", s.signedIn.Len(), len(s.byName))
	}
}

func TestSessionsEnd(t *testing.T) {
	s := newSessions()
	now := time.Now()
	name := s.add(session{state: "s"}, now)
	if s.get(name, now.Add(lifetime)).state != "s" || s.get(name, now.Add(lifetime+1)).state != "" {
		t.Error("a session has not its lifetime")
	}
	s.add(session{state: "t"}, now.Add(lifetime+1))
	if len(s.byName) != 1 {
		t.Errorf("%d sessions are kept, one of which has ended", len(s.byName))
	}
	s.remove(name)
	s.remove("nobody's")
	other := s.add(session{authorization: "x"}, now)
	s.remove(other)
	if s.get(other, now).authorization != "" || len(s.byName) != 1 {
		t.Error("a session that was removed is there")
	}
}

func TestAFilterThatIsNoExpression(t *testing.T) {
	_, err := Component.Open(t.Context(), components.Host{Component: "web"}, map[string]string{
		"clientID": "a", "clientSecret": "b", "authURL": "c", "tokenURL": "d", "pathFilter": "(",
	})
	if fault.ReasonOf(err) != fault.BadManifest {
		t.Errorf("got %v", err)
	}
}

// begun is the middleware, and where a request that begins a sign-in comes back to.
func begun(t *testing.T, c Config, r *http.Request) (*middleware, string) {
	t.Helper()
	opened, err := open(t.Context(), components.Host{}, c)
	if err != nil {
		t.Fatal(err)
	}
	m, w := opened.(*middleware), httptest.NewRecorder()
	m.Wrap(http.NotFoundHandler()).ServeHTTP(w, r)
	for _, c := range w.Result().Cookies() {
		if c.Name == cookie && w.Code == http.StatusFound {
			return m, m.sessions.get(c.Value, time.Now()).back
		}
	}
	t.Fatalf("no sign-in begins: %d %v", w.Code, w.Header())
	return nil, ""
}

func TestBrowsersComeBackToTheSidecar(t *testing.T) {
	for uri, want := range map[string]string{
		"/page?a=b&c=%2F":                 "/page?a=b&c=%2F",
		"/a%2Fb":                          "/a%2Fb",
		"//evil.example/x":                "/evil.example/x",
		"///evil.example/%2Fx":            "/evil.example/%2Fx",
		"/%2Fevil.example/x":              "/evil.example/x",
		"http://evil.example//x?a=b":      "/x?a=b",
		"//evil.example\\@other.example/": "/evil.example%5C@other.example/",
	} {
		u, err := url.ParseRequestURI(uri)
		if err != nil {
			t.Fatal(err)
		}
		r := httptest.NewRequest("GET", "/", nil)
		r.URL, r.Host = u, "sidecar.example"
		if _, got := begun(t, Config{}, r); got != want {
			t.Errorf("%s comes back to %s, not %s", uri, got, want)
		}
		if _, got := begun(t, Config{ForceHTTPS: "true"}, r); got != "https://sidecar.example"+want {
			t.Errorf("%s comes back to %s", uri, got)
		}
	}
}

func TestTheTokenTakesThePlaceOfTheClientsField(t *testing.T) {
	m, _ := begun(t, Config{AuthHeaderName: "Authorization"}, httptest.NewRequest("GET", "/", nil))
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("Authorization", "Bearer made-up")
	r.AddCookie(&http.Cookie{Name: cookie, Value: m.sessions.add(session{authorization: "Bearer real"}, time.Now())})
	var got []string
	m.Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = r.Header["Authorization"] })).ServeHTTP(httptest.NewRecorder(), r)
	if len(got) != 1 || got[0] != "Bearer real" {
		t.Errorf("got %q", got)
	}
}
