package quota

import (
	"cmp"
	"math"
	"slices"
)

// floorShare is what all members are sure of together, so that one who was idle can begin at once.
const floorShare = 0.05

// split divides a limit of so many calls among members that need so many each, and returns their shares, whose sum is at
// most 1. It is max-min fair (Bertsekas and Gallager, "Data Networks", 6.5.2): nobody gets less because another wants
// more, what one does not need goes to those who do, and what nobody needs is divided by need, as room to grow. All members
// must pass the needs in the same order.
func split(limit int, needs []float64, whole bool) []float64 {
	n := len(needs)
	shares := make([]float64, n)
	total := 0.0
	for _, need := range needs {
		total += need
	}
	if total == 0 {
		for i := range shares {
			shares[i] = 1 / float64(n)
		}
		return rounded(limit, shares, whole)
	}
	rest := 1 - floorShare
	for k, i := range ascending(needs) {
		shares[i] = min(needs[i]/float64(limit), rest/float64(n-k))
		rest -= shares[i]
	}
	for i, need := range needs {
		shares[i] += floorShare/float64(n) + max(rest, 0)*need/total
	}
	return rounded(limit, shares, whole)
}

// ascending is the indices of values, the smallest first.
func ascending(values []float64) []int {
	order := make([]int, len(values))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(values[a], values[b]) })
	return order
}

// rounded makes shares of one call and more whole calls, where only those are of use: what is cut off goes to those who
// lost most of a call. Lesser shares stay as they are.
func rounded(limit int, shares []float64, whole bool) []float64 {
	if !whole {
		return shares
	}
	const exact = 1e-9
	calls, left := make([]float64, len(shares)), float64(limit)
	lost := make([]float64, len(shares)) // negated, so that the greatest loss is first
	for i, share := range shares {
		calls[i] = share * float64(limit)
		if calls[i] >= 1-exact {
			own := math.Floor(calls[i] + exact)
			lost[i] = own - calls[i]
			calls[i] = own
		}
		left -= calls[i]
	}
	for _, i := range ascending(lost) {
		if left >= 1-exact && calls[i] >= 1 {
			calls[i]++
			left--
		}
	}
	for i := range shares {
		shares[i] = calls[i] / float64(limit)
	}
	return shares
}
