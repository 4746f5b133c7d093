package badgerstore

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"runtime"
	"runtime/pprof"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sidecast/sidecast/state"
)

func rss() string {
	b, _ := os.ReadFile("/proc/self/status")
	var out []string
	for _, l := range strings.Split(string(b), "\n") {
		if strings.HasPrefix(l, "VmRSS") || strings.HasPrefix(l, "RssAnon") || strings.HasPrefix(l, "RssFile") {
			f := strings.Fields(l)
			kb, _ := strconv.Atoi(f[1])
			out = append(out, fmt.Sprintf("%s %d", f[0], kb>>10))
		}
	}
	return strings.Join(out, " ")
}

func TestRSS(t *testing.T) {
	sync1 := os.Getenv("RSS_SYNC") != ""
	n, _ := strconv.Atoi(os.Getenv("RSS_N"))
	if n == 0 {
		t.Skip()
	}
	dir, _ := os.MkdirTemp("/tmp/rss", "")
	defer os.RemoveAll(dir)
	s := openAt(t, dir, sync1)
	fmt.Println("open", rss())
	value := make([]byte, 100<<10)
	rand.Read(value)
	peak := 0
	begin := time.Now()
	for part := range 4 {
		var wg sync.WaitGroup
		for w := range 4 {
			wg.Go(func() {
				for i := range n / 16 {
					if _, err := s.Apply(context.Background(), []state.Op{{Kind: state.Set, Key: fmt.Sprint(w, i%5), Value: value}}); err != nil {
						panic(err)
					}
				}
			})
		}
		wg.Wait()
		fmt.Println(part, rss(), "vlog MiB", logged(t, dir)>>20)
	}
	took := time.Since(begin)
	fmt.Printf("%d writes %.1f MB/s %.0f/s\n", n, float64(n)*0.1024/took.Seconds(), float64(n)/took.Seconds())
	_ = peak
	for range 5 {
		time.Sleep(time.Second)
		s.collectOnce()
	}
	fmt.Println("collected", rss(), "vlog MiB", logged(t, dir)>>20)
	var ms runtime.MemStats
	runtime.ReadMemStats(&ms)
	fmt.Println("heap inuse", ms.HeapInuse>>20, "alloc", ms.HeapAlloc>>20, "idle", ms.HeapIdle>>20, "released", ms.HeapReleased>>20, "sys", ms.Sys>>20, "gcs", ms.NumGC)
	runtime.GC()
	f, _ := os.Create("/tmp/rss/heap.pb")
	pprof.WriteHeapProfile(f)
	f.Close()
	shut(t, s)
}
