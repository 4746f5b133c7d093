package main

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestACollectorThatIsAwayIsToldOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		handle := tracesLog(slog.New(slog.NewTextHandler(&out, nil)))
		for range 13 {
			handle(errors.New("connection refused"))
			time.Sleep(5 * time.Second)
		}
		if n := strings.Count(out.String(), "spans do not reach the collector"); n != 2 {
			t.Errorf("told %d times in 60 seconds: %s", n, out.String())
		}
	})
}
