package appchannel

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/pipeline"
)

// Bounds of what an HTTP server outside may take. Whole calls have their lane's deadline besides.
const (
	endpointDial  = 15 * time.Second // a connection, and again the handshake on it
	endpointQuiet = 5 * time.Minute  // the head of an answer, and then each piece of its body
	endpointHops  = 10               // redirects
)

// EndpointConfig says how an HTTP server outside the fabric is reached.
type EndpointConfig struct {
	// BaseURL is what methods are added to, http or https.
	BaseURL string
	// Header is sent with every request, in place of the caller's fields of those names.
	Header map[string]string
	// RootCA, Certificate and PrivateKey are PEM; empty means the system's authorities, and no certificate of our own.
	RootCA, Certificate, PrivateKey []byte
	Renegotiation                   tls.RenegotiationSupport
	// Follow follows redirects that stay on the host; others are the answer. Header never goes to another host.
	Follow bool
	// MaxBody bounds the body of a whole answer in bytes. Streams are not bounded.
	MaxBody int64
	// Pipeline is the middleware that requests pass; nil is none.
	Pipeline *pipeline.Client
	// Meter measures the requests; nil measures nothing.
	Meter Meter
}

// piped is a transport behind middleware.
type piped struct {
	*http.Transport
	through *pipeline.Client
	meter   Meter
}

// RoundTrip implements http.RoundTripper.
func (p piped) RoundTrip(r *http.Request) (*http.Response, error) {
	began := time.Now()
	response, err := p.through.RoundTrip(p.Transport, r)
	measure(p.meter, r, response, time.Since(began))
	return response, err
}

// Endpoint makes calls to an HTTP server outside the fabric. An answer of any status is an answer. One call is one attempt;
// what net/http repeats is what it repeats for HTTP.
type Endpoint struct {
	base    *url.URL
	header  http.Header
	maxBody int64
	client  *http.Client
}

// OpenEndpoint makes an Endpoint. Nothing is connected before the first call.
func OpenEndpoint(c EndpointConfig) (*Endpoint, error) {
	const op = "http endpoint"
	e := &Endpoint{header: http.Header{}, maxBody: c.MaxBody}
	for name, value := range c.Header {
		if !isToken(name) || strings.ContainsFunc(value, forbidden) {
			return nil, fault.New(op, fault.BadManifest, "the header %q cannot be sent over HTTP", name)
		}
		e.header.Set(name, value)
	}
	secure := &tls.Config{MinVersion: tls.VersionTLS12, Renegotiation: c.Renegotiation}
	if len(c.RootCA) > 0 {
		secure.RootCAs = x509.NewCertPool()
		if !secure.RootCAs.AppendCertsFromPEM(c.RootCA) {
			return nil, fault.New(op, fault.BadManifest, "clientTLS.rootCA holds no certificate in PEM")
		}
	}
	if len(c.Certificate) > 0 {
		own, err := tls.X509KeyPair(c.Certificate, c.PrivateKey)
		if err != nil {
			return nil, fault.New(op, fault.BadManifest, "clientTLS.certificate and privateKey: %w", err)
		}
		secure.Certificates = []tls.Certificate{own}
	}
	e.client = &http.Client{
		Transport: piped{through: c.Pipeline, meter: c.Meter, Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, DialContext: (&net.Dialer{Timeout: endpointDial}).DialContext, ForceAttemptHTTP2: true,
			TLSClientConfig: secure, TLSHandshakeTimeout: endpointDial, ResponseHeaderTimeout: endpointQuiet,
			MaxIdleConns: 100, MaxIdleConnsPerHost: 32, IdleConnTimeout: 90 * time.Second, DisableCompression: true,
			ExpectContinueTimeout: time.Second,
		}},
		CheckRedirect: func(next *http.Request, via []*http.Request) error {
			from := via[0].URL
			if !c.Follow || next.URL.Host != from.Host || next.URL.Scheme != from.Scheme || len(via) >= endpointHops {
				return http.ErrUseLastResponse
			}
			return nil
		},
	}
	return e.At(c.BaseURL)
}

// At is the Endpoint with another base URL. It shares the connections.
func (e *Endpoint) At(base string) (*Endpoint, error) {
	u, err := url.Parse(base)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.RawQuery != "" || u.Fragment != "" {
		return nil, fault.New("http endpoint", fault.BadRequest, "%q is no URL of http or https without a query", base)
	}
	other := *e
	other.base = u
	return &other, nil
}

// CloseIdle closes the connections that no call uses.
func (e *Endpoint) CloseIdle() { e.client.CloseIdleConnections() }

// Invoke sends the call as one request and returns whatever status comes back. An answer that is not there at once passes to
// req.Pieces.
func (e *Endpoint) Invoke(ctx context.Context, req *call.Request) (*call.Response, error) {
	op := "invoke " + req.Method
	var passage *call.Passage
	if req.Pieces != nil {
		passage = req.Pieces.Open(ctx)
		defer passage.Close()
		ctx = passage
	} else {
		var cancel context.CancelFunc
		ctx, cancel = context.WithCancel(ctx)
		defer cancel()
	}
	var body io.Reader
	if len(req.Body) > 0 {
		body = bytes.NewReader(req.Body) // net/http can read it again: redirects and stale connections
	}
	response, err := e.send(ctx, op, req, body, nil)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if passage != nil {
		return e.answer(op, response, passage)
	}
	answer := headOf(response)
	if answer.Body, err = e.readBody(ctx, op, response); err != nil {
		return nil, err
	}
	answer.Trailer = trailerOf(response.Trailer)
	return answer, nil
}

// send makes the request and waits for the head of its answer. Made is told of the request before it is sent; nil is not.
func (e *Endpoint) send(ctx context.Context, op string, req *call.Request, body io.Reader, made func(*http.Request)) (*http.Response, error) {
	var connected atomic.Bool
	traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { connected.Store(true) }})
	r, err := e.request(traced, op, req, body)
	if err != nil {
		return nil, err
	}
	if made != nil {
		made(r)
	}
	response, err := e.client.Do(r)
	switch {
	case err == nil:
		return response, nil
	case ctx.Err() == nil && !connected.Load():
		return nil, fault.New(op, fault.EndpointUnreachable, "%s took no connection: %w", e.base.Host, withoutURL(err))
	}
	return nil, e.broken(ctx, op, err)
}

// request is req as the server gets it.
func (e *Endpoint) request(ctx context.Context, op string, req *call.Request, body io.Reader) (*http.Request, error) {
	target := *e.base
	if method := strings.TrimPrefix(req.Method, "/"); method != "" || strings.HasPrefix(req.Method, "/") {
		raw := strings.TrimSuffix(target.EscapedPath(), "/") + "/" + escaped(method)
		target.Path, _ = url.PathUnescape(raw) // what is escaped can be unescaped
		target.RawPath = raw
	}
	target.RawQuery = req.Query
	verb := req.Verb
	if verb == "" {
		verb = http.MethodPost
	}
	r, err := http.NewRequestWithContext(ctx, verb, target.String(), body)
	if err != nil {
		return nil, fault.New(op, fault.BadRequest, "%w", err)
	}
	if err := addFields(op, r.Header, req.Header); err != nil {
		return nil, err
	}
	for key := range r.Header {
		if strings.HasPrefix(key, "Sidecast-") {
			delete(r.Header, key)
		}
	}
	if r.ContentLength == 0 && body != nil { // a stream whose length the caller knows
		r.ContentLength, err = strconv.ParseInt(req.Header.Get("content-length"), 10, 64)
		if err != nil {
			r.ContentLength = -1
		}
	}
	announceTrailer(r, req)
	if kind := MediaType(req.Header, req.ContentType); kind != "" {
		r.Header.Set("Content-Type", kind)
	}
	for key, values := range e.header {
		r.Header[key] = values
		if key == "Host" {
			r.Host = values[0]
		}
	}
	if _, ok := r.Header["User-Agent"]; !ok {
		r.Header["User-Agent"] = []string{""} // the caller sent none, so net/http shall add none
	}
	return r, nil
}

// answer reads one that may pass in pieces. A server that says nothing for endpointQuiet while more of it is awaited is given up.
func (e *Endpoint) answer(op string, response *http.Response, passage *call.Passage) (*call.Response, error) {
	body := &awaited{ReadCloser: response.Body}
	body.quiet = time.AfterFunc(endpointQuiet, func() {
		body.silent.Store(true)
		passage.Close()
	})
	body.quiet.Stop()
	response.Body = body
	a := reading{
		op: op, response: response, passage: passage, most: e.maxBody,
		broken: func(err error) error {
			if body.silent.Load() {
				return fault.New(op, fault.EndpointBroke, "%s said nothing for %s", e.base.Host, endpointQuiet)
			}
			return e.broken(passage, op, err)
		},
	}
	return a.answer()
}

// awaited is a body whose reads have a time each. Between them it is the caller who is slow, which is not the server's fault.
type awaited struct {
	io.ReadCloser
	quiet  *time.Timer
	silent atomic.Bool
}

// Read implements io.Reader.
func (b *awaited) Read(into []byte) (int, error) {
	b.quiet.Reset(endpointQuiet)
	defer b.quiet.Stop()
	return b.ReadCloser.Read(into)
}

// readBody reads a whole answer, but no more than maxBody, and no faster than there is room for it.
func (e *Endpoint) readBody(ctx context.Context, op string, response *http.Response) ([]byte, error) {
	tooLarge := func() error {
		return fault.New(op, fault.AnswerTooLarge, "the answer of %s is larger than the %d bytes that this sidecar accepts", e.base.Host, e.maxBody)
	}
	if response.ContentLength > e.maxBody && response.Request.Method != http.MethodHead {
		return nil, tooLarge()
	}
	body, err := readInRoom(ctx, response, e.maxBody)
	switch {
	case err != nil:
		return nil, e.broken(ctx, op, err)
	case int64(len(body)) > e.maxBody:
		return nil, tooLarge()
	}
	return body, nil
}

// broken is the fault of a call that the server may have seen.
func (e *Endpoint) broken(ctx context.Context, op string, err error) error {
	if ctx.Err() != nil {
		return fault.FromContext(op, ctx, "the answer of "+e.base.Host)
	}
	var given *fault.Error
	if errors.As(err, &given) {
		return given
	}
	return fault.New(op, fault.EndpointBroke, "the call to %s broke: %w", e.base.Host, withoutURL(err))
}

// withoutURL leaves out of an error what net/http adds: a URL may hold a password.
func withoutURL(err error) error {
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		return wrapped.Err
	}
	return err
}
