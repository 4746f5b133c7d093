//go:build unix

package pluggable

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/pubsub"
	"github.com/sidecast/sidecast/state"
	"github.com/sidecast/sidecast/tests/plugintest"
)

// TestBulks: what does not belong together is done at once, or one by one where the program has no bulks.
func TestBulks(t *testing.T) {
	for _, without := range [][]string{nil, {"Bulk"}, {"Bulk", "TransactionalStateStore"}} {
		t.Run(strings.Join(without, " "), func(t *testing.T) {
			dir := folderAt(t)
			serve(t, sock(dir, "plain"), &plugintest.Program{Without: without})
			s := open[state.Store](t, dir, "state.plain")
			defer shut(t, s)
			var sets, deletes []state.Op
			for _, key := range []string{"a", "b", "c"} {
				sets = append(sets, state.Op{Kind: state.Set, Key: key, Value: []byte("of " + key)})
				deletes = append(deletes, state.Op{Kind: state.Delete, Key: key})
			}
			if err := state.ApplyEach(t.Context(), s, sets); err != nil {
				t.Fatal(err)
			}
			items, err := s.Get(t.Context(), []string{"c", "none", "a"})
			if err != nil || len(items) != 2 || string(items[0].Value) != "of c" || string(items[1].Value) != "of a" {
				t.Errorf("%v, %v", items, err)
			}
			mixed := []state.Op{{Kind: state.Set, Key: "d", Value: []byte("x")}, {Kind: state.Delete, Key: "a", Match: state.Exact, ETag: "999"}}
			if err := state.ApplyEach(t.Context(), s, mixed); fault.ReasonOf(err) != fault.ETagMismatch || !strings.Contains(err.Error(), `"a"`) {
				t.Errorf("an ETag that is another: %v", err)
			}
			if err := state.ApplyEach(t.Context(), s, []state.Op{{Kind: state.Check, Key: "b", Match: state.Absent}}); fault.ReasonOf(err) != fault.ETagMismatch {
				t.Errorf("a check: %v", err)
			}
			if err := state.ApplyEach(t.Context(), s, deletes); err != nil {
				t.Error(err)
			}
			if items, err := s.Get(t.Context(), []string{"a", "b", "c"}); err != nil || len(items) != 0 {
				t.Errorf("%v, %v", items, err)
			}
		})
	}
}

func TestBulksOfMessages(t *testing.T) {
	for _, without := range [][]string{nil, {"Bulk"}} {
		t.Run(strings.Join(without, " "), func(t *testing.T) {
			dir := folderAt(t)
			serve(t, sock(dir, "bus"), &plugintest.Program{Without: without})
			b := open[pubsub.Broker](t, dir, "pubsub.bus")
			defer shut(t, b)
			feed, err := b.Subscribe(t.Context(), "t", pubsub.Group{Name: "app"})
			if err != nil {
				t.Fatal(err)
			}
			var messages []pubsub.Message
			for n := range 20 {
				messages = append(messages, pubsub.Message{
					Data: fmt.Appendf(nil, "message %d", n), ContentType: "text/plain", Header: map[string]string{"header": "h"}, Metadata: map[string]string{"own": "o"},
				})
			}
			wanted := len(messages)
			if without == nil {
				messages[7].Metadata["fail"], wanted = "yes", wanted-1
			}
			for n, err := range b.Publish(t.Context(), "t", messages) {
				if failed := err != nil && strings.Contains(err.Error(), "it was told to fail"); failed != (messages[n].Metadata["fail"] != "") || err != nil && !failed {
					t.Errorf("message %d: %v", n, err)
				}
			}
			var got []string
			for len(got) < wanted {
				all, err := feed.Next(t.Context(), 5)
				if err != nil {
					t.Fatal(err)
				}
				for _, d := range all {
					m := d.Message()
					if m.ContentType != "text/plain" || m.Header["own"] != "o" || m.Header["header"] != "h" {
						t.Errorf("it came as %+v", m)
					}
					got = append(got, string(m.Data))
					if err := d.Ack(t.Context()); err != nil {
						t.Error(err)
					}
				}
			}
			if !slices.IsSortedFunc(got, func(x, y string) int { return number(x) - number(y) }) {
				t.Errorf("they came as %q", got)
			}
		})
	}
}

func number(text string) (n int) {
	_, _ = fmt.Sscanf(text, "message %d", &n)
	return n
}
