package contrib

import (
	"strings"
	"testing"
)

func TestPlainJSONIsWhatPostgresCanHold(t *testing.T) {
	nested := func(depth int) string { return strings.Repeat(`[{"a":`, depth/2) + "1" + strings.Repeat("}]", depth/2) }
	for text, want := range map[string]bool{
		`{"a":[1,-2.50,1e3,1E+20,2e-20,null,true,"1e200000 [[ \" ]"]}`: true,
		strings.Repeat("7", maxDigits):                                 true,
		strings.Repeat("7", maxDigits+1):                               false,
		`{"a":1e200000}`:                                               false,
		`[1,2E-200000]`:                                                false,
		`1e+99999999999999999999`:                                      false,
		nested(maxNesting):                                             true,
		nested(maxNesting + 2):                                         false,
		`[` + strings.Repeat(`{},[],`, maxNesting) + `"` + `\\` + `"` + `,1e400]`: false,
		`"\u0000"`: false,
		`[`:        false,
		``:         false,
	} {
		if got := isPlainJSON([]byte(text)); got != want {
			t.Errorf("%.80s: %v", text, got)
		}
	}
}
