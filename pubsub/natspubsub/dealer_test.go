package natspubsub

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestDealer plays random servers and callers: the credits at the server never exceed those given, and a partition that
// rang is asked, or recalled for, within the time that brief pulls take.
func TestDealer(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		partitions := rapid.IntRange(0, 5).Draw(t, "partitions")
		d := &dealer{sources: make([]source, 1+partitions)}
		now := time.Unix(1000, 0)
		credits := rapid.IntRange(1, 8).Draw(t, "credits")
		wide := rapid.IntRange(1, 6).Draw(t, "wide")
		open := map[uint64]pull{}
		got := map[uint64]int{}
		deal := func() {
			pulls, recall := d.deal(now, credits, wide)
			if recall {
				d.recalled()
				clear(open)
				pulls, recall = d.deal(now, credits, wide)
				if recall {
					t.Fatal("a recall does not help")
				}
			}
			for _, p := range pulls {
				if p.batch < 1 || p.source > 0 && p.batch != 1 {
					t.Fatalf("a pull of %d from source %d", p.batch, p.source)
				}
				open[p.id], got[p.id] = p, 0
			}
			sum, keyed := 0, 0
			for id, p := range open {
				sum += p.batch - got[id]
				if p.source > 0 {
					keyed++
				}
			}
			if keyed > wide {
				t.Fatalf("%d partitions are being asked, %d may be", keyed, wide)
			}
			if sum != d.asked || sum > credits {
				t.Fatalf("%d credits are at the server, %d counted, %d given", sum, d.asked, credits)
			}
			if sum == 0 {
				t.Fatal("nothing is asked for")
			}
		}
		pick := func(t *rapid.T) pull {
			var ids []uint64
			for id := range d.pulls {
				if _, ok := open[id+1]; ok {
					ids = append(ids, id+1)
				}
			}
			if len(ids) == 0 {
				t.Skip("nothing is open")
			}
			return open[rapid.SampledFrom(ids).Draw(t, "pull")]
		}
		seq := uint64(0)
		t.Repeat(map[string]func(*rapid.T){
			"deliver": func(t *rapid.T) {
				p := pick(t)
				seq++
				d.delivered(now, p.source, seq, 100, rapid.Bool().Draw(t, "more"), now.Add(time.Second))
				if got[p.id]++; got[p.id] == p.batch {
					delete(open, p.id)
				}
				if credits--; credits == 0 {
					credits = rapid.IntRange(1, 8).Draw(t, "credits")
				}
				deal()
			},
			"end": func(t *rapid.T) {
				p := pick(t)
				d.ended(now, p.id, false)
				delete(open, p.id)
				deal()
			},
			"ring": func(t *rapid.T) {
				if partitions == 0 {
					t.Skip("no partitions")
				}
				i := rapid.IntRange(1, partitions).Draw(t, "i")
				d.rang(i, anySeq, 100)
				if s := &d.sources[i]; !now.Before(s.busy) && !now.Before(s.hold) {
					reached(t, d, &now, i, deal, open)
				}
			},
			"settle": func(t *rapid.T) {
				var retry time.Time
				if rapid.Bool().Draw(t, "retry") {
					retry = now.Add(50 * time.Millisecond)
				}
				d.settled(rapid.IntRange(0, partitions).Draw(t, "i"), retry)
				deal()
			},
			"wait": func(t *rapid.T) {
				now = now.Add(time.Duration(rapid.IntRange(1, 3000).Draw(t, "ms")) * time.Millisecond)
				deal()
			},
			"ask": func(t *rapid.T) {
				credits = rapid.IntRange(1, 8).Draw(t, "credits")
				deal()
			},
		})
	})
}

// reached lets brief pulls run out, as a server would end them, until source i is asked.
func reached(t *rapid.T, d *dealer, now *time.Time, i int, deal func(), open map[uint64]pull) {
	for range 4 * len(d.sources) {
		deal()
		if d.sources[i].asked > 0 {
			return
		}
		*now = now.Add(briefPull)
		for id, p := range open {
			if p.expires < sweepEvery {
				d.ended(*now, id, false)
				delete(open, id)
			}
		}
	}
	t.Fatalf("partition %d rang and was not asked: %+v", i, *d)
}
