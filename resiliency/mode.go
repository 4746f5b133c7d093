package resiliency

import "time"

// What a failure mode takes where Retry leaves it out.
const (
	defaultFailovers      = 2
	defaultFailcacheTries = 3
	defaultFailcacheWait  = time.Second
)

// apply returns r as the mode needs it.
func (f FailureMode) apply(r Retry) Retry {
	switch f {
	case Failfast, Failback:
		r.Max = 0
	case Failover:
		r.Elsewhere = true
		if r.Max == 0 {
			r.Max = defaultFailovers
		}
	case Failcache:
		r.Backoff = Constant
		if r.Initial <= 0 {
			r.Initial = defaultFailcacheWait
		}
		if r.Max == 0 {
			r.Max = defaultFailcacheTries
		}
	}
	return r
}

func (f FailureMode) validate(p Policy, check checker) {
	switch f {
	case ModeNone, Failover, Failcache:
	case Failfast, Failback:
		check(p.Retry.Max == 0, "failure mode %s tries once, but retries are set", f)
		check(f != Failback || p.Fallback == nil, "failure mode failback gives the failure to the caller, but a fallback is set")
	case Failsafe:
		check(p.Fallback != nil, "failure mode failsafe needs a fallback to answer with")
	default:
		check(false, "failure mode %q is none of failfast, failover, failback, failcache and failsafe", string(f))
	}
}
