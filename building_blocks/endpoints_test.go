package blocks

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/sidecast/sidecast/access"
	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/fault"
)

// httpServer answers with its name and what header a document set.
func httpServer(t *testing.T, name string) string {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, name+r.URL.Path+r.Header.Get("Key"))
	}))
	t.Cleanup(server.Close)
	return server.URL
}

func endpointLanes(t *testing.T, b *Blocks) (names []string) {
	for _, child := range b.Runtime.Tree(t.Context()).Children {
		if strings.HasPrefix(child.Name, "endpoint/") && !strings.HasSuffix(child.Name, "/streams") {
			names = append(names, child.Name)
		}
	}
	return names
}

func TestEndpointsAreFollowedThroughChanges(t *testing.T) {
	b := sidecar(t, t.TempDir(), "client", &testApp{invoke: echo, deliver: handled}, 0)
	one, two := httpServer(t, "one"), httpServer(t, "two")
	ask := func(app string) string {
		t.Helper()
		resp, err := b.Invocation.Invoke(t.Context(), &call.Request{App: app, Method: "/x", Verb: "GET"})
		if err != nil {
			return string(fault.ReasonOf(err))
		}
		return string(resp.Body)
	}
	document := components.EndpointManifest{Name: "ext", BaseURL: one, Headers: []components.Entry{{Key: "Key", Value: "1"}}}
	b.Invocation.SetEndpoints([]components.EndpointManifest{document})
	if got := ask("ext"); got != "one/x1" {
		t.Errorf("got %s", got)
	}
	lane, _ := b.rules.system.Find("endpoint/ext")
	document.BaseURL = two
	b.Invocation.SetEndpoints([]components.EndpointManifest{document})
	if got := ask("ext"); got != "two/x1" {
		t.Errorf("after a change: %s", got)
	}
	if now, _ := b.rules.system.Find("endpoint/ext"); now != lane {
		t.Error("a changed document has another lane")
	}
	document.Headers = []components.Entry{{Key: "Key", Env: "NO_SUCH_VARIABLE"}}
	b.Invocation.SetEndpoints([]components.EndpointManifest{document})
	if got := ask("ext"); got != string(fault.SecretNotFound) {
		t.Errorf("without its secret: %s", got)
	}
	t.Setenv("NO_SUCH_VARIABLE", "2")
	if got := ask("ext"); got != "two/x2" {
		t.Errorf("once the secret is there: %s", got)
	}
	b.Invocation.SetEndpoints(nil)
	b.Invocation.outside.close()
	if got := ask("ext"); got != string(fault.AppNotFound) {
		t.Errorf("after it was taken out: %s", got)
	}
	if names := endpointLanes(t, b); len(names) != 0 {
		t.Errorf("lanes are left: %v", names)
	}
}

// Callers make URLs up: they get lanes of their own, but not without end.
func TestURLsHaveLanesButNotWithoutEnd(t *testing.T) {
	b := sidecar(t, t.TempDir(), "client", &testApp{invoke: echo, deliver: handled}, 0)
	base := httpServer(t, "any")
	for i := range 2 * maxURLs {
		resp, err := b.Invocation.Invoke(t.Context(), &call.Request{App: fmt.Sprintf("%s/%d", base, i), Method: "x", Verb: "GET"})
		if err != nil || string(resp.Body) != fmt.Sprintf("any/%d/x", i) {
			t.Fatalf("got %v %v", resp, err)
		}
	}
	if n := len(endpointLanes(t, b)); n != maxURLs+1 {
		t.Errorf("%d lanes, want %d and one for the others", n, maxURLs)
	}
	_, err := b.Invocation.Invoke(t.Context(), &call.Request{App: "http://", Method: "x"})
	wantReason(t, err, fault.BadRequest)
}

func TestAccessControlStandsBeforeTheApp(t *testing.T) {
	dir := t.TempDir()
	server := sidecar(t, dir, "server", &testApp{invoke: echo, deliver: handled}, 0)
	server.App.SetAccess(access.NewList(access.Rules{DefaultAction: "deny", Policies: []access.Policy{
		{App: "friend", Namespace: "test", TrustDomain: "public", DefaultAction: "allow"},
	}}, false))
	friend := sidecar(t, dir, "friend", &testApp{invoke: echo, deliver: handled}, 0)
	stranger := sidecar(t, dir, "stranger", &testApp{invoke: echo, deliver: handled}, 0)
	for _, c := range []struct {
		from *Blocks
		want fault.Reason
	}{{friend, ""}, {stranger, fault.AccessDenied}, {server, ""}} {
		_, err := c.from.Invocation.Invoke(t.Context(), &call.Request{App: "server", Method: "x"})
		if fault.ReasonOf(err) != c.want {
			t.Errorf("got %v, want %q", err, c.want)
		}
		if err != nil && fault.KindOf(err) != fault.Denied {
			t.Errorf("kind %v", fault.KindOf(err))
		}
	}
}
