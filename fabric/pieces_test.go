package fabric_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/fabric"
	"github.com/sidecast/sidecast/fault"
)

// caller is a Sink that hands each piece to the test.
type caller struct {
	pieces  chan string
	head    *call.Response
	trailer call.Header
}

func newCaller() *caller { return &caller{pieces: make(chan string)} }

func (c *caller) Begin(head *call.Response) error {
	c.head = head
	return nil
}

func (c *caller) Send(piece []byte) error {
	c.pieces <- string(piece)
	return nil
}

func (c *caller) End(trailer call.Header) { c.trailer = trailer }

// expect fails the test unless these pieces come.
func (c *caller) expect(t *testing.T, want string) {
	t.Helper()
	select {
	case got := <-c.pieces:
		if got != want {
			t.Fatalf("the piece %q came, want %q", got, want)
		}
	case <-within(t).Done():
		t.Fatalf("the piece %q does not come", want)
	}
}

// pieceByPiece is a handler whose answers pass on; it writes the next piece when it is told to, as long as the call lasts.
func pieceByPiece(next <-chan string, over chan<- error) handler {
	return handler{call: func(ctx context.Context, req *call.Request) (*call.Response, error) {
		if req.Pieces == nil || req.Method == "whole" {
			return &call.Response{Status: 200, Body: req.Body, Trailer: call.Header{{Key: "t", Value: "whole"}}}, nil
		}
		if _, bounded := ctx.Deadline(); bounded != (req.Method == "bounded") {
			return nil, fault.New("serve", fault.Defect, "the handler's deadline: %v", bounded)
		}
		passage := req.Pieces.Open(ctx)
		defer passage.Close()
		if err := passage.Begin(&call.Response{Status: 201, ContentType: "text/plain", Header: call.Header{{Key: "k", Value: "v"}}}); err != nil {
			return nil, err
		}
		for {
			select {
			case piece := <-next:
				switch {
				case piece == "end":
					passage.End(call.Header{{Key: "t", Value: "pieces"}})
					return &call.Response{Status: 201, Passed: true}, nil
				case piece == "fail":
					return nil, fault.New("serve", fault.InstanceLost, "it broke")
				case piece == "panic":
					panic("the handler's")
				case piece == "lie":
					return &call.Response{Body: []byte("not what began")}, nil
				}
				if err := passage.Send([]byte(piece)); err != nil {
					return nil, err
				}
			case <-passage.Done():
				over <- passage.Err()
				return nil, fault.FromContext("serve", passage, "the test")
			}
		}
	}}
}

type result struct {
	resp *call.Response
	err  error
}

// ask makes a call whose answer goes to c.
func ask(ctx, whole context.Context, f *fabric.Fabric, c *caller, req *call.Request) <-chan result {
	req.Pieces = call.PiecesTo(whole, c)
	done := make(chan result, 1)
	go func() {
		resp, err := f.Call(ctx, b1, req)
		done <- result{resp, err}
	}()
	return done
}

// each runs a test with an answer of another instance and of the caller's own, for a small request and one in chunks.
func each(t *testing.T, f func(t *testing.T, from *fabric.Fabric, size int, next chan string, over chan error)) {
	next, over := make(chan string), make(chan error, 1)
	a, b := pair(t, pieceByPiece(next, over))
	for name, from := range map[string]*fabric.Fabric{"another": a, "itself": b} {
		for _, size := range []int{3, 3 << 20} {
			t.Run(fmt.Sprint(name, size), func(t *testing.T) { f(t, from, size, next, over) })
		}
	}
}

func TestAnswersPassInPieces(t *testing.T) {
	each(t, func(t *testing.T, from *fabric.Fabric, size int, next chan string, _ chan error) {
		c := newCaller()
		done := ask(within(t), within(t), from, c, &call.Request{Method: "bounded", Body: body(size)})
		for _, piece := range []string{"a", "b", strings.Repeat("c", 50000)} {
			next <- piece
			c.expect(t, piece)
		}
		next <- "end"
		got := <-done
		if got.err != nil || !got.resp.Passed || got.resp.Status != 201 || len(got.resp.Body) > 0 {
			t.Errorf("%+v, %v", got.resp, got.err)
		}
		if c.head.Status != 201 || c.head.ContentType != "text/plain" || c.head.Header.Get("k") != "v" || c.trailer.Get("t") != "pieces" {
			t.Errorf("the caller got %+v, and after it %v", c.head, c.trailer)
		}
		// One that is whole comes whole.
		for _, method := range []string{"whole", "any"} {
			req := &call.Request{Method: method, Body: body(size)}
			if method == "whole" {
				req.Pieces = call.PiecesTo(within(t), newCaller())
			}
			resp, err := from.Call(within(t), b1, req)
			if err != nil || resp.Passed || !reflect.DeepEqual(resp.Body, body(size)) || resp.Trailer.Get("t") != "whole" || req.Pieces.Taken() {
				t.Errorf("%s: %v", method, err)
			}
		}
	})
}

// The deadline of a call is for the head of its answer, and a call that has none gives its handler none.
func TestDeadlinesHoldForTheHead(t *testing.T) {
	each(t, func(t *testing.T, from *fabric.Fabric, size int, next chan string, _ chan error) {
		c := newCaller()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		done := ask(ctx, t.Context(), from, c, &call.Request{Method: "bounded", Body: body(size)})
		next <- "in time"
		c.expect(t, "in time")
		<-ctx.Done()
		next <- "later"
		c.expect(t, "later")
		next <- "end"
		if got := <-done; got.err != nil || !got.resp.Passed {
			t.Errorf("%+v, %v", got.resp, got.err)
		}
	})
}

// What breaks off after it began ends with the fault of the handler.
func TestAnswersInPiecesBreakOff(t *testing.T) {
	for how, reason := range map[string]fault.Reason{"fail": fault.InstanceLost, "panic": fault.Panicked, "lie": fault.Defect} {
		t.Run(how, func(t *testing.T) {
			each(t, func(t *testing.T, from *fabric.Fabric, size int, next chan string, _ chan error) {
				c := newCaller()
				done := ask(t.Context(), t.Context(), from, c, &call.Request{Method: "m", Body: body(size)})
				next <- "a"
				c.expect(t, "a")
				next <- how
				got := <-done
				wantReason(t, got.err, reason)
				if got.resp != nil || c.trailer != nil {
					t.Errorf("it ends with %+v %v", got.resp, c.trailer)
				}
			})
		})
	}
}

// A caller that goes away, and one that has an answer already, end what is done for them.
func TestCallersOfPiecesGoAway(t *testing.T) {
	each(t, func(t *testing.T, from *fabric.Fabric, size int, next chan string, over chan error) {
		c := newCaller()
		whole, cancel := context.WithCancel(t.Context())
		done := ask(whole, whole, from, c, &call.Request{Method: "m", Body: body(size)})
		next <- "a"
		c.expect(t, "a")
		cancel()
		if err := <-over; !errors.Is(err, context.Canceled) {
			t.Errorf("the handler ends with %v", err)
		}
		if got := <-done; fault.KindOf(got.err) != fault.Canceled {
			t.Errorf("the call ends with %v", got.err)
		}
		late := &call.Request{Method: "m", Body: body(size), Pieces: call.PiecesTo(t.Context(), newCaller())}
		late.Pieces.Take()
		if _, err := from.Call(t.Context(), b1, late); fault.KindOf(err) != fault.Canceled || fault.ReasonOf(err) != fault.CallCanceled {
			t.Errorf("a call that was answered before is answered with %v", err)
		}
		if strings.Contains(t.Name(), "another") { // the handler of another instance hears of it by a message
			if err := <-over; !errors.Is(err, context.Canceled) {
				t.Errorf("its handler ends with %v", err)
			}
		}
	})
}

// A head that no message holds is a fault, and not silence.
func TestHugeHeadsAreRefused(t *testing.T) {
	a, _ := pair(t, handler{call: func(_ context.Context, req *call.Request) (*call.Response, error) {
		_, err := req.Pieces.Begin(&call.Response{Header: call.Header{{Key: "k", Value: strings.Repeat("x", 2<<20)}}})
		return nil, err
	}})
	for _, size := range []int{3, 3 << 20} {
		c := newCaller()
		got := <-ask(within(t), within(t), a, c, &call.Request{Method: "m", Body: body(size)})
		wantReason(t, got.err, fault.AnswerTooLarge)
		if c.head != nil {
			t.Error("an answer began")
		}
	}
}
