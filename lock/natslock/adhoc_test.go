package natslock
import ("testing";"sync";"fmt";"time";"context")
func TestAdhoc(t *testing.T) {
	s := serve(t, t.TempDir(), -1)
	for _, c := range []struct{lockers, callers, rounds int}{{1,16,50},{2,16,50},{4,16,50},{1,200,5},{4,200,5},{1,1000,1},{4,1000,1}} {
		var ls []*locker
		for range c.lockers { ls = append(ls, openOn(t, connect(t, s.ClientURL()), true)) }
		began := time.Now()
		var wg sync.WaitGroup
		for i := range c.callers { wg.Go(func(){ for range c.rounds {
			l, err := ls[i%c.lockers].Acquire(context.Background(), "x", fmt.Sprint(i), 30*time.Second, true)
			if err != nil { t.Error(err); return }
			if err := ls[i%c.lockers].Release(context.Background(), l); err != nil { t.Error(err) }
		}})}
		wg.Wait()
		t.Logf("%+v: %v a pair", c, time.Since(began)/time.Duration(c.callers*c.rounds))
		for _, l := range ls { l.Close(context.Background()) }
	}
}
