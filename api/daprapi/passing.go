package daprapi

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"path"
	"strings"
)

// passing is a request on its way through middleware, which sees in its path where it goes: the same place has many
// paths, with doubled slashes, dots and escapes, and what is asked of one must be asked of all.
type passing struct {
	table        *table
	heard        *heardCall
	body         io.ReadCloser // as it came
	length       int64
	came, shown  string // the path
	cameRaw, raw string // URL.RawPath
}

type passingKey struct{}

// passThrough is r as middleware gets it.
func passThrough(r *http.Request, t *table, heard *heardCall) *http.Request {
	p := &passing{table: t, heard: heard, body: r.Body, length: r.ContentLength, came: r.URL.Path, cameRaw: r.URL.RawPath}
	p.shown, p.raw = t.meant(r)
	r = r.WithContext(context.WithValue(r.Context(), passingKey{}, p))
	if p.shown != p.came {
		u := *r.URL
		u.Path, u.RawPath = p.shown, p.raw
		r.URL, r.RequestURI = &u, u.RequestURI()
	}
	return r
}

// restore gives r its own path again, unless middleware has led it elsewhere.
func (p *passing) restore(r *http.Request) {
	if p.shown != p.came && r.URL.Path == p.shown && r.URL.RawPath == p.raw {
		r.URL.Path, r.URL.RawPath = p.came, p.cameRaw
	}
}

// meant is the one path of the place that r goes to, and how it is escaped, if it matters.
func (t *table) meant(r *http.Request) (plain, escaped string) {
	clean := cleanPath(r)
	if e, _, _, err := t.find(r.Method, clean); e != nil || err != nil {
		if plain, err := url.PathUnescape(clean); err == nil {
			return plain, clean
		}
		return clean, ""
	}
	app, method, byPath := targetOf(r)
	if m, err := normal(method); err == nil {
		method = m
	}
	method = strings.TrimLeft(method, "/")
	switch {
	case app == "":
		return path.Clean("/" + r.URL.Path), ""
	case !byPath:
		return "/" + method, ""
	}
	return "/v1.0/invoke/" + app + "/method/" + method, ""
}
