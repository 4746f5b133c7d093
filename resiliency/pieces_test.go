package resiliency

import "testing"

var piecesKeys = map[string]policyKey{
	"pieces-call":    func(t *testing.T, p *Policy, v string) { p.pieces().CallTimeout = duration(t, v) },
	"pieces-attempt": func(t *testing.T, p *Policy, v string) { p.pieces().AttemptTimeout = duration(t, v) },
	"pieces-most":    func(t *testing.T, p *Policy, v string) { p.pieces().MaxInFlight = number(t, v) },
}

func (p *Policy) pieces() *Pieces {
	if p.Pieces == nil {
		p.Pieces = new(Pieces)
	}
	return p.Pieces
}
