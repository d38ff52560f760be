package childproc

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// This file is how the reaper cleans up after processes that have ended.

// sweeping reports whether a process still has to end, or has to become the reaper's child.
// The kernel notifies of neither, so the reaper polls.
func (r *reaper) sweeping() bool {
	for _, l := range r.leaders {
		if !l.ended.IsZero() || !l.seen {
			return true
		}
	}
	return r.strays
}

// look looks at all children: leaders that have ended have their group killed, and
// what they left behind; they are collected when nothing of that is there any more.
// Until then their numbers are nobody else's.
func (r *reaper) look() {
	for again := true; again; {
		again = false
		for _, l := range r.leaders {
			l.left = false
		}
		r.strays = false
		for _, pid := range r.children() {
			if l := r.byPID[pid]; l != nil {
				l.seen = true
				if l.ended.IsZero() && l.hasEnded() {
					l.ended = time.Now()
					_ = syscall.Kill(-pid, unix.SIGKILL) // it may have been alone
					again = true                         // those before it in the list may be its own
				}
				continue
			}
			again = r.orphan(pid) || again
		}
	}
	for _, l := range r.leaders {
		switch {
		case !l.seen && l.lost():
			r.forget(l)
			r.strays = true // what it left behind was taken for a living one's just now
			say(newMessage(saysExited, 0, l.id).addNumber(0).addNumber(0).addLong(0).addLong(0))
		case !l.ended.IsZero() && (!l.left || time.Since(l.ended) > sweepLimit):
			l.collect()
			r.forget(l)
			say(newMessage(saysExited, 0, l.id).addNumber(1).addNumber(uint32(l.status)).addLong(uint64(l.cpu)).addLong(uint64(maxRSS(&l.rusage))))
		}
	}
}

// lost reports whether a process that has not become our child has ended, and how will
// not be known: its parent has collected it, or neither does nor leaves it to us.
func (l *leader) lost() bool {
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

func (r *reaper) forget(l *leader) {
	delete(r.leaders, l.id)
	delete(r.byPID, l.pid)
	if !r.marked && len(r.leaders) == 0 {
		r.strays = true // whoever is left belongs to nobody now
	}
}

// orphan looks at a child that is no leader. It reports whether it is gone, so that
// its own children are ours now.
func (r *reaper) orphan(pid int) (gone bool) {
	owner := r.owner(pid)
	var usage syscall.Rusage
	if got, _ := syscall.Wait4(pid, nil, unix.WNOHANG, &usage); got == pid {
		if owner != nil {
			owner.cpu += used(&usage)
		}
		return true
	}
	switch {
	case owner == nil && !r.marked && len(r.leaders) > 0:
		return false // nobody knows whose it is: it lives until nobody does
	case owner != nil && owner.ended.IsZero():
		return false // a daemon of a process that lives
	}
	if syscall.Kill(pid, unix.SIGKILL) != nil {
		return false // another user's, whom we may not kill: nothing is gained by waiting
	}
	if owner != nil {
		owner.left = true
	} else {
		r.strays = true
	}
	return false
}

// collect takes the leader's exit.
func (l *leader) collect() {
	if !l.taken {
		for {
			if _, err := syscall.Wait4(l.pid, &l.status, 0, &l.rusage); !errors.Is(err, unix.EINTR) {
				break
			}
		}
		l.taken = true
	}
	l.cpu += used(&l.rusage)
}

func used(u *syscall.Rusage) time.Duration {
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// killAll kills all that is below, and returns when there is nothing any more.
func (r *reaper) killAll(children <-chan os.Signal) int {
	limit := time.NewTimer(endLimit)
	tick := time.NewTicker(lookAgain)
	for {
		for _, l := range r.leaders {
			_ = syscall.Kill(-l.pid, unix.SIGKILL) // it may have ended
		}
		for _, pid := range r.children() {
			_ = syscall.Kill(pid, unix.SIGKILL)
		}
		for {
			pid, err := syscall.Wait4(-1, nil, unix.WNOHANG, nil)
			if errors.Is(err, unix.ECHILD) {
				return 0
			}
			if l := r.byPID[pid]; l != nil {
				r.forget(l) // its number may become another's
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
