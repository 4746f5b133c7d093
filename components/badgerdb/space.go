package badgerdb

import (
	"context"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/shirou/gopsutil/v4/disk"

	"github.com/sidecast/sidecast/fault"
)

// space keeps a reserve free on the disk of a database. What it learns is not cached: another program may fill the disk.
type space struct {
	dir     string
	reserve uint64 // what writes leave free
	rest    uint64 // what Badger writes out when it is opened or closed: its memtables, with room to spare
	free    func(dir string) (uint64, error)
}

func freeSpace(dir string) (uint64, error) {
	usage, err := disk.Usage(dir)
	if err != nil {
		return 0, err
	}
	return usage.Free, nil
}

// checkRest asks for what Badger must write to open or close, which is less than a write needs: a full disk can still be
// read after a restart.
func (s space) checkRest(op string) error {
	return s.require(op, min(s.reserve, s.rest))
}

// require fails with fault.DiskFull when less than bytes are free. A disk that does not tell is taken to have room.
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
