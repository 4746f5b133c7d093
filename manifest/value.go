package manifest

import (
	"errors"
	"math"
	"strconv"
	"strings"
	"time"
)

// FoldKey is the form in which keys are compared.
func FoldKey(key string) string { return strings.ToLower(key) }

// ParseBool reads the spellings of yes and no that Dapr's components take.
func ParseBool(text string) (bool, error) {
	switch strings.ToLower(strings.TrimSpace(text)) {
	case "true", "t", "1", "yes", "y", "on":
		return true, nil
	case "false", "f", "0", "no", "n", "off":
		return false, nil
	}
	return false, errors.New("is neither true nor false")
}

// ParseDuration reads Go syntax, and plain numbers as seconds, as Dapr does.
func ParseDuration(s string) (time.Duration, error) {
	s = strings.TrimSpace(s)
	if d, err := time.ParseDuration(s); err == nil {
		return d, nil
	}
	seconds, err := strconv.ParseFloat(s, 64)
	if err != nil || seconds != seconds || seconds > maxSeconds || seconds < -maxSeconds {
		return 0, errors.New("is not a duration: write a number with a unit, like 500ms, 30s or 1h30m, or a plain number of seconds")
	}
	return time.Duration(seconds * float64(time.Second)), nil
}

// maxSeconds keeps a number of seconds within a time.Duration.
const maxSeconds = float64(math.MaxInt64/int64(time.Second)) - 1

// ParseShare reads a part of a whole: a number from 0 to 1, or a percentage.
func ParseShare(s string) (float64, error) {
	number, percent := strings.CutSuffix(strings.TrimSpace(s), "%")
	share, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
	if percent {
		share /= 100
	}
	if err != nil || !(share >= 0 && share <= 1) {
		return 0, errors.New("is not a share: write a number from 0 to 1, like 0.25, or a percentage, like 25%")
	}
	return share, nil
}
