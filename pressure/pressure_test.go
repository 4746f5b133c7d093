package pressure

import (
	"context"
	"errors"
	"maps"
	"testing"
	"testing/fstest"
	"time"
)

// place is a file system and a machine as a gauge sees them.
type place struct {
	files fstest.MapFS
	now   time.Time
	gauge *Gauge
}

func at(files map[string]string) *place {
	p := &place{files: fstest.MapFS{}, now: time.Unix(1000, 0)}
	p.write(files)
	constant := func(share float64) func(context.Context) (float64, error) {
		return func(context.Context) (float64, error) { return share, nil }
	}
	p.gauge = &Gauge{root: p.files, machine: machine{constant(0.3), constant(0.4)}, spent: map[string]sample{},
		clock: func() time.Time { return p.now }}
	return p
}

func (p *place) write(files map[string]string) {
	for name, body := range files {
		p.files[name] = &fstest.MapFile{Data: []byte(body)}
	}
}

func (p *place) want(t *testing.T, cpu, memory float64) {
	t.Helper()
	got, err := p.gauge.Read(t.Context())
	if err != nil || got.CPU < cpu-0.001 || got.CPU > cpu+0.001 || got.Memory < memory-0.001 || got.Memory > memory+0.001 {
		t.Errorf("%+v, %v; want CPU %v, memory %v", got, err, cpu, memory)
	}
}

const (
	v2Mounts = "24 1 0:21 / /proc rw - proc proc rw\n30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
	v1Mounts = "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n" +
		"35 31 0:32 /docker/abc /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
)

func TestV2(t *testing.T) {
	p := at(map[string]string{
		"proc/self/mountinfo":                     v2Mounts,
		"proc/self/cgroup":                        "0::/pods/a\n",
		"sys/fs/cgroup/pods/a/cpu.max":            "max 100000\n",
		"sys/fs/cgroup/pods/cpu.max":              "200000 100000\n",
		"sys/fs/cgroup/pods/cpu.stat":             "usage_usec 5000000\nuser_usec 1\n",
		"sys/fs/cgroup/pods/a/memory.max":         "1000\n",
		"sys/fs/cgroup/pods/a/memory.current":     "700\n",
		"sys/fs/cgroup/pods/a/memory.stat":        "anon 3\ninactive_file 200\nactive_file 9\n",
		"sys/fs/cgroup/pods/memory.max":           "max\n",
		"sys/fs/cgroup/pods/memory.current":       "999999\n",
		"sys/fs/cgroup/unrelated/memory.max":      "1\n",
		"sys/fs/cgroup/unrelated/memory.current":  "1\n",
		"sys/fs/cgroup/cgroup.controllers":        "cpu memory\n",
		"sys/fs/cgroup/pods/a/cgroup.controllers": "cpu memory\n",
	})
	p.want(t, 0, 0.5)
	// one second of CPU time in one second, of two that it may have
	p.now = p.now.Add(time.Second)
	p.write(map[string]string{"sys/fs/cgroup/pods/cpu.stat": "usage_usec 6000000\n", "sys/fs/cgroup/pods/a/memory.current": "1150\n"})
	p.want(t, 0.25, 0.95)
	p.now = p.now.Add(time.Second / 2)
	p.write(map[string]string{"sys/fs/cgroup/pods/cpu.stat": "usage_usec 7000000\n"})
	p.want(t, 0.625, 0.95)
	// the limit is taken away: the machine counts
	p.write(map[string]string{"sys/fs/cgroup/pods/cpu.max": "max 100000\n"})
	p.want(t, (0.625+0.3)/2, 0.95)
}

func TestV1(t *testing.T) {
	p := at(map[string]string{
		"proc/self/mountinfo": v1Mounts,
		"proc/self/cgroup":    "5:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n0::/\n",
		"sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_quota_us":  "50000\n",
		"sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_period_us": "100000\n",
		"sys/fs/cgroup/cpu,cpuacct/docker/abc/cpuacct.usage":     "1000000000\n",
		"sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us":             "-1\n",
		"sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us":            "100000\n",
		"sys/fs/cgroup/memory/memory.limit_in_bytes":             "2000\n",
		"sys/fs/cgroup/memory/memory.usage_in_bytes":             "1500\n",
		"sys/fs/cgroup/memory/memory.stat":                       "inactive_file 1\ntotal_inactive_file 300\n",
	})
	p.want(t, 0, 0.6)
	p.now = p.now.Add(time.Second)
	p.write(map[string]string{"sys/fs/cgroup/cpu,cpuacct/docker/abc/cpuacct.usage": "1400000000\n"})
	p.want(t, 0.4, 0.6)
	p.write(map[string]string{"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"})
	p.now = p.now.Add(time.Second)
	p.want(t, 0.2, 0.4)
}

// TestWithoutGroups: whatever cannot be understood limits nothing.
func TestWithoutGroups(t *testing.T) {
	for _, files := range []map[string]string{
		{},
		{"proc/self/mountinfo": v2Mounts, "proc/self/cgroup": "0::/gone\n"},
		{"proc/self/mountinfo": "x\n- - cgroup2\n", "proc/self/cgroup": "what is this\n"},
		{"proc/self/mountinfo": v2Mounts, "sys/fs/cgroup/cpu.max": "a b\n", "sys/fs/cgroup/memory.max": "-5\n", "sys/fs/cgroup/memory.current": "x\n"},
		{"proc/self/mountinfo": v2Mounts, "sys/fs/cgroup/cpu.max": "100000 100000\n"}, // no usage
	} {
		p := at(maps.Clone(files))
		p.want(t, 0.15, 0.4)
	}
}

func TestMachineThatCannotBeRead(t *testing.T) {
	p := at(nil)
	broken := errors.New("broken")
	p.gauge.machine.memory = func(context.Context) (float64, error) { return 0, broken }
	if _, err := p.gauge.Read(t.Context()); !errors.Is(err, broken) {
		t.Error(err)
	}
}

// TestHere: this machine can be read.
func TestHere(t *testing.T) {
	g := New()
	for range 2 {
		p, err := g.Read(t.Context())
		if err != nil || p.CPU < 0 || p.CPU > 1 || p.Memory <= 0 || p.Memory > 1.5 {
			t.Errorf("%+v, %v", p, err)
		}
	}
}
