package locktest

import (
	"context"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/lock"
)

// modelAgrees does random things to a few locks, one at a time, and compares with a map. No lease runs out meanwhile.
func modelAgrees(t *testing.T, b *bench) {
	l := b.open()
	run := 0
	rapid.Check(t, func(r *rapid.T) {
		run++
		holders := map[string]lock.Lease{}
		var stale []lock.Lease
		var last uint64
		nameOf := rapid.Map(rapid.IntRange(0, 2), func(i int) string { return fmt.Sprint("lock ", run, "/", i) })
		owner := rapid.SampledFrom([]string{"ann", "bob"})
		r.Repeat(map[string]func(*rapid.T){
			"acquire": func(r *rapid.T) {
				name := nameOf.Draw(r, "name")
				lease, err := l.Acquire(b.ctx, name, owner.Draw(r, "owner"), time.Hour, rapid.Bool().Draw(r, "wait") && holders[name].Token == 0)
				if holders[name].Token != 0 {
					check(r, err, fault.LockHeld)
					return
				}
				check(r, err, "")
				if lease.Token <= last {
					r.Fatalf("token %d came after %d", lease.Token, last)
				}
				last = lease.Token
				holders[name] = lease
			},
			"wait in vain": func(r *rapid.T) {
				for name := range holders {
					ctx, cancel := context.WithTimeout(b.ctx, time.Millisecond)
					_, err := l.Acquire(ctx, name, owner.Draw(r, "owner"), time.Hour, true)
					cancel()
					check(r, err, fault.DeadlineExceeded)
					return
				}
			},
			"renew": func(r *rapid.T) {
				name := nameOf.Draw(r, "name")
				if lease, ok := holders[name]; ok {
					renewed, err := l.Renew(b.ctx, lease, 30*time.Minute)
					check(r, err, "")
					if renewed.Token != lease.Token {
						r.Fatalf("renewing changed token %d to %d", lease.Token, renewed.Token)
					}
				}
			},
			"release": func(r *rapid.T) {
				name := nameOf.Draw(r, "name")
				if lease, ok := holders[name]; ok {
					check(r, l.Release(b.ctx, lease), "")
					delete(holders, name)
					stale = append(stale, lease)
				}
			},
			"use a stale lease": func(r *rapid.T) {
				if len(stale) == 0 {
					return
				}
				lease := rapid.SampledFrom(stale).Draw(r, "lease")
				_, err := l.Renew(b.ctx, lease, time.Hour)
				check(r, err, fault.LockLost)
				check(r, l.Release(b.ctx, lease), fault.LockLost)
			},
		})
		for _, lease := range holders {
			check(r, l.Release(b.ctx, lease), "")
		}
	})
}

func check(r *rapid.T, err error, reason fault.Reason) {
	r.Helper()
	if fault.ReasonOf(err) != reason || (reason == "" && err != nil) {
		r.Fatalf("got %v, want reason %q", err, reason)
	}
}
