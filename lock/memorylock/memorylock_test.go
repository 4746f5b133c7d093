package memorylock

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/lock"
	"github.com/sidecast/sidecast/lock/locktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var backend = locktest.Backend{New: func(testing.TB) locktest.Store {
	return locktest.Store{Open: func(t testing.TB) lock.Locker {
		l, err := open(t.Context(), components.Host{}, Config{})
		if err != nil {
			t.Fatal(err)
		}
		return l
	}}
}}

func TestLocker(t *testing.T) { locktest.Run(t, backend) }

func BenchmarkLocker(b *testing.B) { locktest.Benchmark(b, backend) }
