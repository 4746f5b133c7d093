package pipeline

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"runtime/debug"
	"strings"
	"sync"

	"github.com/sidecast/sidecast/fault"
)

// Client passes the requests that a transport sends through middleware.
type Client struct {
	pipeline *Pipeline
	running  sync.WaitGroup
}

// NewClient makes a client that has no middleware yet.
func NewClient(name string, source Source, log *slog.Logger) *Client {
	return &Client{pipeline: New(name, source, http.HandlerFunc(send), log)}
}

// Set has the requests that come from now on pass these middleware; see Pipeline.Set.
func (c *Client) Set(handlers []Handler) { c.pipeline.Set(handlers) }

// Warm opens the middleware; see Pipeline.Warm.
func (c *Client) Warm(ctx context.Context) { c.pipeline.Warm(ctx) }

// Wait returns when no request is in a middleware any more, or when ctx ends.
func (c *Client) Wait(ctx context.Context) error {
	done := make(chan struct{})
	go func() { // ends with the last request
		c.running.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fault.FromContext(c.pipeline.name, ctx, "requests in a middleware")
	}
}

// RoundTrip sends r by transport, through the middleware if there is any. The body of the answer must be closed. The nil
// Client has none.
func (c *Client) RoundTrip(transport http.RoundTripper, r *http.Request) (*http.Response, error) {
	if c == nil || c.pipeline.Idle() {
		return transport.RoundTrip(r)
	}
	ctx, cancel := context.WithCancel(r.Context())
	t := &trip{transport: transport, body: r.Body, length: r.ContentLength, header: make(http.Header), ready: make(chan struct{}), cancel: cancel}
	t.answer, t.write = io.Pipe()
	passing := r.Clone(context.WithValue(ctx, tripKey{}, t)) // middleware changes it, and r is not ours
	if passing.Trailer = r.Trailer; r.Body == nil {
		passing.Body = http.NoBody // middleware reads it without a look
	}
	c.running.Go(func() { t.run(c.pipeline, passing) })
	select {
	case <-t.ready:
	case <-ctx.Done():
		t.Close()
		if t.body != nil {
			t.body.Close()
		}
		return nil, ctx.Err()
	}
	if t.status == 0 {
		cancel()
		return nil, t.err
	}
	return &http.Response{
		Status: http.StatusText(t.status), StatusCode: t.status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: t.sent, Trailer: t.trailer, ContentLength: -1, Body: t, Request: r,
	}, nil
}

type tripKey struct{}

// trip is one request on its way through middleware: the ResponseWriter of the middleware, and the body of the answer.
type trip struct {
	transport http.RoundTripper
	body      io.ReadCloser // as it came; the middleware may put another in its place
	length    int64
	cancel    context.CancelFunc

	header http.Header // as the middleware sees it
	answer *io.PipeReader
	write  *io.PipeWriter

	once    sync.Once
	ready   chan struct{} // closed when what follows is there
	status  int           // 0 when there is no answer, and err says why
	sent    http.Header
	trailer http.Header // the reader's: what is announced, and its values when the body has ended
	err     error
	final   http.Header // the values of the trailer; written before the body ends
}

// run passes the request through and contains a panic on the way.
func (t *trip) run(p *Pipeline, r *http.Request) {
	defer func() {
		if v := recover(); v != nil {
			p.log.Error("a middleware panicked", "pipeline", p.name, "panic", v, "stack", string(debug.Stack()))
			t.fail(fault.New(p.name, fault.Panicked, "a middleware panicked: %v", v))
		}
		t.end()
	}()
	if err := p.Serve(t, r); err != nil {
		t.fail(err)
	}
}

// fail ends the answer with an error, or stands for it where none has begun.
func (t *trip) fail(err error) {
	if t.err == nil {
		t.err = err
	}
	t.begin(0)
	_ = t.write.CloseWithError(t.err)
}

// end completes the answer.
func (t *trip) end() {
	t.begin(http.StatusOK)
	t.final = make(http.Header)
	for key, values := range t.header {
		if name, ok := strings.CutPrefix(key, http.TrailerPrefix); ok {
			t.final[http.CanonicalHeaderKey(name)] = values
		}
	}
	_ = t.write.Close() // after an error it changes nothing
	if t.body != nil {
		_ = t.body.Close() // a middleware that answers itself has not read it
	}
}

// begin fixes the head of the answer, unless it is fixed already.
func (t *trip) begin(status int) {
	t.once.Do(func() {
		t.status, t.sent, t.trailer = status, t.header.Clone(), make(http.Header)
		t.sent.Del("Content-Length") // of what the app has sent: a middleware may have changed it
		for _, list := range t.sent["Trailer"] {
			for name := range strings.SplitSeq(list, ",") {
				if name = strings.TrimSpace(name); name != "" {
					t.trailer[http.CanonicalHeaderKey(name)] = nil
				}
			}
		}
		close(t.ready)
	})
}

// Header implements http.ResponseWriter.
func (t *trip) Header() http.Header { return t.header }

// WriteHeader implements http.ResponseWriter.
func (t *trip) WriteHeader(status int) {
	if status >= 200 {
		t.begin(status)
	}
}

// Write implements http.ResponseWriter: it waits for the reader of the answer.
func (t *trip) Write(p []byte) (int, error) {
	t.begin(http.StatusOK)
	return t.write.Write(p)
}

// Flush implements http.Flusher: nothing is held back.
func (t *trip) Flush() { t.begin(http.StatusOK) }

// Read reads the answer.
func (t *trip) Read(p []byte) (int, error) {
	n, err := t.answer.Read(p)
	if err == io.EOF {
		maps.Copy(t.trailer, t.final)
	}
	return n, err
}

// Close ends the request if it has not ended.
func (t *trip) Close() error {
	t.cancel()
	return t.answer.Close()
}

// send is the end of every client's pipeline: it sends the request by the transport of its trip.
func send(w http.ResponseWriter, r *http.Request) {
	t := r.Context().Value(tripKey{}).(*trip)
	r.RequestURI = "" // a server's: middleware that leads elsewhere sets it
	changed, err := Settle(r, t.body, t.length)
	if err != nil {
		t.err = err
		t.begin(0)
		return
	}
	if changed {
		r.GetBody = nil
	} else if t.body == nil {
		r.Body = nil
	}
	response, err := t.transport.RoundTrip(r)
	if err != nil {
		t.err = err
		t.begin(0)
		return
	}
	defer response.Body.Close()
	header := w.Header()
	for key, values := range response.Header {
		header[key] = append(header[key], values...)
	}
	for name := range response.Trailer {
		header.Add("Trailer", name)
	}
	w.WriteHeader(response.StatusCode)
	if _, err := io.Copy(writerOnly{w}, response.Body); err != nil {
		if !errors.Is(err, io.ErrClosedPipe) {
			t.fail(err)
		}
		return
	}
	for name, values := range response.Trailer {
		header[http.TrailerPrefix+name] = values
	}
}

// writerOnly keeps io.Copy from looking for more than Write.
type writerOnly struct{ io.Writer }

// mostSettled is the longest body, in bytes, whose length is found out when a middleware has changed it.
const mostSettled = 1 << 20

// Settle makes the length of r's body true after middleware that may have put another in the place of body, whose length was
// length: it is read to its end, or, where it is long or came without a length, left open. It tells whether the body is
// another.
func Settle(r *http.Request, body io.ReadCloser, length int64) (changed bool, err error) {
	if body == nil {
		body = http.NoBody
	}
	if r.Body == body {
		return false, nil
	}
	if r.ContentLength != length { // the middleware has said it
		return true, nil
	}
	r.ContentLength = -1
	r.Header.Del("Content-Length")
	if length < 0 || length > mostSettled {
		return true, nil
	}
	text, err := io.ReadAll(io.LimitReader(r.Body, 4*mostSettled+1))
	switch {
	case err != nil:
		return true, fmt.Errorf("a middleware could not read the body: %w", err)
	case len(text) > 4*mostSettled:
		return true, fault.New("pipeline", fault.BodyTooLarge, "a middleware has made a body of more than %d bytes of one of %d", 4*mostSettled, length)
	}
	_ = r.Body.Close()
	r.Body, r.ContentLength = io.NopCloser(strings.NewReader(string(text))), int64(len(text))
	return true, nil
}
