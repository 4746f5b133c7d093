//go:build unix

package pluggable

import (
	"io/fs"
	"os"
	"syscall"
)

// distrust says why others than root and the user that the sidecar runs as may have put something into the folder; "" when
// they may not.
func distrust(info fs.FileInfo) string {
	if s, ok := info.Sys().(*syscall.Stat_t); ok && s.Uid != 0 && int(s.Uid) != os.Geteuid() {
		return "belongs to another user"
	}
	if info.Mode().Perm()&0o022 != 0 {
		return "may be written to by others (chmod go-w)"
	}
	return ""
}
