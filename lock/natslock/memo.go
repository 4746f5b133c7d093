package natslock

import (
	"sync"
	"time"

	"github.com/sidecast/sidecast/lock"
)

// memos is what a locker remembers of its own last writes, so that the next one needs no read. A memo may be out of date:
// the write that relies on it then fails with errChanged and nothing is lost. Memos end with the lease, or the mark, that
// they are about, so there are never more than a few for each lock that is in use.
type memos struct {
	mu    sync.Mutex
	byKey map[string]memo
	sweep int // length at which those that have ended are dropped
}

// memo is the last known revision of an entry.
type memo struct {
	rev   uint64
	id    string     // of the holder's place; "" for a lock that was freed
	lease lock.Lease // zero for a lock that was freed
	until time.Time
}

// hold remembers a lease whose entry has no line.
func (m *memos) hold(key string, rev uint64, id string, lease lock.Lease) {
	m.put(key, memo{rev: rev, id: id, lease: lease, until: lease.Expires})
}

// freed remembers the mark of a lock that was freed. Its time to live is whole seconds and begins at the server.
func (m *memos) freed(key string, rev uint64) {
	m.put(key, memo{rev: rev, until: time.Now().Add(markTime - 2*time.Second)})
}

func (m *memos) put(key string, last memo) {
	const few = 256
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.byKey == nil {
		m.byKey = make(map[string]memo)
	}
	m.byKey[key] = last
	if len(m.byKey) < max(m.sweep, few) {
		return
	}
	now := time.Now()
	for key, memo := range m.byKey {
		if now.After(memo.until) {
			delete(m.byKey, key)
		}
	}
	m.sweep = 2 * len(m.byKey)
}

// held returns the memo of lease, whether it has ended or not.
func (m *memos) held(key string, lease lock.Lease) (memo, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	memo, ok := m.byKey[key]
	return memo, ok && memo.id != "" && memo.lease.Token == lease.Token && memo.lease.Owner == lease.Owner
}

// free is the revision that the entry of a free lock is expected at.
func (m *memos) free(key string, now time.Time) uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	if memo, ok := m.byKey[key]; ok && memo.id == "" && now.Before(memo.until) {
		return memo.rev
	}
	return 0
}

func (m *memos) forget(key string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.byKey, key)
}
