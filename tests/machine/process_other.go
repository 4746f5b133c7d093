//go:build !linux

package machine

import (
	"errors"
	"os/exec"
)

// tether does nothing: this system offers no way to end the process with this one.
func tether(*exec.Cmd) {}

// lock fails: this system offers no way to do it that needs no library.
func lock(string) (unlock func(), err error) { return nil, errors.ErrUnsupported }
