package contrib

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"testing"

	contribmetadata "github.com/dapr/components-contrib/metadata"
	contribstate "github.com/dapr/components-contrib/state"
	"github.com/dapr/kit/logger"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/state"
)

// partitions is a store that finds its items as Azure's Cosmos DB does: by their key within a partition. That of a single
// request is its own or the key, that of a transaction the transaction's alone.
type partitions struct {
	contribstate.BulkStore
	mu    sync.Mutex
	items map[[2]string][]byte
	asked []map[string]string // metadata of sets
	most  int
	wants string // every set but this one's fails, if it is not ""
}

func newPartitions() *partitions {
	p := &partitions{items: map[[2]string][]byte{}, most: 3}
	p.BulkStore = contribstate.NewDefaultBulkStore(p)
	return p
}

func place(key string, metadata map[string]string) [2]string {
	if partition, ok := metadata["partitionKey"]; ok {
		return [2]string{partition, key}
	}
	return [2]string{key, key}
}

func (p *partitions) Init(context.Context, contribstate.Metadata) error        { return nil }
func (p *partitions) GetComponentMetadata() (none contribmetadata.MetadataMap) { return none }
func (p *partitions) Close() error                                             { return nil }
func (p *partitions) MultiMaxSize() int                                        { return p.most }
func (p *partitions) Features() []contribstate.Feature {
	return []contribstate.Feature{contribstate.FeatureETag, contribstate.FeatureTransactional, contribstate.FeatureTTL}
}

func (p *partitions) Get(_ context.Context, r *contribstate.GetRequest) (*contribstate.GetResponse, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	value, ok := p.items[place(r.Key, r.Metadata)]
	if !ok {
		return &contribstate.GetResponse{}, nil
	}
	tag := fmt.Sprintf("%q", value)
	return &contribstate.GetResponse{Data: value, ETag: &tag}, nil
}

// BulkGet looks in all partitions, as Cosmos DB's does.
func (p *partitions) BulkGet(_ context.Context, requests []contribstate.GetRequest, _ contribstate.BulkGetOpts) (found []contribstate.BulkGetResponse, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range requests {
		for at, value := range p.items {
			if at[1] == r.Key {
				tag := fmt.Sprintf("%q", value)
				found = append(found, contribstate.BulkGetResponse{Key: r.Key, Data: value, ETag: &tag})
			}
		}
	}
	return found, nil
}

func (p *partitions) Set(_ context.Context, r *contribstate.SetRequest) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.wants != "" && r.Key != p.wants {
		return errors.New("refused")
	}
	p.items[place(r.Key, r.Metadata)] = r.Value.([]byte)
	p.asked = append(p.asked, r.Metadata)
	return nil
}

func (p *partitions) Delete(_ context.Context, r *contribstate.DeleteRequest) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.items, place(r.Key, r.Metadata))
	return nil
}

func (p *partitions) Multi(_ context.Context, r *contribstate.TransactionalStateRequest) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(r.Operations) > p.most {
		return errors.New("the batch is too large")
	}
	for _, o := range r.Operations {
		switch o := o.(type) {
		case contribstate.SetRequest:
			p.items[[2]string{r.Metadata["partitionKey"], o.Key}] = o.Value.([]byte)
		case contribstate.DeleteRequest:
			delete(p.items, [2]string{r.Metadata["partitionKey"], o.Key})
		}
	}
	return nil
}

func openPartitions(t *testing.T, p *partitions) *plainStore {
	t.Helper()
	s, err := openPlainState("state.azure.cosmosdb", func(logger.Logger) contribstate.Store { return p })(t.Context(), host, components.Settings{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close(context.Background()) })
	return s.(*plainStore)
}

func inPartition(partition string) map[string]string {
	return map[string]string{"partitionKey": partition}
}

func setOf(key string, metadata map[string]string) state.Op {
	return state.Op{Key: key, Value: []byte("value of " + key), Metadata: metadata}
}

// finds says which of keys a read with metadata finds, one by one and together.
func finds(t *testing.T, s state.Store, metadata map[string]string, want int, keys ...string) {
	t.Helper()
	alone := 0
	for _, key := range keys {
		items, err := state.GetWith(t.Context(), s, []string{key}, metadata)
		if err != nil {
			t.Fatal(err)
		}
		alone += len(items)
	}
	items, err := state.GetWith(t.Context(), s, keys, metadata)
	if alone != want || len(items) != want || err != nil {
		t.Errorf("%d of %q are found one by one and %d together, not %d: %v", alone, keys, len(items), want, err)
	}
	for _, item := range items {
		if string(item.Value) != "value of "+item.Key {
			t.Errorf("%s is %q", item.Key, item.Value)
		}
	}
}

// What is acknowledged is found: independent writes are no transaction, whose partition would be another.
func TestIndependentWritesAreFound(t *testing.T) {
	p := newPartitions()
	s := openPartitions(t, p)
	var sets, deletes []state.Op
	var keys []string
	for i := range 200 {
		keys = append(keys, fmt.Sprint("k", i))
		sets = append(sets, setOf(keys[i], nil))
		deletes = append(deletes, state.Op{Kind: state.Delete, Key: keys[i]})
	}
	if err := state.ApplyEach(t.Context(), s, sets); err != nil {
		t.Fatal(err)
	}
	finds(t, s, nil, 200, keys...)
	if err := state.ApplyEach(t.Context(), s, deletes[:150]); err != nil {
		t.Fatal(err)
	}
	finds(t, s, nil, 50, keys...)
	if len(p.items) != 50 {
		t.Errorf("%d items are left", len(p.items))
	}
}

// One write that fails does not keep the others from being done.
func TestIndependentWritesFailByThemselves(t *testing.T) {
	p := newPartitions()
	p.wants = "b"
	s := openPartitions(t, p)
	err := s.ApplyEach(t.Context(), []state.Op{setOf("a", nil), setOf("b", nil), setOf("c", nil)})
	if fault.ReasonOf(err) != fault.BackendFailed {
		t.Errorf("got %v", err)
	}
	finds(t, s, nil, 1, "a", "b", "c")
	if err := s.ApplyEach(t.Context(), []state.Op{setOf("b", nil), {Kind: state.Check, Key: "b", Match: state.Absent}}); fault.ReasonOf(err) != fault.ETagMismatch {
		t.Errorf("got %v", err)
	}
}

// An item is in the partition that its writer names, for those who name it when they read.
func TestMetadataOfAWriteReachTheStore(t *testing.T) {
	p := newPartitions()
	s := openPartitions(t, p)
	given := map[string]string{"partitionKey": "p", "ttlInSeconds": "7", "other": "o"}
	op := setOf("k", given)
	op.TTL = 5e9
	tags, err := s.Apply(t.Context(), []state.Op{op})
	if err != nil || tags[0] != `"value of k"` {
		t.Fatalf("%q, %v", tags, err)
	}
	if want := map[string]string{"partitionKey": "p", "ttlInSeconds": "5", "other": "o"}; !maps.Equal(p.asked[0], want) || given["ttlInSeconds"] != "7" {
		t.Errorf("the store is told %v", p.asked[0])
	}
	if _, err := s.Apply(t.Context(), []state.Op{setOf("k", nil)}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Apply(t.Context(), []state.Op{setOf("l", inPartition("p"))}); err != nil {
		t.Fatal(err)
	}
	finds(t, s, inPartition("p"), 2, "k", "l")
	finds(t, s, nil, 1, "k", "l")
	taken := setOf("l", inPartition("p"))
	taken.Match = state.Absent
	if _, err := s.Apply(t.Context(), []state.Op{taken}); fault.ReasonOf(err) != fault.ETagMismatch {
		t.Errorf("an item that is there in its partition is written as a new one: %v", err)
	}
	if _, err := s.Apply(t.Context(), []state.Op{{Kind: state.Check, Key: "l", Match: state.Absent, Metadata: inPartition("p")}}); fault.ReasonOf(err) != fault.ETagMismatch {
		t.Errorf("it is not seen there: %v", err)
	}
	if _, err := s.Apply(t.Context(), []state.Op{{Kind: state.Delete, Key: "l", Metadata: inPartition("p")}}); err != nil {
		t.Fatal(err)
	}
	finds(t, s, inPartition("p"), 1, "k", "l")
}

// A transaction is of one partition, and no longer than the store says: else nothing changes.
func TestTransactionsStayInTheirPartition(t *testing.T) {
	p := newPartitions()
	s := openPartitions(t, p)
	for name, ops := range map[string][]state.Op{
		"none": {setOf("a", nil), setOf("b", nil)}, "one of two": {setOf("a", inPartition("p")), setOf("b", nil)}, "two": {setOf("a", inPartition("p")), setOf("b", inPartition("q"))},
		"an empty one": {setOf("a", inPartition("")), setOf("b", inPartition(""))},
	} {
		if _, err := s.Apply(t.Context(), ops); fault.ReasonOf(err) != fault.NotSupported {
			t.Errorf("%s: %v", name, err)
		}
	}
	long := []state.Op{setOf("a", inPartition("p")), setOf("b", inPartition("p")), setOf("c", inPartition("p")), setOf("d", inPartition("p"))}
	_, err := s.Apply(t.Context(), long)
	var known *fault.Error
	if !errors.As(err, &known) || known.Reason != fault.TransactionBig || known.Meta["most"] != "3" {
		t.Errorf("a long one: %v", err)
	}
	if len(p.items) != 0 {
		t.Errorf("%d items were written", len(p.items))
	}
	tags, err := s.Apply(t.Context(), long[:3])
	if err != nil || tags[2] != `"value of c"` {
		t.Fatalf("%q, %v", tags, err)
	}
	finds(t, s, inPartition("p"), 3, "a", "b", "c", "d")
}
