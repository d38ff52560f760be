//go:build unix && !linux

package childproc

import (
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// On other systems than Linux, orphans become children of the system's init, and the reaper cannot
// find them. It kills the process group; a process that has left the group survives.

const receiveFlags = 0

func prepareReaper() (marked bool, err error) { return true, nil }

func leaderAttributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

func (r *reaper) markForks(uint64) (unmark func(), err error) { return func() {}, nil }

func (r *reaper) leaderOf(int) *leader { return nil }

func (r *reaper) takeOver(uint64, *leader, int) string {
	return "a process that another forked can be taken over on Linux only"
}

func (r *reaper) listChildren() (out []int) {
	for pid := range r.byPID {
		out = append(out, pid)
	}
	return out
}

// hasEnded collects the leader, because here that is the only way to check. For a moment, the ID
// of its group is not reserved.
func (l *leader) hasEnded() bool {
	pid, err := syscall.Wait4(l.pid, &l.status, unix.WNOHANG, &l.rusage)
	l.collected = pid == l.pid
	return l.collected || err != nil && err != unix.EINTR
}

func maxRSS(u *syscall.Rusage) int64 {
	if runtime.GOOS == "darwin" {
		return int64(u.Maxrss)
	}
	return int64(u.Maxrss) << 10
}

func isZombie(int) bool { return false }

func killMarked(uint64) {}
