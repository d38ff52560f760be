package conformance

import (
	"fmt"
	"slices"
	"strings"

	"github.com/drover-run/drover/handlers/workers/protocol"
)

var helloChecks = []check{
	{
		name: "hello/welcome", rule: "The answer to HELLO, whatever its protocol.",
		run: func(s *session) {
			s.greet()
			if pid := s.welcome.PID; pid <= 0 || !s.process.owns(pid) {
				s.fail(fmt.Sprintf("pid %d, which is no process of the worker's", pid), "the worker's own")
			}
			s.loadAll()
			s.finish()
		},
	},
	{
		name: "hello/other-protocol", rule: "WELCOME has another protocol, or lacks a capability that a function needs",
		run: func(s *session) {
			s.start()
			s.send(jsonFrame(protocol.Hello, protocol.HelloFrame{Protocol: 99, MaxFrame: maxFrame, Capabilities: daemonCan}))
			s.welcomed()
			s.gone()
		},
	},
	{
		name: "hello/unknown-names", rule: "Unknown names are ignored.",
		run: func(s *session) {
			s.start()
			s.can = daemonCan
			s.send(jsonFrame(protocol.Hello, map[string]any{
				"protocol": protocol.Version, "max_frame": maxFrame, "later": map[string]int{"x": 1},
				"capabilities": append([]string{"telepathy"}, daemonCan...),
			}))
			s.welcomed()
			l := s.loadFrame(functions...)
			s.send(jsonFrame(protocol.Load, map[string]any{
				"app": l.App, "functions": l.Functions, "threads": l.Threads, "coroutines": l.Coroutines, "later": []int{1},
			}))
			s.readied()
			s.says("echo", "x", "x")
			s.finish()
		},
	},
	{
		name: "hello/split", rule: "A frame may arrive in any number of pieces.",
		run: func(s *session) {
			s.start()
			s.can = daemonCan
			s.sendSplit(hello(daemonCan))
			s.welcomed()
			s.sendSplit(jsonFrame(protocol.Load, s.loadFrame(functions...)))
			s.readied()
			s.finish()
		},
	},
	{
		name: "hello/nothing-announced", modes: all, rule: ruleLog,
		run: func(s *session) {
			s.greetAs()
			s.loadAll()
			s.says("say", "nobody takes this", "")
			s.says("warn", "nor this", "")
			s.finish()
		},
	},
}

var loadChecks = []check{
	{
		name: "load/functions", modes: all, rule: "for each of LOAD's, in order, `name` and `kind`, `sync` or `async`",
		run: func(s *session) {
			s.load()
			if len(s.ready.Functions) != len(functions) {
				s.fail(fmt.Sprintf("a READY of %d functions", len(s.ready.Functions)), fmt.Sprint(len(functions)))
			}
			for i, f := range s.ready.Functions {
				if f.Name != functions[i] || f.Kind != s.mode.kind {
					s.fail(fmt.Sprintf("function %d is %s, %s", i, f.Name, f.Kind), functions[i]+", "+s.mode.kind)
				}
			}
			s.finish()
		},
	},
	{
		name: "load/twice-the-same", rule: "Two of them may name the same function.",
		run: func(s *session) {
			s.greet()
			l := s.loadFrame("echo", "echo")
			l.Functions[0].Name, l.Functions[1].Name = "söme", "other"
			s.send(jsonFrame(protocol.Load, l))
			s.readied()
			if f := s.ready.Functions; len(f) != 2 || f[0].Name != "söme" || f[1].Name != "other" {
				s.fail(fmt.Sprint("READY of ", f), "söme and other")
			}
			s.says("echo", "x", "x")
			second := invoke(1, "echo", "y")
			second.bytes[9] = 1 // the index of its function
			s.send(second)
			if r := s.answer(1, protocol.Done); string(r.Payload) != "y" {
				s.fail("it returned "+excerpt(r.Payload), "y")
			}
			s.finish()
		},
	},
	{
		name: "load/many", rule: "Each type has its own maximum",
		run: func(s *session) {
			s.greet()
			const many = 30_000
			l := s.loadFrame("echo")
			l.Functions = slices.Repeat(l.Functions, many)
			for i := range l.Functions {
				l.Functions[i].Name = fmt.Sprintf("echo with a long name, to fill the frame, number %d", i)
			}
			s.sendBehind(jsonFrame(protocol.Load, l)) // larger than max_frame
			s.readied()
			if n := len(s.ready.Functions); n != many {
				s.fail(fmt.Sprintf("a READY of %d functions", n), fmt.Sprint(many))
			}
			last := damaged(functionAt, byte((many-1)&0xFF), byte((many-1)>>8))
			last.opens = []uint32{0}
			s.send(last)
			s.answer(0, protocol.Done)
			s.finish()
		},
	},
	{
		name: "load/missing-module", rule: "the code does not load",
		run: func(s *session) { s.loadBad(s.target.Module+"_missing", "echo", s.target.Module+"_missing") },
	},
	{
		name: "load/missing-function", rule: "the code does not load",
		run: func(s *session) { s.loadBad(s.target.Module, "no_such_function", "no_such_function") },
	},
	{
		name: "load/raises", rule: "`summary`, a line that names what is wrong, and `detail`, the traceback",
		run: func(s *session) {
			failed := s.loadBad(s.target.Module+"_raises", s.named("echo"), "not today")
			if !strings.Contains(failed.Detail, "not today") || !strings.Contains(failed.Detail, s.target.Module+"_raises") {
				s.fail("a detail of "+excerpt([]byte(failed.Detail)), "the error's text, and where in "+s.target.Module+"_raises it was raised")
			}
		},
	},
	{
		name: "load/one-of-two", rule: "the code does not load",
		run: func(s *session) {
			s.greet()
			l := s.loadFrame("echo", "say")
			l.Functions[1].Module += "_missing"
			s.send(jsonFrame(protocol.Load, l))
			s.misloaded()
		},
	},
	{
		name: "load/template", modes: all, rule: "is an ordinary worker from then on: `template` is a request, not a command",
		run: func(s *session) {
			s.greetAs(templateCan...)
			s.send(s.templateFrame())
			s.readied()
			if s.ready.Unforkable != "" || !slices.Contains(s.welcome.Capabilities, protocol.CanFork) {
				s.says("echo", "x", "x")
			}
			s.finish()
		},
	},
	{
		name: "load/imports", needs: protocol.CanImports, rule: ruleImport,
		run: func(s *session) {
			s.load()
			if s.imports == nil {
				s.fail("no IMPORTED before READY", "one, with the paths of the files that were loaded")
			}
			s.finish()
		},
	},
	{
		name: "load/prints", needs: protocol.CanLog, rule: "Output of the code while it loads belongs to no call: its id is -1.",
		run: func(s *session) {
			s.load()
			for _, line := range s.logs {
				if line.ID == -1 && strings.Contains(line.Text, "conformance: loading") {
					s.finish()
					return
				}
			}
			s.fail("no LOG of what the app prints when it is loaded, before READY", "conformance: loading")
		},
	},
}

// loadBad loads what cannot be, and wants its name in the summary.
func (s *session) loadBad(module, function, named string) protocol.FailedFrame {
	s.greet()
	s.send(jsonFrame(protocol.Load, protocol.LoadFrame{
		App: s.target.App, Threads: s.mode.threads, Coroutines: s.mode.coroutines,
		Functions: []protocol.Function{{Name: "f", Module: module, Function: function}},
	}))
	failed := s.misloaded()
	if !strings.Contains(failed.Summary, named) || strings.ContainsAny(failed.Summary, "\r\n") {
		s.fail("a summary of "+excerpt([]byte(failed.Summary)), "one line that names "+named)
	}
	return failed
}

// drainChecks are about the end that the daemon asks for.
var drainChecks = []check{
	{
		name: "drain/idle", modes: all, rule: ruleEnds,
		run: func(s *session) { s.load(); s.finish() },
	},
	{
		name: "drain/before-load", rule: "It may come before LOAD, and before READY.",
		run: func(s *session) { s.greet(); s.finish() },
	},
	{
		name: "drain/with-hello", rule: "It may come before LOAD, and before READY.",
		run: func(s *session) {
			s.start()
			s.send(hello(daemonCan), drain())
			s.endedAfter(protocol.Welcome)
		},
	},
	{
		name: "drain/with-load", modes: all, rule: "It may come before LOAD, and before READY.",
		run: func(s *session) {
			s.greet()
			s.send(jsonFrame(protocol.Load, s.loadFrame(functions...)), drain())
			s.endedAfter(protocol.Ready)
		},
	},
	{
		name: "drain/in-flight", modes: all, rule: ruleEnds,
		run: func(s *session) {
			s.load()
			frames := []frame{invoke(0, "sleep", "300"), invoke(1, "echo", "x"), invoke(2, "sleep", "100"), invoke(3, "fail", "x")}
			s.send(append(frames, drain())...)
			got := s.answers(4)
			for id, want := range []protocol.Status{0, 0, 0, protocol.Failure} {
				s.is(got[uint32(id)], want)
			}
			s.ended()
		},
	},
	{
		name: "drain/cancel", modes: all, needs: protocol.CanCancel, rule: "CANCEL also applies after DRAIN.",
		run: func(s *session) {
			s.load()
			s.send(invoke(0, "sleep", tooLong), drain())
			s.send(cancel(0))
			s.result()
			s.ended()
		},
	},
}

// closeChecks are about a daemon that is gone.
var closeChecks = []check{
	{
		name: "close/before-load", rule: ruleClosed,
		run: func(s *session) { s.greet(); s.hangUp(); s.mustEnd() },
	},
	{
		name: "close/idle", modes: all, rule: ruleClosed,
		run: func(s *session) { s.load(); s.hangUp(); s.mustEnd() },
	},
	{
		name: "close/in-flight", modes: all, rule: ruleClosed,
		run: func(s *session) {
			s.load()
			s.send(invoke(0, "echo", "x"), invoke(1, "sleep", tooLong))
			s.answer(0, protocol.Done)
			s.hangUp()
			s.mustEnd()
		},
	},
	{
		name: "close/half-a-frame", modes: all, rule: ruleClosed,
		run: func(s *session) {
			s.load()
			f := invoke(0, "echo", "x")
			f.bytes, f.opens = f.bytes[:len(f.bytes)-1], nil
			s.send(f)
			s.hangUp()
			s.mustEnd()
		},
	},
	{
		name: "close/unread", modes: all, rule: ruleClosed,
		run: func(s *session) {
			s.load()
			for id := range uint32(8) {
				s.send(invoke(id, "large", "1000000"))
			}
			s.hangUp()
			s.mustEnd()
		},
	},
}

// tooLong is the time of a sleep that nobody waits for, in ms.
const tooLong = "3600000"
