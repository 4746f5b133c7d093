//go:build linux

package contrib

import (
	"context"
	"fmt"
	"testing"
	"time"

	contribmongo "github.com/dapr/components-contrib/state/mongodb"
	"github.com/google/uuid"
	"go.mongodb.org/mongo-driver/bson"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/state"
	"github.com/sidecast/sidecast/state/statetest"
	"github.com/sidecast/sidecast/tests/servers"
)

func mongoSettings(t testing.TB) map[string]string { return mongoAt(servers.MongoDB(t)) }

// mongoAt are settings with a collection of their own.
func mongoAt(address string) map[string]string {
	return map[string]string{
		"connectionString": "mongodb://" + address + "/?directConnection=true", "collectionName": fmt.Sprint("c", tables.Add(1)), "operationTimeout": hung.String(),
	}
}

// TestMongoState runs on a stand-in for MongoDB, which has no replica set and so no transactions.
func TestMongoState(t *testing.T) {
	t.Parallel()
	conforms(t, mongoState, statetest.Traits{SingleOps: true, MaxValue: maxDocument}, mongoSettings)
}

// TestMongoStateOutlivesItsServer: the stand-in forgets what it had, the store works on.
func TestMongoStateOutlivesItsServer(t *testing.T) {
	t.Parallel()
	server := servers.Own(t, servers.OfMongoDB)
	s := openState(t, mongoState, mongoAt(server.Address()))
	defer s.Close(t.Context())
	set := func(ctx context.Context) error {
		_, err := s.Apply(ctx, []state.Op{{Key: "k", Value: []byte("1")}})
		return err
	}
	eventually(t, "Apply", set)
	killed(t, server, func() { away(t, "Apply", attempt(t, set)) })
	eventually(t, "Apply", set)
}

// TestMongoStateKeepsTheLibrarysDocuments reads what the library writes: JSON as documents, lists and numbers, and text. The
// library's own writes need what the stand-in does not have.
func TestMongoStateKeepsTheLibrarysDocuments(t *testing.T) {
	place := mongoSettings(t)
	s := openState(t, mongoState, place).(*mongoStore)
	defer s.Close(t.Context())
	for key, test := range map[string]struct {
		value any
		want  string
	}{
		"document": {bson.D{{Key: "a", Value: bson.A{1, 2.5, "x", nil, true}}}, `{"a":[1,2.5,"x",null,true]}`},
		"list":     {bson.A{1, "y"}, `[1,"y"]`},
		"number":   {int64(7), `7`},
		"text":     {`{"b":1}`, `{"b":1}`},
	} {
		if _, err := s.items.InsertOne(t.Context(), contribmongo.Item{Key: key, Value: test.value, Etag: uuid.NewString()}); err != nil {
			t.Fatal(err)
		}
		items, err := s.Get(t.Context(), []string{key})
		if err != nil || len(items) != 1 || string(items[0].Value) != test.want {
			t.Errorf("%s reads as %v (%v), want %s", key, items, err, test.want)
			continue
		}
		if _, err := s.Apply(t.Context(), []state.Op{{Key: key, Value: []byte(`"new"`), Match: state.Exact, ETag: items[0].ETag, TTL: time.Hour}}); err != nil {
			t.Error(err)
		}
		var now contribmongo.Item
		if err := s.items.FindOne(t.Context(), bson.D{{Key: "_id", Value: key}}).Decode(&now); err != nil || now.Value != `"new"` || now.TTL == nil || now.Etag == items[0].ETag {
			t.Errorf("the library reads %+v (%v)", now, err)
		}
	}
	if _, err := s.Apply(t.Context(), []state.Op{{Key: "a"}, {Key: "b"}}); fault.ReasonOf(err) != fault.NotSupported {
		t.Errorf("a batch without a replica set: %v", err)
	}
}
