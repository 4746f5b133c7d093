package resiliency

import "testing"

// PlayUnder plays a script, as TestScripts does, on a machine under p, and returns it with what
// the machine decides now.
func PlayUnder(t *testing.T, p Policy, script string) string {
	s := stage{t: t, machine: New("app/orders", p), turns: map[string]*Turn{}}
	return s.play(script)
}

// Rewrite says that files are to be rewritten with what was decided (-update).
func Rewrite() bool { return *update }
