package conformance

import (
	"fmt"
	"runtime"
	"strings"

	"github.com/drover-run/drover/handlers/workers/conformance/driver"
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
			loadTemplate(s)
			w := forkFrom(s)
			loadForked(w)
			w.callAndExpect("echo", "x", "x")
			w.Send(invokeFrame(0, "fail", "wrong"))
			w.expectAnswer(0, protocol.Failure)
			w.finishCheck()
			s.finishCheck()
		},
	},
	{
		name: "template/parent", needs: protocol.CanFork, rule: driver.RuleTwice,
		run: func(s *session) {
			loadTemplate(s)
			w := forkFrom(s)
			loadForked(w)
			driver.AwaitParent(w.Worker)
			w.finishCheck()
			s.finishCheck()
		},
	},
	{
		name: "template/files", needs: protocol.CanFork, rule: ruleForked,
		run: func(s *session) {
			loadTemplate(s)
			w := forkFrom(s)
			loadForked(w)
			driver.CheckFiles(s.Worker, w.Worker)
			before := s.Process.PrintedBytes()
			w.Send(invokeFrame(0, "write", strings.Repeat("written by itself\n", 50)))
			w.expectAnswer(0, protocol.Done)
			w.finishCheck()
			if got := w.Process.PrintedBytes(); got < 900 {
				s.Fail(fmt.Sprintf("%d bytes came from the standard output that the worker was given", got), "the 900 that it wrote")
			}
			if got := s.Process.PrintedBytes(); got > before {
				s.Fail(fmt.Sprintf("%d bytes came from the template's standard output", got-before), "none")
			}
			s.finishCheck()
		},
	},
	{
		name: "template/several", modes: all, needs: protocol.CanFork, rule: ruleGreeted,
		run: func(s *session) {
			loadTemplate(s)
			first, second := forkFrom(s), forkFrom(s) // both exist before either handshake
			loadForked(second)
			loadForked(first)
			third := forkFrom(s)
			loadForked(third)
			if a, b, c := first.Process.PID, second.Process.PID, third.Process.PID; a == b || b == c || a == c {
				s.Fail(fmt.Sprintf("the workers are processes %d, %d and %d", a, b, c), "three of them")
			}
			first.Send(invokeFrame(0, "sleep", "300"))
			second.callAndExpect("echo", "of the second", "of the second")
			third.callAndExpect("echo", "of the third", "of the third")
			first.expectAnswer(0, protocol.Done)
			second.finishCheck()
			first.callAndExpect("echo", "of the first", "of the first")
			first.finishCheck()
			third.finishCheck()
			loadForked(forkFrom(s))
			s.finishCheck()
		},
	},
	{
		name: "template/logs", needs: protocol.CanFork, rule: driver.RuleLogIDs,
		run: func(s *session) {
			loadTemplate(s)
			w := forkFrom(s)
			loadForked(w)
			w.Send(invokeFrame(7, "say", "of a forked one"))
			w.expectAnswer(7, protocol.Done)
			expectLog(w, 7, "of a forked one")
			w.finishCheck()
			s.finishCheck() // it accepts no LOG of another call
		},
	},
	{
		name: "template/killed", needs: protocol.CanFork, rule: ruleOutlives,
		run: func(s *session) {
			loadTemplate(s)
			w := forkFrom(s)
			loadForked(w)
			s.KillAlone()
			w.callAndExpect("echo", "still here", "still here")
			w.finishCheck()
		},
	},
	{
		name: "template/drained", needs: protocol.CanFork, rule: ruleOutlives,
		run: func(s *session) {
			loadTemplate(s)
			w := forkFrom(s)
			loadForked(w)
			w.Send(invokeFrame(0, "sleep", "200"))
			s.finishCheck()
			w.expectAnswer(0, protocol.Done)
			w.callAndExpect("echo", "still here", "still here")
			w.finishCheck()
		},
	},
	{
		name: "template/worker-killed", needs: protocol.CanFork, rule: "then only forks workers",
		run: func(s *session) {
			loadTemplate(s)
			w := forkFrom(s)
			loadForked(w)
			w.KillAlone()
			again := forkFrom(s)
			loadForked(again)
			again.callAndExpect("echo", "x", "x")
			again.finishCheck()
			s.finishCheck()
		},
	},
	{
		name: "template/close", needs: protocol.CanFork, rule: ruleClosed,
		run: func(s *session) {
			loadTemplate(s)
			w := forkFrom(s)
			loadForked(w)
			s.HangUpAndExpectExit()
			w.HangUpAndExpectExit()
		},
	},
	{
		name: "template/drain-with-load", needs: protocol.CanFork, rule: "It may come before LOAD, and before READY.",
		run: func(s *session) {
			s.handshakeWith(templateCan...)
			s.Send(templateFrame(s), drainFrame())
			s.ExpectExit0After(protocol.Ready)
		},
	},
	{
		name: "template/invoke", needs: protocol.CanFork, rule: ruleOnlyFork,
		run: func(s *session) {
			loadTemplate(s)
			s.Send(damagedInvoke(0)) // an intact INVOKE
			s.ExpectExit()
		},
	},
	{
		name: "template/fork-without-files", needs: protocol.CanFork, rule: ruleThree,
		run: func(s *session) {
			loadTemplate(s)
			s.Send(driver.RawFrame(protocol.Fork, nil))
			s.ExpectExit()
		},
	},
	{
		name: "template/fork-of-a-forked-one", needs: protocol.CanFork, rule: ruleThree,
		run: func(s *session) {
			loadTemplate(s)
			w := forkFrom(s)
			loadForked(w)
			w.Send(driver.RawFrame(protocol.Fork, nil))
			w.ExpectExit()
			s.finishCheck()
		},
	},
	{
		name: "template/fork-of-a-worker", modes: all, rule: ruleThree,
		run: func(s *session) {
			s.loadApp()
			s.Send(driver.RawFrame(protocol.Fork, nil))
			s.ExpectExit()
		},
	},
}

func templateFrame(s *session) driver.Frame {
	l := s.loadFrame(functions...)
	l.Template = true
	return driver.JSONFrame(protocol.Load, l)
}

// loadTemplate makes the worker a template. It skips the check if that is not possible.
func loadTemplate(s *session) {
	if runtime.GOOS != "linux" {
		panic(skip("workers are forked from a template on Linux only"))
	}
	s.handshakeWith(templateCan...)
	s.Send(templateFrame(s))
	s.ExpectReady()
	if why := s.Ready.Unforkable; why != "" {
		panic(skip("the worker cannot be a template: " + why))
	}
}

// forkFrom makes the template of s fork a worker, and returns it before its handshake.
func forkFrom(s *session) *session {
	w := &session{Worker: s.ForkWorker(), target: s.target, check: s.check, mode: s.mode}
	w.Announced = daemonCan
	return w
}

// loadForked performs the handshake with a forked worker, and makes it load the app.
func loadForked(s *session) {
	s.Send(helloFrame(s.Announced))
	s.ExpectWelcome()
	if pid := s.Welcome.PID; !s.Process.InGroup(pid) {
		s.FailBy(ruleGreeted, fmt.Sprintf("pid %d in WELCOME, which is not a process of the forked worker's", pid), fmt.Sprint(s.Process.PID))
	}
	s.loadAll()
}
