//go:build linux

package contrib

import (
	"context"
	"fmt"
	"testing"
	"time"

	contribstate "github.com/dapr/components-contrib/state"
	contribetcd "github.com/dapr/components-contrib/state/etcd"
	"github.com/dapr/kit/logger"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/state"
	"github.com/sidecast/sidecast/state/statetest"
	"github.com/sidecast/sidecast/tests/servers"
)

func etcdSettings(t testing.TB) map[string]string { return etcdAt(servers.Etcd(t)) }

// etcdAt are settings with keys of their own.
func etcdAt(address string) map[string]string {
	return map[string]string{"endpoints": address, "keyPrefixPath": fmt.Sprint("test", tables.Add(1)), "maxTxnOps": "2000"}
}

// etcdTraits: the server ends leases some time after they are over, and none that is shorter than a leader's election.
var etcdTraits = statetest.Traits{TTLUnit: 5 * time.Second}

func TestEtcdState(t *testing.T) {
	t.Parallel()
	conforms(t, etcdV2, etcdTraits, etcdSettings)
}

// TestEtcdStateSharesItemsWithDapr writes with the library's own stores, and reads and writes over it.
func TestEtcdStateSharesItemsWithDapr(t *testing.T) {
	for version, at := range map[string]struct {
		ours   components.Component
		theirs func(logger.Logger) contribstate.Store
	}{"v1": {etcdV1, contribetcd.NewEtcdStateStoreV1}, "v2": {etcdV2, contribetcd.NewEtcdStateStoreV2}} {
		t.Run(version, func(t *testing.T) {
			settings := etcdSettings(t)
			sharesItems(t, openState(t, at.ours, settings), libraryStore(t, at.theirs, settings))
		})
	}
}

// TestEtcdBatchesHaveABound: more operations than the servers take are refused before anything is written.
func TestEtcdBatchesHaveABound(t *testing.T) {
	settings := etcdSettings(t)
	settings["maxTxnOps"] = "2"
	s := openState(t, etcdV1, settings)
	defer s.Close(t.Context())
	ops := []state.Op{{Key: "a"}, {Key: "b"}, {Key: "c"}}
	if _, err := s.Apply(t.Context(), ops); fault.ReasonOf(err) != fault.TransactionBig {
		t.Errorf("three operations where two are allowed: %v", err)
	}
	if _, err := s.Apply(t.Context(), ops[1:]); err != nil {
		t.Error(err)
	}
	items, err := s.Get(t.Context(), []string{"a", "b", "c"}) // more than one transaction reads
	if err != nil || len(items) != 2 {
		t.Errorf("there is %v (%v)", items, err)
	}
}

// etcdLost is a connection that loses the server's answer to a commit: fails instead is what the client says.
type etcdLost struct {
	clientv3.KV
	fails error
}

func (l etcdLost) Txn(ctx context.Context) clientv3.Txn { return lostTxn{l.KV.Txn(ctx), l.fails} }

type lostTxn struct {
	clientv3.Txn
	fails error
}

func (l lostTxn) If(c ...clientv3.Cmp) clientv3.Txn  { return lostTxn{l.Txn.If(c...), l.fails} }
func (l lostTxn) Then(o ...clientv3.Op) clientv3.Txn { return lostTxn{l.Txn.Then(o...), l.fails} }
func (l lostTxn) Else(o ...clientv3.Op) clientv3.Txn { return lostTxn{l.Txn.Else(o...), l.fails} }

func (l lostTxn) Commit() (*clientv3.TxnResponse, error) {
	if answer, err := l.Txn.Commit(); err != nil || !answer.Succeeded {
		return answer, err
	}
	return nil, l.fails
}

// TestEtcdWritesOfUnknownOutcomeKeepTheirItems: a write whose answer is lost may have been done, and takes nothing away.
func TestEtcdWritesOfUnknownOutcomeKeepTheirItems(t *testing.T) {
	for name, fails := range map[string]error{
		"late": context.DeadlineExceeded, "canceled": context.Canceled, "lost": rpctypes.ErrTimeoutDueToConnectionLost, "full": rpctypes.ErrNoSpace,
	} {
		t.Run(name, func(t *testing.T) {
			s := openState(t, etcdV2, etcdSettings(t)).(*etcdStore)
			defer s.Close(t.Context())
			if _, err := s.Apply(t.Context(), []state.Op{{Key: "k", Value: []byte("acknowledged")}}); err != nil {
				t.Fatal(err)
			}
			s.client.KV = etcdLost{s.client.KV, fails}
			if _, err := s.Apply(t.Context(), []state.Op{{Key: "k", Value: []byte("done"), TTL: time.Hour}}); err == nil {
				t.Fatal("a write without an answer is acknowledged")
			}
			s.client.KV = s.client.KV.(etcdLost).KV
			if items, err := s.Get(t.Context(), []string{"k"}); err != nil || len(items) != 1 || string(items[0].Value) != "done" {
				t.Errorf("there is %v (%v)", items, err)
			}
		})
	}
}

// TestEtcdGivesLeasesBack that no item has got: those of a write whose condition does not hold, or that the server rejects.
func TestEtcdGivesLeasesBack(t *testing.T) {
	settings := etcdSettings(t)
	settings["maxTxnOps"] = "100000" // more than the server's
	s := openState(t, etcdV2, settings).(*etcdStore)
	defer s.Close(t.Context())
	big := make([]state.Op, 3000)
	for i := range big {
		big[i] = state.Op{Key: fmt.Sprint("k", i), TTL: lasting}
	}
	for reason, ops := range map[fault.Reason][]state.Op{
		fault.ETagMismatch:   {{Key: "k", Match: state.Exact, ETag: "1", TTL: lasting}},
		fault.TransactionBig: big,
	} {
		if _, err := s.Apply(t.Context(), ops); fault.ReasonOf(err) != reason {
			t.Fatalf("the write gave %v, want %s", err, reason)
		}
	}
	left, err := s.client.Leases(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, lease := range left.Leases {
		if end, ours := leaseEnd(int64(lease.ID)); ours && time.Until(end) > lasting/2 {
			t.Errorf("a lease until %v is left", end)
		}
	}
}

// lasting is a time to live that no other test asks for.
const lasting = 50 * 365 * 24 * time.Hour
