// Package uppercase is HTTP middleware that turns the letters of bodies into capitals: to see that a pipeline works.
package uppercase

import (
	"context"
	"io"
	"net/http"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/pipeline"
)

// Config is what the user writes under spec.metadata.
type Config struct {
	Direction string `meta:"direction" default:"request" oneof:"request|response|both" doc:"Which bodies are changed."`
}

// Component makes the middleware known to the runtime.
var Component = components.Middleware("uppercase", "Turns the letters of bodies into capitals, to see that a pipeline works.", open)

var _ pipeline.Middleware = (*middleware)(nil)

type middleware struct{ requests, responses bool }

func open(_ context.Context, _ components.Host, c Config) (pipeline.Middleware, error) {
	return &middleware{requests: c.Direction != "response", responses: c.Direction != "request"}, nil
}

// Close implements pipeline.Middleware.
func (*middleware) Close(context.Context) error { return nil }

// Wrap implements pipeline.Middleware.
func (m *middleware) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if m.requests && r.Body != nil && r.Body != http.NoBody {
			r.Body = &reader{from: r.Body}
		}
		if !m.responses {
			next.ServeHTTP(w, r)
			return
		}
		capital := &writer{ResponseWriter: w}
		next.ServeHTTP(capital, r)
		capital.end()
	})
}

// letters turns what comes in pieces into capitals. A letter that is cut in two waits for its rest.
type letters struct{ rest []byte }

// take returns what can be told of text; last says that no more comes.
func (l *letters) take(text []byte, last bool) string {
	l.rest = append(l.rest, text...)
	whole := len(l.rest)
	for back := 1; !last && back < utf8.UTFMax && back <= len(l.rest); back++ {
		if start := len(l.rest) - back; utf8.RuneStart(l.rest[start]) {
			if !utf8.FullRune(l.rest[start:]) {
				whole = start
			}
			break
		}
	}
	out := capitals(l.rest[:whole])
	l.rest = append(l.rest[:0], l.rest[whole:]...)
	return out
}

// capitals leaves what is no text as it is.
func capitals(text []byte) string {
	var b strings.Builder
	for len(text) > 0 {
		r, size := utf8.DecodeRune(text)
		if r == utf8.RuneError && size == 1 {
			b.WriteByte(text[0])
		} else {
			b.WriteRune(unicode.ToUpper(r))
		}
		text = text[size:]
	}
	return b.String()
}

type reader struct {
	letters
	from  io.ReadCloser
	ready string
	err   error
}

func (r *reader) Read(p []byte) (int, error) {
	for r.ready == "" && r.err == nil {
		var n int
		chunk := make([]byte, 4<<10)
		n, r.err = r.from.Read(chunk)
		r.ready = r.take(chunk[:n], r.err == io.EOF)
	}
	n := copy(p, r.ready)
	if r.ready = r.ready[n:]; n == 0 && len(p) > 0 {
		return 0, r.err
	}
	return n, nil
}

func (r *reader) Close() error { return r.from.Close() }

type writer struct {
	http.ResponseWriter
	letters
	began bool
}

func (w *writer) WriteHeader(status int) {
	if status >= 200 {
		w.began = true
	}
	w.Header().Del("Content-Length") // of the body as it was
	w.ResponseWriter.WriteHeader(status)
}

func (w *writer) Write(p []byte) (int, error) {
	if !w.began {
		w.WriteHeader(http.StatusOK)
	}
	if _, err := io.WriteString(w.ResponseWriter, w.take(p, false)); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Unwrap lets http.ResponseController flush.
func (w *writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *writer) end() {
	if left := w.take(nil, true); left != "" {
		_, _ = io.WriteString(w.ResponseWriter, left) // a client that went away needs no answer
	}
}
