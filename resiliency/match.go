package resiliency

import (
	"errors"
	"fmt"
	"slices"

	"github.com/sidecast/sidecast/fault"
)

// given reports whether m says anything.
func (m Match) given() bool {
	return len(m.Kinds)+len(m.Reasons)+len(m.Codes)+len(m.Statuses) > 0
}

// speaks returns what m says of err, and whether it says anything about failures of that sort.
func (m Match) speaks(err error) (meant, speaks bool) {
	if len(m.Statuses) > 0 {
		var status interface{ HTTPStatus() int }
		if errors.As(err, &status) {
			return within(m.Statuses, status.HTTPStatus()), true
		}
	}
	if len(m.Codes) > 0 {
		var code interface{ GRPCCode() int }
		switch {
		case errors.As(err, &code):
			return within(m.Codes, code.GRPCCode()), true
		case fault.ReasonOf(err) == fault.AppFailed:
			return within(m.Codes, fault.AppCode(err)), true
		}
	}
	if len(m.Kinds)+len(m.Reasons) > 0 {
		kind := fault.KindOf(err)
		if kind == fault.Canceled && fault.ReasonOf(err) == fault.AppFailed {
			kind = fault.Internal // an app that answers CANCELLED has failed: nobody has given the call up
		}
		return slices.Contains(m.Kinds, kind) || slices.Contains(m.Reasons, fault.ReasonOf(err)), true
	}
	return false, false
}

func within(ranges []Range, n int) bool {
	return slices.ContainsFunc(ranges, func(r Range) bool { return r.First <= n && n <= r.Last })
}

func (m Match) validate(of string, check checker) {
	for _, kind := range m.Kinds {
		check(kind != fault.None && slices.Contains(fault.Kinds(), kind), "%s names the kind %v, which no failure has", of, kind)
	}
	known := fault.Reasons()
	for _, reason := range m.Reasons {
		check(slices.ContainsFunc(known, func(e fault.Entry) bool { return e.Reason == reason }),
			"%s names the reason %q; docs/reference/errors.md lists those that are", of, reason)
	}
	ranges := func(what string, all []Range, least, most int) {
		for _, r := range all {
			check(r.First <= r.Last && r.First >= least && r.Last <= most,
				"%s names the %s %v, which are not within %d and %d", of, what, r, least, most)
		}
	}
	ranges("gRPC codes", m.Codes, 0, 16)
	ranges("HTTP statuses", m.Statuses, 100, 599)
}

// String is the range as people write it.
func (r Range) String() string {
	if r.First == r.Last {
		return fmt.Sprint(r.First)
	}
	return fmt.Sprintf("%d-%d", r.First, r.Last)
}
