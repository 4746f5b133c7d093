//go:build unix

package pluggable

import (
	"context"
	"io"
	"testing"
	"time"

	"github.com/sidecast/sidecast/pubsub"
	"github.com/sidecast/sidecast/pubsub/pubsubtest"
	"github.com/sidecast/sidecast/state"
	"github.com/sidecast/sidecast/state/statetest"
	"github.com/sidecast/sidecast/tests/plugintest"
)

func TestStateConforms(t *testing.T) {
	statetest.Run(t, func(t *testing.T) state.Store {
		dir := folderAt(t)
		serve(t, sock(dir, "plain"), &plugintest.Program{})
		return open[state.Store](t, dir, "state.plain")
	}, statetest.Traits{MaxValue: MaxValue, NoChecks: true, BlindChecks: true, TTLUnit: time.Second})
}

func TestStateWithoutTransactionsConforms(t *testing.T) {
	statetest.Run(t, func(t *testing.T) state.Store {
		dir := folderAt(t)
		serve(t, sock(dir, "plain"), &plugintest.Program{Without: []string{"TransactionalStateStore", "TransactionalStoreMultiMaxSize", "QueriableStateStore"}})
		return open[state.Store](t, dir, "state.plain")
	}, statetest.Traits{MaxValue: MaxValue, SingleOps: true, NoChecks: true, BlindChecks: true, TTLUnit: time.Second})
}

// A program that has the service and does not answer it sets no limit.
func TestTransactionsOfALimitThatIsNotTold(t *testing.T) {
	dir := folderAt(t)
	serve(t, sock(dir, "plain"), &plugintest.Program{Without: []string{"Limit"}})
	s := open[state.Store](t, dir, "state.plain")
	defer shut(t, s)
	ops := []state.Op{{Key: "a", Value: []byte("1")}, {Key: "b", Value: []byte("2")}, {Key: "c", Value: []byte("3")}, {Key: "d", Value: []byte("4")}}
	if _, err := s.Apply(t.Context(), ops); err != nil {
		t.Error(err)
	}
}

func TestPubSubConforms(t *testing.T) {
	pubsubtest.Run(t, pubsubtest.Backend{
		NoDelay: true, NoOrder: true, NothingKept: true, LocalAttempts: true, OnlyEvents: true, Durable: true,
		New: func(t testing.TB) pubsubtest.Place {
			dir := folderAt(t)
			serve(t, sock(dir, "bus"), &plugintest.Program{})
			component := find(t, folder(t, dir, io.Discard), "pubsub.bus")
			return func() pubsub.Broker {
				b, err := component.Open(context.Background(), host(io.Discard), nil)
				if err != nil {
					t.Fatal(err)
				}
				return b.(pubsub.Broker)
			}
		},
	})
}
