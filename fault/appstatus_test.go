package fault

import (
	"errors"
	"fmt"
	"testing"
)

func TestAppCode(t *testing.T) {
	failed := New("call", AppFailed, "no")
	for name, c := range map[string]struct {
		err  error
		code int
	}{
		"kept":             {failed.With(AppStatus, "11"), 11},
		"kept and wrapped": {fmt.Errorf("tried twice: %w", failed.With(AppStatus, "2")), 2},
		"not kept":         {failed, 13},
		"no number":        {failed.With(AppStatus, "x"), 13},
		"no fault":         {errors.New("no"), 13},
		"none":             {nil, 0},
	} {
		if got := AppCode(c.err); got != c.code {
			t.Errorf("%s: %d, not %d", name, got, c.code)
		}
	}
}
