package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/shirou/gopsutil/v4/process"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	sidecastv1 "github.com/sidecast/sidecast/sdk/proto/sidecast/v1"
)

// The storm: an app that can do workers/workTime calls a second, and many times as many callers.
const (
	workTime = 50 * time.Millisecond
	workers  = 16
	callers  = 2000
	stormFor = 10 * time.Second
)

// storm is what became of callers that ask again and again.
type storm struct {
	// Callers says how they take a refusal: `heed` waits as long as it says, `pause` 50 to 150 ms, `insist` not at all. The last
	// never leave less than 2000 calls under way: what a refusal takes then is 2000 times its cost over the number of cores.
	// `own` are such callers on the sidecar of the app itself, which has the work of both then; `web` are those of Dapr's HTTP API
	// on such a sidecar, with a connection each; `bare` are such callers on a gRPC server which does nothing but refuse, to
	// compare with.
	Callers       string  `json:"callers"`
	GoodPerSecond float64 `json:"good_per_second"` // without those that were answered after the storm
	Capacity      float64 `json:"capacity_per_second"`
	MostInApp     int     `json:"most_in_app"`
	Refused       int     `json:"refused"`
	Advised       float64 `json:"refused_with_retry_after"` // share
	RefusedP50    float64 `json:"refused_p50_ms"`
	RefusedP99    float64 `json:"refused_p99_ms"`
	LaterP99      float64 `json:"refused_later_p99_ms"` // without those of the first second, which all callers begin at once
	CPU           float64 `json:"cpu_us"`               // of both sidecars, for each call that was made
	OtherFailures int     `json:"other_failures"`
	GrowthMiB     float64 `json:"resident_growth_mib"` // of the one that refuses, at most, over what it had when idle
	CallAfter     float64 `json:"call_after_ms"`       // of a lone caller right after the storm
}

func measureOverload(binary string) (storms []storm, err error) {
	s, err := newStage(binary, "--app-max-concurrency", strconv.Itoa(workers))
	if err != nil {
		return nil, err
	}
	defer s.close()
	web, err := newWebStage(binary)
	if err != nil {
		return nil, err
	}
	defer web.close()
	time.Sleep(3 * time.Second) // until what only the start needed has been given back
	near, far, own := s.door(s.near), s.door(s.far), web.door()
	fmt.Printf("\n%d callers on an app that can do %.0f/s\n", callers, workers/workTime.Seconds())
	for _, one := range []struct {
		name string
		door door
		wait func(time.Duration) time.Duration
	}{
		{"heed", near, heed}, {"pause", near, pause}, {"insist", near, insist}, {"own", far, insist}, {"web", own, insist},
		{"bare", s.bare(), insist},
	} {
		o, err := one.door.overload(one.name, one.wait)
		if err != nil {
			return nil, err
		}
		o.print()
		storms = append(storms, o)
	}
	return storms, nil
}

// How callers take a refusal.
func heed(advice time.Duration) time.Duration { return advice }
func pause(time.Duration) time.Duration       { return 50*time.Millisecond + rand.N(100*time.Millisecond) }
func insist(time.Duration) time.Duration      { return 0 }

// door is where a storm comes in.
type door struct {
	ask     func(context.Context) error        // a refusal is a gRPC status, whatever the door speaks
	most    func(context.Context) (int, error) // calls in the app at once
	refuser *process.Process                   // its memory is looked at; nil where nobody's is
	idle    float64                            // what it has when idle, in MiB
	all     []*process.Process                 // whose CPU counts
}

func (s *stage) door(at *sidecar) door {
	d := door{ask: s.asks(at.conn, "work"), most: s.most, refuser: at.process, all: s.both}
	d.idle = rssMiB(d.refuser)
	return d
}

// bare is the app itself, without any sidecar.
func (s *stage) bare() door { return door{ask: s.asks(s.direct, "refuse"), most: s.most, all: s.both} }

func (s *stage) asks(conn *grpc.ClientConn, method string) func(context.Context) error {
	client := sidecastv1.NewInvocationClient(conn)
	request := &sidecastv1.InvokeRequest{AppId: "echo", Method: method, Data: make([]byte, 1<<10)}
	return func(ctx context.Context) error {
		_, err := client.Invoke(ctx, request)
		return err
	}
}

func (s *stage) most(ctx context.Context) (int, error) {
	most, err := sidecastv1.NewInvocationClient(s.near.conn).Invoke(ctx, &sidecastv1.InvokeRequest{AppId: "echo", Method: "most"})
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(string(most.Data))
}

// tally is what the callers of a storm count.
type tally struct {
	mu      sync.Mutex
	good    int
	refused []time.Duration
	later   []time.Duration // of those, calls that began after the first second
	advised int
	others  int
	last    error
}

func (t *tally) add(took time.Duration, later, late bool, err error) (advice time.Duration) {
	advice, advised := adviceOf(err)
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case err == nil && late:
	case err == nil:
		t.good++
	case status.Code(err) == codes.ResourceExhausted:
		t.refused = append(t.refused, took)
		if later {
			t.later = append(t.later, took)
		}
		if advised {
			t.advised++
		}
	default:
		t.others++
		t.last = err
	}
	return advice
}

func adviceOf(err error) (time.Duration, bool) {
	for _, detail := range status.Convert(err).Details() {
		if retry, ok := detail.(*errdetails.RetryInfo); ok {
			return retry.RetryDelay.AsDuration(), true
		}
	}
	return 0, false
}

func (d door) overload(name string, wait func(advice time.Duration) time.Duration) (o storm, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), stormFor+30*time.Second)
	defer cancel()
	busy, err := cpu(d.all)
	if err != nil {
		return o, err
	}
	var t tally
	var all sync.WaitGroup
	end := time.Now().Add(stormFor)
	for range callers {
		all.Go(func() {
			for began := time.Now(); began.Before(end); began = time.Now() {
				err := d.ask(ctx)
				now := time.Now()
				if advice := t.add(now.Sub(began), end.Sub(began) < stormFor-time.Second, now.After(end), err); err != nil {
					time.Sleep(min(wait(advice), time.Until(end)))
				}
			}
		})
	}
	for now := range time.Tick(100 * time.Millisecond) {
		if d.refuser != nil {
			o.GrowthMiB = max(o.GrowthMiB, rssMiB(d.refuser)-d.idle)
		}
		if now.After(end) {
			break
		}
	}
	all.Wait()
	began := time.Now()
	if err = d.ask(ctx); err != nil && d.refuser != nil {
		return o, fmt.Errorf("a lone caller after the storm: %w", err)
	}
	o.CallAfter = millis(time.Since(began))
	spent, err := cpu(d.all)
	if err != nil {
		return o, err
	}
	o.Callers, o.Capacity = name, workers/workTime.Seconds()
	o.MostInApp, err = d.most(ctx)
	o.GoodPerSecond = float64(t.good) / stormFor.Seconds()
	o.Refused, o.OtherFailures = len(t.refused), t.others
	if n := len(t.refused); n > 0 && len(t.later) > 0 {
		slices.Sort(t.refused)
		slices.Sort(t.later)
		o.LaterP99 = millis(t.later[len(t.later)*99/100])
		o.RefusedP50, o.RefusedP99 = millis(t.refused[n/2]), millis(t.refused[n*99/100])
		o.Advised = float64(t.advised) / float64(n)
	}
	o.CPU = (spent - busy) * 1e6 / float64(max(t.good+len(t.refused)+t.others, 1))
	if t.others > 0 {
		fmt.Println("the last other failure:", t.last)
	}
	return o, err
}

func (o storm) print() {
	fmt.Printf("%-6s %.0f/s done, at most %d at once in the app; %d refused, %.0f %% with retry-after, p50 %.1f p99 %.1f ms, after the first second %.1f ms; %d other failures; "+
		"CPU %.0f µs a call; resident memory grew by at most %.1f MiB; a lone call afterwards took %.1f ms\n",
		o.Callers, o.GoodPerSecond, o.MostInApp, o.Refused, o.Advised*100, o.RefusedP50, o.RefusedP99, o.LaterP99, o.OtherFailures,
		o.CPU, o.GrowthMiB, o.CallAfter)
}
