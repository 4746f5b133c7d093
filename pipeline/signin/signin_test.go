package signin

import (
	"testing"
	"time"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/fault"
)

func TestSessionsAreBounded(t *testing.T) {
	s := newSessions()
	now := time.Now()
	signed := s.add(session{authorization: "Bearer x"}, now)
	first := s.add(session{state: "first"}, now)
	for range mostOpen {
		s.add(session{state: "more"}, now)
	}
	if s.open.Len() != mostOpen || s.get(first, now).state != "" {
		t.Errorf("%d browsers are about to sign in, the first among them: %v", s.open.Len(), s.get(first, now))
	}
	if s.get(signed, now).authorization == "" {
		t.Error("browsers that are about to sign in have pushed one out that has")
	}
	for range mostSignedIn {
		s.add(session{authorization: "Bearer y"}, now)
	}
	if s.signedIn.Len() != mostSignedIn || len(s.byName) != mostOpen+mostSignedIn {
		t.Errorf("%d have signed in, %d names", s.signedIn.Len(), len(s.byName))
	}
}

func TestSessionsEnd(t *testing.T) {
	s := newSessions()
	now := time.Now()
	name := s.add(session{state: "s"}, now)
	if s.get(name, now.Add(lifetime)).state != "s" || s.get(name, now.Add(lifetime+1)).state != "" {
		t.Error("a session has not its lifetime")
	}
	s.add(session{state: "t"}, now.Add(lifetime+1))
	if len(s.byName) != 1 {
		t.Errorf("%d sessions are kept, one of which has ended", len(s.byName))
	}
	s.remove(name)
	s.remove("nobody's")
	other := s.add(session{authorization: "x"}, now)
	s.remove(other)
	if s.get(other, now).authorization != "" || len(s.byName) != 1 {
		t.Error("a session that was removed is there")
	}
}

func TestAFilterThatIsNoExpression(t *testing.T) {
	_, err := Component.Open(t.Context(), components.Host{Component: "web"}, map[string]string{
		"clientID": "a", "clientSecret": "b", "authURL": "c", "tokenURL": "d", "pathFilter": "(",
	})
	if fault.ReasonOf(err) != fault.BadManifest {
		t.Errorf("got %v", err)
	}
}
