package faults

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/sidecast/sidecast/fault"
	sidecastv1 "github.com/sidecast/sidecast/sdk/proto/sidecast/v1"
	"github.com/sidecast/sidecast/tests/machine"
)

// pair is an app with handlers, and a sidecar that calls it.
func pair(t *testing.T) (callee, caller *machine.Sidecar) {
	t.Helper()
	m := machine.New(t)
	callee, caller = m.Sidecar("callee"), m.Sidecar("caller")
	callee.Serve(handlers("callee")...)
	meet(t, caller, "callee", 1)
	return callee, caller
}

func TestHandlerThatPanics(t *testing.T) {
	t.Parallel()
	_, caller := pair(t)
	c := caller.Client()
	for range 3 {
		want(t, "panic", try(c, "callee", "panic", ""), fault.Panicked)
		if err := try(c, "callee", "echo", "x"); err != nil {
			t.Errorf("after a panic: %v", err)
		}
	}
}

func TestHandlerThatHangs(t *testing.T) {
	t.Parallel()
	callee, caller := pair(t)
	c := caller.Client()
	for _, method := range []string{"hang", "deaf"} {
		hanging := begin(c, "callee", method, 700*time.Millisecond)
		running(t, callee, 1)
		if err := try(c, "callee", "echo", "x"); err != nil {
			t.Errorf("beside a handler that hangs: %v", err)
		}
		o := settled(t, method, hanging)
		want(t, method, o.err, fault.DeadlineExceeded)
		if o.took > soon {
			t.Errorf("%s: answered after %s", method, o.took)
		}
		machine.Until(t, "the app's lane is free again", func() error {
			n, err := inFlight(callee)
			if err == nil && n > 0 {
				err = fmt.Errorf("%d in flight", n)
			}
			return err
		})
	}
}

func TestCallerThatGivesUp(t *testing.T) {
	t.Parallel()
	callee, caller := pair(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := caller.Client().Invoke(ctx, "callee", "hang", nil)
		done <- err
	}()
	running(t, callee, 1)
	cancel()
	if err := <-done; fault.KindOf(err) != fault.Canceled {
		t.Errorf("the caller gave up: %v", err)
	}
	machine.Until(t, "the handler is cancelled", func() error {
		n, err := inFlight(callee)
		if err == nil && n > 0 {
			err = fmt.Errorf("%d in flight", n)
		}
		return err
	})
}

// rude is an HTTP app that knows how to misbehave.
func rude(t *testing.T) (port string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				misbehave(conn)
			}()
		}
	}()
	return strconv.Itoa(listener.Addr().(*net.TCPAddr).Port)
}

func misbehave(conn net.Conn) {
	requests := bufio.NewReader(conn)
	for {
		r, err := http.ReadRequest(requests)
		if err != nil {
			return
		}
		_, _ = io.Copy(io.Discard, r.Body)
		say := func(text string) { _, _ = io.WriteString(conn, text) }
		switch r.URL.Path {
		case "/good":
			say("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood")
			continue
		case "/garbage":
			say("I do not speak this protocol\r\n\r\n\x00\xff\xfe")
		case "/half":
			say("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
		case "/nothing":
		case "/negative":
			say("HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n")
		case "/chunks":
			say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nnonsense\r\n")
		case "/status":
			say("HTTP/1.1 99999 Whatever\r\nContent-Length: 0\r\n\r\n")
		case "/headers":
			say("HTTP/1.1 200 OK\r\n")
			for i := 0; ; i++ {
				if _, err := fmt.Fprintf(conn, "X-%d: %01000d\r\n", i, i); err != nil {
					return
				}
			}
		case "/endless":
			say("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n")
			block := make([]byte, 64<<10)
			for {
				if _, err := conn.Write(block); err != nil {
					return
				}
			}
		case "/enormous":
			say("HTTP/1.1 200 OK\r\nContent-Length: 1099511627776\r\n\r\nand")
			_, _ = io.Copy(io.Discard, conn)
		case "/control":
			say("HTTP/1.1 200 OK\r\nX-Odd: \xff\xfe\x01\r\nContent-Length: 3\r\n\r\nodd")
		case "/hang":
			_, _ = io.Copy(io.Discard, conn)
		default:
			say("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
			continue
		}
		return
	}
}

func TestHTTPAppThatAnswersGarbage(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	callee := m.Sidecar("callee", "--app-port", rude(t), "--max-body", "1MiB")
	caller := m.Sidecar("caller", "--max-body", "1MiB")
	meet(t, caller, "callee", 1)
	c := caller.Client()
	for path, reasons := range map[string][]fault.Reason{
		"garbage":  {fault.AppAnswer},
		"half":     {fault.InstanceLost}, // as when it dies in the middle
		"nothing":  {fault.InstanceLost},
		"negative": {fault.AppAnswer},
		"chunks":   {fault.AppAnswer},
		"status":   {fault.AppAnswer},
		"headers":  {fault.AppAnswer, fault.AnswerTooLarge},
		"endless":  {fault.AnswerTooLarge},
		"enormous": {fault.AnswerTooLarge},
	} {
		o := settled(t, path, begin(c, "callee", path, long))
		want(t, path, o.err, reasons...)
		if err := try(c, "callee", "good", ""); err != nil {
			t.Errorf("after %s: %v", path, err)
		}
	}
	want(t, "hang", settled(t, "hang", begin(c, "callee", "hang", 300*time.Millisecond)).err, fault.DeadlineExceeded)
	if o := settled(t, "control", begin(c, "callee", "control", long)); o.err != nil && fault.ReasonOf(o.err) != fault.AppAnswer {
		t.Errorf("a header that is no text: %v", o.err)
	}
	if rss := resident(t, callee); rss > 300 {
		t.Errorf("the sidecar takes %d MiB after answers without end", rss)
	}
}

func TestGRPCAppThatSpeaksSomethingElse(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	m.Sidecar("callee", "--app-port", rude(t), "--app-protocol", "grpc")
	caller := m.Sidecar("caller")
	o := settled(t, "call", begin(caller.Client(), "callee", "x", 3*time.Second))
	if o.err == nil {
		t.Fatal("an app that speaks no gRPC has answered")
	}
	if kind := fault.KindOf(o.err); kind == fault.None || fault.ReasonOf(o.err) == "" {
		t.Errorf("%v (%v)", o.err, kind)
	}
}

// frames are what an app may send and should not.
func TestAppStreamThatSendsGarbage(t *testing.T) {
	t.Parallel()
	callee, caller := pair(t)
	ctx, cancel := context.WithTimeout(t.Context(), machine.Patience)
	defer cancel()
	apps := sidecastv1.NewAppClient(callee.Client().Conn())
	hello := &sidecastv1.ServeRequest{Frame: &sidecastv1.ServeRequest_Hello{Hello: &sidecastv1.Hello{Credits: 1, Methods: []string{"odd"}}}}
	chunk := &sidecastv1.ServeRequest{Frame: &sidecastv1.ServeRequest_Chunk{Chunk: &sidecastv1.StreamChunk{CallId: 99, Data: make([]byte, 1<<20)}}}
	credit := func(n int32) *sidecastv1.ServeRequest {
		return &sidecastv1.ServeRequest{Frame: &sidecastv1.ServeRequest_Credit{Credit: n}}
	}
	answer := &sidecastv1.ServeRequest{Frame: &sidecastv1.ServeRequest_Answer{Answer: &sidecastv1.CallAnswer{CallId: 12345}}}
	event := &sidecastv1.ServeRequest{Frame: &sidecastv1.ServeRequest_EventAnswer{EventAnswer: &sidecastv1.EventAnswer{CallId: 1, Status: 77}}}
	allowance := &sidecastv1.ServeRequest{Frame: &sidecastv1.ServeRequest_StreamCredit{
		StreamCredit: &sidecastv1.StreamCredit{CallId: 1, Bytes: math.MinInt64},
	}}
	for name, frames := range map[string][]*sidecastv1.ServeRequest{
		"nothing in a frame":  {{}},
		"no hello":            {credit(5)},
		"hello twice":         {hello, hello},
		"negative credit":     {hello, credit(-5)},
		"too much credit":     {hello, credit(math.MaxInt32), credit(math.MaxInt32)},
		"unknown calls":       {hello, answer, event, chunk, allowance},
		"empty frame later":   {hello, {}},
		"negative hello":      {{Frame: &sidecastv1.ServeRequest_Hello{Hello: &sidecastv1.Hello{Credits: -1}}}},
		"impossible wish":     {{Frame: &sidecastv1.ServeRequest_Hello{Hello: &sidecastv1.Hello{Subscriptions: []*sidecastv1.Subscription{{}}}}}},
		"impossible deadline": {{Frame: &sidecastv1.ServeRequest_Hello{Hello: &sidecastv1.Hello{Subscriptions: []*sidecastv1.Subscription{{Topic: "t", MaxDeliveries: -3}}}}}},
	} {
		t.Run(name, func(t *testing.T) {
			stream, err := apps.Serve(ctx)
			if err != nil {
				t.Fatal(err)
			}
			for _, frame := range frames {
				if err := stream.Send(frame); err != nil {
					break // its status is for Recv
				}
			}
			_ = stream.CloseSend()
			for {
				if _, err := stream.Recv(); err != nil {
					break
				}
			}
			if err := try(caller.Client(), "callee", "echo", "x"); err != nil {
				t.Errorf("the other app of the sidecar: %v", err)
			}
		})
	}
}

// An app that is asked and answers nonsense: the caller gets an answer all the same.
func TestAppStreamThatAnswersNonsense(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	callee, caller := m.Sidecar("callee"), m.Sidecar("caller")
	for name, nonsense := range map[string]func(id uint64) *sidecastv1.ServeRequest{
		"no result": func(id uint64) *sidecastv1.ServeRequest {
			return &sidecastv1.ServeRequest{Frame: &sidecastv1.ServeRequest_Answer{Answer: &sidecastv1.CallAnswer{CallId: id}}}
		},
		"an event's answer": func(id uint64) *sidecastv1.ServeRequest {
			return &sidecastv1.ServeRequest{Frame: &sidecastv1.ServeRequest_EventAnswer{EventAnswer: &sidecastv1.EventAnswer{CallId: id}}}
		},
		"a chunk": func(id uint64) *sidecastv1.ServeRequest {
			return &sidecastv1.ServeRequest{Frame: &sidecastv1.ServeRequest_Chunk{Chunk: &sidecastv1.StreamChunk{CallId: id, Data: []byte("x"), End: true}}}
		},
		"an unknown kind": func(id uint64) *sidecastv1.ServeRequest {
			return &sidecastv1.ServeRequest{Frame: &sidecastv1.ServeRequest_Answer{Answer: &sidecastv1.CallAnswer{
				CallId: id, Result: &sidecastv1.CallAnswer_Error{Error: &sidecastv1.Failure{Kind: "odd", Reason: "not a word", Message: "\x00"}},
			}}}
		},
		"an impossible status": func(id uint64) *sidecastv1.ServeRequest {
			return &sidecastv1.ServeRequest{Frame: &sidecastv1.ServeRequest_Answer{Answer: &sidecastv1.CallAnswer{
				CallId: id, Result: &sidecastv1.CallAnswer_Response{Response: &sidecastv1.InvokeResponse{HttpStatus: -7}},
			}}}
		},
		"nothing, and hangs up": nil,
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), machine.Patience)
			defer cancel()
			stream, err := sidecastv1.NewAppClient(callee.Client().Conn()).Serve(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if err := stream.Send(&sidecastv1.ServeRequest{Frame: &sidecastv1.ServeRequest_Hello{Hello: &sidecastv1.Hello{Credits: 1}}}); err != nil {
				t.Fatal(err)
			}
			if _, err := stream.Recv(); err != nil {
				t.Fatal(err)
			}
			meet(t, caller, "callee", 1)
			call := begin(caller.Client(), "callee", "anything", 2*time.Second)
			for {
				frame, err := stream.Recv()
				if err != nil {
					t.Fatal(err)
				}
				v := frame.GetInvoke()
				if v == nil {
					continue
				}
				if nonsense == nil {
					cancel()
				} else if err := stream.Send(nonsense(v.GetCallId())); err != nil {
					t.Fatal(err)
				}
				break
			}
			o := settled(t, "call", call)
			t.Logf("the caller gets %q, %v", o.answer, o.err)
			if o.err == nil && name != "an impossible status" {
				t.Errorf("the call has succeeded with %q", o.answer)
			}
			cancel()
			meet(t, caller, "callee", 0)
		})
	}
}
