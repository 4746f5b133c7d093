package resiliency

import "testing"

var queueKeys = map[string]policyKey{
	"full":           func(t *testing.T, p *Policy, v string) { p.Queue.Full = OnFull(v) },
	"max-wait":       func(t *testing.T, p *Policy, v string) { p.Queue.MaxWait = duration(t, v) },
	"priority":       func(t *testing.T, p *Policy, v string) { p.Queue.PriorityHeader = v },
	"codel-target":   func(t *testing.T, p *Policy, v string) { p.Queue.Target = duration(t, v) },
	"codel-interval": func(t *testing.T, p *Policy, v string) { p.Queue.Interval = duration(t, v) },
}
