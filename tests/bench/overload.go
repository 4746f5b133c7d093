package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	sidecastv1 "github.com/sidecast/sidecast/sdk/proto/sidecast/v1"
)

// The storm: an app that can do workers/workTime calls a second, and many times as many callers.
const (
	workTime = 50 * time.Millisecond
	workers  = 16
	storm    = 2000
	stormFor = 10 * time.Second
)

// overload is what became of a storm.
type overload struct {
	GoodPerSecond float64 `json:"good_per_second"`
	Capacity      float64 `json:"capacity_per_second"`
	MostInApp     int     `json:"most_in_app"`
	Refused       int     `json:"refused"`
	RefusedP99    float64 `json:"refused_p99_ms"`
	OtherFailures int     `json:"other_failures"`
	GrowthMiB     float64 `json:"resident_growth_mib"` // of both sidecars together
	CallAfter     float64 `json:"call_after_ms"`       // of a lone caller right after the storm
}

func measureOverload(binary string) (o overload, err error) {
	s, err := newStage(binary, "--app-max-concurrency", strconv.Itoa(workers))
	if err != nil {
		return o, err
	}
	defer s.close()
	client := sidecastv1.NewInvocationClient(s.near.conn)
	body := make([]byte, 1<<10)
	before := s.rss()

	var mu sync.Mutex
	var refused []time.Duration
	var last error
	good := 0
	ctx, cancel := context.WithTimeout(context.Background(), stormFor+30*time.Second)
	defer cancel()
	end := time.Now().Add(stormFor)
	var callers sync.WaitGroup
	for range storm {
		callers.Go(func() {
			for began := time.Now(); began.Before(end); began = time.Now() {
				_, err := client.Invoke(ctx, &sidecastv1.InvokeRequest{AppId: "echo", Method: "work", Data: body})
				took := time.Since(began)
				mu.Lock()
				switch {
				case err == nil:
					good++
				case status.Code(err) == codes.ResourceExhausted:
					refused = append(refused, took)
				default:
					o.OtherFailures++
					last = err
				}
				mu.Unlock()
				if err != nil {
					time.Sleep(100 * time.Millisecond) // as a caller that heeds retry-after would
				}
			}
		})
	}
	callers.Wait()
	after := s.rss()
	began := time.Now()
	_, err = client.Invoke(ctx, &sidecastv1.InvokeRequest{AppId: "echo", Method: "work", Data: body})
	if err != nil {
		return o, fmt.Errorf("a lone caller after the storm: %w", err)
	}
	o.CallAfter = millis(time.Since(began))
	most, err := client.Invoke(ctx, &sidecastv1.InvokeRequest{AppId: "echo", Method: "most"})
	if err != nil {
		return o, err
	}
	o.MostInApp, err = strconv.Atoi(string(most.Data))
	o.GoodPerSecond = float64(good) / stormFor.Seconds()
	o.Capacity = workers / workTime.Seconds()
	o.Refused = len(refused)
	if len(refused) > 0 {
		slices.Sort(refused)
		o.RefusedP99 = millis(refused[len(refused)*99/100])
	}
	o.GrowthMiB = after[0] + after[1] - before[0] - before[1]
	if o.OtherFailures > 0 {
		fmt.Println("the last other failure:", last)
	}
	return o, errors.Join(err)
}

func (o overload) print() {
	fmt.Printf("\n%d callers on an app that can do %.0f/s: %.0f/s done, at most %d at once in the app\n", storm, o.Capacity, o.GoodPerSecond, o.MostInApp)
	fmt.Printf("%d refused, p99 %.1f ms; %d other failures; resident memory grew by %.1f MiB; a lone call afterwards took %.1f ms\n",
		o.Refused, o.RefusedP99, o.OtherFailures, o.GrowthMiB, o.CallAfter)
}
