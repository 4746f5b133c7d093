package natslock

import (
	"context"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
)

const (
	// doubtCheck is how often what a failed call may have left behind is looked for.
	doubtCheck = time.Second
	// maxDoubts bounds what is looked for; what is beyond ends with its lease, or its place in line.
	maxDoubts = 10_000
)

// doubt is a place that may hold the lock, or stand in line, though its caller was told that it failed.
type doubt struct {
	name  string
	clean int // how often it was looked for in vain: a late write can come after the first time
}

func (l *locker) newID() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.places++
	return l.id + "." + strconv.FormatUint(l.places, 36)
}

// listen brings news to the rooms until the locker is closed and nobody is in them.
func (l *locker) listen() {
	status := l.bucket.conn.StatusChanged(nats.CONNECTED)
	defer l.bucket.conn.RemoveStatusListener(status)
	ended := make(chan struct{})
	go func() {
		<-l.closing
		l.calls.Wait()
		close(ended)
	}()
	for {
		select {
		case msg := <-l.news:
			key, s, ok := l.bucket.told(msg)
			if r := l.room(key); r != nil {
				if ok {
					r.hear(s)
				} else {
					r.missed()
				}
			}
		case _, open := <-status:
			if !open { // the connection is closed for good
				status = nil
				continue
			}
			for _, r := range l.allRooms() {
				r.missed() // news went by while the connection was down
			}
		case <-ended:
			return
		}
	}
}

func (l *locker) room(key string) *room {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.rooms[key]
}

func (l *locker) allRooms() []*room {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := make([]*room, 0, len(l.rooms))
	for _, r := range l.rooms {
		all = append(all, r)
	}
	return all
}

// doubt sees to a place whose write failed with err, if that leaves it open whether it was stored.
func (l *locker) doubt(name, id string, err error) {
	if unsure(err) {
		l.doubtful(name, id)
	}
}

// doubtful has the place looked for, and removed, until it is certain that nothing of it is left.
func (l *locker) doubtful(name, id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.doubts) >= maxDoubts {
		return
	}
	l.doubts[id] = &doubt{name: name}
	if len(l.doubts) == 1 {
		l.running.Go(l.clear)
	}
}

// clear looks for doubtful places until there are none. When the locker is closed it looks a last time.
func (l *locker) clear() {
	ticker := time.NewTicker(doubtCheck)
	defer ticker.Stop()
	for {
		closing := false
		select {
		case <-ticker.C:
		case <-l.closing:
			closing = true
		}
		l.mu.Lock()
		ids := make(map[string]*doubt, len(l.doubts))
		for id, d := range l.doubts {
			ids[id] = d
		}
		l.mu.Unlock()
		for id, d := range ids {
			if l.remove(id, d.name) {
				d.clean++
			}
		}
		l.mu.Lock()
		for id, d := range ids {
			if d.clean >= 2 || closing {
				delete(l.doubts, id)
			}
		}
		left := len(l.doubts)
		l.mu.Unlock()
		if left == 0 {
			return
		}
	}
}

// remove takes the place out of the entry; false when the fabric did not let it.
func (l *locker) remove(id, name string) bool {
	const op = "lock jetstream: undo"
	if !l.bucket.conn.IsConnected() {
		return false
	}
	ctx, cancel := context.WithTimeout(context.Background(), undoTime)
	defer cancel()
	r, err := l.enter(op, name, false)
	if err != nil {
		return false
	}
	defer l.leave(r)
	_, err = r.amend(ctx, op, true, func(s state, v view) (step, error) { return vacate(s, v, id), nil }, nil)
	return err == nil
}
