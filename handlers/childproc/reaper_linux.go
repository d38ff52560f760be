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

// A process is marked by the number of its leader as its soft limit on file locks
// (RLIMIT_LOCKS), which Linux has not enforced since version 2.4 and which every
// child inherits, whatever it does: fork, exec, setsid. So whose an orphan is can be
// read off it.

const receiveFlags = unix.MSG_CMSG_CLOEXEC

// prepare makes this process the one that orphans come to.
func prepare() (marked bool, err error) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return false, fmt.Errorf("becoming the one that orphans come to: %w", err)
	}
	_ = os.WriteFile("/proc/self/comm", []byte(reaperName), 0) // for ps, and nothing else
	// A hard limit that is too low, or a sandbox that knows no such limit.
	r := &reaper{marked: true}
	unmark, err := r.mark(1 << 62)
	if err != nil {
		return false, nil
	}
	unmark()
	return true, nil
}

// attributes are those of a leader: a group of its own, and it dies with us, should
// we not come to kill it.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: unix.SIGKILL}
}

// mark has what we fork next carry a mark, until unmark.
func (r *reaper) mark(id uint64) (unmark func(), err error) {
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
	return func() { _ = unix.Setrlimit(unix.RLIMIT_LOCKS, &was) }, nil // it was so before
}

// markOf reads the mark of a process; 0 if it has none.
func markOf(pid int) uint64 {
	var limit unix.Rlimit
	err := unix.Prlimit(pid, unix.RLIMIT_LOCKS, nil, &limit)
	if errors.Is(err, unix.EPERM) { // another user's, which everybody may look at there
		limit.Cur = locksIn(readProc(pid, "limits"))
	} else if err != nil {
		return 0
	}
	if limit.Cur == unix.RLIM_INFINITY {
		return 0
	}
	return limit.Cur
}

// locksIn finds the soft limit in the text of /proc/PID/limits.
func locksIn(limits []byte) uint64 {
	_, line, found := bytes.Cut(limits, []byte("Max file locks"))
	if words := bytes.Fields(line); found && len(words) > 0 {
		if n, err := strconv.ParseUint(string(words[0]), 10, 64); err == nil {
			return n
		}
	}
	return 0
}

// owner is the leader that an orphan belongs to; nil if there is none.
func (r *reaper) owner(pid int) *leader {
	if !r.marked {
		return nil
	}
	return r.leaders[markOf(pid)]
}

// takeOver marks a process as one that stands for itself. Why it may not is the
// text.
func (r *reaper) takeOver(id uint64, parent *leader, pid int) string {
	if r.marked && markOf(pid) != parent.id {
		return "it does not come from the process that is said to have forked it"
	}
	if group, err := syscall.Getpgid(pid); err != nil || group != pid {
		return "it is no leader of a process group, or is gone"
	}
	if !below(pid, os.Getpid()) {
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

// maxDepth bounds how far is looked for an ancestor.
const maxDepth = 64

// below reports whether a process descends from another.
func below(pid, ancestor int) bool {
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

// statOf is what the kernel says of a process, from its state on; nil if it is gone.
func statOf(pid int) [][]byte {
	stat := readProc(pid, "stat")
	return bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:]) // a name may have parentheses
}

func isZombie(pid int) bool {
	words := statOf(pid)
	return len(words) > 0 && string(words[0]) == "Z"
}

// parentOf is the parent of a process; 0 if it is gone.
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

// children are our children. As only we collect them, and do not meanwhile, the
// kernel's lists are whole; where it keeps none, all processes are looked at.
func (r *reaper) children() (out []int) {
	const tasks = "/proc/self/task"
	threads, err := os.ReadDir(tasks)
	if err != nil {
		return r.known()
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

// known are the leaders, where there is no /proc.
func (r *reaper) known() (out []int) {
	for pid := range r.byPID {
		out = append(out, pid)
	}
	return out
}

// childrenOf looks at all processes for those whose parent is pid.
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

// hasEnded reports whether the leader can be collected, and leaves it there: its
// number and that of its group stay its own.
func (l *leader) hasEnded() bool {
	var info unix.Siginfo
	err := unix.Waitid(unix.P_PID, l.pid, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
	return err == nil && info.Signo != 0
}

func maxRSS(u *syscall.Rusage) int64 { return u.Maxrss << 10 }

// killMarked kills the processes of a reaper that died, wherever they are, by
// their marks.
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
