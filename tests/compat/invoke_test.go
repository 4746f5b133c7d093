package compat

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"

	commonv1 "github.com/dapr/dapr/pkg/proto/common/v1"
	runtimev1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/sidecast/sidecast/tests/machine"
)

// echo answers with what it was asked.
func echo(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	w.Header().Set("X-Path", r.URL.EscapedPath())
	w.Header().Set("X-Query", r.URL.RawQuery)
	w.Header().Set("X-Verb", r.Method)
	w.Header().Set("X-Type", strings.Join(r.Header["Content-Type"], ","))
	w.Header().Set("X-Callers", r.Header.Get("dapr-caller-app-id")+">"+r.Header.Get("dapr-callee-app-id"))
	w.Header().Set("X-Custom", strings.Join(r.Header.Values("custom"), ","))
	w.Header().Set("X-Hop", r.Header.Get("proxy-authorization")+r.Header.Get("te")+r.Header.Get("dapr-api-token")+r.Header.Get("dapr-app-id")+r.Header.Get("sidecast-type-url"))
	w.Header().Set("X-Trace", r.Header.Get("traceparent"))
	w.Header().Set("X-Forwarded", r.Header.Get("forwarded")+r.Header.Get("x-forwarded-for"))
	if status := r.Header.Get("want-status"); status != "" {
		code := 0
		fmt.Sscan(status, &code)
		w.WriteHeader(code)
	}
	_, _ = w.Write(body)
}

func TestInvocationFromHTTPToHTTP(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	start(t, m, "server", "--app-port", serve(t, http.HandlerFunc(echo))).await("/v1.0/healthz")
	d := start(t, m, "client")
	const invoke = "/v1.0/invoke/server/method/"
	for _, verb := range []string{"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD"} {
		if got := d.do(verb, invoke+"a/b", ""); got.status != 200 || got.header.Get("X-Verb") != verb || got.header.Get("X-Path") != "/a/b" {
			t.Errorf("%s: %d %v", verb, got.status, got.header)
		}
	}
	got := d.expect(200, "hello", "POST", invoke+"a/../b%20c//d?x=1&y=%20&x=2", "hello", "Content-Type: text/plain", "Custom: 1", "TE: trailers", "Proxy-Authorization: x")
	for name, want := range map[string]string{
		"X-Path": "/b%20c/d", "X-Query": "x=1&y=%20&x=2", "X-Type": "text/plain", "X-Callers": "client>server", "X-Custom": "1", "X-Hop": "",
	} {
		if got.header.Get(name) != want {
			t.Errorf("%s is %q, not %q", name, got.header.Get(name), want)
		}
	}
	if forwarded := got.header.Get("X-Forwarded"); !strings.HasPrefix(forwarded, "for=") || !strings.Contains(forwarded, ";by=") {
		t.Errorf("the call is not said to be forwarded: %q", forwarded)
	}
	if trace := got.header.Get("X-Trace"); len(trace) != 55 || !strings.HasPrefix(trace, "00-") || !strings.HasSuffix(trace, "-00") {
		t.Errorf("a call that is not traced has the trace %q", trace)
	}
	const traced = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	if got := d.do("GET", invoke+"x", "", "traceparent: "+traced); got.header.Get("X-Trace") != traced {
		t.Errorf("a traced call has the trace %q", got.header.Get("X-Trace"))
	}
	if got := d.do("POST", invoke+"x", "body"); got.header.Get("X-Type") != "" {
		t.Errorf("a content type is made up: %q", got.header.Get("X-Type"))
	}
	for _, code := range []string{"204", "301", "400", "404", "418", "500", "503"} {
		if got := d.do("GET", invoke+"x", "", "want-status: "+code); fmt.Sprint(got.status) != code {
			t.Errorf("the app answers %s, its caller gets %d", code, got.status)
		}
	}
	// The other forms.
	if got := d.do("PUT", "/any/path?q=1", "", "dapr-app-id: server"); got.status != 200 || got.header.Get("X-Path") != "/any/path" || got.header.Get("X-Query") != "q=1" {
		t.Errorf("by header: %d %v", got.status, got.header)
	}
	basic := base64.StdEncoding.EncodeToString([]byte("dapr-app-id:server"))
	if got := d.do("GET", "/some", "", "Authorization: Basic "+basic); got.status != 200 || got.header.Get("X-Path") != "/some" {
		t.Errorf("by authorization: %d %v", got.status, got.header)
	}
	d.expect(200, "", "GET", "/v1.0/invoke/server.default/method/x", "")
	if got := d.do("GET", "/v1.0/invoke/server/method/", ""); got.status != 200 || got.header.Get("X-Path") != "/" {
		t.Errorf("the root: %d %v", got.status, got.header)
	}
	for path, seen := range map[string]string{"/": "/", "//a//b/": "/a/b", "..": "/"} {
		if got := d.do("GET", "/v1.0/invoke/server/method/"+path, ""); got.status != 200 || got.header.Get("X-Path") != seen {
			t.Errorf("%s: %d %v", path, got.status, got.header)
		}
	}
	for status, kind := range map[string]string{"404": "application/json", "200": ""} {
		if got := d.do("GET", "/v1.0/invoke/server/method/x", "", "want-status: "+status); fmt.Sprint(got.status) != status || got.header.Get("Content-Type") != kind {
			t.Errorf("an answer without a body: %d %v", got.status, got.header)
		}
	}
	const noID = `{"errorCode":"ERR_DIRECT_INVOKE","message":"failed getting app id either from the URL path or the header dapr-app-id"}`
	for _, path := range []string{"/", "/v1.0/invoke/server", "/v1.0/nothing", "/v1.0/publish/bus"} {
		d.expect(404, noID, "POST", path, "")
	}
	d.expect(500, `{"errorCode":"ERR_DIRECT_INVOKE","message":"failed to invoke, id: a.b.c, err: invalid app id a.b.c"}`, "GET", "/v1.0/invoke/a.b.c/method/x", "")
}

func TestBodies(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	start(t, m, "server", "--app-port", serve(t, http.HandlerFunc(echo))).await("/v1.0/healthz")
	d := start(t, m, "client")
	const path = "/v1.0/invoke/server/method/x"
	large := strings.Repeat("0123456789abcdef", 3<<16) // 3 MiB, as a stream
	if got := d.do("POST", path, large); got.status != 200 || got.body != large {
		t.Errorf("a large body: %d, %d bytes", got.status, len(got.body))
	}
	d.expect(500, `{"errorCode":"ERR_DIRECT_INVOKE","message":"failed to invoke, id: server, err: …`, "POST", path, large+large)
	d.expect(500, `{"errorCode":"ERR_PUBSUB_PUBLISH_MESSAGE","message":"error when publishing to topic t in pubsub bus: stream too large",…`, "POST", "/v1.0/publish/bus/t", large+large)
	// Chunked, of unknown length.
	r, _ := http.NewRequest("POST", "http://"+d.http+path, io.MultiReader(strings.NewReader("one "), strings.NewReader("two")))
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if body, err := io.ReadAll(response.Body); err != nil || string(body) != "one two" {
		t.Errorf("a body of unknown length: %q %v", body, err)
	}
	wide := start(t, m, "wide", "--max-body-size", "8Mi")
	if got := wide.do("POST", path, large+large); got.status != 200 || len(got.body) != 2*len(large) {
		t.Errorf("with a higher limit: %d, %d bytes", got.status, len(got.body))
	}
}

// An answer that does not say its media type gets that which its first piece looks like, as of daprd, whether it is whole or comes
// in pieces.
func TestAnswersThatDoNotSayTheirKind(t *testing.T) {
	t.Parallel()
	app := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header()["Content-Type"] = nil
		for _, piece := range strings.Split(r.URL.Query().Get("pieces"), ",") {
			_, _ = io.WriteString(w, piece)
			if r.URL.Path == "/pieces" {
				_ = http.NewResponseController(w).Flush()
			}
		}
	})
	d, _ := piped(t, machine.New(t), app)
	d.await("/v1.0/healthz")
	for _, path := range []string{"whole", "pieces"} {
		for pieces, want := range map[string]string{"text,more": "text/plain; charset=utf-8", "<html>,more": "text/html; charset=utf-8", "": ""} {
			got := d.expect(200, strings.ReplaceAll(pieces, ",", ""), "GET", toApp+path+"?pieces="+url.QueryEscape(pieces), "")
			if kind := got.header.Get("Content-Type"); kind != want {
				t.Errorf("%s of %q came as %q", path, pieces, kind)
			}
		}
	}
}

func TestServerSentEventsComeAsTheyAreWritten(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	next := make(chan struct{})
	app := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/events" {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		for i := range 3 {
			fmt.Fprintf(w, "data: %d\n\n", i)
			_ = http.NewResponseController(w).Flush()
			select {
			case <-next: // the caller has the event
			case <-r.Context().Done():
			}
		}
	}))
	start(t, m, "server", "--app-port", app).await("/v1.0/healthz")
	d := start(t, m, "client")
	for _, field := range []string{"Accept: text/event-stream", "Accept: application/json, application/x-ndjson", "Dapr-Stream: true"} {
		name, value, _ := strings.Cut(field, ": ")
		r, _ := http.NewRequest("GET", "http://"+d.http+"/v1.0/invoke/server/method/events", nil)
		r.Header.Set(name, value)
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		for i := range 3 {
			event := make([]byte, len("data: 0\n\n"))
			if _, err := io.ReadFull(response.Body, event); err != nil || string(event) != fmt.Sprintf("data: %d\n\n", i) {
				t.Fatalf("%s: event %d: %q %v", field, i, event, err)
			}
			next <- struct{}{}
		}
	}
}

// An answer that ends before it has as many bytes as it says is cut off, whatever its status.
func TestAnswersThatAreCutShortAreErrors(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	app := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "999")
		_, _ = io.WriteString(w, "half")
	}))
	start(t, m, "server", "--app-port", app).await("/v1.0/healthz")
	for _, of := range []*daprd{start(t, m, "client"), start(t, m, "server2", "--app-port", app)} {
		of.await("/v1.0/healthz")
		if got, err := io.ReadAll(of.get(t.Context(), "/v1.0/invoke/server/method/x").Body); err == nil {
			t.Errorf("half an answer came as %q", got)
		}
	}
}

// callback is an app that serves gRPC: Dapr's callback, and a service of its own.
type callback struct {
	runtimev1.UnimplementedAppCallbackServer
	runtimev1.UnimplementedAppCallbackHealthCheckServer
}

func (callback) OnInvoke(ctx context.Context, in *commonv1.InvokeRequest) (*commonv1.InvokeResponse, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	get := func(key string) string { return strings.Join(md[key], ",") }
	_ = grpc.SetHeader(ctx, metadata.Pairs("x-app", "here", "date", "now", "x-connection", get("dapr-authority")+get("dapr-grpc-accept-encoding"), "x-callers", get("dapr-caller-app-id")+">"+get("dapr-callee-app-id"), "x-custom", get("custom"), "x-from", get("from")+"|"+get("dapr-from")))
	_ = grpc.SetTrailer(ctx, metadata.Pairs("x-tail", "end", "x-raw-bin", "\x00\xff"))
	if in.GetMethod() == "away" {
		return nil, status.Error(codes.Unavailable, "back soon")
	}
	if in.GetMethod() == "fail" {
		s, _ := status.New(codes.AlreadyExists, "there: “one”").WithDetails(&errdetails.ErrorInfo{Reason: "TAKEN", Domain: "app"})
		return nil, s.Err()
	}
	return &commonv1.InvokeResponse{
		ContentType: in.GetContentType(),
		Data:        &anypb.Any{TypeUrl: in.GetData().GetTypeUrl(), Value: fmt.Appendf(nil, "%s %s?%s %s", in.GetHttpExtension().GetVerb(), in.GetMethod(), in.GetHttpExtension().GetQuerystring(), in.GetData().GetValue())},
	}, nil
}

func (callback) HealthCheck(context.Context, *emptypb.Empty) (*runtimev1.HealthCheckResponse, error) {
	return &runtimev1.HealthCheckResponse{}, nil
}

// streams is a service that only the apps know, with all four kinds of streaming in one: it sends back what it gets, and ends
// as the last message says.
var streams = grpc.ServiceDesc{
	ServiceName: "test.Streams", HandlerType: (*any)(nil),
	Streams: []grpc.StreamDesc{{StreamName: "Echo", ServerStreams: true, ClientStreams: true, Handler: func(_ any, stream grpc.ServerStream) error {
		md, _ := metadata.FromIncomingContext(stream.Context())
		for key := range md {
			if key == "dapr-authority" || strings.HasPrefix(key, "dapr-grpc-") {
				_ = stream.SetHeader(metadata.Pairs("x-keys", key))
			}
		}
		_ = stream.SetHeader(metadata.Pairs("x-head", strings.Join(append(md["custom"], md["from"]...), ","), "x-caller", strings.Join(append(md["dapr-caller-app-id"], md["dapr-app-id"]...), ","), "x-raw-bin", "\x00\xff"))
		stream.SetTrailer(metadata.Pairs("x-tail", "end"))
		for {
			in := &wrapperspb.BytesValue{}
			if err := stream.RecvMsg(in); errors.Is(err, io.EOF) {
				return nil
			} else if err != nil {
				return err
			}
			if string(in.Value) == "fail" {
				s, _ := status.New(codes.DataLoss, "gone").WithDetails(&errdetails.ErrorInfo{Reason: "R", Domain: "app"})
				return s.Err()
			}
			if err := stream.SendMsg(in); err != nil {
				return err
			}
		}
	}}},
}

// serveGRPC runs a gRPC app until the test ends and returns its port.
func serveGRPC(t testing.TB, register func(*grpc.Server)) string {
	t.Helper()
	listener := listen(t)
	server := grpc.NewServer(grpc.MaxRecvMsgSize(64 << 20))
	register(server)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(listener)
	}()
	t.Cleanup(func() {
		server.Stop()
		<-done
	})
	return port(listener.Addr().(*net.TCPAddr).String())
}

func grpcApp(t testing.TB) string {
	return serveGRPC(t, func(s *grpc.Server) {
		runtimev1.RegisterAppCallbackServer(s, callback{})
		runtimev1.RegisterAppCallbackHealthCheckServer(s, callback{})
		s.RegisterService(&streams, callback{})
	})
}

func TestInvocationFromHTTPToGRPC(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	start(t, m, "server", "--app-port", grpcApp(t), "--app-protocol", "grpc").await("/v1.0/healthz")
	d := start(t, m, "client")
	got := d.expect(200, "PUT a/b?x=1 body", "PUT", "/v1.0/invoke/server/method/a/b?x=1", "body", "Content-Type: text/x", "Custom: c", "From: f")
	if got.header.Get("Content-Type") != "text/x" || got.header.Get("X-App") != "here" || got.header.Get("X-Callers") != "client>server" || got.header.Get("X-Custom") != "c" ||
		got.header.Get("X-From") != "|f" { // a field of HTTP's own
		t.Errorf("the header is %v", got.header)
	}
	if got := d.do("POST", "/v1.0/invoke/server/method/fail", ""); got.status != 409 || !strings.Contains(got.body, `"there: “one”"`) || !strings.Contains(got.body, "TAKEN") ||
		got.header.Get("X-App") != "here" || got.header.Get("Content-Type") != "application/json" {
		t.Errorf("an error of the app: %d %s %v", got.status, got.body, got.header)
	}
	large := strings.Repeat("0123456789abcdef", 3<<16) // 3 MiB, as a stream
	if got := d.do("POST", "/v1.0/invoke/server/method/x", large, "Content-Type: text/x"); got.status != 200 || got.body != "POST x? "+large || got.header.Get("Content-Type") != "text/x" || got.header.Get("X-App") != "here" {
		t.Errorf("a large body: %d, %d bytes, %v", got.status, len(got.body), got.header)
	}
	if got := d.do("POST", "/v1.0/invoke/server/method/fail", large); got.status != 409 || !strings.Contains(got.body, "TAKEN") {
		t.Errorf("an error of the app after a large body: %d %s", got.status, got.body)
	}
	d.expect(200, "GET x?", "GET", "/v1.0/invoke/server/method/x", "", "Accept: text/event-stream")
	for path, method := range map[string]string{"": "", "/": "/", "//a//b/": "/a/b", "..": ""} {
		d.expect(200, "GET "+method+"?", "GET", "/v1.0/invoke/server/method/"+path, "")
	}
	d.expect(200, "GET ?", "GET", "/", "", "dapr-app-id: server")
}

func TestInvocationFromGRPC(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	start(t, m, "grpc-app", "--app-port", grpcApp(t), "--app-protocol", "grpc").await("/v1.0/healthz")
	start(t, m, "http-app", "--app-port", serve(t, http.HandlerFunc(echo))).await("/v1.0/healthz")
	c := start(t, m, "client").client()
	ctx := metadata.AppendToOutgoingContext(t.Context(), "custom", "c", "from", "f")
	invoke := func(app, method string, more ...string) (*commonv1.InvokeResponse, metadata.MD, error) {
		var head metadata.MD
		resp, err := c.InvokeService(metadata.AppendToOutgoingContext(ctx, more...), &runtimev1.InvokeServiceRequest{Id: app, Message: &commonv1.InvokeRequest{
			Method: method, ContentType: "text/plain", Data: &anypb.Any{Value: []byte("body")},
			HttpExtension: &commonv1.HTTPExtension{Verb: commonv1.HTTPExtension_PUT, Querystring: "q=1"},
		}}, grpc.Header(&head))
		return resp, head, err
	}
	resp, head, err := invoke("grpc-app", "m")
	if err != nil || string(resp.GetData().GetValue()) != "PUT m?q=1 body" || resp.GetContentType() != "text/plain" || head.Get("x-custom")[0] != "c" ||
		fmt.Sprint(head.Get("x-from"), head.Get("date"), head.Get("dapr-date"), head.Get("x-connection")) != "[f|] [now] [] []" { // names stay; nothing of the caller's connection
		t.Errorf("got %v %v %v", resp, head, err)
	}
	typed := &commonv1.InvokeRequest{Method: "m", ContentType: "text/x", Data: &anypb.Any{TypeUrl: "a/b", Value: []byte("body")}}
	resp, err = c.InvokeService(ctx, &runtimev1.InvokeServiceRequest{Id: "grpc-app", Message: typed})
	if err != nil || resp.GetContentType() != "text/x" || resp.GetData().GetTypeUrl() != "a/b" || // as the caller and the app say
		string(resp.GetData().GetValue()) != "NONE m? body" {
		t.Errorf("a typed body: %v %v", resp, err)
	}
	typed.HttpExtension = &commonv1.HTTPExtension{Verb: commonv1.HTTPExtension_POST}
	_, err = c.InvokeService(ctx, &runtimev1.InvokeServiceRequest{Id: "http-app", Message: typed}, grpc.Header(&head))
	if err != nil || fmt.Sprint(head.Get("x-type"), head.Get("x-hop")) != "[application/x-protobuf] []" {
		t.Errorf("a typed body to an HTTP app: %v %v", head, err)
	}
	_, err = c.InvokeService(ctx, &runtimev1.InvokeServiceRequest{Id: "grpc-app"})
	if s := status.Convert(err); s.Code() != codes.Internal || s.Message() != "failed to invoke, id: grpc-app, err: message is nil" {
		t.Errorf("no message: %v", err)
	}
	_, _, err = invoke("grpc-app", "fail")
	if s := status.Convert(err); s.Code() != codes.AlreadyExists || s.Message() != "there: “one”" || len(s.Details()) != 1 {
		t.Errorf("an error of the app: %v %v", err, s.Details())
	}
	_, _, err = invoke("grpc-app", "away")
	if s := status.Convert(err); s.Code() != codes.Unavailable || s.Message() != "back soon" {
		t.Errorf("an app that says that it is not available: %v", err)
	}
	resp, head, err = invoke("http-app", "m")
	if err != nil || string(resp.GetData().GetValue()) != "body" || head.Get("x-verb")[0] != "PUT" || head.Get("x-query")[0] != "q=1" || head.Get("dapr-http-status")[0] != "200" {
		t.Errorf("got %v %v %v", resp, head, err)
	}
	_, head, err = invoke("http-app", "m", "want-status", "404")
	s := status.Convert(err)
	if s.Code() != codes.NotFound || s.Message() != "Not Found" || head.Get("dapr-http-status")[0] != "404" {
		t.Errorf("an error of the app: %v %v", err, head)
	}
	for _, d := range s.Details() {
		if info := d.(*errdetails.ErrorInfo); info.Metadata["http.code"] != "404" || info.Metadata["http.error_message"] != "body" || info.Domain != "dapr.io" {
			t.Errorf("the details are %v", info)
		}
	}
	_, _, err = invoke("nobody", "m")
	if s := status.Convert(err); s.Code() != codes.Internal || s.Message() != "failed to invoke, id: nobody, err: couldn't find service: nobody" {
		t.Errorf("an app that is not there: %v", err)
	}
}

func TestProxying(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	start(t, m, "server", "--app-port", grpcApp(t), "--app-protocol", "grpc", "--max-body-size", "16Mi").await("/v1.0/healthz")
	conn := dial(t, start(t, m, "client", "--max-body-size", "16Mi").grpc)
	open := func(app string) grpc.ClientStream {
		ctx := metadata.AppendToOutgoingContext(t.Context(), "dapr-app-id", app, "custom", "c", "from", "f")
		stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/test.Streams/Echo", grpc.MaxCallRecvMsgSize(64<<20))
		if err != nil {
			t.Fatal(err)
		}
		return stream
	}
	stream := open("server")
	for _, size := range []int{0, 1, 100 << 10, 5 << 20} { // each is answered before the next is sent
		sent, got := &wrapperspb.BytesValue{Value: bytes.Repeat([]byte("x"), size)}, &wrapperspb.BytesValue{}
		if err := stream.SendMsg(sent); err != nil {
			t.Fatal(err)
		}
		if err := stream.RecvMsg(got); err != nil || len(got.Value) != size {
			t.Fatalf("%d bytes came back as %d: %v", size, len(got.Value), err)
		}
	}
	_ = stream.CloseSend()
	if err := stream.RecvMsg(&wrapperspb.BytesValue{}); !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	head, _ := stream.Header()
	if keys := head.Get("x-keys"); len(keys) != 0 {
		t.Errorf("the app is told %v of the caller's connection", keys)
	}
	if head.Get("x-head")[0] != "c,f" || head.Get("x-caller")[0] != "client" || head.Get("x-raw-bin")[0] != "\x00\xff" || stream.Trailer().Get("x-tail")[0] != "end" {
		t.Errorf("got %v and %v", head, stream.Trailer())
	}
	failing := open("server")
	_ = failing.SendMsg(&wrapperspb.BytesValue{Value: []byte("fail")})
	err := failing.RecvMsg(&wrapperspb.BytesValue{})
	if s := status.Convert(err); s.Code() != codes.DataLoss || s.Message() != "gone" || len(s.Details()) != 1 || failing.Trailer().Get("x-tail")[0] != "end" {
		t.Errorf("an error of the app: %v %v", err, s.Details())
	}
	unknown := conn.Invoke(metadata.AppendToOutgoingContext(t.Context(), "dapr-app-id", "server"), "/test.None/Such", &emptypb.Empty{}, &emptypb.Empty{})
	if status.Code(unknown) != codes.Unimplemented {
		t.Errorf("a service that the app has not: %v", unknown)
	}
	start(t, m, "web", "--app-port", serve(t, http.HandlerFunc(echo))).await("/v1.0/healthz")
	foreign := conn.Invoke(metadata.AppendToOutgoingContext(t.Context(), "dapr-app-id", "web"), "/test.Streams/Echo", &emptypb.Empty{}, &emptypb.Empty{})
	if s := status.Convert(foreign); s.Code() != codes.Unimplemented || !strings.Contains(s.Message(), "the app serves no gRPC: it answered in HTTP, with status 200") {
		t.Errorf("an app that speaks HTTP: %v", foreign)
	}
	nameless := conn.Invoke(t.Context(), "/test.Streams/Echo", &emptypb.Empty{}, &emptypb.Empty{})
	fails(t, nameless, codes.Unknown, "", "cannot proxy request: missing dapr-callee-app-id or dapr-app-id metadata")
	newer := conn.Invoke(t.Context(), "/dapr.proto.runtime.v1.Dapr/ListIndexesAlpha1", &emptypb.Empty{}, &emptypb.Empty{}) // Rust's SDK knows it by "failed to proxy request"
	fails(t, newer, codes.Unknown, "", "failed to proxy request: required metadata dapr-callee-app-id or dapr-app-id not found")
	empty := conn.Invoke(metadata.AppendToOutgoingContext(t.Context(), "dapr-app-id", ""), "/test.Streams/Echo", &emptypb.Empty{}, &emptypb.Empty{})
	fails(t, empty, codes.Unknown, "", "app id is empty")
	absent := conn.Invoke(metadata.AppendToOutgoingContext(t.Context(), "dapr-app-id", "nobody"), "/test.Streams/Echo", &emptypb.Empty{}, &emptypb.Empty{})
	fails(t, absent, codes.Unknown, "", "couldn't find service: nobody")
}

// A call that is answered before its body was read leaves nothing on the connection that could be taken for a request.
func TestWhatIsLeftOfABodyIsNoRequest(t *testing.T) {
	t.Parallel()
	d := start(t, machine.New(t), "caller")
	conn, err := net.Dial("tcp", d.http)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	body := strings.Repeat("GET /v1.0/healthz HTTP/1.1\r\nHost: x\r\n\r\n", 60_000)
	go func() { // ends with the connection
		_, _ = fmt.Fprintf(conn, "POST /v1.0/invoke/nobody/method/x HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	}()
	answers, err := io.ReadAll(conn)
	if n := bytes.Count(answers, []byte("HTTP/1.1 ")); n != 1 || !bytes.Contains(answers, []byte("Connection: close")) {
		t.Errorf("%d answers, %v: %.400s", n, err, answers)
	}
}
