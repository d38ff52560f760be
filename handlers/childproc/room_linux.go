package childproc

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// This file checks before the start whether the daemon, its reaper and a worker can have enough
// threads. Go ends a program that cannot create a thread, so later it could not be reported.

const (
	// tasksNeeded is the number of processes and threads that must be available. The daemon and its
	// reaper have 16 spare threads and some more each; a worker and the stage that launches it need
	// the rest. tasksWithoutProcesses is the number for a daemon without processes.
	tasksNeeded, tasksWithoutProcesses = 64, 24
	// tasksPlenty is the smallest limit that is not checked: counting the tasks of a user takes longer
	// the more there are.
	tasksPlenty = 10_000
)

// CheckLimits returns an error if so few further processes and threads are allowed that the daemon
// cannot run. The error names the limit: ulimit -u, or pids.max of a cgroup. Unreadable limits are
// ignored.
func CheckLimits(withProcesses bool) error {
	least := tasksWithoutProcesses
	if withProcesses {
		least = tasksNeeded
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NPROC, &limit); err == nil && limit.Cur < tasksPlenty && rlimitApplies() {
		if used := tasksOf("/proc", os.Getuid()); used+least > int(limit.Cur) {
			return fmt.Errorf("ulimit -u (RLIMIT_NPROC) allows user %d %d processes and threads; %d are in use, and drover needs %d more; raise it: ulimit -u %d, LimitNPROC= of the unit, or --ulimit nproc= of the container",
				os.Getuid(), limit.Cur, used, least, used+2*least)
		}
	}
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil
	}
	for _, dir := range pidsGroups("/sys/fs/cgroup", string(text)) {
		most, limited := readNumber(filepath.Join(dir, "pids.max"))
		used, known := readNumber(filepath.Join(dir, "pids.current"))
		if limited && known && used+least > most {
			return fmt.Errorf("%s/pids.max allows %d processes and threads; %d are in use, and drover needs %d more; raise it: TasksMax= of the unit, or --pids-limit of the container",
				dir, most, used, least)
		}
	}
	return nil
}

// rlimitApplies reports whether RLIMIT_NPROC applies to this process. It does not for root, nor with
// either of two capabilities.
func rlimitApplies() bool {
	if os.Geteuid() == 0 {
		return false
	}
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return true
	}
	capabilities, err := strconv.ParseUint(statusField(string(text), "CapEff"), 16, 64)
	return err != nil || capabilities&(1<<unix.CAP_SYS_ADMIN|1<<unix.CAP_SYS_RESOURCE) == 0
}

// tasksOf counts the threads of all visible processes of a user.
func tasksOf(proc string, uid int) (tasks int) {
	files, err := filepath.Glob(filepath.Join(proc, "[0-9]*", "status"))
	if err != nil {
		return 0
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil || statusField(string(text), "Uid") != strconv.Itoa(uid) {
			continue // it has ended meanwhile
		}
		if threads, err := strconv.Atoi(statusField(string(text), "Threads")); err == nil {
			tasks += threads
		}
	}
	return tasks
}

// statusField returns the first word of a field of /proc/PID/status.
func statusField(status, name string) string {
	for line := range strings.Lines(status) {
		if rest, found := strings.CutPrefix(line, name+":"); found {
			if words := strings.Fields(rest); len(words) > 0 {
				return words[0]
			}
		}
	}
	return ""
}

// pidsGroups returns the directories of the cgroups in /proc/self/cgroup that may bound the number of
// tasks, from the innermost to the root. Those that do not exist set no bound.
func pidsGroups(mount, groups string) (dirs []string) {
	for line := range strings.Lines(groups) {
		parts := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(parts) < 3 || parts[1] != "" && parts[1] != "pids" {
			continue
		}
		for group := parts[2]; ; group = filepath.Dir(group) {
			dirs = append(dirs, filepath.Join(mount, parts[1], group))
			if group == "/" || group == "." {
				break
			}
		}
	}
	return dirs
}

// readNumber reads a number from a file; ok is false for "max".
func readNumber(file string) (n int, ok bool) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, false
	}
	n, err = strconv.Atoi(strings.TrimSpace(string(text)))
	return n, err == nil
}
