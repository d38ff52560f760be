package conformance

import (
	"fmt"
	"slices"
	"strings"

	"github.com/drover-run/drover/handlers/workers/conformance/driver"
	"github.com/drover-run/drover/handlers/workers/protocol"
)

var helloChecks = []check{
	{
		name: "hello/welcome", rule: "The answer to HELLO, whatever its protocol.",
		run: func(s *session) {
			s.handshake()
			if pid := s.Welcome.PID; pid <= 0 || !s.Process.InGroup(pid) {
				s.Fail(fmt.Sprintf("pid %d, which is not a process of the worker's", pid), "the worker's own")
			}
			s.loadAll()
			s.finishCheck()
		},
	},
	{
		name: "hello/other-protocol", rule: "WELCOME has another protocol, or lacks a capability that a function needs",
		run: func(s *session) {
			s.startWorker()
			s.Send(driver.JSONFrame(protocol.Hello, protocol.HelloFrame{Protocol: 99, MaxFrame: driver.MaxFrame, Capabilities: daemonCan}))
			s.ExpectWelcome()
			s.ExpectExit()
		},
	},
	{
		name: "hello/unknown-names", rule: "Unknown names are ignored.",
		run: func(s *session) {
			s.startWorker()
			s.Announced = daemonCan
			s.Send(driver.JSONFrame(protocol.Hello, map[string]any{
				"protocol": protocol.Version, "max_frame": driver.MaxFrame, "later": map[string]int{"x": 1},
				"capabilities": append([]string{"telepathy"}, daemonCan...),
			}))
			s.ExpectWelcome()
			l := s.loadFrame(functions...)
			s.Send(driver.JSONFrame(protocol.Load, map[string]any{
				"app": l.App, "functions": l.Functions, "threads": l.Threads, "coroutines": l.Coroutines, "later": []int{1},
			}))
			s.ExpectReady()
			s.callAndExpect("echo", "x", "x")
			s.finishCheck()
		},
	},
	{
		name: "hello/split", rule: "A frame may arrive in any number of pieces.",
		run: func(s *session) {
			s.startWorker()
			s.Announced = daemonCan
			s.SendSplit(helloFrame(daemonCan))
			s.ExpectWelcome()
			s.SendSplit(driver.JSONFrame(protocol.Load, s.loadFrame(functions...)))
			s.ExpectReady()
			s.finishCheck()
		},
	},
	{
		name: "hello/nothing-announced", modes: all, rule: driver.RuleLog,
		run: func(s *session) {
			s.handshakeWith()
			s.loadAll()
			s.callAndExpect("say", "nobody takes this", "")
			s.callAndExpect("warn", "nor this", "")
			s.finishCheck()
		},
	},
}

var loadChecks = []check{
	{
		name: "load/functions", modes: all, rule: "for each of LOAD's, in order, `name` and `kind`, `sync` or `async`",
		run: func(s *session) {
			s.loadApp()
			if len(s.Ready.Functions) != len(functions) {
				s.Fail(fmt.Sprintf("a READY of %d functions", len(s.Ready.Functions)), fmt.Sprint(len(functions)))
			}
			for i, f := range s.Ready.Functions {
				if f.Name != functions[i] || f.Kind != s.mode.kind {
					s.Fail(fmt.Sprintf("function %d is %s, %s", i, f.Name, f.Kind), functions[i]+", "+s.mode.kind)
				}
			}
			s.finishCheck()
		},
	},
	{
		name: "load/twice-the-same", rule: "Two of them may name the same function.",
		run: func(s *session) {
			s.handshake()
			l := s.loadFrame("echo", "echo")
			l.Functions[0].Name, l.Functions[1].Name = "söme", "other"
			s.Send(driver.JSONFrame(protocol.Load, l))
			s.ExpectReady()
			if f := s.Ready.Functions; len(f) != 2 || f[0].Name != "söme" || f[1].Name != "other" {
				s.Fail(fmt.Sprint("READY of ", f), "söme and other")
			}
			s.callAndExpect("echo", "x", "x")
			second := invokeFrame(1, "echo", "y")
			second.Bytes[9] = 1 // the index of its function
			s.Send(second)
			if r := s.expectAnswer(1, protocol.Done); string(r.Payload) != "y" {
				s.Fail("it returned "+driver.Excerpt(r.Payload), "y")
			}
			s.finishCheck()
		},
	},
	{
		name: "load/many", rule: "Each type has its own maximum",
		run: func(s *session) {
			s.handshake()
			const many = 30_000
			l := s.loadFrame("echo")
			l.Functions = slices.Repeat(l.Functions, many)
			for i := range l.Functions {
				l.Functions[i].Name = fmt.Sprintf("echo with a long name, to fill the frame, number %d", i)
			}
			s.SendBehind(driver.JSONFrame(protocol.Load, l)) // larger than max_frame
			s.ExpectReady()
			if n := len(s.Ready.Functions); n != many {
				s.Fail(fmt.Sprintf("a READY of %d functions", n), fmt.Sprint(many))
			}
			last := damagedInvoke(functionAt, byte((many-1)&0xFF), byte((many-1)>>8))
			last.Opens = []uint32{0}
			s.Send(last)
			s.expectAnswer(0, protocol.Done)
			s.finishCheck()
		},
	},
	{
		name: "load/missing-module", rule: "the code failed to load",
		run: func(s *session) { expectNotLoaded(s, s.target.Module+"_missing", "echo", s.target.Module+"_missing") },
	},
	{
		name: "load/missing-function", rule: "the code failed to load",
		run: func(s *session) { expectNotLoaded(s, s.target.Module, "no_such_function", "no_such_function") },
	},
	{
		name: "load/raises", rule: "`summary`, a line that describes the error, and `detail`, the traceback",
		run: func(s *session) {
			failed := expectNotLoaded(s, s.target.Module+"_raises", s.nameOf("echo"), "not today")
			if !strings.Contains(failed.Detail, "not today") || !strings.Contains(failed.Detail, s.target.Module+"_raises") {
				s.Fail("a detail of "+driver.Excerpt([]byte(failed.Detail)), "the error's text, and where in "+s.target.Module+"_raises it was raised")
			}
		},
	},
	{
		name: "load/one-of-two", rule: "the code failed to load",
		run: func(s *session) {
			s.handshake()
			l := s.loadFrame("echo", "say")
			l.Functions[1].Module += "_missing"
			s.Send(driver.JSONFrame(protocol.Load, l))
			expectFailed(s)
		},
	},
	{
		name: "load/template", modes: all, rule: "is an ordinary worker from then on: `template` is a request, not a command",
		run: func(s *session) {
			s.handshakeWith(templateCan...)
			s.Send(templateFrame(s))
			s.ExpectReady()
			if s.Ready.Unforkable != "" || !slices.Contains(s.Welcome.Capabilities, protocol.CanFork) {
				s.callAndExpect("echo", "x", "x")
			}
			s.finishCheck()
		},
	},
	{
		name: "load/imports", needs: protocol.CanImports, rule: driver.RuleImport,
		run: func(s *session) {
			s.loadApp()
			if s.Imports == nil {
				s.Fail("no IMPORTED before READY", "one, with the paths of the files that were loaded")
			}
			s.finishCheck()
		},
	},
	{
		name: "load/prints", needs: protocol.CanLog, rule: "Output of the code while it loads belongs to no call: its id is -1.",
		run: func(s *session) {
			s.loadApp()
			for _, line := range s.Logs {
				if line.ID == -1 && strings.Contains(line.Text, "conformance: loading") {
					s.finishCheck()
					return
				}
			}
			s.Fail("no LOG of what the app prints when it is loaded, before READY", "conformance: loading")
		},
	},
}

// expectFailed reads FAILED, and the end of the worker.
func expectFailed(s *session) (failed protocol.FailedFrame) {
	s.ExpectJSON(protocol.Failed, &failed, "summary")
	s.ExpectExit()
	return failed
}

// expectNotLoaded loads code that fails to load, and expects its name in the summary.
func expectNotLoaded(s *session, module, function, named string) protocol.FailedFrame {
	s.handshake()
	s.Send(driver.JSONFrame(protocol.Load, protocol.LoadFrame{
		App: s.target.App, Threads: s.mode.threads, Coroutines: s.mode.coroutines,
		Functions: []protocol.Function{{Name: "f", Module: module, Function: function}},
	}))
	failed := expectFailed(s)
	if !strings.Contains(failed.Summary, named) || strings.ContainsAny(failed.Summary, "\r\n") {
		s.Fail("a summary of "+driver.Excerpt([]byte(failed.Summary)), "one line that names "+named)
	}
	return failed
}

// drainChecks test the end that the daemon requests.
var drainChecks = []check{
	{
		name: "drain/idle", modes: all, rule: driver.RuleEnds,
		run: func(s *session) { s.loadApp(); s.finishCheck() },
	},
	{
		name: "drain/before-load", rule: "It may come before LOAD, and before READY.",
		run: func(s *session) { s.handshake(); s.finishCheck() },
	},
	{
		name: "drain/with-hello", rule: "It may come before LOAD, and before READY.",
		run: func(s *session) {
			s.startWorker()
			s.Send(helloFrame(daemonCan), drainFrame())
			s.ExpectExit0After(protocol.Welcome)
		},
	},
	{
		name: "drain/with-load", modes: all, rule: "It may come before LOAD, and before READY.",
		run: func(s *session) {
			s.handshake()
			s.Send(driver.JSONFrame(protocol.Load, s.loadFrame(functions...)), drainFrame())
			s.ExpectExit0After(protocol.Ready)
		},
	},
	{
		name: "drain/in-flight", modes: all, rule: driver.RuleEnds,
		run: func(s *session) {
			s.loadApp()
			frames := []driver.Frame{invokeFrame(0, "sleep", "300"), invokeFrame(1, "echo", "x"), invokeFrame(2, "sleep", "100"), invokeFrame(3, "fail", "x")}
			s.Send(append(frames, drainFrame())...)
			got := s.expectAnswers(4)
			for id, want := range []protocol.Status{0, 0, 0, protocol.Failure} {
				s.expectStatus(got[uint32(id)], want)
			}
			s.ExpectExit0()
		},
	},
	{
		name: "drain/cancel", modes: all, needs: protocol.CanCancel, rule: "CANCEL also applies after DRAIN.",
		run: func(s *session) {
			s.loadApp()
			s.Send(invokeFrame(0, "sleep", tooLong), drainFrame())
			s.Send(cancelFrame(0))
			s.ExpectResult()
			s.ExpectExit0()
		},
	},
}

// closeChecks test the end of the daemon.
var closeChecks = []check{
	{
		name: "close/before-load", rule: ruleClosed,
		run: func(s *session) { s.handshake(); s.HangUpAndExpectExit() },
	},
	{
		name: "close/idle", modes: all, rule: ruleClosed,
		run: func(s *session) { s.loadApp(); s.HangUpAndExpectExit() },
	},
	{
		name: "close/in-flight", modes: all, rule: ruleClosed,
		run: func(s *session) {
			s.loadApp()
			s.Send(invokeFrame(0, "echo", "x"), invokeFrame(1, "sleep", tooLong))
			s.expectAnswer(0, protocol.Done)
			s.HangUpAndExpectExit()
		},
	},
	{
		name: "close/half-a-frame", modes: all, rule: ruleClosed,
		run: func(s *session) {
			s.loadApp()
			f := invokeFrame(0, "echo", "x")
			f.Bytes, f.Opens = f.Bytes[:len(f.Bytes)-1], nil
			s.Send(f)
			s.HangUpAndExpectExit()
		},
	},
	{
		name: "close/unread", modes: all, rule: ruleClosed,
		run: func(s *session) {
			s.loadApp()
			for id := range uint32(8) {
				s.Send(invokeFrame(id, "large", "1000000"))
			}
			s.HangUpAndExpectExit()
		},
	},
}

// tooLong is the time of a sleep that must not be awaited, in ms.
const tooLong = "3600000"
