package components

import (
	"errors"
	"math"
	"strconv"
	"strings"

	"github.com/dustin/go-humanize"
)

// Bytes is a size in a Config. It accepts a plain number of bytes, and numbers with a unit: 64KiB, 8MiB, 1GB, 1.5 GiB.
type Bytes int64

// String is the size with the largest unit that divides it: 8MiB, 1000B.
func (b Bytes) String() string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"}
	n, unit := int64(b), 0
	for n != 0 && n%1024 == 0 && unit < len(units)-1 {
		n, unit = n/1024, unit+1
	}
	return strconv.FormatInt(n, 10) + units[unit]
}

// ParseBytes reads a size as a manifest may write it. Sizes are never negative.
func ParseBytes(s string) (Bytes, error) {
	n, err := humanize.ParseBytes(strings.TrimSpace(s))
	if err != nil || n > math.MaxInt64 {
		return 0, errors.New("is not a size: write a number of bytes or a number with a unit, like 8MiB or 1GB")
	}
	return Bytes(n), nil
}
