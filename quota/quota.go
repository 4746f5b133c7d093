// Package quota makes global rate limits: one limit for all sidecars of a namespace whose lanes have it, shared through
// the fabric without a place that counts calls.
//
//	quota.Start(quota.Options{System: system, Fabric: f, Log: log})
//
// Once a second each member broadcasts on sc.<namespace>.quota.<app>.<instance> how many calls each of its global limits
// was offered, hears what the others say, and computes the same division of the same facts as they do: everyone gets what
// it needs as far as no other is made to have less than its fair part, and what is left in proportion. Lanes are told
// their shares and do the rest. Only sidecars that have such a limit take part; for the others nothing runs.
//
// Two lanes share a limit when their names and the limits' are the same, so name a target and a limit alike everywhere.
// The lanes that guard a sidecar's own app, `app`, `app/op:…`, `sub/…`, `input/…` and `settings/…`, are shared among the
// instances of that app.
//
// Promised: while membership is steady and messages arrive, shares sum to no more than 1 when demand is steady too, and to
// no more than 1.05 while it moves. A member that is alone in its demand has at least 95 % of the limit, or of its whole
// calls. One that was idle has 5 % divided by the number of members to begin with, and its part within four seconds; where
// calls are counted in windows, with the next window after that.
//
// Not promised: exactness while members come and go. A newcomer takes one part in as many as presence knows until the
// others have heard of it, so for two seconds all may admit that much more, and its burst besides; while the fabric is away each keeps an equal part
// among those it last knew, says so once in its log and in its status, and members that join meanwhile come on top.
package quota

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/sidecast/sidecast/actors"
	"github.com/sidecast/sidecast/fabric"
)

// topic is where members talk.
const topic = "quota"

// Options of Start; all are needed.
type Options struct {
	System *actors.System
	Fabric *fabric.Fabric
	Log    *slog.Logger
}

// quota is this sidecar's membership in all global limits that its lanes have.
type quota struct {
	system *actors.System
	fabric *fabric.Fabric
	log    *slog.Logger
	self   fabric.Target
	woken  chan struct{} // a lane may have got a global limit
}

// Start makes this sidecar a member of all global limits that its lanes have and will have, until the system is closed,
// which waits for it. Lanes that get one from now on begin with a newcomer's share.
func Start(o Options) {
	q := &quota{system: o.System, fabric: o.Fabric, log: o.Log, self: o.Fabric.Self(), woken: make(chan struct{}, 1)}
	q.system.Share(func(lane, _ string) float64 {
		select {
		case q.woken <- struct{}{}:
		default:
		}
		return q.firstShare(lane)
	})
	q.system.Worker("quota", q.run)
}

// guardsOwnApp reports whether what a lane guards is this sidecar's app: all of it, some operations of it, or what it
// is told: events, those of input bindings, and settings that changed.
func guardsOwnApp(lane string) bool {
	return lane == "app" || slices.ContainsFunc(ofOwnApp, func(prefix string) bool { return strings.HasPrefix(lane, prefix) })
}

// ofOwnApp is how lanes begin that guard a part of the own app.
var ofOwnApp = []string{"app/op:", "sub/", "input/", "settings/"}

// firstShare is a newcomer's: one part in as many as may have the limit.
func (q *quota) firstShare(lane string) float64 {
	app := ""
	if guardsOwnApp(lane) {
		app = q.self.App
	}
	members := q.fabric.Instances(app)
	n := len(members)
	if !slices.ContainsFunc(members, func(i fabric.Instance) bool { return i.App == q.self.App && i.ID == q.self.Instance }) {
		n++ // it has not announced itself yet
	}
	return 1 / float64(n)
}

// id names a limit to all members.
func (q *quota) id(lane, limit string) string {
	if guardsOwnApp(lane) {
		lane += "@" + q.self.App
	}
	return lane + "#" + limit
}

// run takes part while there is something to share, and sleeps otherwise.
func (q *quota) run(ctx context.Context) error {
	for {
		if len(q.system.Sharing()) > 0 {
			if err := q.takePart(ctx); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-q.woken:
		}
	}
}

// takePart is membership from the first global limit to the last.
func (q *quota) takePart(ctx context.Context) error {
	heard := make(chan *nats.Msg, 4096)
	stop, err := q.fabric.Listen(topic, heard)
	if err != nil {
		return err
	}
	defer stop()
	defer func() { _ = q.fabric.Broadcast(topic, []byte(`{"left":true}`)) }() // silence says it otherwise
	q.begin(ctx)
	tick := time.NewTicker(interval)
	defer tick.Stop()
	last := time.Now()
	books := newLedger(q.self, last)
	for {
		select {
		case <-ctx.Done():
			return nil
		case m := <-heard:
			if from, ok := fabric.Speaker(m); ok {
				books.hear(time.Now(), from, m.Data)
			}
		case now := <-tick.C:
			lanes := q.system.Sharing()
			if len(lanes) == 0 {
				return nil
			}
			q.turn(ctx, books, lanes, now, now.Sub(last))
			last = now
		}
	}
}

// begin makes every lane a newcomer, now that those who are there have had time to say so.
func (q *quota) begin(ctx context.Context) {
	q.fabric.Settle(ctx)
	for _, lane := range q.system.Sharing() {
		for _, limit := range lane.Policy().Limits {
			if limit.Global {
				lane.SetShare(limit.Name, q.firstShare(lane.Name()), false)
			}
		}
	}
}

// turn does what there is to do each second.
func (q *quota) turn(ctx context.Context, books *ledger, lanes []*actors.Lane, now time.Time, since time.Duration) {
	type held struct {
		lane  *actors.Lane
		limit string
		id    string
	}
	var all []held
	var offers []offer
	for _, lane := range lanes {
		for _, d := range lane.Demands(ctx) {
			h := held{lane, d.Limit, q.id(lane.Name(), d.Limit)}
			all = append(all, h)
			offers = append(offers, offer{
				id: h.id, calls: d.Calls, per: d.Per, whole: d.Whole, offered: d.Offered, first: q.firstShare(lane.Name()),
			})
		}
	}
	for _, payload := range books.tick(now, since, offers) {
		_ = q.fabric.Broadcast(topic, payload) // judge finds out
	}
	if books.judge(now, q.fabric.Connected()) {
		q.tell(books.local)
	}
	portions := books.portions(now)
	for _, h := range all {
		if p, ok := portions[h.id]; ok {
			h.lane.SetShare(h.limit, p.share, p.local)
		}
	}
}

func (q *quota) tell(local bool) {
	if local {
		q.log.Warn("global rate limits are not shared: the fabric does not carry their demand; each keeps an equal part among those it last knew",
			"subject", "sc.<namespace>."+topic+".>")
		return
	}
	q.log.Info("global rate limits are shared again")
}
