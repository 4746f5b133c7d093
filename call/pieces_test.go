package call

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// kept is a Sink that keeps what it is given.
type kept struct{ got []string }

func (k *kept) Begin(head *Response) error {
	k.got = append(k.got, fmt.Sprintf("%d %v", head.Status, head.Header))
	return nil
}

func (k *kept) Send(piece []byte) error {
	k.got = append(k.got, string(piece))
	return nil
}

func (k *kept) End(trailer Header) { k.got = append(k.got, fmt.Sprint(trailer)) }

// fromAfar adds to the head of an answer.
type fromAfar struct{ Sink }

func (f fromAfar) Begin(head *Response) error {
	own := *head
	own.Header = append(own.Header, Field{"from", "afar"})
	return f.Sink.Begin(&own)
}

// An attempt's time is for the head of its answer: what follows goes on with the call.
func TestPassagesOutliveTheirAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type (
			key   struct{}
			other struct{}
		)
		whole, end := context.WithCancel(context.WithValue(t.Context(), key{}, "the call's"))
		to := &kept{}
		pieces := PiecesTo(whole, to)

		within, cancel := context.WithTimeout(whole, time.Second)
		late := pieces.Open(within)
		<-late.Done()
		synctest.Wait()
		if err := late.Err(); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("an attempt whose time is up ends with %v", err)
		}
		if err := late.Begin(&Response{}); !errors.Is(err, context.DeadlineExceeded) || pieces.Taken() {
			t.Errorf("it begins an answer: %v, taken %v", err, pieces.Taken())
		}
		late.Close()
		cancel()

		within, cancel = context.WithTimeout(context.WithValue(whole, other{}, "the attempt's"), time.Second)
		var told time.Time
		attempt := pieces.Attempt(func(_ *Response, at time.Time) { told = at }).Through(func(to Sink) Sink { return fromAfar{to} })
		passage := attempt.Open(within)
		defer passage.Close()
		if at, ok := passage.Deadline(); !ok || time.Until(at) != time.Second {
			t.Errorf("the attempt's deadline is %v", at)
		}
		if passage.Value(key{}) != "the call's" || passage.Value(other{}) != "the attempt's" {
			t.Error("values of the contexts are lost")
		}
		child, stop := context.WithCancel(passage)
		defer stop()
		if err := passage.Begin(&Response{Status: 200, Header: Header{{"a", "b"}}}); err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		time.Sleep(time.Hour)
		cancel()
		synctest.Wait()
		if _, ok := passage.Deadline(); ok || passage.Err() != nil || child.Err() != nil || within.Err() == nil {
			t.Errorf("an answer that has begun ends with its attempt: %v %v", passage.Err(), child.Err())
		}
		if err := errors.Join(passage.Send([]byte("x")), passage.Send([]byte("y"))); err != nil {
			t.Error(err)
		}
		passage.End(Header{{"t", "1"}})
		if got := strings.Join(to.got, " | "); got != "200 [{a b} {from afar}] | x | y | [{t 1}]" || !told.Equal(begun) {
			t.Errorf("the caller got %s", got)
		}

		again := pieces.Open(whole)
		defer again.Close()
		if err := again.Begin(&Response{}); !errors.Is(err, ErrTaken) || pieces.Take() {
			t.Errorf("a call is answered twice: %v", err)
		}
		if attempt.Left() {
			t.Error("a caller who waits is said to have left")
		}
		end()
		synctest.Wait()
		if !attempt.Left() || pieces.Left() {
			t.Error("the caller has left the attempt whose answer passes, and it alone")
		}
		if !errors.Is(passage.Err(), context.Canceled) || !errors.Is(child.Err(), context.Canceled) {
			t.Errorf("what is left of a call that has ended: %v %v", passage.Err(), child.Err())
		}
	})
}

// refusing is a Sink that takes no more.
type refusing struct{ kept }

func (*refusing) Send([]byte) error { return errors.New("closed") }

// Whoever does not take a piece has left, though the call goes on.
func TestACallerThatTakesNoMoreHasLeft(t *testing.T) {
	pieces := PiecesTo(t.Context(), &refusing{}).Attempt(func(*Response, time.Time) {})
	if _, err := pieces.Begin(&Response{}); err != nil || pieces.Left() {
		t.Errorf("%v, left %v", err, pieces.Left())
	}
	if err := pieces.Send([]byte("x")); err == nil || !pieces.Left() {
		t.Errorf("%v, left %v", err, pieces.Left())
	}
}

// A caller that takes no pieces is asked as one that does.
func TestNobodyTakesPieces(t *testing.T) {
	var none *Pieces
	if none.Through(func(to Sink) Sink { return to }) != nil {
		t.Error("a call without pieces has some")
	}
	for range 2 {
		if !none.Take() || none.Taken() {
			t.Error("a call without pieces is taken")
		}
	}
}

// An answer that nobody waits for begins nothing.
func TestAnAnswerThatComesTooLateBeginsNothing(t *testing.T) {
	whole, cancel := context.WithCancel(t.Context())
	cancel()
	to := &kept{}
	if _, err := PiecesTo(whole, to).Begin(&Response{}); !errors.Is(err, context.Canceled) || len(to.got) > 0 {
		t.Errorf("%v %v", err, to.got)
	}
}
