package entrance

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// serve answers on a listener of e with handle.
func serve(t *testing.T, e *Entrance, handle http.HandlerFunc) (address string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: handle, ConnContext: Context, ReadHeaderTimeout: time.Minute}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(e.Listener(listener)) })
	t.Cleanup(func() {
		_ = server.Close()
		serving.Wait()
	})
	return listener.Addr().String()
}

// TestConnectionsStandInLine: requests are worked on one at a time where there is one place, but for those that have given it
// back, and callers that are slow hold none.
func TestConnectionsStandInLine(t *testing.T) {
	e := newEntrance(1)
	var inside, most atomic.Int32
	granted, end := make(chan struct{}), make(chan struct{})
	address := serve(t, e, func(w http.ResponseWriter, r *http.Request) {
		place, done := Begin(r)
		defer done()
		if r.URL.Path == "/granted" {
			place.Leave() // as its lane does
			close(granted)
			<-end
			return
		}
		n := inside.Add(1)
		most.Store(max(most.Load(), n))
		inside.Add(-1)
		_, _ = io.Copy(w, r.Body)
	})
	slow, err := net.Dial("tcp", address) // half a request
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	if _, err := io.WriteString(slow, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nsl"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var all sync.WaitGroup
	ask := func(path string) {
		all.Go(func() {
			r, _ := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+path, nil)
			answer, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Error(err)
				return
			}
			_ = answer.Body.Close()
		})
	}
	ask("/granted")
	<-granted
	for range 100 {
		ask("/refused")
	}
	all.Go(func() { // the slow one ends, when it likes
		_, _ = io.WriteString(slow, "ow")
		answer, err := http.ReadResponse(bufio.NewReader(slow), nil)
		if err != nil {
			t.Error(err)
			return
		}
		if body, err := io.ReadAll(answer.Body); string(body) != "slow" {
			t.Errorf("the slow caller got %q, %v", body, err)
		}
	})
	time.AfterFunc(50*time.Millisecond, func() { close(end) })
	all.Wait()
	http.DefaultClient.CloseIdleConnections()
	if most.Load() != 1 {
		t.Errorf("%d requests were worked on at once", most.Load())
	}
}

// TestNoPlaceIsLost: connections that end in whatever way, share themselves among requests or stop in the middle of a body leave
// all places free.
func TestNoPlaceIsLost(t *testing.T) {
	e := newEntrance(2)
	begun, stop := make(chan struct{}, 100), make(chan struct{})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{ConnContext: Context, ReadHeaderTimeout: 300 * time.Millisecond, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		place, done := Begin(r)
		defer done()
		switch r.URL.Path {
		case "/body":
			if place != nil {
				place.Leave() // its lane has granted it
			}
			go func() { _, _ = io.Copy(io.Discard, r.Body) }()
			begun <- struct{}{}
			<-stop
		case "/none": // refused before anything looks at it
			w.Header().Set("Connection", "close")
			w.WriteHeader(http.StatusUnauthorized)
		}
	})}
	server.Protocols = new(http.Protocols)
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetUnencryptedHTTP2(true)
	var serving, all sync.WaitGroup
	serving.Go(func() { _ = server.Serve(e.Listener(listener)) })
	defer serving.Wait()
	defer server.Close()
	send := func(what string) net.Conn {
		c, err := net.Dial("tcp", listener.Addr().String())
		if err != nil {
			t.Error(err)
			return nil
		}
		_, _ = io.WriteString(c, what)
		return c
	}
	for _, what := range []string{
		"\x16\x03\x01\x02\x00\x01\x00 a hello of TLS", "nonsense\r\n\r\n", "GET / HTTP/1.1\r\n\r\n", "GET /none HTTP/1.0\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: odd\r\n\r\n", "GET /none HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
	} {
		for range 10 {
			all.Go(func() {
				if c := send(what); c != nil {
					_, _ = io.Copy(io.Discard, c) // until the server has hung up
					_ = c.Close()
				}
			})
		}
	}
	all.Wait()
	var open []net.Conn
	for range 10 { // half a body each, which the handler waits for
		open = append(open, send("POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n"+strings.Repeat("x", 9000)))
		<-begun
	}
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	client := &http.Client{Transport: &http.Transport{Protocols: protocols}}
	for range 100 {
		all.Go(func() {
			answer, err := client.Post("http://"+listener.Addr().String()+"/", "text/plain", strings.NewReader("one of many on one connection"))
			if err != nil {
				t.Error(err)
				return
			}
			if answer.ProtoMajor != 2 {
				t.Errorf("the answer came over %s", answer.Proto)
			}
			_ = answer.Body.Close()
		})
	}
	all.Wait()
	empty(t, e)
	close(stop)
	for _, c := range open {
		_ = c.Close()
	}
	client.CloseIdleConnections()
}
