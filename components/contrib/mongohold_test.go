package contrib

import (
	"slices"
	"testing"

	"github.com/google/uuid"
	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/mongo/integration/mtest"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/state"
)

// TestMongoChecksHoldUntilTheCommit: MongoDB lets one of two transactions pass that write the same document, and both that read
// what the other one writes. So within a transaction whatever expects something writes it. Here a server answers as it is told:
// the stand-in for MongoDB has no transactions.
func TestMongoChecksHoldUntilTheCommit(t *testing.T) {
	done, none := mtest.CreateSuccessResponse(bson.E{Key: "n", Value: 1}, bson.E{Key: "nModified", Value: 1}), mtest.CreateSuccessResponse(bson.E{Key: "n", Value: 0})
	exists := mtest.CreateWriteErrorsResponse(mtest.WriteError{Code: 11000, Message: "duplicate key"})
	tag := uuid.NewString()
	set := state.Op{Key: "set", Value: []byte("1")}
	for name, test := range map[string]struct {
		expects state.Op
		answers []bson.D
		asked   []string
		reason  fault.Reason
	}{
		"a check": {state.Op{Kind: state.Check, Match: state.Exact, ETag: tag}, []bson.D{done, done, done},
			[]string{"update", "update", "commitTransaction"}, ""},
		"a check that fails": {state.Op{Kind: state.Check, Match: state.Exact, ETag: tag}, []bson.D{none, done},
			[]string{"update", "abortTransaction"}, fault.ETagMismatch},
		"a check for nothing": {state.Op{Kind: state.Check, Match: state.Absent}, []bson.D{none, done, done, done, done},
			[]string{"delete", "insert", "delete", "update", "commitTransaction"}, ""},
		"a check for nothing that fails": {state.Op{Kind: state.Check, Match: state.Absent}, []bson.D{none, exists, done},
			[]string{"delete", "insert", "abortTransaction"}, fault.ETagMismatch},
		"a delete of nothing": {state.Op{Kind: state.Delete, Match: state.Absent}, []bson.D{none, done, done, done, done},
			[]string{"delete", "insert", "delete", "update", "commitTransaction"}, ""},
	} {
		mtest.New(t, mtest.NewOptions().ClientType(mtest.Mock)).Run(name, func(mt *mtest.T) {
			m := &mongoStore{client: mt.Client, items: mt.Coll, tableStore: tableStoreOfMongo(hung, host.Log), replica: true, clock: newMongoClock()}
			mt.AddMockResponses(test.answers...)
			test.expects.Key = "expected"
			if _, err := m.Apply(t.Context(), []state.Op{test.expects, set}); fault.ReasonOf(err) != test.reason {
				mt.Fatalf("the batch gave %v, want the reason %q", err, test.reason)
			}
			var asked []string
			transactions := make(map[int64]bool)
			for _, event := range mt.GetAllStartedEvents() {
				asked = append(asked, event.CommandName)
				number, _ := event.Command.Lookup("txnNumber").AsInt64OK()
				transactions[number] = true
			}
			if !slices.Equal(asked, test.asked) || len(transactions) != 1 || transactions[0] {
				mt.Errorf("the server was asked %v in the transactions %v, want %v in one", asked, transactions, test.asked)
			}
			for _, event := range mt.GetAllStartedEvents()[:1] {
				if change, err := event.Command.LookupErr("updates", "0", "u", "$inc", "_held"); event.CommandName == "update" && (err != nil || change.AsInt64() != 1) {
					mt.Errorf("the check changes nothing: %v", event.Command)
				}
			}
		})
	}
}
