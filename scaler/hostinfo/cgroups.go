package hostinfo

import (
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// group is a cgroup that limits this process: its own, or a visible one above it.
type group struct {
	dir string // from the root
	v2  bool
}

// findGroups finds the groups of this process, if they have changed.
func (r *Reader) findGroups() error {
	text, err := r.readFile("proc/self/cgroup")
	if err != nil && !isAbsent(err) {
		return err
	}
	if text == r.groups {
		return nil
	}
	r.cpu, r.memory = nil, nil
	mounts, err := r.proc.GetMounts()
	if err != nil {
		return fmt.Errorf("%s: %w", r.path("proc/self/mountinfo"), err)
	}
	for _, m := range mounts {
		root, point := unescape.Replace(m.Root), unescape.Replace(m.MountPoint)
		switch m.FSType {
		case "cgroup2":
			own := groupsAbove(root, point, groupOf(text, ""), true)
			r.cpu, r.memory = append(r.cpu, own...), append(r.memory, own...)
		case "cgroup":
			if _, found := m.SuperOptions["cpu"]; found {
				r.cpu = append(r.cpu, groupsAbove(root, point, groupOf(text, "cpu"), false)...)
			}
			if _, found := m.SuperOptions["memory"]; found {
				r.memory = append(r.memory, groupsAbove(root, point, groupOf(text, "memory"), false)...)
			}
		}
	}
	r.groups = text
	return nil
}

// unescape decodes the characters that the kernel escapes in mountinfo.
var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

// groupOf returns this process's group in the hierarchy of a controller; the name is empty for
// version 2. It returns "" if there is none.
func groupOf(groups, controller string) string {
	for line := range strings.Lines(groups) {
		parts := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(parts) == 3 && slices.Contains(strings.Split(parts[1], ","), controller) {
			return parts[2]
		}
	}
	return ""
}

// groupsAbove returns a group and those above it that the mount shows. A group that is not below the
// mounted one, such as in a namespace that the process has left, is not visible.
func groupsAbove(root, point, own string, v2 bool) (groups []group) {
	if own == "" || isOutside(own) {
		return nil
	}
	if isOutside(root) { // mounted from outside of the namespace: the groups between are unknown
		return []group{{point, v2}}
	}
	rel, err := filepath.Rel(root, own)
	if err != nil || isOutside("/"+rel) {
		return nil
	}
	for ; rel != "."; rel = filepath.Dir(rel) {
		groups = append(groups, group{filepath.Join(point, rel), v2})
	}
	return append(groups, group{point, v2})
}

// isOutside reports whether a group is not below the root of the namespace.
func isOutside(path string) bool { return path == "/.." || strings.HasPrefix(path, "/../") }

// lookAtCPU lowers Cores to the lowest quota, and adds up for how long quotas withheld CPUs.
func (r *Reader) lookAtCPU(m *Machine) error {
	var errs []error
	for _, g := range r.cpu {
		file, read := "cpu.cfs_quota_us", r.quotaV1
		if g.v2 {
			file, read = "cpu.max", r.quotaV2
		}
		file = filepath.Join(g.dir, file)
		cores, err := read(g.dir)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", r.path(file), err))
		} else if cores < m.Cores {
			m.Cores, m.CoresBy = cores, file
		}
		throttled, err := r.throttledTime(g)
		if err != nil {
			errs = append(errs, err)
		}
		m.Throttled += throttled
	}
	return errors.Join(errs...)
}

// throttledTime returns for how long a quota has withheld CPUs from a group.
func (r *Reader) throttledTime(g group) (time.Duration, error) {
	name, unit := "throttled_time", time.Nanosecond
	if g.v2 {
		name, unit = "throttled_usec", time.Microsecond
	}
	file := filepath.Join(g.dir, "cpu.stat")
	text, err := r.readFile(file)
	if err != nil {
		_, err = noLimit(err)
		return 0, err
	}
	if !strings.Contains(text, name) { // a group without the controller, or the root
		return 0, nil
	}
	n, err := numberAfter(text, name)
	if err != nil || n > math.MaxInt64/uint64(unit) {
		return 0, fmt.Errorf("%s: the time after %s is not a number", r.path(file), name)
	}
	return time.Duration(n) * unit, nil
}

// quotaV2 reads "50000 100000": a quota in µs per period in µs; "max" is not a quota.
func (r *Reader) quotaV2(dir string) (cores float64, err error) {
	text, err := r.readFile(filepath.Join(dir, "cpu.max"))
	if err != nil {
		return noLimit(err)
	}
	quota, period, _ := strings.Cut(strings.TrimSpace(text), " ")
	if quota == "max" {
		return math.Inf(1), nil
	}
	return quotaCores(quota, period)
}

func (r *Reader) quotaV1(dir string) (cores float64, err error) {
	quota, err := r.readFile(filepath.Join(dir, "cpu.cfs_quota_us"))
	if err != nil {
		return noLimit(err)
	}
	if quota = strings.TrimSpace(quota); quota == "-1" {
		return math.Inf(1), nil
	}
	period, err := r.readFile(filepath.Join(dir, "cpu.cfs_period_us"))
	if err != nil {
		return noLimit(err)
	}
	return quotaCores(quota, strings.TrimSpace(period))
}

func noLimit(err error) (float64, error) {
	if isAbsent(err) {
		err = nil
	}
	return math.Inf(1), err
}

func quotaCores(quota, period string) (cores float64, err error) {
	q, err := strconv.ParseUint(quota, 10, 63)
	p, err2 := strconv.ParseUint(period, 10, 63)
	if err != nil || err2 != nil || q == 0 || p == 0 {
		return 0, fmt.Errorf("%q of %q µs is not a quota", quota, period)
	}
	return float64(q) / float64(p), nil
}

// lookAtMemory reads the machine's memory, and lowers it to the lowest limit.
func (r *Reader) lookAtMemory(m *Machine) error {
	total, available, err := r.readMeminfo()
	errs := []error{err}
	limit, by := total, "memory"
	for _, g := range r.memory {
		files := []string{"memory.limit_in_bytes"}
		if g.v2 {
			files = []string{"memory.max", "memory.high"} // above high the kernel slows processes down heavily
		}
		limited := uint64(math.MaxUint64)
		for _, name := range files {
			name = filepath.Join(g.dir, name)
			n, err := r.readLimit(name)
			if err != nil {
				errs = append(errs, err)
			}
			limited = min(limited, n)
			if n < limit {
				limit, by = n, name
			}
		}
		if limited < total { // version 1 represents "no limit" as a large number
			used, err := r.usedMemory(g)
			if err != nil {
				errs = append(errs, err)
			} else {
				available = min(available, limited-min(used, limited))
			}
		}
	}
	if total > 0 {
		m.MemoryLimit, m.MemoryBy, m.MemoryAvailable = limit, by, available
	}
	return errors.Join(errs...)
}

// readMeminfo returns the machine's total and available memory, in bytes.
func (r *Reader) readMeminfo() (total, available uint64, err error) {
	text, err := r.readFile("proc/meminfo")
	if err != nil {
		return 0, 0, err
	}
	total, err = numberAfter(text, "MemTotal:")
	if err == nil {
		available, err = numberAfter(text, "MemAvailable:")
	}
	if err != nil {
		return 0, 0, fmt.Errorf("%s: %w", r.path("proc/meminfo"), err)
	}
	return total * 1024, available * 1024, nil
}

// numberAfter returns the number after a name at the start of a line.
func numberAfter(text, name string) (uint64, error) {
	for line := range strings.Lines(text) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == name {
			return strconv.ParseUint(fields[1], 10, 64)
		}
	}
	return 0, fmt.Errorf("there is no %s", strings.TrimSuffix(name, ":"))
}

// readLimit returns a limit in bytes; math.MaxUint64 is none.
func (r *Reader) readLimit(name string) (uint64, error) {
	text, err := r.readFile(name)
	if err != nil {
		_, err = noLimit(err)
		return math.MaxUint64, err
	}
	if text = strings.TrimSpace(text); text == "max" {
		return math.MaxUint64, nil
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return math.MaxUint64, fmt.Errorf("%s: %q is not a limit", r.path(name), text)
	}
	return n, nil
}

// usedMemory returns the memory in use by a group, in bytes, without inactive file caches, which the
// kernel reclaims first and at no cost.
func (r *Reader) usedMemory(g group) (uint64, error) {
	file, cache := "memory.usage_in_bytes", "total_inactive_file"
	if g.v2 {
		file, cache = "memory.current", "inactive_file"
	}
	file = filepath.Join(g.dir, file)
	text, err := r.readFile(file)
	if err != nil {
		return 0, err
	}
	used, err := strconv.ParseUint(strings.TrimSpace(text), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s: %q is not a number of bytes", r.path(file), strings.TrimSpace(text))
	}
	text, err = r.readFile(filepath.Join(g.dir, "memory.stat"))
	if err != nil {
		return used, nil
	}
	cached, err := numberAfter(text, cache)
	if err != nil {
		return used, nil
	}
	return used - min(used, cached), nil
}
