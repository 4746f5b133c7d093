// Package requestlimit is the HTTP middleware `ratelimit` of Dapr: so many requests a second of one address to one path, and
// 429 for what is more. The limits of lanes know more kinds and keys; see the page on resiliency.
package requestlimit

import (
	"context"
	"fmt"
	"math"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/pipeline"
)

// Config is what the user writes under spec.metadata.
type Config struct {
	MaxRequestsPerSecond float64 `meta:"maxRequestsPerSecond" default:"100" doc:"Requests a second of one address to one path; at once may come as many, or one if that is less than one."`
}

// Component makes the middleware known to the runtime.
var Component = components.Middleware("ratelimit", "Refuses what comes faster than a number of requests a second, of one address to one path.", open)

var _ pipeline.Middleware = (*middleware)(nil)

// middleware has a token bucket for each address and path. A bucket that is full again is as good as none, so it is
// forgotten: what is kept grows with the traffic of the last moments, and no further than mostBuckets.
type middleware struct {
	perSecond float64
	burst     int

	mu      sync.Mutex
	buckets map[string]*rate.Limiter
	swept   time.Time
	rest    *rate.Limiter // of all that has no bucket of its own any more
}

// mostBuckets bounds the addresses and paths that are told apart; what comes beyond shares one bucket.
const mostBuckets = 1 << 15

func open(_ context.Context, host components.Host, c Config) (pipeline.Middleware, error) {
	if !(c.MaxRequestsPerSecond > 0) || math.IsInf(c.MaxRequestsPerSecond, 0) {
		return nil, fault.New(host.Component+": spec.metadata.maxRequestsPerSecond", fault.BadManifest, "must be a positive number")
	}
	m := &middleware{perSecond: c.MaxRequestsPerSecond, burst: int(max(1, min(c.MaxRequestsPerSecond, math.MaxInt32))), buckets: make(map[string]*rate.Limiter)}
	m.rest = m.bucket()
	return m, nil
}

// Close implements pipeline.Middleware.
func (*middleware) Close(context.Context) error { return nil }

// Wrap implements pipeline.Middleware.
func (m *middleware) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Add("X-Rate-Limit-Limit", fmt.Sprintf("%.2f", m.perSecond))
		h.Add("X-Rate-Limit-Duration", "1")
		if forwarded := r.Header.Get("X-Forwarded-For"); strings.TrimSpace(forwarded) != "" {
			h.Add("X-Rate-Limit-Request-Forwarded-For", forwarded)
		}
		h.Add("X-Rate-Limit-Request-Remote-Addr", r.RemoteAddr)
		left, ok := m.take(address(r)+"|"+r.URL.Path, time.Now())
		h.Add("RateLimit-Limit", fmt.Sprint(int(math.Round(m.perSecond))))
		h.Add("RateLimit-Reset", "1")
		h.Add("RateLimit-Remaining", fmt.Sprint(left))
		if !ok {
			h.Add("Content-Type", "text/plain; charset=utf-8")
			w.WriteHeader(http.StatusTooManyRequests)
			_, _ = w.Write([]byte("You have reached maximum request limit.")) // a client that went away needs no answer
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (m *middleware) bucket() *rate.Limiter { return rate.NewLimiter(rate.Limit(m.perSecond), m.burst) }

// take takes a token and tells how many are left.
func (m *middleware) take(key string, now time.Time) (left int, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b := m.buckets[key]
	if b == nil {
		m.sweep(now)
		if b = m.rest; len(m.buckets) < mostBuckets {
			b = m.bucket()
			m.buckets[key] = b
		}
	}
	ok = b.AllowN(now, 1)
	return max(0, int(b.TokensAt(now))), ok
}

// sweep forgets the buckets that are full, once a second at most.
func (m *middleware) sweep(now time.Time) {
	if now.Sub(m.swept) < time.Second {
		return
	}
	m.swept = now
	for key, b := range m.buckets {
		if b.TokensAt(now) >= float64(m.burst) {
			delete(m.buckets, key)
		}
	}
}

// address is that of the client as proxies tell it, or of the connection; of IPv6 the network of 64 bits.
func address(r *http.Request) string {
	text := ""
	if forwarded := r.Header.Get("X-Forwarded-For"); forwarded != "" {
		text = strings.TrimSpace(forwarded[strings.LastIndex(forwarded, ",")+1:])
	} else if text = r.Header.Get("X-Real-IP"); text == "" {
		if text = r.RemoteAddr; text != "" {
			if host, _, err := net.SplitHostPort(text); err == nil {
				text = host
			}
		}
	}
	if ip := net.ParseIP(text); ip != nil && ip.To4() == nil {
		return ip.Mask(net.CIDRMask(64, 128)).String()
	}
	return text
}
