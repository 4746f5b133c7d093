//go:build !race

// Badger's collection reads the version of the memtable beside the writer that raises it. It is one word, and an older
// version only makes it keep more; but the race detector would report it.

package badgerstore

import (
	"testing"
	"time"
)

func TestTheSpaceIsWonBackAsFastAsValuesAreWritten(t *testing.T) {
	s := openAt(t, t.TempDir(), false)
	defer shut(t, s)
	for range 4 {
		overwrite(t, s, 300)
		for deadline := time.Now().Add(time.Minute); logged(t, s) > 5*logFile; time.Sleep(50 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%d MiB are kept", logged(t, s)>>20)
			}
		}
	}
}
