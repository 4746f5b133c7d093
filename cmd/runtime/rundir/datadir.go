package rundir

import (
	"os"
	"path/filepath"
	"runtime"
	"strconv"
)

// DefaultDataDir is the directory that holds this user's data when no flag names one: $SIDECAST_DATA_DIR, else the
// operating system's place for the state of programs ($XDG_STATE_HOME/sidecast or ~/.local/state/sidecast,
// ~/Library/Application Support/sidecast, %LocalAppData%\sidecast), else, for a user without a home, a folder of its own
// under the temporary directory. It is not created here, and the answer is never empty.
func DefaultDataDir() string {
	if dir := os.Getenv("SIDECAST_DATA_DIR"); dir != "" {
		return dir
	}
	if dir := stateHome(); dir != "" {
		return filepath.Join(dir, "sidecast")
	}
	user := strconv.Itoa(os.Getuid())
	if name := os.Getenv("USERNAME"); runtime.GOOS == "windows" && name != "" {
		user = name
	}
	return filepath.Join(os.TempDir(), "sidecast-"+user)
}

// stateHome is the folder for the state of this user's programs, or "" when the user has none.
func stateHome() string {
	if runtime.GOOS == "windows" {
		return existing(os.Getenv("LocalAppData"))
	}
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return dir
	}
	home := existing(os.Getenv("HOME"))
	if home == "" { // a program with an empty environment belongs to the same machine as one without
		home = ownHome()
	}
	switch {
	case home == "":
		return ""
	case runtime.GOOS == "darwin":
		return filepath.Join(home, "Library", "Application Support")
	default:
		return filepath.Join(home, ".local", "state")
	}
}

// existing is dir when it is a directory: accounts without a home often name one that does not exist.
func existing(dir string) string {
	if info, err := os.Stat(dir); dir == "" || err != nil || !info.IsDir() {
		return ""
	}
	return dir
}
