package blocks

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/state"
)

// slots is how many records the outbox has in a store that cannot list its keys: their keys are known, so that they are found
// again. They are shared by all instances of the app.
const slots = 32

// slotTries is how often a transaction looks for slots that no other instance has.
const slotTries = 8

func (o *outbox) slotKey(n int) string { return fmt.Sprintf("%s%d", o.prefix(), n) }

func (o *outbox) slotKeys() []string {
	keys := make([]string, slots)
	for n := range keys {
		keys[n] = o.slotKey(n)
	}
	return keys
}

// applySlotted does ops and writes each record to a slot that is free. It notes where, and the ETags of the records.
func (o *outbox) applySlotted(ctx context.Context, store state.Store, ops []state.Op, records []outboxRecord) ([]string, error) {
	taken := map[string]bool{} // by others
	for range slotTries {
		if err := o.claim(records, taken); err != nil {
			return nil, err
		}
		more, err := o.ops(records)
		if err != nil {
			return nil, err
		}
		for i := range more {
			more[i].Match = state.Absent
		}
		etags, err := store.Apply(ctx, append(ops[:len(ops):len(ops)], more...))
		var mismatch *fault.Error
		if errors.As(err, &mismatch) && mismatch.Reason == fault.ETagMismatch && strings.HasPrefix(mismatch.Meta["key"], recordMark) {
			taken[mismatch.Meta["key"]] = true
			continue
		}
		if err == nil {
			for i := range records {
				records[i].etag = etags[len(ops)+i]
			}
		}
		return etags, err
	}
	return nil, o.full(records)
}

func (o *outbox) full(records []outboxRecord) error {
	return fault.New("outbox of "+records[0].store, fault.OutboxFull, "%d transactions wait for their events to be published", slots).After(time.Second)
}

// claim gives each record a slot that this instance does not use and that is not taken.
func (o *outbox) claim(records []outboxRecord, taken map[string]bool) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	for i := range records {
		delete(o.ours, records[i].recordID)
	}
	from := rand.IntN(slots)
	for i, n := 0, 0; i < len(records); n++ {
		if n == slots {
			for _, r := range records[:i] {
				delete(o.ours, r.recordID)
			}
			return o.full(records)
		}
		id := recordID{records[i].store, o.slotKey((from + n) % slots)}
		if _, used := o.ours[id]; used || taken[id.key] {
			continue
		}
		o.ours[id] = struct{}{}
		records[i].recordID = id
		i++
	}
	return nil
}
