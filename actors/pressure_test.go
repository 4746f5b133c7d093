package actors

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sidecast/sidecast/resiliency"
)

// TestPressure: lanes that protect the CPU feel it, others do not; nobody looks while there are none; a look that fails is
// tried again.
func TestPressure(t *testing.T) {
	var looks atomic.Int64
	var fails atomic.Bool
	o := Options{Pressure: func(context.Context) (resiliency.Pressure, error) {
		if fails.Load() {
			return resiliency.Pressure{}, errors.New("no such file")
		}
		looks.Add(1)
		return resiliency.Pressure{CPU: 0.9, Memory: 0.5}, nil
	}}
	bubble(t, o, func(t *testing.T, s *System) {
		protected := resiliency.Policy{Protection: resiliency.Protection{CPU: 0.8}}
		plain := s.Lane("plain", resiliency.Policy{Protection: resiliency.Protection{QueueDelay: time.Second}, MaxInFlight: 1})
		time.Sleep(time.Minute)
		if n := looks.Load(); n != 0 {
			t.Fatalf("looked %d times for nobody", n)
		}
		l := s.Lane("l", protected)
		s.Lane("other", protected)
		time.Sleep(3100 * time.Millisecond)
		synctest.Wait()
		if st := l.Status(t.Context()); st.Pressure.CPU != 0.9 || st.Shedding < 0.35 || st.Shedding > 0.45 {
			t.Errorf("after three seconds the lane says %+v", st)
		}
		if st := plain.Status(t.Context()); st.Pressure != (resiliency.Pressure{}) {
			t.Errorf("a lane that did not ask was told: %+v", st)
		}
		if n := looks.Load(); n != 7 {
			t.Errorf("looked %d times in 3.1 seconds", n)
		}

		fails.Store(true)
		time.Sleep(20 * time.Second)
		fails.Store(false)
		before := looks.Load()
		time.Sleep(20 * time.Second)
		if looks.Load() == before {
			t.Error("nobody looks any more")
		}

		l.SetPolicy(resiliency.Policy{})
		if err := s.Lane("other", protected).Close(t.Context()); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Second)
		before = looks.Load()
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := looks.Load(); n != before {
			t.Errorf("looked %d times for nobody", n-before)
		}
		if st := l.Status(t.Context()); st.Shedding != 0 || st.Pressure != (resiliency.Pressure{}) {
			t.Errorf("without protection the lane says %+v", st)
		}
		l.SetPolicy(protected)
		time.Sleep(time.Second)
		if looks.Load() == before {
			t.Error("nobody looks again")
		}
	})
}
