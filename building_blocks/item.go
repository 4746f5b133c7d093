package blocks

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/sidecast/sidecast/appchannel"
	"github.com/sidecast/sidecast/state"
)

// ItemTTL reads ttlInSeconds in the metadata of an item, as Dapr has it; -1 and 0 mean that the item stays.
func ItemTTL(metadata map[string]string) (time.Duration, error) {
	text := metadata["ttlInSeconds"]
	if text == "" {
		return 0, nil
	}
	seconds, err := strconv.ParseInt(text, 10, 0)
	if err != nil {
		return 0, fmt.Errorf("incorrect value for metadata 'ttlInSeconds': %w", err)
	}
	if seconds < -1 || seconds > math.MaxInt32 {
		return 0, errors.New("incorrect value for metadata 'ttlInSeconds': must be -1 or greater")
	}
	return time.Duration(max(0, seconds)) * time.Second, nil
}

// stateOp is what an app wants saved. An ETag always counts; without one, first-write wants the item not to exist.
func stateOp(i appchannel.StateItem) (state.Op, error) {
	op := state.Op{Kind: state.Set, Key: i.Key, Value: i.Value}
	switch {
	case i.ETag != "":
		op.Match, op.ETag = state.Exact, i.ETag
	case i.Concurrency == "first-write":
		op.Match = state.Absent
	}
	var err error
	op.TTL, err = ItemTTL(i.Metadata)
	return op, err
}
