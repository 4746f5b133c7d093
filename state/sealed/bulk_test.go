package sealed_test

import (
	"bytes"
	"context"
	"testing"

	"github.com/sidecast/sidecast/state"
	"github.com/sidecast/sidecast/state/sealed"
)

// bulky does what does not belong together one by one.
type bulky struct {
	state.Store
	done int
}

func (b *bulky) ApplyEach(ctx context.Context, ops []state.Op) error {
	for _, op := range ops {
		if _, err := b.Apply(ctx, []state.Op{op}); err != nil {
			return err
		}
		b.done++
	}
	return nil
}

// guided notes what it is told of a read.
type guided struct {
	state.Store
	told map[string]string
}

func (g *guided) GetWith(ctx context.Context, keys []string, metadata map[string]string) ([]state.Item, error) {
	g.told = metadata
	return g.Get(ctx, keys)
}

func TestMetadataOfReadsReachTheStoreBeneath(t *testing.T) {
	beneath := &guided{Store: memory(t)}
	s := sealed.Wrap(beneath, keys(t, sealed.Key{"k", key256}, sealed.Key{}))
	defer s.Close(context.Background())
	if _, err := s.Apply(t.Context(), []state.Op{{Key: "a", Value: []byte("1")}}); err != nil {
		t.Fatal(err)
	}
	items, err := state.GetWith(t.Context(), s, []string{"a"}, map[string]string{"m": "d"})
	if err != nil || len(items) != 1 || string(items[0].Value) != "1" || beneath.told["m"] != "d" {
		t.Errorf("%v, %v, told %v", items, err, beneath.told)
	}
}

func TestBulksAreSealed(t *testing.T) {
	for _, bulk := range []bool{true, false} {
		inner := memory(t)
		counted := &bulky{Store: inner}
		var beneath state.Store = inner
		if bulk {
			beneath = counted
		}
		s := sealed.Wrap(beneath, keys(t, sealed.Key{"k", key256}, sealed.Key{}))
		ops := []state.Op{{Kind: state.Set, Key: "a", Value: []byte("1")}, {Kind: state.Set, Key: "b", Value: []byte("2")}}
		if err := state.ApplyEach(t.Context(), s, ops); err != nil {
			t.Fatal(err)
		}
		if bulk && counted.done != 2 {
			t.Errorf("%d of the bulk were done as one", counted.done)
		}
		stored, err := inner.Get(t.Context(), []string{"b"})
		if err != nil || len(stored) != 1 || !bytes.HasSuffix(stored[0].Value, []byte("||k")) {
			t.Errorf("stored %v, %v", stored, err)
		}
		read, err := s.Get(t.Context(), []string{"a", "b"})
		if err != nil || len(read) != 2 || string(read[1].Value) != "2" {
			t.Errorf("read %v, %v", read, err)
		}
		if err := s.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}
