package daprapi

import (
	"cmp"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"

	internalv1 "github.com/dapr/dapr/pkg/proto/internals/v1"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/sidecast/sidecast/access"
	"github.com/sidecast/sidecast/api/bodies"
	"github.com/sidecast/sidecast/appchannel"
	blocks "github.com/sidecast/sidecast/building_blocks"
	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/fault"
)

const appIDHeader = "dapr-app-id"

// wholeBody is the largest body that travels in one piece; larger ones, and those of unknown length, travel as streams.
const wholeBody = 1 << 20

// targetOf finds the app and the method of a request: in the header dapr-app-id, in the user of Basic authorization, or in
// the path, as byPath says.
func targetOf(r *http.Request) (app, method string, byPath bool) {
	whole := func() string { return strings.TrimPrefix(path.Clean(r.URL.Path), "/") }
	if app := r.Header.Get(appIDHeader); app != "" {
		return app, whole(), false
	}
	if encoded, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Basic "); ok {
		if plain, err := base64.StdEncoding.DecodeString(encoded); err == nil {
			if user, app, ok := strings.Cut(string(plain), ":"); ok && !strings.Contains(app, ":") && strings.EqualFold(user, appIDHeader) {
				return app, whole(), false
			}
		}
	}
	rest, ok := afterInvoke(r.URL.Path)
	if !ok {
		return "", "", false
	}
	app, method, ok = strings.Cut(rest, "/method/")
	if !ok || app == "" {
		return "", "", false
	}
	if method = path.Clean(method); method == "." {
		method = ""
	}
	if plain, err := url.QueryUnescape(app); err == nil && plain != "" {
		app = plain
	}
	return app, method, true
}

// afterInvoke is what follows v1.0/invoke/ in a path; slashes may be doubled.
func afterInvoke(p string) (string, bool) {
	for _, want := range []string{"v1.0", "invoke"} {
		p = strings.TrimLeft(p, "/")
		rest, ok := strings.CutPrefix(p, want+"/")
		if !ok {
			return "", false
		}
		p = rest
	}
	return strings.TrimLeft(p, "/"), true
}

// normal resolves dots in a method and refuses what no path may hold.
func normal(method string) (string, error) {
	if strings.ContainsAny(method, "#?\x00") {
		return "", status.Errorf(codes.InvalidArgument, "invalid method: method contains forbidden character: %q", method)
	}
	if i := strings.IndexFunc(method, control); i >= 0 {
		return "", status.Errorf(codes.InvalidArgument, "invalid method: method contains control character at position %d: %q", i, method)
	}
	clean := path.Clean(method)
	for strings.HasPrefix(clean, "../") {
		clean = clean[3:]
	}
	if clean == "." || clean == ".." {
		clean = ""
	}
	return clean, nil
}

// control tells control characters.
func control(r rune) bool { return r < ' ' || r == 0x7f }

// direct is the problem of an invocation that got no answer.
func (s *Server) direct(app string, err error) error {
	why := err
	if denied := deniedStatus(err); denied != nil {
		why = denied
	} else if errors.Is(err, errTooLarge) {
		why = errTooLarge
	} else if unreached := s.unreached(app, err); unreached != nil {
		why = unreached
	}
	p := directProblem()
	p.message = fmt.Sprintf("failed to invoke, id: %s, err: %v", app, why)
	if status.Code(why) == codes.PermissionDenied || fault.KindOf(why) == fault.Denied {
		p.http, p.grpc = http.StatusForbidden, codes.PermissionDenied
	}
	return p.of(err)
}

func directProblem() *problem {
	return plain(http.StatusInternalServerError, codes.Internal, "ERR_DIRECT_INVOKE", "")
}

// unreached is the error of a call that no app was given, in Dapr's words; nil for others. What the lane knows beyond it goes
// beside it.
func (s *Server) unreached(app string, err error) error {
	e, ok := errors.AsType[*fault.Error](err)
	for ok && e.Reason == fault.StreamBroken { // as the lane of a request that cannot be sent again says it
		e, ok = errors.AsType[*fault.Error](e.Err)
	}
	if !ok {
		return nil
	}
	own := func() bool { id, namespace, _ := s.target(app); return id == s.o.AppID && namespace == "" }
	why := e.Err
	switch e.Reason {
	case fault.AppNotFound:
		id, _, _ := s.target(app)
		return fmt.Errorf("couldn't find service: %s", id)
	case fault.NoApp, fault.AppNotConnected:
		if own() {
			return errors.New("cannot invoke local endpoint: app channel not initialized")
		}
		return status.Error(codes.Internal, "app channel is not initialized")
	case fault.AppUnhealthy:
		why = status.Error(codes.Internal, "app is not in a healthy state")
	case fault.AppUnreachable:
	default:
		return nil
	}
	if own() {
		return why
	}
	return status.Errorf(codes.Internal, "error invoking app channel: %v", why)
}

// deniedStatus is the error of a call that the app's access control refused, in Dapr's words; nil for others.
func deniedStatus(err error) error {
	var e *fault.Error
	if !errors.As(err, &e) || e.Reason != fault.AccessDenied {
		return nil
	}
	return status.Error(codes.PermissionDenied, e.Meta[access.DeniedText])
}

// target is an app id and a namespace, "" for that of this sidecar.
func (s *Server) target(app string) (id, namespace string, err error) {
	if s.o.Blocks.Invocation.Outside(app) {
		return app, "", nil
	}
	id, namespace, _ = strings.Cut(app, ".")
	switch {
	case strings.Contains(namespace, "."):
		return "", "", fmt.Errorf("invalid app id %s", app)
	case namespace == s.o.Namespace:
		namespace = ""
	}
	return id, namespace, nil
}

// request makes the call to an app, of a method that is not yet clean.
func (s *Server) request(app, method string) (*call.Request, error) {
	id, namespace, err := s.target(app)
	if err != nil {
		return nil, err
	}
	if app == "" {
		return nil, errors.New("app id is empty")
	}
	if method, err = normal(method); err != nil {
		return nil, err
	}
	return &call.Request{App: id, Namespace: namespace, Method: method}, nil
}

// invoke is every HTTP request that no other route takes.
func (s *Server) invoke(w http.ResponseWriter, r *http.Request) error {
	app, method, _ := targetOf(r)
	r.Header.Del(appIDHeader)
	if heard, ok := w.(*heardCall); ok && app != "" {
		heard.name += "/" + app
	}
	if app == "" {
		return plain(http.StatusNotFound, codes.NotFound, "ERR_DIRECT_INVOKE",
			"failed getting app id either from the URL path or the header dapr-app-id")
	}
	s.tellTarget(r.Context(), app, method)
	req, err := s.request(app, method)
	if err != nil {
		return s.direct(app, err)
	}
	req.Verb, req.Query, req.ContentType = strings.ToUpper(r.Method), r.URL.RawQuery, r.Header.Get("Content-Type")
	req.Header = s.forwarded(r.Header, req.App, req.Namespace)
	if names := slices.Sorted(maps.Keys(r.Trailer)); len(names) > 0 { // net/http takes the field itself out
		req.Header.Set("trailer", strings.Join(names, ", "))
	}
	if r.ContentLength > 0 && s.o.Blocks.Invocation.Outside(app) {
		req.Header.Add("content-length", strconv.FormatInt(r.ContentLength, 10)) // a server outside may want to know
	}
	if r.ContentLength < 0 || r.ContentLength > wholeBody || wantsPieces(r.Header) {
		return s.invokeStream(w, r, app, req)
	}
	if req.Body, err = s.whole(r); err != nil {
		return s.direct(app, err)
	}
	req.Trailer = trailerOf(r)
	to := &onward{w: w}
	req.Pieces = call.PiecesTo(r.Context(), to)
	resp, err := s.o.Blocks.Invocation.Invoke(r.Context(), req)
	if err == nil && resp.Status != 0 && failure(resp.Status) {
		s.count(directProblem())
	}
	switch {
	case err == nil && resp.Passed:
		return nil
	case to.begun: // the answer cannot be taken back: cutting it off tells the caller that it is not whole
		panic(http.ErrAbortHandler)
	case err != nil:
		return s.failed(w, app, err)
	}
	announce(w, resp)
	writeHead(w, resp)
	_, _ = w.Write(resp.Body)
	writeTrailer(w, resp.Trailer)
	return nil
}

// wantsPieces says whether a caller wants the answer as it comes, whatever the app speaks: it accepts a media type whose documents
// have no end, or says so. An app that is no HTTP server, and a sidecar that is older than answers in pieces, streams only then.
func wantsPieces(header http.Header) bool {
	if values := header["Dapr-Stream"]; len(values) > 0 && truthy(values[0]) {
		return true
	}
	for _, accept := range header["Accept"] {
		for _, kind := range endless {
			if strings.Contains(accept, kind) {
				return true
			}
		}
	}
	return false
}

var endless = []string{"text/event-stream", "application/x-ndjson", "application/jsonl", "application/stream+json", "application/json-seq"}

// trailerOf is what followed the body of a request, once it is read.
func trailerOf(r *http.Request) (trailer call.Header) {
	for key, values := range r.Trailer {
		for _, value := range values {
			trailer.Add(strings.ToLower(key), value)
		}
	}
	return trailer
}

// announce names the fields that follow a whole answer, so that it is sent in chunks, which alone can be followed.
func announce(w http.ResponseWriter, resp *call.Response) {
	for _, f := range resp.Trailer {
		if resp.Header.Get("trailer") == "" && !strings.HasSuffix(f.Key, "-bin") {
			w.Header().Add("Trailer", f.Key)
		}
	}
}

// writeTrailer has fields follow the body. net/http leaves out those that may not.
func writeTrailer(w http.ResponseWriter, trailer call.Header) {
	for _, f := range trailer {
		if !strings.HasPrefix(f.Key, "sidecast-") && !strings.HasSuffix(f.Key, "-bin") {
			w.Header().Add(http.TrailerPrefix+f.Key, f.Value)
		}
	}
}

// forwarded takes the header of a request over, and adds who forwards it.
func (s *Server) forwarded(header http.Header, app, namespace string) call.Header {
	all := make(call.Header, 0, len(header)+4)
	for key, values := range header {
		switch key {
		case "Content-Type", "Content-Length", "Dapr-Api-Token", "Dapr-App-Id", "Grpc-Trace-Bin":
			continue
		}
		for _, value := range values {
			all.Add(reservedOfGRPC(lower(key)), value)
		}
	}
	return s.forwarder(all, app, namespace)
}

// forwarder adds to the header of a call to another app who forwards it.
func (s *Server) forwarder(all call.Header, app, namespace string) call.Header {
	if (app != s.o.AppID || namespace != "") && !s.o.Blocks.Invocation.Outside(app) {
		all.Add("x-forwarded-for", s.host.address)
		if s.host.name != "" {
			all.Add("x-forwarded-host", s.host.name)
		}
		all.Add("forwarded", s.host.forwarded)
	}
	return all
}

// reservedOfGRPC is the name under which a field passes whose own means something to gRPC.
func reservedOfGRPC(key string) string {
	if strings.HasPrefix(key, "grpc-") {
		return "dapr-" + key
	}
	return key
}

// lowered are names of header fields as requests have them most, in lower case.
var lowered = func() map[string]string {
	all := map[string]string{}
	for _, name := range []string{
		"Accept", "Accept-Encoding", "Accept-Language", "Authorization", "Baggage", "Cache-Control", "Connection", "Cookie",
		"Host", "If-Match", "If-None-Match", "Origin", "Referer", "Traceparent", "Tracestate", "User-Agent", "X-Forwarded-For",
		"X-Forwarded-Host", "X-Forwarded-Proto", "X-Request-Id",
	} {
		all[name] = strings.ToLower(name)
	}
	return all
}()

// lower is strings.ToLower without an allocation for the names that come most.
func lower(name string) string {
	if known, ok := lowered[name]; ok {
		return known
	}
	return strings.ToLower(name)
}

// writeHead begins the answer to an HTTP caller.
func writeHead(w http.ResponseWriter, resp *call.Response) {
	header, values := w.Header(), make([]string, len(resp.Header))
	for i, f := range resp.Header {
		if f.Key == appchannel.TypeURL || strings.HasPrefix(f.Key, "sidecast-") && f.Key != blocks.FallbackHeader || strings.HasSuffix(f.Key, "-bin") {
			continue
		}
		name := http.CanonicalHeaderKey(reservedOfGRPC(f.Key))
		if header[name] != nil {
			header[name] = append(header[name], f.Value)
			continue
		}
		values[i] = f.Value
		header[name] = values[i : i+1 : i+1]
	}
	if header["Traceparent"] == nil {
		if parent := appTrace(resp.Header); parent != "" {
			header["Traceparent"] = []string{parent}
		}
	}
	code := cmp.Or(resp.Status, http.StatusOK)
	kind := appchannel.MediaType(resp.Header, resp.ContentType)
	if kind == "" && failure(code) {
		kind = "application/json" // as daprd says of failures whose apps say nothing
	}
	if kind != "" {
		w.Header().Set("Content-Type", kind)
	}
	w.WriteHeader(code)
}

// failure tells the statuses that are one to daprd.
func failure(status int) bool { return status < 200 || status > 399 }

// failed answers a call that brought none: with the status that a gRPC app gave, or with a problem.
func (s *Server) failed(w http.ResponseWriter, app string, err error) error {
	given := appStatus(err)
	if given == nil {
		return s.direct(app, err)
	}
	body, _ := protojson.Marshal(&internalv1.Status{Code: given.GetCode(), Message: given.GetMessage(), Details: given.GetDetails()})
	fields, trailer := appFields(err)
	resp := &call.Response{Status: httpOfCode(codes.Code(given.GetCode())), ContentType: "application/json", Header: fields, Trailer: trailer, Body: body}
	announce(w, resp)
	writeHead(w, resp)
	_, _ = w.Write(body) // a client that went away needs no answer
	writeTrailer(w, trailer)
	return nil
}

// appStatus is the status that a gRPC app answered with, or nil.
func appStatus(err error) *spb.Status {
	var e *fault.Error
	if !errors.As(err, &e) || e.Meta[appchannel.GRPCStatus] == "" {
		return nil
	}
	given := &spb.Status{}
	if encoded, err := base64.StdEncoding.DecodeString(e.Meta[appchannel.GRPCDetails]); err == nil && len(encoded) > 0 && proto.Unmarshal(encoded, given) == nil {
		return given
	}
	code, convErr := strconv.Atoi(e.Meta[appchannel.GRPCStatus])
	if convErr != nil {
		return nil
	}
	return &spb.Status{Code: int32(code), Message: e.Meta[appchannel.GRPCMessage]}
}

// invokeStream passes bodies on as they come, both ways.
func (s *Server) invokeStream(w http.ResponseWriter, r *http.Request, app string, req *call.Request) error {
	control := http.NewResponseController(w)
	_ = control.EnableFullDuplex() // HTTP/1: the answer may begin before the request has ended
	begun := false
	body := pieces{from: r.Body}
	// What is left of a request that is answered early goes down with its connection: a client must not reuse that.
	abandon := func() {
		if r.ProtoMajor == 1 && !body.whole.Load() {
			w.Header().Set("Connection", "close")
		}
	}
	if share, ok := call.RoomOf(r.Context()).(*bodies.Share); ok {
		if err := share.Enter(r.Context(), "invoke "+app); err != nil {
			return s.failed(w, app, err)
		}
	}
	err := s.o.Blocks.Invocation.Relay(r.Context(), req, blocks.Exchange{
		Next: body.next,
		Header: func(head *call.Response) error {
			begun = true
			abandon()
			writeHead(w, head)
			if kindless(w) {
				return nil
			}
			return flush(control)
		},
		Chunk: func(chunk []byte) error {
			if _, err := w.Write(chunk); err != nil {
				return err
			}
			return flush(control)
		},
		Bound:   blocks.ToHead,
		Trailer: func() call.Header { return trailerOf(r) },
		End:     func(trailer call.Header) { writeTrailer(w, trailer) },
	})
	switch {
	case err == nil:
		return nil
	case begun: // the answer cannot be taken back: cutting it off tells the caller that it is not whole
		panic(http.ErrAbortHandler)
	}
	abandon()
	return s.failed(w, app, err)
}
