package childproc

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// This file cleans up after processes that have ended.

// needsSweep reports whether a process still has to end, or has to become the reaper's child.
// The kernel notifies of neither, so the reaper polls.
func (r *reaper) needsSweep() bool {
	for _, l := range r.leaders {
		if !l.ended.IsZero() || !l.isChild {
			return true
		}
	}
	return r.hasUnowned
}

// checkChildren checks all children. If a leader has ended, it kills the leader's group and its
// remaining descendants. It collects the leader when all of them have ended; until then the process
// ID stays reserved.
func (r *reaper) checkChildren() {
	for again := true; again; {
		again = false
		for _, l := range r.leaders {
			l.hasDescendants = false
		}
		r.hasUnowned = false
		for _, pid := range r.listChildren() {
			if l := r.byPID[pid]; l != nil {
				l.isChild = true
				if l.ended.IsZero() && l.hasEnded() {
					l.ended = time.Now()
					_ = syscall.Kill(-pid, unix.SIGKILL) // the group may be empty
					again = true                         // its children may precede it in the list
				}
				continue
			}
			again = r.handleOrphan(pid) || again
		}
	}
	for _, l := range r.leaders {
		switch {
		case !l.isChild && l.isLost():
			r.removeLeader(l)
			r.hasUnowned = true // its descendants were treated as those of a running process above
			sendMessage(newMessage(kindExited, 0, l.id).addUint32(0).addUint32(0).addUint64(0).addUint64(0))
		case !l.ended.IsZero() && (!l.hasDescendants || time.Since(l.ended) > sweepLimit):
			l.collectExit()
			r.removeLeader(l)
			sendMessage(newMessage(kindExited, 0, l.id).addUint32(1).addUint32(uint32(l.status)).addUint64(uint64(l.cpu)).addUint64(uint64(maxRSS(&l.rusage))))
		}
	}
}

// isLost reports whether a process that has not become the reaper's child has ended without a known
// exit status: its parent has collected it, or does not collect it and does not end.
func (l *leader) isLost() bool {
	switch {
	case errors.Is(syscall.Kill(l.pid, 0), unix.ESRCH):
		return true
	case !isZombie(l.pid):
		return false
	case l.zombie.IsZero():
		l.zombie = time.Now()
	}
	return time.Since(l.zombie) > sweepLimit
}

func (r *reaper) removeLeader(l *leader) {
	delete(r.leaders, l.id)
	delete(r.byPID, l.pid)
	if !r.marked && len(r.leaders) == 0 {
		r.hasUnowned = true // the remaining processes have no leader now
	}
}

// handleOrphan handles a child that is not a leader. It reports whether the child has ended, which
// makes its own children the reaper's.
func (r *reaper) handleOrphan(pid int) (gone bool) {
	owner := r.leaderOf(pid)
	var usage syscall.Rusage
	if got, _ := syscall.Wait4(pid, nil, unix.WNOHANG, &usage); got == pid {
		if owner != nil {
			owner.cpu += cpuTime(&usage)
		}
		return true
	}
	switch {
	case owner == nil && !r.marked && len(r.leaders) > 0:
		return false // its leader is unknown: it may run until no leader is left
	case owner != nil && owner.ended.IsZero():
		return false // its leader still runs
	}
	if syscall.Kill(pid, unix.SIGKILL) != nil {
		return false // it belongs to another user and cannot be killed, so waiting is useless
	}
	if owner != nil {
		owner.hasDescendants = true
	} else {
		r.hasUnowned = true
	}
	return false
}

// collectExit collects the leader's exit status.
func (l *leader) collectExit() {
	if !l.collected {
		for {
			if _, err := syscall.Wait4(l.pid, &l.status, 0, &l.rusage); !errors.Is(err, unix.EINTR) {
				break
			}
		}
		l.collected = true
	}
	l.cpu += cpuTime(&l.rusage)
}

func cpuTime(u *syscall.Rusage) time.Duration {
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// killAll kills all descendants, and returns when they have ended.
func (r *reaper) killAll(children <-chan os.Signal) int {
	limit := time.NewTimer(endLimit)
	tick := time.NewTicker(lookAgain)
	for {
		for _, l := range r.leaders {
			_ = syscall.Kill(-l.pid, unix.SIGKILL) // it may have ended
		}
		for _, pid := range r.listChildren() {
			_ = syscall.Kill(pid, unix.SIGKILL)
		}
		for {
			pid, err := syscall.Wait4(-1, nil, unix.WNOHANG, nil)
			if errors.Is(err, unix.ECHILD) {
				return 0
			}
			if l := r.byPID[pid]; l != nil {
				r.removeLeader(l) // its process ID may be reused
			}
			if pid <= 0 {
				break
			}
		}
		select {
		case <-children:
		case <-tick.C:
		case <-limit.C:
			fmt.Fprintln(os.Stderr, "processes that were killed do not end; they are left behind")
			return 1
		}
	}
}
