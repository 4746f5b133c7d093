package badgerstore

import (
	"context"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/shirou/gopsutil/v4/disk"

	"github.com/sidecast/sidecast/fault"
)

// What Badger writes out when it is opened or closed: its memtables, with room to spare.
const flushSpace = 4 * memtable

// space keeps a reserve free on the disk of a store.
type space struct {
	dir     string
	reserve uint64
	free    func(dir string) (uint64, error)
}

func freeSpace(dir string) (uint64, error) {
	usage, err := disk.Usage(dir)
	if err != nil {
		return 0, err
	}
	return usage.Free, nil
}

// check fails with fault.DiskFull when writing that many bytes would touch the reserve. The look costs microseconds, an
// fsync milliseconds; so it is not cached. A disk that does not tell is taken to have room.
func (s space) check(op string, bytes uint64) error {
	return s.require(op, s.reserve+bytes)
}

// checkRest is check for what Badger must write to open or close; reads of a full disk go on after a restart.
func (s space) checkRest(op string) error {
	return s.require(op, min(s.reserve, flushSpace))
}

func (s space) require(op string, bytes uint64) error {
	free, err := s.free(s.dir)
	if err != nil || free >= bytes {
		return nil
	}
	return fault.New(op, fault.DiskFull, "the disk of %s has %s free, this needs %s: free space, or set `minFree` lower",
		s.dir, humanize.IBytes(free), humanize.IBytes(bytes)).After(time.Second)
}

// await waits until Badger can write out what it holds.
func (s space) await(ctx context.Context, op string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := s.checkRest(op)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-ticker.C:
		}
	}
}
