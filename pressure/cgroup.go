package pressure

import (
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

// groups are the control groups that hold this process, by what they may limit: its own and those above it, as far as they
// can be seen (man 7 cgroups; kernel documentation, "Control Group v2").
type groups struct {
	cpu    []cpuLevel
	memory []memoryLevel
}

type cpuLevel struct {
	dir   string // of limits
	usage string // file
	v2    bool
}

type memoryLevel struct {
	dir string
	v2  bool
}

// unlimited is what v1 writes for no limit, rounded down to pages of any size.
const unlimited = 1 << 60

// findGroups reads where they are. Whatever it does not understand limits nothing.
func findGroups(root fs.FS) *groups {
	mounts, own := readMounts(root), readOwn(root)
	g := new(groups)
	accounting, _ := levels(mounts, own, "cpuacct")
	dirs, v2 := levels(mounts, own, "cpu")
	for i, dir := range dirs {
		level := cpuLevel{dir: dir, usage: path.Join(dir, "cpu.stat"), v2: v2}
		if !v2 {
			if i >= len(accounting) {
				break
			}
			level.usage = path.Join(accounting[i], "cpuacct.usage")
		}
		g.cpu = append(g.cpu, level)
	}
	dirs, v2 = levels(mounts, own, "memory")
	for _, dir := range dirs {
		g.memory = append(g.memory, memoryLevel{dir, v2})
	}
	return g
}

// cores is how many CPUs' time the group may use.
func (l cpuLevel) cores(root fs.FS) (float64, bool) {
	quota, period := "", ""
	if l.v2 {
		quota, period, _ = strings.Cut(readWord(root, path.Join(l.dir, "cpu.max")), " ")
	} else {
		quota, period = readWord(root, path.Join(l.dir, "cpu.cfs_quota_us")), readWord(root, path.Join(l.dir, "cpu.cfs_period_us"))
	}
	q, errQ := strconv.ParseFloat(quota, 64) // `max` in v2 and -1 in v1 are no limit
	p, errP := strconv.ParseFloat(period, 64)
	return q / p, errQ == nil && errP == nil && q > 0 && p > 0
}

// used is the CPU time that the group has spent, in nanoseconds.
func (l cpuLevel) used(root fs.FS) (float64, bool) {
	if l.v2 {
		n, ok := readField(root, l.usage, "usage_usec")
		return n * 1000, ok
	}
	n, err := strconv.ParseFloat(readWord(root, l.usage), 64)
	return n, err == nil
}

// memoryShare is the share of its limit that the most pressed group uses.
func (g *groups) memoryShare(root fs.FS) (share float64, limited bool) {
	for _, level := range g.memory {
		files := [3]string{"memory.max", "memory.current", "inactive_file"}
		if !level.v2 {
			files = [3]string{"memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"}
		}
		limit, errLimit := strconv.ParseFloat(readWord(root, path.Join(level.dir, files[0])), 64)
		used, errUsed := strconv.ParseFloat(readWord(root, path.Join(level.dir, files[1])), 64)
		if errLimit != nil || errUsed != nil || limit <= 0 || limit >= unlimited {
			continue
		}
		idle, _ := readField(root, path.Join(level.dir, "memory.stat"), files[2])
		share, limited = max(share, (used-idle)/limit), true
	}
	return share, limited
}

// mount is one hierarchy as it is mounted: the group root is seen at dir.
type mount struct {
	dir, root   string
	v2          bool
	controllers []string // of v1
}

// readMounts reads the hierarchies from mountinfo (man 5 proc_pid_mountinfo).
func readMounts(root fs.FS) (mounts []mount) {
	for line := range strings.Lines(readWord(root, "proc/self/mountinfo")) {
		before, after, ok := strings.Cut(line, " - ")
		front, back := strings.Fields(before), strings.Fields(after)
		if !ok || len(front) < 5 || len(back) < 3 {
			continue
		}
		switch back[0] {
		case "cgroup2":
			mounts = append(mounts, mount{dir: front[4], root: front[3], v2: true})
		case "cgroup":
			mounts = append(mounts, mount{dir: front[4], root: front[3], controllers: strings.Split(back[2], ",")})
		}
	}
	return mounts
}

// readOwn reads the group of this process by controller; that of v2 is under "".
func readOwn(root fs.FS) map[string]string {
	own := make(map[string]string)
	for line := range strings.Lines(readWord(root, "proc/self/cgroup")) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(fields) != 3 {
			continue
		}
		for _, controller := range strings.Split(fields[1], ",") {
			own[controller] = fields[2]
		}
	}
	return own
}

// levels are the directories of the groups that may limit what a controller governs, this process's own first. A controller
// that no v1 hierarchy has is one of v2.
func levels(mounts []mount, own map[string]string, controller string) (dirs []string, v2 bool) {
	at := slices.IndexFunc(mounts, func(m mount) bool { return slices.Contains(m.controllers, controller) })
	group, isV1 := own[controller]
	if at < 0 || !isV1 {
		at, group, v2 = slices.IndexFunc(mounts, func(m mount) bool { return m.v2 }), own[""], true
	}
	if at < 0 {
		return nil, v2
	}
	m := mounts[at]
	below, inside := strings.CutPrefix(path.Clean("/"+group), strings.TrimSuffix(path.Clean(m.root), "/"))
	if !inside { // a container that sees only its own group, under another name
		below = "/"
	}
	for rel := path.Clean("/" + below); ; rel = path.Dir(rel) {
		dirs = append(dirs, strings.TrimPrefix(path.Join(m.dir, rel), "/"))
		if rel == "/" {
			return dirs, v2
		}
	}
}

// readWord is what a small file says, or "".
func readWord(root fs.FS, name string) string {
	body, err := fs.ReadFile(root, name)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(body))
}

// readField is a number of a file of lines `name number`.
func readField(root fs.FS, name, field string) (float64, bool) {
	for line := range strings.Lines(readWord(root, name)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if key == field {
			n, err := strconv.ParseFloat(value, 64)
			return n, err == nil
		}
	}
	return 0, false
}
