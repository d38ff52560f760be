package conformance

import (
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drover-run/drover/handlers/childproc"
	"github.com/drover-run/drover/handlers/workers/protocol"
)

// The rules of templates.
const (
	ruleForked   = "The worker installs the socket as file descriptor 3 and its outputs as 1 and 2, and creates its own process group"
	ruleGreeted  = "Then it goes through the same handshake as any other"
	ruleOutlives = "Its end does not end the workers that were forked from it."
	ruleOnlyFork = "A template receives nothing else but DRAIN, which ends it at once."
	ruleThree    = "a FORK reaches a worker that is not a template, or lacks its three file descriptors"
)

var templateChecks = []check{
	{
		name: "template/forks", modes: all, needs: protocol.CanFork, rule: ruleForked,
		run: func(s *session) {
			s.loadTemplate()
			w := s.fork()
			w.greetForked()
			w.says("echo", "x", "x")
			w.send(invoke(0, "fail", "wrong"))
			w.answer(0, protocol.Failure)
			w.finish()
			s.finish()
		},
	},
	{
		name: "template/parent", needs: protocol.CanFork, rule: ruleTwice,
		run: func(s *session) {
			s.loadTemplate()
			w := s.fork()
			w.greetForked()
			w.waitForParent(s.reaper.PID())
			w.finish()
			s.finish()
		},
	},
	{
		name: "template/files", needs: protocol.CanFork, rule: ruleForked,
		run: func(s *session) {
			s.loadTemplate()
			w := s.fork()
			w.greetForked()
			w.mustHold(s)
			before := s.process.printed()
			w.send(invoke(0, "write", strings.Repeat("written by itself\n", 50)))
			w.answer(0, protocol.Done)
			w.finish()
			if got := w.process.printed(); got < 900 {
				s.fail(fmt.Sprintf("%d bytes came from the standard output that the worker was given", got), "the 900 that it wrote")
			}
			if got := s.process.printed(); got > before {
				s.fail(fmt.Sprintf("%d bytes came from the template's standard output", got-before), "none")
			}
			s.finish()
		},
	},
	{
		name: "template/several", modes: all, needs: protocol.CanFork, rule: ruleGreeted,
		run: func(s *session) {
			s.loadTemplate()
			first, second := s.fork(), s.fork() // not greeted before the other is there
			second.greetForked()
			first.greetForked()
			third := s.fork()
			third.greetForked()
			if a, b, c := first.process.PID, second.process.PID, third.process.PID; a == b || b == c || a == c {
				s.fail(fmt.Sprintf("the workers are processes %d, %d and %d", a, b, c), "three of them")
			}
			first.send(invoke(0, "sleep", "300"))
			second.says("echo", "of the second", "of the second")
			third.says("echo", "of the third", "of the third")
			first.answer(0, protocol.Done)
			second.finish()
			first.says("echo", "of the first", "of the first")
			first.finish()
			third.finish()
			s.fork().greetForked()
			s.finish()
		},
	},
	{
		name: "template/logs", needs: protocol.CanFork, rule: ruleLogIDs,
		run: func(s *session) {
			s.loadTemplate()
			w := s.fork()
			w.greetForked()
			w.send(invoke(7, "say", "of a forked one"))
			w.answer(7, protocol.Done)
			w.logged1(7, "of a forked one")
			w.finish()
			s.finish() // which takes no LOG of another's call
		},
	},
	{
		name: "template/killed", needs: protocol.CanFork, rule: ruleOutlives,
		run: func(s *session) {
			s.loadTemplate()
			w := s.fork()
			w.greetForked()
			s.killAlone()
			w.says("echo", "still here", "still here")
			w.finish()
		},
	},
	{
		name: "template/drained", needs: protocol.CanFork, rule: ruleOutlives,
		run: func(s *session) {
			s.loadTemplate()
			w := s.fork()
			w.greetForked()
			w.send(invoke(0, "sleep", "200"))
			s.finish()
			w.answer(0, protocol.Done)
			w.says("echo", "still here", "still here")
			w.finish()
		},
	},
	{
		name: "template/worker-killed", needs: protocol.CanFork, rule: "then only forks workers",
		run: func(s *session) {
			s.loadTemplate()
			w := s.fork()
			w.greetForked()
			w.killAlone()
			again := s.fork()
			again.greetForked()
			again.says("echo", "x", "x")
			again.finish()
			s.finish()
		},
	},
	{
		name: "template/close", needs: protocol.CanFork, rule: ruleClosed,
		run: func(s *session) {
			s.loadTemplate()
			w := s.fork()
			w.greetForked()
			s.hangUp()
			s.mustEnd()
			w.hangUp()
			w.mustEnd()
		},
	},
	{
		name: "template/drain-with-load", needs: protocol.CanFork, rule: "It may come before LOAD, and before READY.",
		run: func(s *session) {
			s.greetAs(templateCan...)
			s.send(s.templateFrame(), drain())
			s.endedAfter(protocol.Ready)
		},
	},
	{
		name: "template/invoke", needs: protocol.CanFork, rule: ruleOnlyFork,
		run: func(s *session) {
			s.loadTemplate()
			s.send(damaged(0)) // which is whole
			s.gone()
		},
	},
	{
		name: "template/fork-without-files", needs: protocol.CanFork, rule: ruleThree,
		run: func(s *session) {
			s.loadTemplate()
			s.send(raw(protocol.Fork, nil))
			s.gone()
		},
	},
	{
		name: "template/fork-of-a-forked-one", needs: protocol.CanFork, rule: ruleThree,
		run: func(s *session) {
			s.loadTemplate()
			w := s.fork()
			w.greetForked()
			w.send(raw(protocol.Fork, nil))
			w.gone()
			s.finish()
		},
	},
	{
		name: "template/fork-of-a-worker", modes: all, rule: ruleThree,
		run: func(s *session) {
			s.load()
			s.send(raw(protocol.Fork, nil))
			s.gone()
		},
	},
}

func (s *session) templateFrame() frame {
	l := s.loadFrame(functions...)
	l.Template = true
	return jsonFrame(protocol.Load, l)
}

// loadTemplate makes the worker a template. It skips the check where that can't be.
func (s *session) loadTemplate() {
	if runtime.GOOS != "linux" {
		s.skip("workers are forked from a template on Linux only")
	}
	s.greetAs(templateCan...)
	s.send(s.templateFrame())
	s.readied()
	if why := s.ready.Unforkable; why != "" {
		s.skip("the worker cannot be a template: " + why)
	}
}

// fork has the template fork a worker, which is not greeted yet.
func (s *session) fork() *session {
	p, files, outputs, err := s.places()
	defer func() {
		for _, f := range files {
			_ = f.Close() // the worker has its own
		}
		for _, out := range outputs {
			_ = out.Close() // where nobody adopted the worker
		}
	}()
	if err != nil {
		s.fail(err.Error(), "a socket and two pipes")
	}
	w := &session{ctx: s.ctx, reaper: s.reaper, target: s.target, check: s.check, mode: s.mode, limit: s.limit, can: daemonCan}
	rights := make([]int, 0, len(files))
	for _, f := range files {
		w.given = append(w.given, inode(f.Stat()))
		rights = append(rights, int(f.Fd()))
	}
	fork := s.noted([]frame{{text: "FORK with three file descriptors", bytes: protocol.AppendFork(nil, "")}})
	_, _, _ = s.process.conn.(*net.UnixConn).WriteMsgUnix(fork, unix.UnixRights(rights...), nil) // what went wrong shows in the answer
	var forked protocol.ForkedFrame
	s.decode(protocol.Forked, s.frame(protocol.Forked), &forked)
	if forked.Error != "" || forked.PID <= 1 {
		s.fail(fmt.Sprintf("FORKED with pid %d and the error %q", forked.PID, forked.Error), "the pid of a process")
	}
	if group, err := syscall.Getpgid(forked.PID); err != nil || group != forked.PID {
		s.fail(fmt.Sprintf("process %d, which FORKED names, is in process group %d (%v)", forked.PID, group, err), "a process group of its own")
	}
	p.Process, err = s.reaper.Adopt(s.process.Process, forked.PID, outputs...)
	files, outputs = files[:1], nil // the rest is the process's now, or closed
	if err != nil {
		_ = p.conn.Close()
		s.fail(err.Error(), "a process below the template")
	}
	w.drive(p)
	s.forks = append(s.forks, w)
	return w
}

// places makes what a worker to be forked is given: its files, of which the outputs'
// are theirs to close. What there is of them is returned with an error, too.
func (s *session) places() (p *process, files []*os.File, outputs []*childproc.Output, err error) {
	conn, theirs, err := childproc.Socketpair()
	if err != nil {
		return nil, nil, nil, err
	}
	p = &process{conn: conn}
	files = append(files, theirs)
	stdout, err := childproc.NewOutput(counter{p})
	if err != nil {
		return p, files, outputs, errors.Join(err, conn.Close())
	}
	files, outputs = append(files, stdout.Child), append(outputs, stdout)
	stderr, err := childproc.NewOutput(tail{p})
	if err != nil {
		return p, files, outputs, errors.Join(err, conn.Close())
	}
	return p, append(files, stderr.Child), append(outputs, stderr), nil
}

// greetForked greets a worker that was forked, and has it load the app.
func (s *session) greetForked() {
	s.send(hello(s.can))
	s.welcomed()
	if pid := s.welcome.PID; !s.process.owns(pid) {
		s.failBy(ruleGreeted, fmt.Sprintf("pid %d in WELCOME, which is no process of the forked worker's", pid), fmt.Sprint(s.process.PID))
	}
	s.loadAll()
}

// waitForParent waits until the worker is the child of a process.
func (s *session) waitForParent(want int) {
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	for {
		parent, err := parentOf(s.process.PID)
		if err == nil && parent == want {
			return
		}
		select {
		case <-look.C:
		case <-s.ctx.Done():
			s.fail(fmt.Sprintf("the parent of process %d is still %d (%v)", s.process.PID, parent, err), fmt.Sprintf("%d, the process that collects all workers", want))
		}
	}
}

// parentOf reads the fourth field of /proc/PID/stat; the second is a name in brackets.
func parentOf(pid int) (int, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	if len(fields) < 2 {
		return 0, fmt.Errorf("/proc/%d/stat has no parent", pid)
	}
	return strconv.Atoi(fields[1])
}

// mustHold wants the worker to have the files that it was given in their places, and
// not the socket of its template.
func (s *session) mustHold(template *session) {
	at := func(pid int, fd string) uint64 { return inode(os.Stat(fmt.Sprintf("/proc/%d/fd/%s", pid, fd))) }
	pid := s.process.PID
	for i, fd := range []string{"3", "1", "2"} {
		if at(pid, fd) != s.given[i] {
			s.fail("file descriptor "+fd+" of the forked worker is another file", "the one that came with FORK")
		}
	}
	theirs := at(template.process.PID, "3")
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		s.fail(err.Error(), "the list of its files")
	}
	for _, f := range open {
		if at(pid, f.Name()) == theirs {
			s.fail("file descriptor "+f.Name()+" of the forked worker is the template's socket", "none but its own")
		}
	}
}

// inode is the number of a file, 0 of one that cannot be looked at.
func inode(info os.FileInfo, err error) uint64 {
	if err != nil {
		return 0
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0
	}
	return stat.Ino
}
