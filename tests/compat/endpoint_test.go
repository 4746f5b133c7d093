package compat

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	commonv1 "github.com/dapr/dapr/pkg/proto/common/v1"
	runtimev1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/sidecast/sidecast/tests/machine"
)

// endpoint is an HTTPEndpoint document.
func endpoint(name, more string) string {
	return "---\napiVersion: dapr.io/v1alpha1\nkind: HTTPEndpoint\nmetadata: {name: " + name + "}\n" + more + "\n"
}

func TestHTTPEndpoints(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	m.Env = []string{"ENDPOINT_KEY=s3cret"}
	asked := &tries{}
	other := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "elsewhere "+r.Header.Get("Key")) }))
	base := "http://127.0.0.1:" + serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/base/flaky":
			if asked.count(r.URL.Path) < 3 {
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
		case "/base/moved":
			http.Redirect(w, r, "/base/here", http.StatusTemporaryRedirect)
			return
		case "/base/away":
			http.Redirect(w, r, "http://127.0.0.1:"+other+"/", http.StatusFound)
			return
		}
		w.Header().Set("X-Key", strings.Join(r.Header.Values("Key"), ","))
		w.Header().Set("X-Plain", r.Header.Get("Plain"))
		w.Header().Set("X-Token", r.Header.Get("dapr-api-token")+r.Header.Get("dapr-app-id"))
		w.Header().Set("X-Length", fmt.Sprint(r.ContentLength))
		echo(w, r)
	})) + "/base"
	yaml := resources + endpoint("ext", `spec:
  baseUrl: `+base+`/
  headers:
  - {name: Key, secretKeyRef: {name: ENDPOINT_KEY}}
  - {name: Plain, value: "a value"}`) + endpoint("hidden", `scopes: [another]
spec: {version: v1, baseUrl: "`+base+`"}`) + `---
apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: policies}
spec:
  policies: {retries: {some: {policy: constant, duration: 10ms, maxRetries: 3, matching: {httpStatusCodes: "503"}}}}
  targets: {apps: {ext: {retry: some}}}
`
	d := startWith(t, m, yaml, "client")
	got := d.expect(200, "body", "PUT", "/v1.0/invoke/ext/method/a%20b/c?x=1&y=%20", "body", "Content-Type: text/x", "Key: mine", "Custom: c")
	for name, want := range map[string]string{
		"X-Verb": "PUT", "X-Path": "/base/a%20b/c", "X-Query": "x=1&y=%20", "X-Type": "text/x", "X-Key": "s3cret", "X-Plain": "a value", "X-Custom": "c",
		"X-Forwarded": "", "X-Callers": ">", "X-Token": "", "X-Length": "4",
	} {
		if got.header.Get(name) != want {
			t.Errorf("%s is %q, not %q", name, got.header.Get(name), want)
		}
	}
	for _, code := range []string{"204", "304", "404", "500"} {
		if got := d.do("GET", "/v1.0/invoke/ext/method/x", "", "want-status: "+code); fmt.Sprint(got.status) != code {
			t.Errorf("%s comes back as %d", code, got.status)
		}
	}
	if got := d.do("GET", "/x", "", "dapr-app-id: ext"); got.status != 200 || got.header.Get("X-Path") != "/base/x" || got.header.Get("X-Token") != "" {
		t.Errorf("by header: %d %v", got.status, got.header)
	}
	for target, path := range map[string]string{"ext": "/base/", base: "/base"} { // the root is what the document or the URL says
		if got := d.do("GET", "/v1.0/invoke/"+target+"/method/", ""); got.status != 200 || got.header.Get("X-Path") != path {
			t.Errorf("the root of %s: %d %v", target, got.status, got.header)
		}
	}
	d.expect(200, "", "POST", "/v1.0/invoke/ext/method/flaky", "")
	if n := asked.of("/base/flaky"); n != 3 {
		t.Errorf("the policy for the endpoint's name let it be asked %d times", n)
	}
	// Redirects are followed on the host alone: the document's header goes nowhere else.
	if got := d.do("POST", "/v1.0/invoke/ext/method/moved", "again"); got.status != 200 || got.body != "again" || got.header.Get("X-Path") != "/base/here" {
		t.Errorf("a redirect: %d %s %v", got.status, got.body, got.header)
	}
	request, _ := http.NewRequest("GET", "http://"+d.http+"/v1.0/invoke/ext/method/away", nil)
	response, err := http.DefaultTransport.RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusFound || !strings.HasSuffix(response.Header.Get("Location"), other+"/") {
		t.Errorf("a redirect to another host: %s %v", response.Status, response.Header)
	}
	// By URL, plain and encoded; scopes hide names.
	for _, target := range []string{base, url.QueryEscape(base)} {
		if got := d.do("GET", "/v1.0/invoke/"+target+"/method/x/y?q=1", ""); got.status != 200 || got.header.Get("X-Path") != "/base/x/y" || got.header.Get("X-Query") != "q=1" || got.header.Get("X-Key") != "" {
			t.Errorf("%s: %d %s %v", target, got.status, got.body, got.header)
		}
	}
	d.expect(500, `{"errorCode":"ERR_DIRECT_INVOKE","message":"failed to invoke, id: hidden, err: couldn't find service: hidden"}`, "GET", "/v1.0/invoke/hidden/method/x", "")
	d.expect(500, `{"errorCode":"ERR_DIRECT_INVOKE","message":"failed to invoke, id: http://127.0.0.1:1, err: …`, "GET", "/v1.0/invoke/http://127.0.0.1:1/method/x", "")

	var told struct{ HTTPEndpoints []struct{ Name string } }
	if err := json.Unmarshal([]byte(d.do("GET", "/v1.0/metadata", "").body), &told); err != nil || fmt.Sprint(told.HTTPEndpoints) != "[{ext}]" {
		t.Errorf("metadata tells of %v: %v", told, err)
	}
	if strings.Contains(d.Output(), "s3cret") {
		t.Error("a secret is in the log")
	}
	// Over gRPC.
	resp, err := d.client().InvokeService(context.Background(), &runtimev1.InvokeServiceRequest{Id: "ext", Message: &commonv1.InvokeRequest{
		Method: "m", Data: &anypb.Any{Value: []byte("over gRPC")}, HttpExtension: &commonv1.HTTPExtension{Verb: commonv1.HTTPExtension_POST},
	}})
	if err != nil || string(resp.GetData().GetValue()) != "over gRPC" {
		t.Errorf("over gRPC: %v %v", resp, err)
	}
	proxied := metadata.AppendToOutgoingContext(context.Background(), "dapr-app-id", "ext")
	if err := dial(t, d.grpc).Invoke(proxied, "/a.B/C", &emptypb.Empty{}, &emptypb.Empty{}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("gRPC of an HTTP endpoint: %v", err)
	}
}

func TestStreamsThroughHTTPEndpoints(t *testing.T) {
	t.Parallel()
	step := make(chan struct{})
	base := "http://127.0.0.1:" + serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(w)
		switch r.URL.Path {
		case "/events":
			w.Header().Set("Content-Type", "text/event-stream")
			for i := range 3 {
				fmt.Fprintf(w, "data: %d\n\n", i)
				_ = control.Flush()
				<-step
			}
		case "/cut":
			_, _ = w.Write([]byte("half"))
			_ = control.Flush()
			panic(http.ErrAbortHandler)
		default:
			w.Header().Set("X-Length", fmt.Sprint(r.ContentLength))
			_, _ = io.Copy(w, r.Body)
		}
	}))
	d := startWith(t, machine.New(t), endpoint("ext", "spec: {baseUrl: \""+base+"\"}"), "client", "--max-body-size", "64Mi")
	big := strings.Repeat("0123456789", 1<<20)
	if got := d.do("POST", "/v1.0/invoke/ext/method/copy", big); got.status != 200 || got.body != big || got.header.Get("X-Length") != fmt.Sprint(len(big)) {
		t.Errorf("%d, %d bytes, length %s", got.status, len(got.body), got.header.Get("X-Length"))
	}
	request, _ := http.NewRequest("POST", "http://"+d.http+"/v1.0/invoke/ext/method/copy", io.MultiReader(strings.NewReader("of unknown "), strings.NewReader("length")))
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(response.Body)
	response.Body.Close()
	if string(body) != "of unknown length" || response.Header.Get("X-Length") != "-1" {
		t.Errorf("got %q, length %s", body, response.Header.Get("X-Length"))
	}
	request, _ = http.NewRequest("GET", "http://"+d.http+"/v1.0/invoke/ext/method/events", nil)
	request.Header.Set("Accept", "text/event-stream")
	if response, err = http.DefaultClient.Do(request); err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	for i := range 3 { // each event comes before the next is sent
		event := make([]byte, len("data: 0\n\n"))
		if _, err := io.ReadFull(response.Body, event); err != nil || string(event) != fmt.Sprintf("data: %d\n\n", i) {
			t.Fatalf("event %d is %q: %v", i, event, err)
		}
		step <- struct{}{}
	}
	// What is cut off outside is cut off here.
	request, _ = http.NewRequest("GET", "http://"+d.http+"/v1.0/invoke/ext/method/cut", nil)
	request.Header.Set("Accept", "text/event-stream")
	if cut, err := http.DefaultClient.Do(request); err == nil {
		if all, err := io.ReadAll(cut.Body); err == nil {
			t.Errorf("an answer that was cut off looks whole: %q", all)
		}
		cut.Body.Close()
	}
}

func TestHTTPEndpointsWithTLS(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%d certificates", len(r.TLS.PeerCertificates))
	}))
	server.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	server.StartTLS()
	defer server.Close()
	root := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
	certificate, key := ownCertificate(t)
	m.Env = []string{"ROOT_CA=" + root, "OWN_KEY=" + key}
	quoted, _ := json.Marshal(certificate)
	d := startWith(t, m, endpoint("ext", `spec:
  baseUrl: `+server.URL+`
  clientTLS:
    rootCA: {secretKeyRef: {name: ROOT_CA}}
    certificate: {value: `+string(quoted)+`}
    privateKey: {secretKeyRef: {name: OWN_KEY}}
    renegotiation: OnceAsClient`)+endpoint("stranger", `spec: {baseUrl: "`+server.URL+`"}`), "client")
	d.expect(200, "1 certificates", "GET", "/v1.0/invoke/ext/method/x", "")
	if got := d.do("GET", "/v1.0/invoke/stranger/method/x", ""); got.status != 500 || !strings.Contains(got.body, "certificate") {
		t.Errorf("a server of an unknown authority: %d %s", got.status, got.body)
	}
}

// ownCertificate is one that signs itself, and its key, in PEM.
func ownCertificate(t testing.TB) (certificate, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded}))
}
