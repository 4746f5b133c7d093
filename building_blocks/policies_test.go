package blocks

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sidecast/sidecast/actors"
	"github.com/sidecast/sidecast/fabric"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/resiliency"
)

// daprd gives calls that no document names the time they take. Sidecast itself gives up, so that nobody waits for ever.
func TestCallsOfDaprdMayTakeAsLongAsTheyLike(t *testing.T) {
	const day = 24 * time.Hour
	for _, asDaprd := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			system := actors.NewSystem(actors.Options{})
			v := newInvocationIn("", Deps{System: system, AsDaprd: asDaprd}, newRulebook(system, nil))
			v.instancesChanged("orders", []fabric.Instance{{App: "orders", ID: "orders-1", Ready: true}})
			for _, name := range []string{"orders", "http://outside.example"} {
				began := time.Now()
				err := v.target(name).calls.Do(t.Context(), resiliency.Call{Op: "slow"}, func(ctx context.Context, _ actors.Grant) error {
					select {
					case <-time.After(day):
						return nil
					case <-ctx.Done():
						return fault.FromContext("slow", ctx, "the app")
					}
				})
				switch took := time.Since(began); {
				case asDaprd && (err != nil || took != day):
					t.Errorf("as daprd, %s: %v after %s", name, err, took)
				case !asDaprd && (fault.KindOf(err) != fault.Timeout || took != targetPolicy.CallTimeout):
					t.Errorf("%s: %v after %s", name, err, took)
				}
			}
			if err := system.Close(t.Context()); err != nil {
				t.Error(err)
			}
			time.Sleep(10 * time.Millisecond) // the library of the actors counts dead letters for a millisecond
		})
	}
}
