//go:build unix

package rundir

import (
	"os"
	"os/user"
	"strconv"
	"syscall"
)

// ownHome is the home that the system's list of users names for this one, or "" when it is not this user's own: many
// services have a home that is not theirs to write to.
func ownHome() string {
	me, err := user.LookupId(strconv.Itoa(os.Getuid()))
	if err != nil {
		return ""
	}
	info, err := os.Stat(me.HomeDir)
	if err != nil || !info.IsDir() {
		return ""
	}
	if owner, ok := info.Sys().(*syscall.Stat_t); !ok || int(owner.Uid) != os.Getuid() {
		return ""
	}
	return me.HomeDir
}
