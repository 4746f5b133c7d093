package contrib

import (
	"context"
	"encoding/json"
	"errors"
	"time"
	"unicode/utf8"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/mongo"
	"go.mongodb.org/mongo-driver/mongo/options"

	"github.com/sidecast/sidecast/state"
)

// Get implements state.Store. All items are of one query, but not of one moment: what is written meanwhile may be in it.
func (m *mongoStore) Get(ctx context.Context, keys []string) ([]state.Item, error) {
	return m.get(ctx, keys, m.read)
}

// mongoItem is a document.
type mongoItem struct {
	Key   string        `bson:"_id"`
	Value bson.RawValue `bson:"value"`
	ETag  string        `bson:"_etag"`
	Ends  *time.Time    `bson:"_ttl"`
}

func (m *mongoStore) read(ctx context.Context, keys []string, found map[string]state.Item) error {
	names := make(bson.A, len(keys))
	for i, key := range keys {
		names[i] = stored(key)
	}
	var which any = bson.D{{Key: "$in", Value: names}}
	if len(names) == 1 {
		which = names[0] // one document by its _id: what a linearizable read is for
	}
	cursor, err := m.items.Find(ctx, bson.D{{Key: "_id", Value: which}, live})
	if err != nil {
		return err
	}
	var documents []mongoItem
	if err := cursor.All(ctx, &documents); err != nil {
		return err
	}
	for _, d := range documents {
		item := state.Item{Key: d.Key, ETag: d.ETag}
		if item.Value, err = mongoValue(d.Value); err != nil {
			return err
		}
		if d.Ends != nil {
			item.Expires = d.Ends.UTC()
		}
		found[d.Key] = item
	}
	return nil
}

// live is the condition that an item has not expired, by the server's clock. The server removes it up to a minute later.
var live = bson.E{Key: "$expr", Value: bson.D{{Key: "$or", Value: bson.A{
	bson.D{{Key: "$eq", Value: bson.A{bson.D{{Key: "$ifNull", Value: bson.A{"$_ttl", nil}}}, nil}}},
	bson.D{{Key: "$gte", Value: bson.A{"$_ttl", "$$NOW"}}},
}}}}

// expired is the opposite of live.
var expired = bson.E{Key: "$expr", Value: bson.D{{Key: "$not", Value: bson.A{live.Value}}}}

// mongoValue is what a document holds: text, bytes, or what the library has made of JSON.
func mongoValue(v bson.RawValue) ([]byte, error) {
	switch v.Type {
	case bson.TypeString:
		return []byte(v.StringValue()), nil
	case bson.TypeBinary:
		_, data := v.Binary()
		return data, nil
	}
	wrapped, err := bson.MarshalExtJSON(bson.D{{Key: "value", Value: v}}, false, false)
	var out struct {
		Value json.RawMessage `json:"value"`
	}
	if err == nil {
		err = json.Unmarshal(wrapped, &out)
	}
	return out.Value, err
}

// write does one op.
func (m *mongoStore) write(ctx context.Context, op string, o state.Op, tag string) error {
	key := bson.D{{Key: "_id", Value: stored(o.Key)}}
	if o.Match == state.Exact {
		key = append(key, bson.E{Key: "_etag", Value: o.ETag}, live)
	}
	switch {
	case o.Kind == state.Set && o.Match == state.Absent:
		return m.create(ctx, op, o, tag)
	case o.Kind == state.Set:
		done, err := m.items.UpdateOne(ctx, key, m.update(o, tag), options.Update().SetUpsert(o.Match == state.Any))
		switch {
		case err == nil && o.Match == state.Exact && done.MatchedCount == 0:
			return mismatch(op, o)
		case mongo.IsDuplicateKeyError(err) && mongo.SessionFromContext(ctx) == nil:
			return m.write(ctx, op, o, tag) // another one has made the document meanwhile: it is there now, or gone again
		}
		return err
	case o.Kind == state.Delete && o.Match != state.Absent:
		done, err := m.items.DeleteOne(ctx, key)
		if err == nil && o.Match == state.Exact && done.DeletedCount == 0 {
			return mismatch(op, o)
		}
		return err
	case o.Match == state.Any:
		return nil
	case mongo.SessionFromContext(ctx) != nil:
		return m.hold(ctx, op, o)
	}
	if o.Match == state.Absent {
		key = append(key, live)
	}
	err := m.items.FindOne(ctx, key, options.FindOne().SetProjection(bson.D{{Key: "_id", Value: 1}})).Err()
	none := errors.Is(err, mongo.ErrNoDocuments)
	switch {
	case err != nil && !none:
		return err
	case none != (o.Match == state.Absent):
		return mismatch(op, o)
	}
	return nil
}

// hold checks within a transaction what o expects, by a write: what a transaction has read alone, another one may change before
// it commits. An update that changes nothing would be none, and a document that is not there is made for the transaction.
func (m *mongoStore) hold(ctx context.Context, op string, o state.Op) error {
	key := bson.E{Key: "_id", Value: stored(o.Key)}
	if o.Match == state.Exact {
		held := bson.D{{Key: "$inc", Value: bson.D{{Key: "_held", Value: int64(1)}}}}
		done, err := m.items.UpdateOne(ctx, bson.D{key, {Key: "_etag", Value: o.ETag}, live}, held)
		if err == nil && done.MatchedCount == 0 {
			return mismatch(op, o)
		}
		return err
	}
	o.Value, o.TTL = nil, 0
	if err := m.create(ctx, op, o, ""); err != nil {
		return err
	}
	_, err := m.items.DeleteOne(ctx, bson.D{key})
	return err
}

// create makes the document of o, in the place of one that has expired. A transaction does not outlive an error: within one,
// that goes first.
func (m *mongoStore) create(ctx context.Context, op string, o state.Op, tag string) error {
	document := append(bson.D{{Key: "_id", Value: stored(o.Key)}}, m.fields(o, tag)...)
	for gone := mongo.SessionFromContext(ctx) != nil; ; gone = true {
		var removed int64
		if gone {
			done, err := m.items.DeleteOne(ctx, bson.D{document[0], expired})
			if err != nil {
				return err
			}
			removed = done.DeletedCount
			if removed == 0 && mongo.SessionFromContext(ctx) == nil {
				return mismatch(op, o)
			}
		}
		_, err := m.items.InsertOne(ctx, document)
		switch {
		case !mongo.IsDuplicateKeyError(err):
			return err
		case mongo.SessionFromContext(ctx) != nil:
			return mismatch(op, o)
		}
	}
}

// fields are those of a document that holds o. An item never goes before its time: the server keeps whole milliseconds.
func (m *mongoStore) fields(o state.Op, tag string) bson.D {
	var value any = string(o.Value)
	if !utf8.Valid(o.Value) {
		value = o.Value
	}
	set := bson.D{{Key: "value", Value: value}, {Key: "_etag", Value: tag}}
	if o.TTL > 0 {
		set = append(set, bson.E{Key: "_ttl", Value: m.clock.now().Add(o.TTL + time.Millisecond - 1)})
	}
	return set
}

// update makes a document that of o.
func (m *mongoStore) update(o state.Op, tag string) bson.D {
	all := bson.D{{Key: "$set", Value: m.fields(o, tag)}}
	if o.TTL <= 0 {
		all = append(all, bson.E{Key: "$unset", Value: bson.D{{Key: "_ttl", Value: 1}}})
	}
	return all
}
