package turnstile

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/lock"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// queue is a lock as one would write it on paper: a holder, when it ends, and a line.
type queue struct {
	holder *waiter
	token  uint64
	ends   time.Time
	line   []*waiter
}

func (q *queue) advance(now time.Time, token *uint64) {
	for q.holder != nil && !q.ends.After(now) {
		q.next(now, token)
	}
}

func (q *queue) next(now time.Time, token *uint64) {
	q.holder = nil
	if len(q.line) > 0 {
		*token++
		q.holder, q.line, q.token = q.line[0], q.line[1:], *token
		q.ends = now.Add(q.holder.ttl)
	}
}

// The table is compared with a queue for one lock, step by step, under a clock of the test's own.
func TestTableAgreesWithModel(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		now := time.Unix(0, 0)
		var token uint64
		q := &queue{}
		given := map[*waiter]uint64{}
		table := newTable(0, func(c change) {
			if c.to != nil {
				given[c.to] = c.lease.Token
			}
		})
		ttl := rapid.Map(rapid.IntRange(1, 9), func(s int) time.Duration { return time.Duration(s) * time.Second })
		r.Repeat(map[string]func(*rapid.T){
			"join": func(r *rapid.T) {
				w := &waiter{owner: "ann", ttl: ttl.Draw(r, "ttl")}
				q.advance(now, &token)
				q.line = append(q.line, w)
				if q.holder == nil {
					q.next(now, &token)
				}
				table.join(now, "x", w)
			},
			"leave": func(r *rapid.T) {
				if len(q.line) == 0 {
					return
				}
				w := rapid.SampledFrom(q.line).Draw(r, "waiter")
				q.advance(now, &token)
				table.lapse(now)
				i := slices.Index(q.line, w)
				if left := table.leave(w); left != (i >= 0) {
					r.Fatalf("leave of place %d gave %v", i, left)
				}
				if i >= 0 {
					q.line = slices.Delete(q.line, i, i+1)
				}
			},
			"renew": func(r *rapid.T) {
				held := q.token
				d := ttl.Draw(r, "ttl")
				q.advance(now, &token)
				_, ok := table.renew(now, lock.Lease{Name: "x", Owner: "ann", Token: held}, d)
				if want := q.holder != nil && q.token == held; ok != want {
					r.Fatalf("renew of token %d gave %v", held, ok)
				}
				if ok {
					q.ends = now.Add(d)
				}
			},
			"release": func(r *rapid.T) {
				held := q.token
				q.advance(now, &token)
				ok := table.release(now, lock.Lease{Name: "x", Owner: "ann", Token: held})
				if want := q.holder != nil && q.token == held; ok != want {
					r.Fatalf("release of token %d gave %v", held, ok)
				}
				if ok {
					q.next(now, &token)
				}
			},
			"time": func(r *rapid.T) { now = now.Add(ttl.Draw(r, "passes")) },
			"": func(r *rapid.T) {
				q.advance(now, &token)
				table.lapse(now)
				s := table.seats["x"]
				if q.holder == nil {
					if s != nil || table.due.Len() > 0 {
						r.Fatalf("a free lock has a seat: %+v", s)
					}
					return
				}
				if !s.held || s.lease.Token != q.token || given[q.holder] != q.token || !s.lease.Expires.Equal(q.ends) || s.line.Len() != len(q.line) {
					r.Fatalf("seat %+v, want token %d until %v and %d waiting", s, q.token, q.ends, len(q.line))
				}
			},
		})
	})
}

func TestLeasesEndOnTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(Options{})
		ctx := context.Background()
		began := time.Now()
		if _, err := l.Acquire(ctx, "x", "ann", 10*time.Second, false); err != nil {
			t.Fatal(err)
		}
		if _, err := l.Acquire(ctx, "y", "ann", 3*time.Second, false); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"y", "x"} {
			if _, err := l.Acquire(ctx, name, "bob", time.Minute, true); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(began); took != 10*time.Second {
			t.Fatalf("let in after %v", took)
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if len(l.table.seats) != 0 {
			t.Fatalf("%d seats are left", len(l.table.seats))
		}
		if err := l.Close(ctx); err != nil {
			t.Fatal(err)
		}
	})
}

func TestTooManyWait(t *testing.T) {
	table := newTable(0, func(change) {})
	now := time.Now()
	join := func() bool {
		return table.join(now, "x", &waiter{owner: "ann", ttl: time.Minute})
	}
	for range 1 + lock.MaxWaiting {
		if !join() {
			t.Fatal("refused too early")
		}
	}
	if join() {
		t.Fatal("the line has no end")
	}
}

// broken is a journal that cannot write.
type broken struct{}

var errBroken = fault.New("journal", fault.DiskFull, "no room")

func (broken) Holds(lock.Lease) func() error { return func() error { return errBroken } }
func (broken) Frees(string) func() error     { return func() error { return errBroken } }

func TestLeaseThatIsNotDurableIsGivenBack(t *testing.T) {
	l := New(Options{Journal: broken{}})
	defer l.Close(context.Background())
	for i := range 3 {
		_, err := l.Acquire(t.Context(), "x", fmt.Sprint(i), time.Minute, false)
		if fault.ReasonOf(err) != fault.DiskFull || !errors.Is(err, errBroken) {
			t.Fatalf("got %v", err)
		}
	}
	if len(l.table.seats) != 0 {
		t.Fatalf("%d seats are left", len(l.table.seats))
	}
}
