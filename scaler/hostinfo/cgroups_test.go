package hostinfo

import (
	"strconv"
	"testing"
)

const (
	// What version 1 writes where there is no limit.
	noLimitV1 = "9223372036854771712\n"
	dockerV1  = "30 23 0:29 /docker/abc /sys/fs/cgroup/cpu,cpuacct ro,nosuid - cgroup cgroup rw,cpu,cpuacct\n" +
		"31 23 0:30 /docker/abc /sys/fs/cgroup/memory ro,nosuid master:15 - cgroup cgroup rw,memory\n"
)

func TestCPUQuota(t *testing.T) {
	for name, c := range map[string]struct {
		groups, mounts string
		files          map[string]string
		cores          float64
		by             string
	}{
		"version 2": {
			groups: "0::/\n",
			mounts: "31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
			files:  map[string]string{"sys/fs/cgroup/cpu.max": "150000 100000\n"},
			cores:  1.5, by: "/sys/fs/cgroup/cpu.max",
		},
		"version 2, no quota": {
			groups: "0::/a\n",
			mounts: "31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
			files:  map[string]string{"sys/fs/cgroup/a/cpu.max": "max 100000\n"},
			cores:  4, by: "processors",
		},
		"version 2, more than there is": {
			groups: "0::/a\n",
			mounts: "31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
			files:  map[string]string{"sys/fs/cgroup/a/cpu.max": "6400000 100000\n"},
			cores:  4, by: "processors",
		},
		"version 2, the one above is tighter": {
			groups: "0::/slice/unit/daemon\n",
			mounts: "31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
			files: map[string]string{
				"sys/fs/cgroup/slice/cpu.max":             "100000 100000\n",
				"sys/fs/cgroup/slice/unit/cpu.max":        "max 100000\n",
				"sys/fs/cgroup/slice/unit/daemon/cpu.max": "200000 100000\n",
				"sys/fs/cgroup/other/cpu.max":             "1000 100000\n",
			},
			cores: 1, by: "/sys/fs/cgroup/slice/cpu.max",
		},
		"version 2, the one below is tighter": {
			groups: "0::/slice/unit\n",
			mounts: "31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
			files: map[string]string{
				"sys/fs/cgroup/slice/cpu.max":      "100000 100000\n",
				"sys/fs/cgroup/slice/unit/cpu.max": "5000 50000\n",
			},
			cores: 0.1, by: "/sys/fs/cgroup/slice/unit/cpu.max",
		},
		"version 2, a part of it is mounted": {
			groups: "0::/kubepods/pod/box\n",
			mounts: "31 23 0:28 /kubepods/pod /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
			files: map[string]string{
				"sys/fs/cgroup/cpu.max":     "max 100000\n",
				"sys/fs/cgroup/box/cpu.max": "300000 100000\n",
			},
			cores: 3, by: "/sys/fs/cgroup/box/cpu.max",
		},
		"version 2, a place with a blank": {
			groups: "0::/a b\n",
			mounts: "31 23 0:28 / /mnt/c\\040d rw - cgroup2 cgroup2 rw\n",
			files:  map[string]string{"mnt/c d/a b/cpu.max": "200000 100000\n"},
			cores:  2, by: "/mnt/c d/a b/cpu.max",
		},
		"a namespace that the process has left": {
			groups: "0::/../other\n",
			mounts: "31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
			files:  map[string]string{"sys/fs/cgroup/cpu.max": "100000 100000\n"},
			cores:  4, by: "processors",
		},
		"mounted from outside of the namespace": {
			groups: "0::/a\n",
			mounts: "31 23 0:28 /../.. /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
			files:  map[string]string{"sys/fs/cgroup/cpu.max": "100000 100000\n", "sys/fs/cgroup/a/cpu.max": "1000 100000\n"},
			cores:  1, by: "/sys/fs/cgroup/cpu.max",
		},
		"a group that is not in what is mounted": {
			groups: "0::/b/c\n",
			mounts: "31 23 0:28 /a /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
			files:  map[string]string{"sys/fs/cgroup/cpu.max": "100000 100000\n"},
			cores:  4, by: "processors",
		},
		"version 1": {
			groups: "3:cpu,cpuacct:/docker/abc\n2:memory:/docker/abc\n",
			mounts: dockerV1,
			files:  map[string]string{"sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "50000\n", "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n"},
			cores:  0.5, by: "/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us",
		},
		"version 1, no quota": {
			groups: "3:cpu,cpuacct:/docker/abc\n",
			mounts: dockerV1,
			files:  map[string]string{"sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1\n", "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n"},
			cores:  4, by: "processors",
		},
		"version 1, the one above is tighter": {
			groups: "3:cpu,cpuacct:/docker/abc/def\n",
			mounts: dockerV1,
			files: map[string]string{
				"sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "100000\n", "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
				"sys/fs/cgroup/cpu,cpuacct/def/cpu.cfs_quota_us": "20000\n", "sys/fs/cgroup/cpu,cpuacct/def/cpu.cfs_period_us": "10000\n",
			},
			cores: 1, by: "/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us",
		},
		"both, the quota in version 1": {
			groups: "1:cpu:/a\n0::/b\n",
			mounts: "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
			files: map[string]string{
				"sys/fs/cgroup/cpu/a/cpu.cfs_quota_us": "250000\n", "sys/fs/cgroup/cpu/a/cpu.cfs_period_us": "100000\n",
				"sys/fs/cgroup/unified/b/cgroup.procs": "1\n",
			},
			cores: 2.5, by: "/sys/fs/cgroup/cpu/a/cpu.cfs_quota_us",
		},
		"both, a quota in each": {
			groups: "1:cpu:/a\n0::/b\n",
			mounts: "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
			files: map[string]string{
				"sys/fs/cgroup/cpu/a/cpu.cfs_quota_us": "250000\n", "sys/fs/cgroup/cpu/a/cpu.cfs_period_us": "100000\n",
				"sys/fs/cgroup/unified/b/cpu.max": "50000 100000\n",
			},
			cores: 0.5, by: "/sys/fs/cgroup/unified/b/cpu.max",
		},
	} {
		t.Run(name, func(t *testing.T) {
			tr := newTree(t)
			tr.write("proc/self/cgroup", c.groups)
			tr.write("proc/self/mountinfo", c.mounts)
			for file, text := range c.files {
				tr.write(file, text)
			}
			if m := tr.look(tr.reader()); m.Cores != c.cores || m.CoresBy != c.by {
				t.Errorf("got %v cores by %s, want %v by %s", m.Cores, m.CoresBy, c.cores, c.by)
			}
		})
	}
}

func TestMemoryLimit(t *testing.T) {
	const mib = 1 << 20
	bytes := func(n int) string { return strconv.Itoa(n) + "\n" }
	v2 := "31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
	for name, c := range map[string]struct {
		groups, mounts   string
		files            map[string]string
		limit, available uint64
		by               string
	}{
		"version 2": {
			groups: "0::/a\n", mounts: v2,
			files: map[string]string{
				"sys/fs/cgroup/a/memory.max": bytes(512 * mib), "sys/fs/cgroup/a/memory.high": "max\n",
				"sys/fs/cgroup/a/memory.current": bytes(200 * mib),
				"sys/fs/cgroup/a/memory.stat":    "anon 1\ninactive_file " + bytes(50*mib),
			},
			limit: 512 * mib, available: 362 * mib, by: "/sys/fs/cgroup/a/memory.max",
		},
		"version 2, no limit": {
			groups: "0::/a\n", mounts: v2,
			files: map[string]string{"sys/fs/cgroup/a/memory.max": "max\n", "sys/fs/cgroup/a/memory.current": bytes(200 * mib)},
			limit: 8 * gib, available: 4 * gib, by: "memory",
		},
		"version 2, slowed down before the limit": {
			groups: "0::/a\n", mounts: v2,
			files: map[string]string{
				"sys/fs/cgroup/a/memory.max": bytes(512 * mib), "sys/fs/cgroup/a/memory.high": bytes(400 * mib),
				"sys/fs/cgroup/a/memory.current": bytes(100 * mib),
			},
			limit: 400 * mib, available: 300 * mib, by: "/sys/fs/cgroup/a/memory.high",
		},
		"version 2, full": {
			groups: "0::/a\n", mounts: v2,
			files: map[string]string{"sys/fs/cgroup/a/memory.max": bytes(512 * mib), "sys/fs/cgroup/a/memory.current": bytes(513 * mib)},
			limit: 512 * mib, available: 0, by: "/sys/fs/cgroup/a/memory.max",
		},
		// The least limit is not where the least is left.
		"version 2, nested": {
			groups: "0::/a/b\n", mounts: v2,
			files: map[string]string{
				"sys/fs/cgroup/a/memory.max": bytes(512 * mib), "sys/fs/cgroup/a/memory.current": bytes(500 * mib),
				"sys/fs/cgroup/a/b/memory.max": bytes(256 * mib), "sys/fs/cgroup/a/b/memory.current": bytes(100 * mib),
			},
			limit: 256 * mib, available: 12 * mib, by: "/sys/fs/cgroup/a/b/memory.max",
		},
		"version 2, more than there is": {
			groups: "0::/a\n", mounts: v2,
			files: map[string]string{"sys/fs/cgroup/a/memory.max": bytes(64 * gib), "sys/fs/cgroup/a/memory.current": bytes(200 * mib)},
			limit: 8 * gib, available: 4 * gib, by: "memory",
		},
		"version 1": {
			groups: "2:memory:/docker/abc\n", mounts: dockerV1,
			files: map[string]string{
				"sys/fs/cgroup/memory/memory.limit_in_bytes": bytes(gib), "sys/fs/cgroup/memory/memory.usage_in_bytes": bytes(300 * mib),
				"sys/fs/cgroup/memory/memory.stat": "inactive_file 1\ntotal_inactive_file " + bytes(100*mib),
			},
			limit: gib, available: 824 * mib, by: "/sys/fs/cgroup/memory/memory.limit_in_bytes",
		},
		"version 1, no limit": {
			groups: "2:memory:/docker/abc\n", mounts: dockerV1,
			files: map[string]string{"sys/fs/cgroup/memory/memory.limit_in_bytes": noLimitV1, "sys/fs/cgroup/memory/memory.usage_in_bytes": bytes(300 * mib)},
			limit: 8 * gib, available: 4 * gib, by: "memory",
		},
	} {
		t.Run(name, func(t *testing.T) {
			tr := newTree(t)
			tr.write("proc/self/cgroup", c.groups)
			tr.write("proc/self/mountinfo", c.mounts)
			for file, text := range c.files {
				tr.write(file, text)
			}
			m := tr.look(tr.reader())
			if m.MemoryLimit != c.limit || m.MemoryAvailable != c.available || m.MemoryBy != c.by {
				t.Errorf("got %d by %s, %d available; want %d by %s, %d available",
					m.MemoryLimit, m.MemoryBy, m.MemoryAvailable, c.limit, c.by, c.available)
			}
		})
	}
}

func TestLimitsThatChangeAreNoticed(t *testing.T) {
	tr := newTree(t)
	tr.unified("/a")
	r := tr.reader()
	want := func(cores float64, limit uint64) {
		t.Helper()
		if m := tr.look(r); m.Cores != cores || m.MemoryLimit != limit {
			t.Errorf("got %v cores, %d bytes; want %v, %d", m.Cores, m.MemoryLimit, cores, limit)
		}
	}
	want(4, 8*gib)
	// The controllers come to a group.
	tr.write("sys/fs/cgroup/a/cpu.max", "200000 100000\n")
	tr.write("sys/fs/cgroup/a/memory.max", "1073741824\n")
	tr.write("sys/fs/cgroup/a/memory.current", "4096\n")
	want(2, gib)
	tr.write("sys/fs/cgroup/a/cpu.max", "100000 100000\n")
	want(1, gib)
	tr.write("sys/fs/cgroup/a/memory.max", "max\n")
	want(1, 8*gib)
	// The process is moved.
	tr.write("sys/fs/cgroup/b/cpu.max", "300000 100000\n")
	tr.unified("/b")
	want(3, 8*gib)
	r.affinity = all(2)
	want(2, 8*gib)
	// The group is removed.
	r.affinity = all(4)
	tr.remove("sys/fs/cgroup/b")
	want(4, 8*gib)
	// The groups are gone.
	tr.remove("proc/self/cgroup")
	want(4, 8*gib)
}
