package appchannel

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/fault"
)

// HTTP is the Channel to an app that serves plain HTTP/1.1 on a port. Calls become requests of their verb to /method,
// events POST to /route, and the app's subscriptions are read from /sidecast/subscriptions and /dapr/subscribe. An answer
// of any status is an answer: what a 500 means is for the caller and the policy. Redirects are not followed.
//
// net/http repeats a GET, HEAD, OPTIONS or TRACE whose reused connection broke before the first byte of the answer; HTTP
// defines them as safe. Nothing else is repeated here.
type HTTP struct {
	port      *port
	transport *http.Transport
	conns     connections
	scheme    string
	bulks     bulks
}

var (
	_ Channel = (*HTTP)(nil)
	_ Greeter = (*HTTP)(nil)
)

// idleTimeout is less than the keep-alive of common app servers (gunicorn 2 s, Node and uvicorn 5 s), so that it is the
// sidecar that closes an idle connection: a request sent just when the app closes one would be lost.
const idleTimeout = 1500 * time.Millisecond

// OpenHTTP starts to watch for the app. Close it.
func OpenHTTP(c Callback) *HTTP {
	c = c.withDefaults()
	h := &HTTP{scheme: "http"}
	h.transport = &http.Transport{
		DialContext:           h.conns.dial,
		MaxIdleConns:          c.Concurrency,
		MaxIdleConnsPerHost:   c.Concurrency,
		IdleConnTimeout:       idleTimeout,
		DisableCompression:    true,
		ExpectContinueTimeout: time.Second,
		ReadBufferSize:        16 << 10,
		WriteBufferSize:       16 << 10,
	}
	if c.TLS {
		h.scheme = "https"
		h.transport.TLSClientConfig = &tls.Config{InsecureSkipVerify: true} // the app beside us: its certificate names other hosts
		h.transport.ForceAttemptHTTP2 = true
	}
	if c.H2C {
		h.transport.Protocols = new(http.Protocols)
		h.transport.Protocols.SetUnencryptedHTTP2(true)
	}
	h.port = newPort(c, "app over http", h.healthy, func(context.Context) {})
	h.port.start()
	return h
}

// Kind is `http`.
func (h *HTTP) Kind() string { return "http" }

// Ready is nil when the app's port takes connections and its health check, if there is one, passes.
func (h *HTTP) Ready() error { return h.port.Ready() }

// Close lets running calls end, then the connections.
func (h *HTTP) Close(ctx context.Context) error {
	return h.port.close(ctx, func() {
		h.transport.CloseIdleConnections()
		h.conns.cut()
	})
}

// Invoke sends the call as one request and returns whatever status the app answers with. An answer that is not there at once
// passes to req.Pieces.
func (h *HTTP) Invoke(ctx context.Context, req *call.Request) (*call.Response, error) {
	op := "invoke " + req.Method
	var body io.Reader
	if len(req.Body) > 0 {
		body = bytes.NewReader(req.Body)
	}
	r, err := h.request(op, req, body, int64(len(req.Body)))
	if err != nil {
		return nil, err
	}
	if body != nil { // so that a stale connection, to which nothing could be written, is replaced
		r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(req.Body)), nil }
	}
	var passage *call.Passage
	if req.Pieces != nil {
		passage = req.Pieces.Open(ctx)
		defer passage.Close()
		ctx = passage
	}
	response, done, err := h.send(ctx, op, r)
	if err != nil {
		return nil, err
	}
	defer done()
	if passage != nil {
		a := reading{op: op, response: response, passage: passage, most: h.port.MaxBody, broken: func(err error) error { return cutOff(ctx, op, err) }}
		return a.answer()
	}
	answer := headOf(response)
	if answer.Body, err = h.readBody(ctx, op, response); err != nil {
		return nil, err
	}
	answer.Trailer = trailerOf(response.Trailer)
	return answer, nil
}

// Stream sends the request body as it comes and passes the answer on as it comes.
func (h *HTTP) Stream(ctx context.Context, req *call.Request, peer call.ServerStream) error {
	op := "invoke " + req.Method
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	upload := &upload{ctx: ctx, peer: peer, closed: make(chan struct{})}
	r, err := h.request(op, req, upload, -1)
	if err != nil {
		return err
	}
	upload.trailer = r.Trailer
	response, done, err := h.send(ctx, op, r)
	if err != nil {
		stop()
		<-upload.closed
		if upload.err != nil { // the peer broke the request off, which is why it failed
			return upload.err
		}
		return err
	}
	defer done()
	err = h.download(ctx, op, response, peer)
	response.Body.Close()
	stop()
	<-upload.closed
	if err != nil && upload.err != nil {
		return upload.err
	}
	return err
}

// download passes the answer on.
func (h *HTTP) download(ctx context.Context, op string, response *http.Response, peer call.ServerStream) error {
	if err := peer.Answer(ctx, headOf(response)); err != nil {
		return err
	}
	chunk := make([]byte, chunkSize)
	for {
		n, err := response.Body.Read(chunk)
		if n > 0 {
			if err := peer.Send(ctx, chunk[:n]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			call.SetTrailer(peer, trailerOf(response.Trailer))
			return nil
		}
		if err != nil {
			return cutOff(ctx, op, err)
		}
	}
}

// upload is the request body of a stream. The transport reads it in a goroutine of its own and closes it at the end.
type upload struct {
	ctx     context.Context
	peer    call.ServerStream
	rest    []byte
	trailer http.Header // of the request: the fields that were announced
	err     error       // of the peer; read it after closed
	once    sync.Once
	closed  chan struct{}
}

func (u *upload) Read(p []byte) (int, error) {
	for len(u.rest) == 0 {
		chunk, err := u.peer.Recv(u.ctx)
		if err != nil {
			if !errors.Is(err, io.EOF) && u.ctx.Err() == nil {
				u.err = err
			}
			if errors.Is(err, io.EOF) {
				fillTrailer(u.trailer, call.TrailerOf(u.peer))
			}
			return 0, err
		}
		u.rest = chunk
	}
	n := copy(p, u.rest)
	u.rest = u.rest[n:]
	return n, nil
}

func (u *upload) Close() error {
	u.once.Do(func() { close(u.closed) })
	return nil
}

// request is req as the app gets it.
func (h *HTTP) request(op string, req *call.Request, body io.Reader, length int64) (*http.Request, error) {
	target := h.url(req.Method)
	target.RawQuery = req.Query
	r := &http.Request{
		Method: req.Verb, URL: target, Host: target.Host, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: make(http.Header, len(req.Header)+4), ContentLength: length,
	}
	if r.Method == "" {
		r.Method = http.MethodPost
	}
	if !isToken(r.Method) {
		return nil, fault.New(op, fault.BadRequest, "%q is no HTTP verb", r.Method)
	}
	if body != nil {
		r.Body = io.NopCloser(body)
		if closer, ok := body.(io.ReadCloser); ok {
			r.Body = closer
		}
		if length == 0 {
			r.Body = http.NoBody // sent with Content-Length: 0; any other would go in chunks, which not every app reads
		}
		if !h.port.Dapr {
			r.Header["Content-Type"] = []string{"application/octet-stream"}
		}
	}
	if err := addFields(op, r.Header, req.Header); err != nil {
		return nil, err
	}
	announceTrailer(r, req)
	if kind := MediaType(req.Header, req.ContentType); kind != "" {
		r.Header["Content-Type"] = []string{kind}
	}
	if req.Caller != "" {
		r.Header["Sidecast-Caller"] = []string{req.Caller}
		r.Header["Dapr-Caller-App-Id"] = []string{req.Caller}
		r.Header["Dapr-Callee-App-Id"] = []string{req.App}
		if namespace := cmp.Or(req.CallerNamespace, h.port.Namespace); namespace != "" {
			r.Header["Dapr-Caller-Namespace"] = []string{namespace}
		}
	}
	h.sign(r.Header)
	if _, ok := r.Header["User-Agent"]; !ok {
		r.Header["User-Agent"] = []string{""} // the caller sent none, so net/http shall add none
	}
	return r, nil
}

// url is path below the app's port.
func (h *HTTP) url(path string) *url.URL {
	raw := escaped("/" + strings.TrimPrefix(path, "/"))
	plain, _ := url.PathUnescape(raw) // what is escaped can be unescaped
	return &url.URL{Scheme: h.scheme, Host: h.port.Address, Path: plain, RawPath: raw}
}

// sign lets the app know its sidecar.
func (h *HTTP) sign(header http.Header) {
	if h.port.Token != "" {
		header["Sidecast-Api-Token"] = []string{h.port.Token}
		header["Dapr-Api-Token"] = []string{h.port.Token}
	}
}

// send makes one attempt. Call done when the answer has been read.
func (h *HTTP) send(ctx context.Context, op string, r *http.Request) (response *http.Response, done func(), err error) {
	if err := h.port.begin(ctx, op); err != nil {
		if r.Body != nil {
			r.Body.Close()
		}
		return nil, nil, err
	}
	attempts := 0
	if repeatable(r) {
		ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { attempts++ }})
	}
	began := time.Now()
	response, err = h.port.Pipeline.RoundTrip(h.transport, r.WithContext(ctx))
	measure(h.port.Meter, r, response, time.Since(began))
	if err == nil {
		return response, func() { response.Body.Close(); h.port.end() }, nil
	}
	h.port.end()
	if dialFailed(err) && ctx.Err() == nil {
		h.port.lost()
		if attempts == 0 {
			return nil, nil, fault.New(op, fault.AppUnreachable, "the app's port %s took no connection: %w", h.port.Address, err)
		}
	}
	return nil, nil, cutOff(ctx, op, err)
}

// measure tells a meter, if there is one, of a request that is answered, or will not be: then response is nil.
func measure(meter Meter, r *http.Request, response *http.Response, took time.Duration) {
	switch {
	case meter == nil:
	case response == nil:
		meter.HTTPCalled(r.Method, r.URL.Path, http.StatusInternalServerError, r.ContentLength, -1, took)
	default:
		meter.HTTPCalled(r.Method, r.URL.Path, response.StatusCode, r.ContentLength, response.ContentLength, took)
	}
}

// repeatable tells whether net/http may send r twice by itself.
func repeatable(r *http.Request) bool {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return true
	}
	return r.Header["Idempotency-Key"] != nil || r.Header["X-Idempotency-Key"] != nil
}

// cutOff is the fault of a call that the app may have seen.
func cutOff(ctx context.Context, op string, err error) error {
	if ctx.Err() != nil {
		return fault.FromContext(op, ctx, "the app's answer")
	}
	var given *fault.Error
	if errors.As(err, &given) {
		return err
	}
	if brokenConnection(err) {
		return fault.New(op, fault.InstanceLost, "the connection to the app broke: %w", err)
	}
	return fault.New(op, fault.AppAnswer, "the app answered something that is not HTTP: %w", err)
}

// brokenConnection tells a connection that ended from one that carried garbage; net/http has no type for the latter.
func brokenConnection(err error) bool {
	var network net.Error
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &network) ||
		strings.Contains(err.Error(), "server closed idle connection")
}

// readBody reads a whole answer, but no more than MaxBody.
func (h *HTTP) readBody(ctx context.Context, op string, response *http.Response) ([]byte, error) {
	most := h.port.MaxBody
	tooLarge := func() error {
		return fault.New(op, fault.AnswerTooLarge, "the app's answer is larger than the %d bytes that this sidecar accepts", most)
	}
	switch {
	case response.Request.Method == http.MethodHead: // its length is that of a body that does not come
		return nil, nil
	case response.ContentLength > most:
		return nil, tooLarge()
	}
	var body []byte
	var err error
	if response.ContentLength >= 0 {
		body = make([]byte, response.ContentLength)
		_, err = io.ReadFull(response.Body, body)
	} else {
		body, err = io.ReadAll(io.LimitReader(response.Body, most+1))
	}
	switch {
	case err != nil:
		return nil, cutOff(ctx, op, err)
	case int64(len(body)) > most:
		return nil, tooLarge()
	}
	return body, nil
}

// headOf is an answer without its body.
func headOf(response *http.Response) *call.Response {
	head := &call.Response{Status: response.StatusCode, ContentType: response.Header.Get("Content-Type")}
	head.Header = make(call.Header, 0, len(response.Header))
	if names := slices.Sorted(maps.Keys(response.Trailer)); len(names) > 0 {
		head.Header.Add("trailer", strings.Join(names, ", "))
	}
	named := strings.Join(response.Header["Connection"], ",")
	for key, values := range response.Header {
		if key == "Content-Type" || hopByHop[key] || named != "" && lists(named, key) {
			continue
		}
		for _, value := range values {
			head.Header.Add(strings.ToLower(key), value)
		}
	}
	return head
}
