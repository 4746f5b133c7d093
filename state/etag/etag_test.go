package etag_test

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/sidecast/sidecast/state/etag"
)

func TestParseIsTheInverseOfString(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tag := etag.Tag(rapid.Uint64Min(1).Draw(t, "tag"))
		if back, ok := etag.Parse(tag.String()); !ok || back != tag {
			t.Fatalf("Parse(%q) = %v, %v", tag.String(), back, ok)
		}
	})
}

func TestParseRefusesWhatStringNeverReturns(t *testing.T) {
	for _, s := range []string{"", "1", "0000000000000000", "00000000000000001", "000000000000000G", "00000000000000AB", "+000000000000001"} {
		if tag, ok := etag.Parse(s); ok {
			t.Errorf("Parse(%q) = %v", s, tag)
		}
	}
}

func TestNewIsNeverTheSame(t *testing.T) {
	seen := make(map[etag.Tag]bool)
	for range 100_000 {
		tag := etag.New()
		if tag == 0 || seen[tag] {
			t.Fatalf("New returned %v again", tag)
		}
		seen[tag] = true
	}
}
