package badgerstore

import (
	"encoding/binary"
	"sync/atomic"
	"time"

	"github.com/dgraph-io/badger/v4"

	"github.com/sidecast/sidecast/components/badgerdb"
	"github.com/sidecast/sidecast/state"
)

// ballast makes Badger notice what may be collected. Badger learns which values in its log are gone when it compacts the
// tree, and it compacts when memtables fill up. But a memtable holds pointers to long values: forty thousand of them,
// gigabytes perhaps, before it is full. So for each file's worth of values the writer fills up the memtable itself, with
// entries that have long keys and no meaning, and has the collector look.
type ballast struct {
	logged  int           // bytes of values written to the log since the memtable was filled; the writer's
	filled  chan struct{} // tells the collector of it; room for one
	written atomic.Bool   // since the collector last looked
}

func newBallast() ballast { return ballast{filled: make(chan struct{}, 1)} }

// record counts the values of a group that was committed.
func (b *ballast) record(group []*write) {
	b.written.Store(true)
	for _, w := range group {
		for _, st := range w.steps {
			if w.err == nil && st.kind == state.Set && len(st.envelope) >= inline {
				b.logged += len(st.envelope)
			}
		}
	}
}

// ballastKey is how long a key of the ballast is. With keys longer than a block of a table, 4 KiB, the indexes of tables
// and the buffers of compactions take several times the size of the ballast.
const ballastKey = 2000

// fill fills up the memtable if enough was logged. The writer calls it.
func (s *store) fill() {
	const op = "state.badger: fill"
	if s.ballast.logged < logFile || s.room(op, memtable) != nil {
		return
	}
	s.ballast.logged = 0
	var err error
	defer badgerdb.Contain(s.log, op, &err) // logged there
	const perCommit = memtable / 10 / ballastKey
	for n := 0; n*ballastKey < memtable; n += perCommit {
		txn := s.db.NewTransactionAt(0, true)
		for i := n; i < n+perCommit && err == nil; i++ {
			key := binary.BigEndian.AppendUint16(make([]byte, ballastKey), uint16(i))
			key[0] = 'p'
			err = txn.SetEntry(&badger.Entry{Key: key})
		}
		if err == nil {
			err = s.commitAt(txn)
		}
		txn.Discard()
		if err != nil {
			s.log.Error("badger cannot be made to collect", "error", err)
			return
		}
	}
	select {
	case s.ballast.filled <- struct{}{}:
	default: // the collector has not looked since the last time
	}
}

// collect wins back the space of values that are gone: as they are written, and each minute in which something was.
// Badger knows of them once it has compacted, which may be a while after the memtable was filled: so it looks again soon,
// and then ever less often.
func (s *store) collect() {
	const soon, rarely = time.Second, time.Minute
	wait := rarely
	again := time.NewTimer(wait)
	defer again.Stop()
	for {
		select {
		case <-s.stop:
			return
		case <-s.ballast.filled:
			wait = soon
			s.collectOnce()
		case <-again.C:
			if wait < rarely || s.ballast.written.Swap(false) {
				s.collectOnce()
			}
			wait = min(2*wait, rarely)
		}
		again.Reset(wait)
	}
}

const collectOp = "state.badger: collect"

func (s *store) collectOnce() {
	var err error
	defer badgerdb.Contain(s.log, collectOp, &err) // logged there
	for s.room(collectOp, logFile/2) == nil {
		select {
		case <-s.stop:
			return
		default:
		}
		if s.db.RunValueLogGC(0.5) != nil {
			return // mostly that there is nothing to win
		}
	}
}
