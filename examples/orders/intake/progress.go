package main

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/sidecast/sidecast/examples/orders/shop"
)

// progress knows how far each order is and says so now and then.
type progress struct {
	mu      sync.Mutex
	total   int
	status  map[string]string
	settled int
	done    chan struct{}
	printed time.Time
}

func newProgress(orders []shop.Order) *progress {
	return &progress{total: len(orders), status: make(map[string]string, len(orders)), done: make(chan struct{})}
}

// set notes the status of an order. An order that has been decided stays so.
func (p *progress) set(id, status string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	before := p.status[id]
	if before == status || before != "" && before != placed {
		return
	}
	p.status[id] = status
	if status != placed {
		p.settled++
	}
	if p.settled == p.total || time.Since(p.printed) > time.Second {
		p.printed = time.Now()
		fmt.Printf("%s %4d placed, %4d of %d decided\n", bar(p.settled, p.total), len(p.status), p.settled, p.total)
	}
	if p.settled == p.total {
		close(p.done)
	}
}

// wait returns when every order is decided.
func (p *progress) wait(ctx context.Context) error {
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func bar(part, whole int) string {
	const width = 30
	filled := width * part / whole
	return fmt.Sprintf("[%-*s] %3d%%", width, strings.Repeat("#", filled), 100*part/whole)
}
