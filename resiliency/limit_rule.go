package resiliency

import (
	"crypto/sha256"
	"encoding/hex"
	"math"
	"strconv"
	"strings"
	"time"
)

// Bounds of a rate limit. A limit above maxRate is no protection, and too fast for whole nanoseconds.
const (
	maxLimits      = 32
	maxRate        = 1e6 // calls a second
	maxPer         = 366 * 24 * time.Hour
	maxCalls       = 1_000_000_000
	maxLogged      = 100_000    // times that a sliding log keeps for one key,
	maxLoggedTotal = 10_000_000 // and for all
	maxLimitKeys   = 65536
	defaultKeys    = 1024
)

func validateLimits(limits []RateLimit, check checker) {
	check(len(limits) <= maxLimits, "%d rate limits are more than %d", len(limits), maxLimits)
	seen := map[string]bool{}
	for _, r := range limits {
		check(r.Name != "", "a rate limit has no name")
		check(!seen[r.Name], "two rate limits are named %q", r.Name)
		seen[r.Name] = true
		r.validate(check)
	}
}

func (r RateLimit) validate(check checker) {
	is := func(ok bool, format string, args ...any) {
		check(ok, "rate limit %q: "+format, append([]any{r.Name}, args...)...)
	}
	switch r.Algorithm {
	case TokenBucket, LeakyBucket, FixedWindow, SlidingLog, SlidingCounter:
	default:
		is(false, "there is no algorithm %q; there are token bucket, %s, %s, %s and %s", r.Algorithm, LeakyBucket, FixedWindow, SlidingLog, SlidingCounter)
	}
	is(r.Limit >= 1 && r.Limit <= maxCalls, "the limit %d is not within 1 and %d", r.Limit, int(maxCalls))
	is(r.Per > 0 && r.Per <= maxPer, "the time %v is not within 1ns and %v", r.Per, maxPer)
	is(r.Per <= 0 || float64(r.Limit)/r.Per.Seconds() <= maxRate, "%d calls per %v are more than %d a second", r.Limit, r.Per, int(maxRate))
	is(r.Burst >= 0 && r.Burst <= maxCalls, "the burst %d is not within 0 and %d", r.Burst, int(maxCalls))
	is(r.Burst == 0 || r.isBucket(), "a burst is for buckets; the algorithm %s has none", r.Algorithm)
	is(r.MaxWait >= 0 && r.MaxWait <= maxPer, "the longest wait %v is not within 0 and %v", r.MaxWait, maxPer)
	switch r.By {
	case ByLane, ByCaller, ByOperation, ByHeader:
	default:
		is(false, "there is no key %q; there are %s, %s and %s", r.By, ByCaller, ByOperation, ByHeader)
	}
	is((r.By == ByHeader) == (r.Header != ""), "a header is named if and only if the limit is by header")
	is(r.MaxKeys >= 0 && r.MaxKeys <= maxLimitKeys, "%d keys are not within 0 and %d", r.MaxKeys, maxLimitKeys)
	is(r.MaxKeys == 0 || r.By != ByLane, "the number of keys has no effect on a limit without keys")
	if r.Algorithm == SlidingLog && r.Per > 0 {
		each := float64(r.Limit) * (1 + float64(r.MaxWait)/float64(r.Per))
		is(each <= maxLogged, "a sliding log keeps a time for each call, those that wait included: at most %d; a sliding counter has no such bound", maxLogged)
		is(r.By == ByLane || each*float64(r.settled().MaxKeys) <= maxLoggedTotal, "the logs of all keys keep at most %d times", maxLoggedTotal)
	}
	r.Answer.validate("the answer of rate limit "+strconv.Quote(r.Name), check)
}

func settledLimits(limits []RateLimit) []RateLimit {
	var all []RateLimit
	for _, r := range limits {
		all = append(all, r.settled())
	}
	return all
}

func (r RateLimit) settled() RateLimit {
	r.Limit = min(max(r.Limit, 1), maxCalls)
	if r.Algorithm == SlidingLog {
		r.Limit = min(r.Limit, maxLogged)
	}
	if r.Per = min(r.Per, maxPer); r.Per <= 0 {
		r.Per = time.Second
	}
	r.Per = max(r.Per, time.Duration(math.Ceil(float64(r.Limit)/maxRate*1e9)))
	if r.Burst = min(r.Burst, maxCalls); r.Burst <= 0 {
		r.Burst = r.Limit
		if r.Algorithm == LeakyBucket {
			r.Burst = 1
		}
	}
	r.MaxWait = min(max(r.MaxWait, 0), maxPer)
	r.Header = strings.ToLower(r.Header)
	if r.MaxKeys = min(r.MaxKeys, maxLimitKeys); r.MaxKeys <= 0 {
		r.MaxKeys = defaultKeys
	}
	return r
}

// String is the limit as errors say it. It never tells a header's value, which may be a secret.
func (r *RateLimit) String() string {
	text := strconv.Itoa(r.Limit) + " calls"
	if r.Limit == 1 {
		text = "1 call"
	}
	text += " per " + r.Per.String()
	switch r.By {
	case ByCaller, ByOperation:
		text += " of each " + string(r.By)
	case ByHeader:
		text += " with the same value of header " + r.Header
	}
	if r.Global {
		text += ", over all sidecars,"
	}
	return text
}

// maxKeptKey is the longest key that is kept as it is.
const maxKeptKey = 64

// key is what a limit is kept for: who has none shares the empty key. A long one is condensed, for callers choose paths and
// header values of many KiB; what it becomes is longer than any that is kept as it is.
func (r *RateLimit) key(c *Call) string {
	key := r.keyOf(c)
	if len(key) > maxKeptKey {
		sum := sha256.Sum256([]byte(key))
		return "sha256:" + hex.EncodeToString(sum[:])
	}
	return key
}

func (r *RateLimit) keyOf(c *Call) string {
	switch r.By {
	case ByCaller:
		return c.Caller
	case ByOperation:
		return c.Op
	}
	if c.Header == nil {
		return ""
	}
	return c.Header.Get(r.Header)
}

// measuresAs reports whether meters of r can go on under the rule o.
func (r RateLimit) measuresAs(o RateLimit) bool {
	return r.Algorithm == o.Algorithm && r.By == o.By && r.Header == o.Header
}

// turnover is how long until what was admitted so far is in no window with what comes then.
func (r RateLimit) turnover(at instant) int64 {
	if per := int64(r.Per); r.Algorithm == FixedWindow {
		return per - at.wall()%per
	}
	return int64(r.Per)
}

// paced is the pace of a share of the limit. Windows hold whole calls, rounded down, and at least one: where the share is
// less than that, its window is as many times longer.
func (r RateLimit) paced(share float64) pace {
	const exact = 1e-9 // of a share that was made of whole calls
	own := float64(r.Limit) * share
	if own <= 0 {
		return pace{}
	}
	p := pace{
		calls: int(own + exact), per: int64(r.Per), ahead: int64(r.MaxWait),
		rate:  own / r.Per.Seconds(),
		burst: max(int(float64(r.Burst)*share+exact), 1),
	}
	if p.calls == 0 {
		p.calls = 1
		p.per *= int64(min(math.Ceil(1/own-exact), float64(math.MaxInt64/4/p.per)))
	}
	return p
}

// isBucket reports whether calls are measured by a bucket, and not by counting them in windows.
func (r RateLimit) isBucket() bool { return r.Algorithm == TokenBucket || r.Algorithm == LeakyBucket }
