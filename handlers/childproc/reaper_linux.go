package childproc

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A process is marked with the number of its leader, which is stored as its soft limit on file
// locks (RLIMIT_LOCKS). Linux has not enforced that limit since version 2.4, and every child
// inherits it through fork, exec and setsid. So the mark of an orphan identifies its leader.

const receiveFlags = unix.MSG_CMSG_CLOEXEC

// prepareReaper makes this process the parent of orphans among its descendants.
func prepareReaper() (marked bool, err error) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return false, fmt.Errorf("becoming the one that orphans come to: %w", err)
	}
	_ = os.WriteFile("/proc/self/comm", []byte(reaperName), 0) // only for ps
	// Marking fails if the hard limit is too low, or a sandbox does not support the limit.
	r := &reaper{marked: true}
	unmark, err := r.markForks(1 << 62)
	if err != nil {
		return false, nil
	}
	unmark()
	return true, nil
}

// leaderAttributes returns the attributes of a leader: it gets its own process group, and the
// kernel kills it if the reaper ends without killing it.
func leaderAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: unix.SIGKILL}
}

// markForks marks the processes forked from now on, until unmark is called.
func (r *reaper) markForks(id uint64) (unmark func(), err error) {
	if !r.marked {
		return func() {}, nil
	}
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_LOCKS, &was); err != nil {
		return nil, err
	}
	if err := unix.Setrlimit(unix.RLIMIT_LOCKS, &unix.Rlimit{Cur: id, Max: was.Max}); err != nil {
		return nil, err
	}
	return func() { _ = unix.Setrlimit(unix.RLIMIT_LOCKS, &was) }, nil // the earlier limit is valid
}

// markOf returns the mark of a process; 0 if it has none.
func markOf(pid int) uint64 {
	var limit unix.Rlimit
	err := unix.Prlimit(pid, unix.RLIMIT_LOCKS, nil, &limit)
	if errors.Is(err, unix.EPERM) { // another user's process, whose limits every user may read there
		limit.Cur = locksIn(readProc(pid, "limits"))
	} else if err != nil {
		return 0
	}
	if limit.Cur == unix.RLIM_INFINITY {
		return 0
	}
	return limit.Cur
}

// locksIn parses the soft limit in the text of /proc/PID/limits.
func locksIn(limits []byte) uint64 {
	_, line, found := bytes.Cut(limits, []byte("Max file locks"))
	if words := bytes.Fields(line); found && len(words) > 0 {
		if n, err := strconv.ParseUint(string(words[0]), 10, 64); err == nil {
			return n
		}
	}
	return 0
}

// leaderOf returns the leader of an orphan; nil if there is none.
func (r *reaper) leaderOf(pid int) *leader {
	if !r.marked {
		return nil
	}
	return r.leaders[markOf(pid)]
}

// takeOver marks a process as a leader. It returns the reason if that is refused, else "".
func (r *reaper) takeOver(id uint64, parent *leader, pid int) string {
	if r.marked && markOf(pid) != parent.id {
		return "it does not come from the process that is said to have forked it"
	}
	if group, err := syscall.Getpgid(pid); err != nil || group != pid {
		return "it is not a leader of a process group, or is gone"
	}
	if !descendsFrom(pid, os.Getpid()) {
		return "it is not below the reaper"
	}
	if !r.marked {
		return ""
	}
	var was unix.Rlimit
	if err := unix.Prlimit(pid, unix.RLIMIT_LOCKS, nil, &was); err != nil {
		return "reading its mark: " + err.Error()
	}
	if err := unix.Prlimit(pid, unix.RLIMIT_LOCKS, &unix.Rlimit{Cur: id, Max: was.Max}, nil); err != nil {
		return "marking it: " + err.Error()
	}
	return ""
}

// maxDepth bounds the search for an ancestor.
const maxDepth = 64

// descendsFrom reports whether a process descends from another.
func descendsFrom(pid, ancestor int) bool {
	for range maxDepth {
		if pid = parentOf(pid); pid == ancestor {
			return true
		}
		if pid <= 1 {
			return false
		}
	}
	return false
}

// statOf returns the fields of /proc/PID/stat, starting with the state; nil if the process is gone.
func statOf(pid int) [][]byte {
	stat := readProc(pid, "stat")
	return bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:]) // the name may contain parentheses
}

func isZombie(pid int) bool {
	words := statOf(pid)
	return len(words) > 0 && string(words[0]) == "Z"
}

// parentOf returns the parent of a process; 0 if the process is gone.
func parentOf(pid int) int {
	if words := statOf(pid); len(words) > 1 {
		if parent, err := strconv.Atoi(string(words[1])); err == nil {
			return parent
		}
	}
	return 0
}

func readProc(pid int, file string) []byte {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/" + file)
	if err != nil {
		return nil
	}
	return text
}

// listChildren returns the reaper's children. The kernel's lists are complete, because only the
// reaper collects its children, and not at the same time. If the kernel has no lists, all processes
// are scanned.
func (r *reaper) listChildren() (out []int) {
	const tasks = "/proc/self/task"
	threads, err := os.ReadDir(tasks)
	if err != nil {
		return r.leaderPIDs()
	}
	for _, thread := range threads {
		text, err := os.ReadFile(tasks + "/" + thread.Name() + "/children")
		if err != nil {
			if _, err := os.Stat(tasks + "/" + thread.Name()); err != nil {
				continue // the thread has just ended
			}
			return childrenOf(os.Getpid())
		}
		for _, word := range bytes.Fields(text) {
			if pid, err := strconv.Atoi(string(word)); err == nil {
				out = append(out, pid)
			}
		}
	}
	return out
}

// leaderPIDs returns the leaders. It is used if there is no /proc.
func (r *reaper) leaderPIDs() (out []int) {
	for pid := range r.byPID {
		out = append(out, pid)
	}
	return out
}

// childrenOf scans all processes for those whose parent is pid.
func childrenOf(pid int) (out []int) {
	for _, p := range allPIDs() {
		if parentOf(p) == pid {
			out = append(out, p)
		}
	}
	return out
}

func allPIDs() (out []int) {
	proc, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer func() { _ = proc.Close() }() // it was only read
	names, err := proc.Readdirnames(-1)
	if err != nil {
		return nil
	}
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			out = append(out, pid)
		}
	}
	return out
}

// hasEnded reports whether the leader can be collected, without collecting it: its process ID
// and that of its group stay reserved.
func (l *leader) hasEnded() bool {
	var info unix.Siginfo
	err := unix.Waitid(unix.P_PID, l.pid, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
	return err == nil && info.Signo != 0
}

func maxRSS(u *syscall.Rusage) int64 { return u.Maxrss << 10 }

// killMarked kills the processes of a reaper that died. It finds them by their marks.
func killMarked(marks uint64) {
	for deadline := time.Now().Add(sweepLimit); time.Now().Before(deadline); {
		found := false
		for _, pid := range allPIDs() {
			if markOf(pid)>>markBits == marks>>markBits {
				found = syscall.Kill(pid, unix.SIGKILL) == nil || found
			}
		}
		if !found {
			return
		}
		time.Sleep(time.Millisecond) // they are about to end
	}
}
