package badgerstore

import "sync"

// versions is the store's clock: the version that readers see, and those that some still read. Each commit is a version.
type versions struct {
	mu        sync.Mutex
	committed uint64
	reading   []readers // oldest version first
}

type readers struct {
	version uint64
	count   int
}

// begin returns the latest version and keeps it readable until end.
func (v *versions) begin() uint64 {
	v.mu.Lock()
	defer v.mu.Unlock()
	if n := len(v.reading); n > 0 && v.reading[n-1].version == v.committed {
		v.reading[n-1].count++
	} else {
		v.reading = append(v.reading, readers{v.committed, 1})
	}
	return v.committed
}

// end lets go of a version.
func (v *versions) end(version uint64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for n := len(v.reading) - 1; n >= 0; n-- {
		if v.reading[n].version != version {
			continue
		}
		if v.reading[n].count--; v.reading[n].count == 0 {
			v.reading = append(v.reading[:n], v.reading[n+1:]...)
		}
		return
	}
}

// advance makes version the latest and returns the oldest that is still read.
func (v *versions) advance(version uint64) (oldest uint64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.committed = version
	if len(v.reading) > 0 {
		return v.reading[0].version
	}
	return version
}

// latest is the version that readers see.
func (v *versions) latest() uint64 {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.committed
}
