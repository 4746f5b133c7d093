package signin

import (
	"container/list"
	"crypto/rand"
	"sync"
	"time"
)

const (
	// lifetime is how long a session is good for, counted from its beginning.
	lifetime = 2 * time.Hour
	// mostOpen and mostSignedIn bound the sessions of browsers that are about to sign in, and of those that have.
	mostOpen, mostSignedIn = 1 << 13, 1 << 16
)

// session is what is known of a browser: where it was going when it was sent away, or what it may carry on.
type session struct {
	state, back   string
	authorization string // "" until it has signed in
}

// sessions keeps sessions by their names, the oldest of each kind first.
type sessions struct {
	mu             sync.Mutex
	byName         map[string]*list.Element // of kept
	open, signedIn *list.List
}

type kept struct {
	session
	name string
	ends time.Time
}

func newSessions() *sessions {
	return &sessions{byName: make(map[string]*list.Element), open: list.New(), signedIn: list.New()}
}

// of is the list that a session is in, and how many it may hold.
func (s *sessions) of(one session) (*list.List, int) {
	if one.authorization == "" {
		return s.open, mostOpen
	}
	return s.signedIn, mostSignedIn
}

// get is the session of that name, or none.
func (s *sessions) get(name string, now time.Time) session {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.byName[name]
	if e == nil || now.After(e.Value.(*kept).ends) {
		return session{}
	}
	return e.Value.(*kept).session
}

// add keeps a session, and returns its name.
func (s *sessions) add(one session, now time.Time) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	all, most := s.of(one)
	for e := all.Front(); e != nil && (all.Len() >= most || now.After(e.Value.(*kept).ends)); e = all.Front() {
		s.drop(e)
	}
	name := rand.Text()
	s.byName[name] = all.PushBack(&kept{one, name, now.Add(lifetime)})
	return name
}

func (s *sessions) remove(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.byName[name]; e != nil {
		s.drop(e)
	}
}

func (s *sessions) drop(e *list.Element) {
	one := e.Value.(*kept)
	all, _ := s.of(one.session)
	all.Remove(e)
	delete(s.byName, one.name)
}
