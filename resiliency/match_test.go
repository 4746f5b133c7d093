package resiliency

import (
	"errors"
	"testing"

	"github.com/sidecast/sidecast/fault"
)

// Several gRPC codes are of one kind; what an app answered with decides.
func TestMatchGoesByTheCodeOfTheApp(t *testing.T) {
	answered := func(kind fault.Kind, code string) error {
		return fault.E("call", kind, fault.AppFailed, errors.New("no")).With(fault.AppStatus, code)
	}
	some := Match{Codes: []Range{{6, 14}}, Kinds: []fault.Kind{fault.Internal}}
	for name, c := range map[string]struct {
		match Match
		err   error
		meant bool
	}{
		"FAILED_PRECONDITION":           {some, answered(fault.Invalid, "9"), true},
		"OUT_OF_RANGE":                  {some, answered(fault.Invalid, "11"), true},
		"UNKNOWN":                       {some, answered(fault.Internal, "2"), false},
		"DATA_LOSS":                     {some, answered(fault.Internal, "15"), false},
		"the code of the kind":          {some, fault.E("call", fault.Internal, fault.AppFailed, errors.New("no")), true},
		"no answer":                     {some, fault.E("call", fault.Timeout, fault.AttemptTimeout, errors.New("no")), false},
		"CANCELLED of the app":          {Match{Kinds: []fault.Kind{fault.Internal}}, answered(fault.Canceled, "1"), true},
		"CANCELLED of the app, by code": {Match{Codes: []Range{{2, 2}}}, answered(fault.Canceled, "1"), false},
		"a call that was given up":      {Match{Kinds: []fault.Kind{fault.Internal}}, fault.E("call", fault.Canceled, fault.CallCanceled, errors.New("no")), false},
	} {
		if meant, _ := c.match.speaks(c.err); meant != c.meant {
			t.Errorf("%s: %v, not %v", name, meant, c.meant)
		}
	}
}
