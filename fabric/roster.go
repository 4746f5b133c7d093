package fabric

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"
)

// Instance is one running sidecar with its app, as presence tells it.
type Instance struct {
	App     string            `json:"-"` // from the subject: nobody can announce another's name
	ID      string            `json:"-"`
	Version string            `json:"version,omitempty"`
	Host    string            `json:"host,omitempty"`
	Zone    string            `json:"zone,omitempty"`
	PID     int               `json:"pid,omitempty"`
	Weight  int               `json:"weight,omitempty"`
	Load    int               `json:"load,omitempty"` // calls running now
	Room    int               `json:"room,omitempty"` // calls that one caller may have here at most; 0 = not said
	Tags    map[string]string `json:"tags,omitempty"`
	Started time.Time         `json:"started,omitzero"`
	Ready   bool              `json:"ready,omitempty"` // the app takes calls
}

func (i Instance) equal(o Instance) bool {
	return i.App == o.App && i.ID == o.ID && i.Version == o.Version && i.Host == o.Host && i.Zone == o.Zone && i.PID == o.PID &&
		i.Weight == o.Weight && i.Load == o.Load && i.Room == o.Room && i.Ready == o.Ready && i.Started.Equal(o.Started) && maps.Equal(i.Tags, o.Tags)
}

// roster is who is there, as a pure machine: it reads no clock and has no lock. Slices that it gave out never change.
type roster struct {
	most   int // instances
	seen   map[Target]time.Time
	byApp  map[string][]Instance // sorted by ID; copied on write
	pinned Target                // this sidecar's own: it never expires
}

func newRoster(most int) *roster {
	return &roster{most: most, seen: make(map[Target]time.Time), byApp: make(map[string][]Instance)}
}

func compareID(i Instance, id string) int { return strings.Compare(i.ID, id) }

// upsert notes a heartbeat. full says that there is no room for one more.
func (r *roster) upsert(i Instance, now time.Time) (changed, full bool) {
	t := Target{i.App, i.ID}
	if _, known := r.seen[t]; !known && len(r.seen) >= r.most {
		return false, true
	}
	r.seen[t] = now
	old := r.byApp[i.App]
	at, found := slices.BinarySearchFunc(old, i.ID, compareID)
	switch {
	case !found:
		r.byApp[i.App] = slices.Insert(slices.Clip(slices.Clone(old)), at, i)
	case old[at].equal(i):
		return false, false
	default:
		changed := slices.Clone(old)
		changed[at] = i
		r.byApp[i.App] = changed
	}
	return true, false
}

// touch notes a heartbeat that says nothing new. False means that the instance is not known.
func (r *roster) touch(t Target, now time.Time) bool {
	_, known := r.seen[t]
	if known {
		r.seen[t] = now
	}
	return known
}

func (r *roster) remove(t Target) bool {
	if _, known := r.seen[t]; !known {
		return false
	}
	delete(r.seen, t)
	old := r.byApp[t.App]
	at, found := slices.BinarySearchFunc(old, t.Instance, compareID)
	if found && len(old) == 1 {
		delete(r.byApp, t.App)
	} else if found {
		r.byApp[t.App] = slices.Delete(slices.Clone(old), at, at+1)
	}
	return true
}

// expire removes and returns those not heard of since before. Those that are lively in another way start anew.
func (r *roster) expire(before, now time.Time, lively func(Target) bool) []Target {
	var gone []Target
	for t, seen := range r.seen {
		switch {
		case !seen.Before(before) || t == r.pinned:
		case lively(t):
			r.seen[t] = now
		default:
			gone = append(gone, t)
		}
	}
	for _, t := range gone {
		r.remove(t)
	}
	return gone
}

// refresh gives everyone a new start: silence was not theirs.
func (r *roster) refresh(now time.Time) {
	for t := range r.seen {
		r.seen[t] = now
	}
}

// all returns everyone, by app and ID.
func (r *roster) all() []Instance {
	everyone := make([]Instance, 0, len(r.seen))
	for _, instances := range r.byApp {
		everyone = append(everyone, instances...)
	}
	slices.SortFunc(everyone, func(a, b Instance) int {
		return cmp.Or(strings.Compare(a.App, b.App), strings.Compare(a.ID, b.ID))
	})
	return everyone
}
