package sandbox

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// delegateAdvice is the advice if no cgroup is delegated to the daemon.
const delegateAdvice = "run drover under systemd with Delegate=cpu memory pids (to try it: systemd-run -t -p Delegate=yes drover ...), or in a container whose cgroups it may write"

// neededController is a limit that requires a cgroup controller.
type neededController struct{ key, controller string }

// neededControllers returns the controllers that the limits require.
func (l Limits) neededControllers() (out []neededController) {
	if l.Memory > 0 {
		out = append(out, neededController{"memory", "memory"})
	}
	if l.CPU > 0 {
		out = append(out, neededController{"cpu", "cpu"})
	}
	if l.Processes > 0 {
		out = append(out, neededController{"processes", "pids"})
	}
	return out
}

// cgroups are the groups of one app, one in each required hierarchy. The groups of its workers are
// below them.
type cgroups struct {
	claims []*claim
	v2     []bool // for each claim: whether it is in version 2
}

// openCgroups creates the groups of an app, and enables the controllers for the groups below.
func openCgroups(where *membership, needs []neededController) (c *cgroups, err error) {
	c = new(cgroups)
	defer func() {
		if err != nil {
			err = errors.Join(err, c.close())
		}
	}()
	unified := make(map[string]string) // directories of version 2, and the controllers to enable
	var dirs []string
	for _, n := range needs {
		home, err := where.findController(n.controller)
		if err != nil {
			return c, err
		}
		if _, known := unified[home.dir]; !known {
			dirs = append(dirs, home.dir)
		}
		if home.v2 {
			unified[home.dir] += " +" + n.controller
		} else {
			unified[home.dir] = ""
		}
	}
	for _, dir := range dirs {
		controllers := strings.TrimSpace(unified[dir])
		if controllers != "" {
			if err := delegateControllers(dir, controllers); err != nil {
				return c, err
			}
		}
		own, err := newClaim(dir, removeCgroup)
		if err != nil {
			return c, fmt.Errorf("making a cgroup: %w", err)
		}
		c.claims, c.v2 = append(c.claims, own), append(c.v2, controllers != "")
		if controllers != "" {
			if err := writeSetting(own.dir, "cgroup.subtree_control", controllers); err != nil {
				return c, err
			}
		}
	}
	return c, nil
}

// writeSetting writes a setting of a cgroup.
func writeSetting(dir, file, value string) error {
	if err := os.WriteFile(filepath.Join(dir, file), []byte(value), 0o600); err != nil {
		return fmt.Errorf("setting up a cgroup: %s: %w", value, err)
	}
	return nil
}

// delegateControllers enables controllers for the groups below a directory of version 2.
func delegateControllers(dir, controllers string) error {
	have, err := os.ReadFile(filepath.Join(dir, "cgroup.subtree_control"))
	if err != nil {
		return fmt.Errorf("setting up a cgroup: %w", err)
	}
	given := strings.Fields(string(have))
	missing := false
	for _, c := range strings.Fields(controllers) {
		found := false
		for _, g := range given {
			found = found || "+"+g == c
		}
		missing = missing || !found
	}
	if !missing {
		return nil
	}
	if _, err := os.Stat(filepath.Join(dir, "cgroup.type")); err == nil { // the root lacks it, and may have processes
		if err := moveAll(dir, filepath.Join(dir, daemonGroup)); err != nil {
			return err
		}
	}
	return writeSetting(dir, "cgroup.subtree_control", controllers)
}

// moveAll moves the processes of one group to another, including those that arrive meanwhile.
func moveAll(from, to string) error {
	if err := os.Mkdir(to, 0o750); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("making a cgroup: %w", err)
	}
	for range 100 {
		pids, err := pidsOf(from)
		if err != nil {
			return err
		}
		if len(pids) == 0 {
			return nil
		}
		for _, pid := range pids {
			if err := writeSetting(to, "cgroup.procs", strconv.Itoa(pid)); err != nil && !errors.Is(err, syscall.ESRCH) {
				return err
			}
		}
	}
	return fmt.Errorf("setting up a cgroup: ever new processes come to %s", from)
}

func pidsOf(dir string) (pids []int, err error) {
	text, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if err != nil {
		return nil, fmt.Errorf("reading a cgroup: %w", err)
	}
	for _, word := range strings.Fields(string(text)) {
		if pid, err := strconv.Atoi(word); err == nil && pid > 0 {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// makeGroups creates the groups of a worker. It returns their directories, and the files through
// which a process joins them.
func (c *cgroups) makeGroups(name string, l Limits) (dirs, join []string, err error) {
	for i, claim := range c.claims {
		dir := filepath.Join(claim.dir, name)
		if err := os.Mkdir(dir, 0o750); err != nil {
			return dirs, nil, fmt.Errorf("making a cgroup: %w", err)
		}
		dirs, join = append(dirs, dir), append(join, filepath.Join(dir, "cgroup.procs"))
		set := l.setV1
		if c.v2[i] {
			set = l.setV2
		}
		if err := set(dir); err != nil {
			return dirs, nil, err
		}
	}
	return dirs, join, nil
}

// close removes the groups, and kills remaining processes.
func (c *cgroups) close() error {
	var errs []error
	for _, claim := range c.claims {
		errs = append(errs, claim.release(removeCgroup))
	}
	return errors.Join(errs...)
}

// period is the period of the CPU quota, in µs: the kernel's default.
const period = 100_000

func cpuQuota(cores float64) int64 { return max(int64(cores*period), 1000) } // the kernel's minimum

// setV2 sets the limits in a directory of version 2. The memory limit includes swap, because it
// could otherwise be escaped, and it kills all processes of a worker together.
func (l Limits) setV2(dir string) error {
	var errs []error
	if l.Memory > 0 {
		errs = append(errs, writeSetting(dir, "memory.max", strconv.FormatInt(l.Memory, 10)), writeSetting(dir, "memory.oom.group", "1"))
		if _, err := os.Stat(filepath.Join(dir, "memory.swap.max")); err == nil { // the kernel may not count swap
			errs = append(errs, writeSetting(dir, "memory.swap.max", "0"))
		}
	}
	if l.CPU > 0 {
		errs = append(errs, writeSetting(dir, "cpu.max", fmt.Sprintf("%d %d", cpuQuota(l.CPU), period)))
	}
	if l.Processes > 0 {
		errs = append(errs, writeSetting(dir, "pids.max", strconv.Itoa(l.Processes)))
	}
	return errors.Join(errs...)
}

// setV1 sets the limits of the controllers in a directory of version 1.
func (l Limits) setV1(dir string) error {
	here := func(file string) bool {
		_, err := os.Stat(filepath.Join(dir, file))
		return err == nil
	}
	var errs []error
	if l.Memory > 0 && here("memory.limit_in_bytes") {
		errs = append(errs, writeSetting(dir, "memory.limit_in_bytes", strconv.FormatInt(l.Memory, 10)))
		if here("memory.memsw.limit_in_bytes") {
			errs = append(errs, writeSetting(dir, "memory.memsw.limit_in_bytes", strconv.FormatInt(l.Memory, 10)))
		}
	}
	if l.CPU > 0 && here("cpu.cfs_quota_us") {
		errs = append(errs, writeSetting(dir, "cpu.cfs_period_us", strconv.Itoa(period)), writeSetting(dir, "cpu.cfs_quota_us", strconv.FormatInt(cpuQuota(l.CPU), 10)))
	}
	if l.Processes > 0 && here("pids.max") {
		errs = append(errs, writeSetting(dir, "pids.max", strconv.Itoa(l.Processes)))
	}
	return errors.Join(errs...)
}

// oomKilled reports whether a process of a group was killed at its memory limit.
func oomKilled(dir string) bool {
	for _, file := range []string{"memory.events", "memory.oom_control"} { // version 2, version 1
		text, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			continue
		}
		for line := range bytes.Lines(text) {
			fields := strings.Fields(string(line))
			if len(fields) == 2 && fields[0] == "oom_kill" && fields[1] != "0" {
				return true
			}
		}
	}
	return false
}

// removeLimit bounds the wait for killed processes to end.
const removeLimit = 2 * time.Second

// removeCgroup kills the processes in a group and in those below it, and removes the groups.
func removeCgroup(dir string) error {
	deadline := time.Now().Add(removeLimit)
	for {
		err := removeOnce(dir)
		if err == nil || errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("removing a cgroup: %w", err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func removeOnce(dir string) error {
	if err := os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0); err != nil { // only in version 2
		pids, err := pidsOf(dir)
		if err != nil {
			return err
		}
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended already
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeOnce(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return syscall.Rmdir(dir)
}
