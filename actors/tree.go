package actors

import (
	"cmp"
	"context"
)

// Node is one part of a running system, with those it supervises.
type Node struct {
	// Name is unique among its siblings of the same Kind: `system`, `lane` or `worker`.
	Name string `json:"name"`
	Kind string `json:"kind"`
	// State is `running`, `restarting`, `draining` or `stopped`.
	State string `json:"state"`
	// Restarts since the start.
	Restarts int `json:"restarts"`
	// Lane is what a lane is doing; nil for others.
	Lane *LaneStatus `json:"lane,omitempty"`
	// Children by kind and name.
	Children []Node `json:"children,omitempty"`
}

// Tree shows the system: every lane and every worker that is not done. A lane that does not answer before ctx ends is shown
// without its figures.
func (s *System) Tree(ctx context.Context) Node {
	root := Node{Name: "actors", Kind: "system", State: "running"}
	if s.isClosed() {
		root.State = "stopped"
	}
	lanes, workers := s.snapshot()
	for _, l := range lanes {
		status := l.Status(ctx)
		node := l.node(l.state())
		node.Lane = &status
		root.Children = append(root.Children, node)
	}
	for _, w := range workers {
		root.Children = append(root.Children, w.node(w.state()))
	}
	return root
}

func (s *subject) node(state string) Node {
	return Node{Name: s.name, Kind: s.kind, State: state, Restarts: int(s.restarts.Load())}
}

func (s *subject) compare(other *subject) int { return cmp.Compare(s.name, other.name) }

func (l *Lane) state() string {
	alive := l.life.Load() != nil
	switch {
	case !alive && l.system.isClosed():
		return "stopped"
	case !alive:
		return "restarting"
	case l.isDraining():
		return "draining"
	}
	return "running"
}

func (w *Worker) state() string {
	if w.down.Load() {
		return "restarting"
	}
	return "running"
}
