package badgerstore

import (
	"bytes"
	"os"
	"sync/atomic"
	"time"

	"github.com/dgraph-io/badger/v4"

	"github.com/sidecast/sidecast/state"
)

// ballast makes Badger notice what may be collected. Badger learns which values in its log are gone when it compacts the
// tree, and it compacts when memtables fill up. But a memtable holds pointers to long values: forty thousand of them,
// gigabytes perhaps, before it is full. So for each file's worth of values the writer fills up the memtable itself, with
// entries that have long keys and no meaning.
type ballast struct {
	logged  int         // bytes of values written to the log since the memtable was filled; the writer's
	written atomic.Bool // since the collector last looked
}

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

// fill fills up the memtable if enough was logged. The writer calls it.
func (s *store) fill() {
	if s.ballast.logged < logFile || s.broken != nil || s.space.check("", memtable) != nil {
		return
	}
	s.ballast.logged = 0
	var err error
	defer s.contain("state.badger: fill", &err) // logged there
	perCommit := memtable / 10
	perCommit /= ballastKey
	for n := 0; n*ballastKey < memtable; n += perCommit {
		txn := s.db.NewTransactionAt(0, true)
		for i := n; i < n+perCommit && err == nil; i++ {
			key := append(bytes.Repeat([]byte{0}, ballastKey), byte(i>>8), byte(i))
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
	if os.Getenv("RSS_KICK") != "" {
		select {
		case s.kick <- struct{}{}:
		default:
		}
	}
}

// collect wins back the space of values that are gone, each minute in which something was written.
func (s *store) collect() {
	ticker := time.NewTicker(time.Minute)
	defer ticker.Stop()
	for {
		select {
		case <-s.stop:
			return
		case <-s.kick:
			s.collectOnce()
		case <-ticker.C:
			if s.ballast.written.Swap(false) {
				s.collectOnce()
			}
		}
	}
}

func (s *store) collectOnce() {
	var err error
	defer s.contain("state.badger: collect", &err) // logged there
	for s.space.check("", uint64(logFile/2)) == nil {
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