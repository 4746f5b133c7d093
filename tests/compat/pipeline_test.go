package compat

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jwk"
	"github.com/lestrrat-go/jwx/v2/jwt"

	"github.com/sidecast/sidecast/tests/machine"
)

// middleware is the document of a component; metadata are lines of YAML in flow style.
func middleware(name, kind, more string, metadata ...string) string {
	return "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: " + name + "}\nspec: {type: middleware.http." + kind + ", version: v1, " + more +
		"metadata: [" + strings.Join(metadata, ", ") + "]}\n---\n"
}

func entry(name, value string) string { return fmt.Sprintf("{name: %q, value: %q}", name, value) }

// pipelines is a Configuration with handlers for both pipelines, each as name=type.
func pipelines(server, app string) string {
	spec := "  {}\n"
	for key, handlers := range map[string]string{"httpPipeline": server, "appHttpPipeline": app} {
		var list []string
		for _, h := range strings.Fields(handlers) {
			name, kind, _ := strings.Cut(h, "=")
			list = append(list, "{name: "+name+", type: middleware.http."+kind+"}")
		}
		if len(list) > 0 {
			spec = strings.Replace(spec, "  {}\n", "", 1) + "  " + key + ": {handlers: [" + strings.Join(list, ", ") + "]}\n"
		}
	}
	return "apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata: {name: pipelines}\nspec:\n" + spec + "---\n"
}

// piped starts a sidecar with an echoing app and a file that holds those documents.
func piped(t testing.TB, m *machine.Machine, app http.Handler, documents ...string) (*daprd, document) {
	t.Helper()
	file := newDocument(t, strings.Join(documents, ""))
	d := start(t, m, "app", "--app-port", serve(t, app), "--config", file.file, "--enable-api-logging")
	return d, file
}

const toApp = "/v1.0/invoke/app/method/"

func TestPipelinesChangeBodies(t *testing.T) {
	t.Parallel()
	up := middleware("up", "uppercase", "", entry("direction", "both"))
	d, file := piped(t, machine.New(t), http.HandlerFunc(echo), up, middleware("answers", "uppercase", "", entry("direction", "response")), pipelines("up=uppercase", ""))
	large := strings.Repeat("straße ", 1<<18) // longer than what is known in one piece, and letters that change their length
	for body, want := range map[string]string{"straße": "STRAßE", "": "", large: strings.ToUpper(large)} {
		if got := d.do("POST", toApp+"x?y=z", body); got.status != 200 || got.body != want || got.header.Get("X-Query") != "y=z" {
			t.Errorf("%.20s became %d %.20s (%d bytes)", body, got.status, got.body, len(got.body))
		}
	}
	d.expect(204, "", "POST", "/v1.0/state/store", `[{"KEY":"K","VALUE":"abc"}]`)
	d.expect(200, `"ABC"`, "GET", "/v1.0/state/store/K", "")

	// Before the app, and both: requests of others come through the app's alone.
	file.write(up + pipelines("", "up=uppercase"))
	d.until(200, `{"actorRuntime"`, "GET", "/v1.0/metadata", "")
	d.expect(200, "SMALL", "POST", toApp+"x", "small")
	if got := d.do("POST", toApp+"x", large); got.body != strings.ToUpper(large) {
		t.Errorf("got %d bytes %.20s", len(got.body), got.body)
	}
	file.write(pipelines("", ""))
	d.until(200, "small", "POST", toApp+"x", "small")
}

func TestPipelinesLeadAndCheckPaths(t *testing.T) {
	t.Parallel()
	alias := middleware("alias", "routeralias", "", entry("routes", `{"/short": "/v1.0/invoke/app/method/long", "/item/{id}": "/v1.0/invoke/app/method/item"}`))
	check := middleware("check", "routerchecker", "", entry("rule", "^[A-Za-z0-9/._?=-]+$"))
	d, file := piped(t, machine.New(t), http.HandlerFunc(echo), alias, check, pipelines("check=routerchecker alias=routeralias", ""))
	if got := d.expect(200, "body", "POST", "/short", "body"); got.header.Get("X-Path") != "/long" {
		t.Errorf("the app got %v", got.header)
	}
	if got := d.expect(200, "", "GET", "/item/7?x=1", ""); got.header.Get("X-Path") != "/item" || got.header.Get("X-Query") != "id=7&x=1" {
		t.Errorf("the app got %v", got.header)
	}
	d.expect(400, "invalid router", "GET", toApp+"%20cat", "")
	d.expect(204, "", "GET", "/v1.0/healthz", "")
	d.WaitFor(`HTTP API Called.*method="POST /v1.0/invoke/app/method/long"`, machine.Patience) // as daprd: where it went in the end
	if strings.Contains(d.Output(), "cat") {
		t.Errorf("a request that came to no route is logged: %s", d.Output())
	}
	// The older form, and before the app.
	file.write(middleware("old", "routeralias", "", entry("/Old/{id}", "/New")) + pipelines("", "old=routeralias"))
	machine.Until(t, "the new path", func() error {
		if got := d.do("GET", toApp+"Old/9", ""); got.status != 200 || got.header.Get("X-Path") != "/New" || got.header.Get("X-Query") != "id=9" {
			return fmt.Errorf("%d %v", got.status, got.header)
		}
		return nil
	})
}

func TestPipelinesLimitRequests(t *testing.T) {
	t.Parallel()
	limit := middleware("limit", "ratelimit", "", entry("maxRequestsPerSecond", "0.01"))
	d, file := piped(t, machine.New(t), http.HandlerFunc(echo), limit)
	d.await("/v1.0/healthz")
	file.write(limit + pipelines("limit=ratelimit", "limit=ratelimit")) // counts for health checks, too
	d.WaitFor("were read again", machine.Patience)
	got := d.expect(200, "", "GET", toApp+"one", "")
	for name, want := range map[string]string{"X-Rate-Limit-Limit": "0.01", "X-Rate-Limit-Duration": "1", "Ratelimit-Remaining": "0"} {
		if got.header.Get(name) != want {
			t.Errorf("%s is %q", name, got.header.Get(name))
		}
	}
	got = d.expect(429, "You have reached maximum request limit.", "GET", toApp+"one", "")
	if kind := got.header.Get("Content-Type"); kind != "text/plain; charset=utf-8" {
		t.Errorf("it is %s", kind)
	}
	d.expect(200, "", "GET", toApp+"two", "") // another path
	d.expect(200, "", "GET", toApp+"one", "", "X-Forwarded-For: 192.0.2.1")
}

// issuer is an OpenID provider: documents, keys and tokens.
type issuer struct {
	url      string
	key      jwk.Key
	asked    atomic.Int64
	requests chan url.Values
	down     atomic.Bool
}

func newIssuer(t testing.TB) *issuer {
	t.Helper()
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	i := &issuer{requests: make(chan url.Values, 100)}
	if i.key, err = jwk.FromRaw(private); err != nil {
		t.Fatal(err)
	}
	_ = i.key.Set(jwk.KeyIDKey, "one")
	public, err := i.key.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	keys := jwk.NewSet()
	_ = keys.AddKey(public)
	mux := http.NewServeMux()
	answer := func(w http.ResponseWriter, value any) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(value)
	}
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, map[string]string{"issuer": i.url, "jwks_uri": i.url + "/keys"})
	})
	mux.HandleFunc("/keys", func(w http.ResponseWriter, _ *http.Request) { answer(w, keys) })
	mux.HandleFunc("/authorize", func(w http.ResponseWriter, r *http.Request) {
		back, _ := url.Parse(r.FormValue("redirect_uri"))
		back.RawQuery = url.Values{"state": {r.FormValue("state")}, "code": {"the-code"}}.Encode()
		http.Redirect(w, r, back.String(), http.StatusFound)
	})
	mux.HandleFunc("/token", func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		id, secret, _ := r.BasicAuth()
		r.PostForm.Set("basic", id+":"+secret)
		i.requests <- r.PostForm
		if i.down.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		answer(w, map[string]any{"access_token": fmt.Sprint("token-", i.asked.Add(1)), "token_type": "Bearer", "expires_in": 3600})
	})
	i.url = "http://127.0.0.1:" + serve(t, mux)
	return i
}

func (i *issuer) token(t testing.TB, issuer, audience string, ends time.Duration) string {
	t.Helper()
	token, err := jwt.NewBuilder().Issuer(issuer).Audience([]string{audience}).Subject("someone").Expiration(time.Now().Add(ends)).Build()
	if err != nil {
		t.Fatal(err)
	}
	signed, err := jwt.Sign(token, jwt.WithKey(jwa.RS256, i.key))
	if err != nil {
		t.Fatal(err)
	}
	return string(signed)
}

func TestPipelinesAskForTokens(t *testing.T) {
	t.Parallel()
	i, other := newIssuer(t), newIssuer(t)
	auth := middleware("auth", "bearer", "", entry("issuer", i.url), entry("audience", "shop"))
	d, file := piped(t, machine.New(t), http.HandlerFunc(echo), auth, pipelines("", "auth=bearer"))
	d.await("/v1.0/healthz") // not of the app's pipeline
	good := i.token(t, i.url, "shop", time.Hour)
	check := func(method, path string, ok int) {
		t.Helper()
		d.expect(ok, "…", method, path, "", "Authorization: Bearer "+good)
		for what, field := range map[string]string{
			"none": "X: y", "another scheme": "Authorization: Basic " + good, "no token": "Authorization: Bearer nonsense-nonsense",
			"for others": "Authorization: Bearer " + i.token(t, i.url, "bar", time.Hour), "by others": "Authorization: Bearer " + i.token(t, other.url, "shop", time.Hour),
			"signed by others": "Authorization: Bearer " + other.token(t, i.url, "shop", time.Hour), "too old": "Authorization: Bearer " + i.token(t, i.url, "shop", -time.Hour),
		} {
			if got := d.do(method, path, "", field); got.status != 401 || got.body != "Unauthorized" {
				t.Errorf("%s: %d %s", what, got.status, got.body)
			}
		}
	}
	check("GET", toApp+"x", 200)
	d.expect(204, "", "GET", "/v1.0/state/store/k", "")
	file.write(auth + pipelines("auth=bearer", ""))
	d.until(401, "Unauthorized", "GET", "/v1.0/state/store/k", "")
	check("GET", "/v1.0/state/store/k", 204)
	check("GET", "/v1.0/healthz", 204) // as with daprd; the public port asks for none
}

// What would have been checked by a middleware that cannot be opened does not come through, unless the component says so.
func TestAMiddlewareThatCannotBeOpenedLetsNothingPass(t *testing.T) {
	t.Parallel()
	i := newIssuer(t)
	broken := func(more string) string {
		return middleware("auth", "bearer", more, entry("issuer", i.url+"/nowhere"), entry("audience", "shop"))
	}
	file := newDocument(t, broken("")+pipelines("", ""))
	d := start(t, machine.New(t), "app", "--app-port", serve(t, http.HandlerFunc(echo)), "--config", file.file)
	d.until(200, "", "GET", toApp+"x", "")
	file.write(broken("") + pipelines("auth=bearer", ""))
	d.until(500, "COMPONENT_DEGRADED", "GET", "/v1.0/state/store/k", "")
	file.write(broken("") + pipelines("", "auth=bearer"))
	d.until(204, "", "GET", "/v1.0/state/store/k", "")
	d.expect(500, `{"errorCode":"ERR_DIRECT_INVOKE"…`, "GET", toApp+"x", "")
	file.write(broken("ignoreErrors: true, ") + pipelines("auth=bearer", "auth=bearer"))
	d.until(200, "", "GET", toApp+"x", "")
	// One that there is not is passed over, as daprd does, with a warning.
	file.write(pipelines("nobody=uppercase", ""))
	d.WaitFor("a middleware is passed over.*nobody", machine.Patience)
	d.expect(204, "", "GET", "/v1.0/state/store/k", "")
	// A type that is none is told.
	file.write(strings.ReplaceAll(pipelines("nobody=uppercase", ""), "middleware.http.uppercase", "state.redis"))
	d.WaitFor(`handlers\[0\].type: .*state.redis.* is no type of HTTP middleware`, machine.Patience)
	file.write(strings.Replace(middleware("wrong", "routerchecker", "", entry("rules", "x")), "---\n", "", 1))
	d.WaitFor(`spec.metadata.rules: .*did you mean`, machine.Patience)
}

func TestPipelinesGetTokensForTheSidecar(t *testing.T) {
	t.Parallel()
	i := newIssuer(t)
	doc := middleware("cc", "oauth2clientcredentials", "", entry("clientID", "me"), entry("clientSecret", "s3cret"), entry("scopes", "a,b"),
		entry("tokenURL", i.url+"/token"), entry("headerName", "Custom"), entry("endpointParamsQuery", "resource=shop"), entry("authStyle", "1"), entry("pathFilter", "/private"))
	i.down.Store(true)
	d, _ := piped(t, machine.New(t), http.HandlerFunc(echo), doc, pipelines("", "cc=oauth2clientcredentials"))
	d.await("/v1.0/healthz")
	d.expect(502, "no token could be had", "GET", toApp+"private", "")
	<-i.requests
	i.down.Store(false)
	for range 3 {
		if got := d.expect(200, "", "GET", toApp+"private", ""); got.header.Get("X-Custom") != "Bearer token-1" {
			t.Errorf("the app got %v", got.header)
		}
	}
	if got := d.expect(200, "", "GET", toApp+"open", ""); got.header.Get("X-Custom") != "" {
		t.Errorf("the app got %v", got.header)
	}
	if form := <-i.requests; form.Get("client_id") != "me" || form.Get("client_secret") != "s3cret" || form.Get("scope") != "a b" || form.Get("resource") != "shop" || form.Get("grant_type") != "client_credentials" {
		t.Errorf("the issuer got %v", form)
	}
	if strings.Contains(d.Output(), "s3cret") || strings.Contains(d.Output(), "token-1") {
		t.Error("a secret is in the log")
	}
}

// A middleware that cannot be had lets no request through, and no caller waits for it: it may take long to come.
func TestPipelinesDoNotWaitForWhatCannotStart(t *testing.T) {
	t.Parallel()
	broken := middleware("check", "routerchecker", "", entry("rule", "("))
	d, file := piped(t, machine.New(t), http.HandlerFunc(echo), broken, pipelines("", "check=routerchecker"))
	d.await("/v1.0/healthz")
	for range 3 {
		d.expect(500, `{"errorCode":"ERR_DIRECT_INVOKE","message":"failed to invoke, id: app, err: component check (middleware.http.routerchecker): cannot start: …`, "GET", toApp+"x", "")
	}
	file.write(middleware("check", "routerchecker", "ignoreErrors: true, ", entry("rule", "(")) + pipelines("", "check=routerchecker"))
	d.until(200, "", "GET", toApp+"x", "")
}

func TestPipelinesHaveBrowsersSignIn(t *testing.T) {
	t.Parallel()
	i := newIssuer(t)
	m := machine.New(t)
	file := newDocument(t, "")
	d := start(t, m, "app", "--app-port", serve(t, http.HandlerFunc(echo)), "--config", file.file)
	file.write(middleware("web", "oauth2", "", entry("clientID", "me"), entry("clientSecret", "s3cret"), entry("scopes", "a"), entry("authURL", i.url+"/authorize"),
		entry("tokenURL", i.url+"/token"), entry("redirectURL", "http://"+d.http+"/v1.0/state/store/back"), entry("authHeaderName", "Custom"), entry("pathFilter", "^/v1.0/(invoke|state)")) +
		pipelines("web=oauth2", ""))
	d.until(400, "invalid state", "GET", toApp+"x?state=made-up&code=c", "")
	jar, _ := cookiejar.New(nil)
	browser := &http.Client{Jar: jar}
	for range 2 { // the second has signed in
		response, err := browser.Get("http://" + d.http + toApp + "page?a=b")
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != 200 || response.Header.Get("X-Custom") != "Bearer token-1" || response.Header.Get("X-Query") != "a=b" {
			t.Errorf("%s, the app got %v", response.Status, response.Header)
		}
	}
	if form := <-i.requests; form.Get("code") != "the-code" || form.Get("basic") != "me:s3cret" {
		t.Errorf("the issuer got %v", form)
	}
	d.expect(200, "{…", "GET", "/v1.0/metadata", "") // not of the filter
	// Another path to the same place is no way around it.
	for _, path := range []string{"//v1.0/invoke/app/method/x", "/v1.0/./invoke/app/method/x", "/v1.0/x/../state/store/k"} {
		d.expect(400, "invalid state", "GET", path+"?state=made-up&code=c", "")
	}
}

// Middleware come, change and go while requests run.
func TestPipelinesAreReadAgainWhileRequestsRun(t *testing.T) {
	t.Parallel()
	app, began, let := slow()
	up := middleware("up", "uppercase", "", entry("direction", "both"))
	d, file := piped(t, machine.New(t), app, up, pipelines("up=uppercase", "up=uppercase"))
	d.until(200, "X", "POST", toApp+"x", "x")
	held := make(chan answer, 1)
	go func() { held <- d.do("POST", toApp+"slow", "held") }()
	<-began
	stop := d.load(200, "POST", toApp+"x", "loaded")
	streams := d.load(200, "POST", toApp+"x", strings.Repeat("s", 2<<20))
	for n := range 5 {
		file.write(up + middleware("check", "routerchecker", "", entry("rule", fmt.Sprint("^/v1.0|", n))) + pipelines("check=routerchecker", ""))
		d.until(200, "x", "POST", toApp+"x", "x")
		file.write(up + pipelines("", "up=uppercase"))
		d.until(200, "X", "POST", toApp+"x", "x")
	}
	file.write(pipelines("", ""))
	d.until(200, "x", "POST", toApp+"x", "x")
	streams()
	stop()
	close(let)
	if got := <-held; got.status != 200 || got.body != "HELD" {
		t.Errorf("the request that ran meanwhile: %d %s", got.status, got.body)
	}
}
