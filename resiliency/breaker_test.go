package resiliency

import "testing"

var breakerKeys = map[string]policyKey{
	"failures": func(t *testing.T, p *Policy, v string) { p.Breaker.Failures = number(t, v) },
	"open-for": func(t *testing.T, p *Policy, v string) { p.Breaker.OpenFor = duration(t, v) },
	"probes":   func(t *testing.T, p *Policy, v string) { p.Breaker.Probes = number(t, v) },
}
