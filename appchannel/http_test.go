package appchannel_test

import (
	"context"
	"encoding/json"
	"io"
	"log"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/sidecast/sidecast/appchannel"
	"github.com/sidecast/sidecast/appchannel/appchanneltest"
	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/fault"
)

// httpApp is an App behind plain HTTP.
type httpApp struct{ app *appchanneltest.App }

func (a httpApp) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch path := r.URL.Path[1:]; path {
	case "sidecast/subscriptions":
		type subscription struct {
			PubSub, Topic, Route, DeadLetterTopic string
			MaxDeliveries                         int
			Raw                                   bool
		}
		list := []subscription{}
		for _, s := range a.app.Subscriptions() {
			list = append(list, subscription{s.PubSub, s.Topic, s.Route, s.DeadLetterTopic, s.MaxDeliveries, s.Raw})
		}
		_ = json.NewEncoder(w).Encode(list)
	case "on-orders", "raw":
		body, _ := io.ReadAll(r.Body)
		outcome := a.app.Event(r.Context(), &appchannel.Event{Data: body})
		_ = json.NewEncoder(w).Encode(map[string]string{"status": []string{"SUCCESS", "RETRY", "DROP"}[outcome.Verdict]})
	case appchanneltest.Garbage:
		conn, _, err := w.(http.Hijacker).Hijack()
		if err == nil {
			_, _ = conn.Write([]byte("this is no HTTP\r\n\r\n"))
			conn.Close()
		}
	case appchanneltest.StreamEcho, appchanneltest.StreamEarly, appchanneltest.StreamFail, appchanneltest.StreamHang:
		control := http.NewResponseController(w)
		_ = control.EnableFullDuplex()
		stream := &httpStream{Reader: r.Body, w: w, control: control}
		if err := a.app.Stream(r.Context(), requestFrom(r), stream); err != nil && !stream.written {
			w.WriteHeader(fault.KindOf(err).HTTP())
		} else if err != nil {
			panic(http.ErrAbortHandler)
		}
	default:
		req := requestFrom(r)
		req.Body, _ = io.ReadAll(r.Body)
		response, err := a.app.Call(r.Context(), req)
		if err != nil {
			http.Error(w, err.Error(), fault.KindOf(err).HTTP())
			return
		}
		if response.ContentType != "" {
			w.Header().Set("Content-Type", response.ContentType)
		}
		for _, f := range response.Header {
			w.Header().Add(f.Key, f.Value)
		}
		_, _ = w.Write(response.Body)
	}
}

func requestFrom(r *http.Request) *call.Request {
	req := &call.Request{
		Method: r.URL.Path[1:], Verb: r.Method, Query: r.URL.RawQuery, Caller: r.Header.Get("Sidecast-Caller"),
		ContentType: r.Header.Get("Content-Type"),
	}
	for key, values := range r.Header {
		for _, value := range values {
			req.Header.Add(strings.ToLower(key), value)
		}
	}
	return req
}

type httpStream struct {
	io.Reader
	w       io.Writer
	control *http.ResponseController
	written bool
}

func (s *httpStream) Write(p []byte) (int, error) {
	s.written = true
	n, err := s.w.Write(p)
	if err == nil {
		err = s.control.Flush()
	}
	return n, err
}

// serveHTTP runs a handler on a port until kill.
func serveHTTP(t *testing.T, handler http.Handler, on string) (address string, kill func()) {
	listener := listen(t, on)
	server := &http.Server{Handler: handler, ErrorLog: log.New(io.Discard, "", 0)}
	served := make(chan struct{})
	go func() { defer close(served); _ = server.Serve(listener) }()
	var once sync.Once
	kill = func() { once.Do(func() { server.Close(); <-served }) }
	t.Cleanup(kill)
	return listener.Addr().String(), kill
}

func openHTTP(t *testing.T, c appchannel.Callback) *appchannel.HTTP {
	t.Helper()
	if c.Log == nil {
		c.Log = quiet
	}
	channel := appchannel.OpenHTTP(c)
	t.Cleanup(func() { _ = channel.Close(context.Background()) })
	return channel
}

func TestHTTPConformance(t *testing.T) {
	appchanneltest.Run(t, func(t *testing.T, app *appchanneltest.App) appchanneltest.Fixture {
		address, kill := serveHTTP(t, httpApp{app}, "")
		return appchanneltest.Fixture{
			Channel:  openHTTP(t, appchannel.Callback{Address: address, Concurrency: 200}),
			Kill:     func() { kill() },
			Restart:  func() { _, kill = serveHTTP(t, httpApp{app}, address) },
			Statuses: true,
		}
	})
}
