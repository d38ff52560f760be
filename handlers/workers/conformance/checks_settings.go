package conformance

import (
	"fmt"
	"slices"

	"github.com/drover-run/drover/handlers/workers/conformance/driver"
	"github.com/drover-run/drover/handlers/workers/protocol"
)

const ruleSettings = "The settings apply from now on; running calls continue."

func settings(threads int) driver.Frame {
	return driver.JSONFrame(protocol.Set, protocol.SettingsFrame{Threads: threads, Coroutines: 1})
}

// threaded returns SETTINGS that run all async functions in the given number of threads.
func threaded(threads int) driver.Frame {
	all := make([]uint16, len(functions))
	for i := range all {
		all[i] = uint16(i)
	}
	return driver.JSONFrame(protocol.Set, protocol.SettingsFrame{Threads: threads, Coroutines: 1, Threaded: all})
}

// settingsChecks change the number of concurrent calls.
var settingsChecks = []check{
	{
		name: "settings/more", modes: []mode{one}, needs: protocol.CanSettings, rule: ruleSettings,
		run: func(s *session) {
			s.load()
			s.Send(settings(3), invoke(0, "sleep", tooLong), invoke(1, "sleep", tooLong), invoke(2, "echo", "x"))
			s.expectAnswer(2, protocol.Done)
		},
	},
	{
		name: "settings/while-one-runs", modes: []mode{one, pooled}, needs: protocol.CanSettings, rule: ruleSettings,
		run: func(s *session) {
			s.load()
			s.Send(invoke(0, "sleep", "300"))
			s.pause()
			s.Send(settings(2), invoke(1, "echo", "x"), settings(1), invoke(2, "echo", "y"))
			for id, r := range s.expectAnswers(3) {
				if s.expectStatus(r, protocol.Done); id == 2 && string(r.Payload) != "y" {
					s.Fail("it returned "+driver.Excerpt(r.Payload), "y")
				}
			}
			s.Send(settings(3), invoke(0, "sleep", tooLong), invoke(1, "sleep", tooLong), invoke(2, "echo", "x"))
			s.expectAnswer(2, protocol.Done)
		},
	},
	{
		name: "settings/fewer", modes: []mode{pooled}, needs: protocol.CanSettings, rule: ruleSettings,
		run: func(s *session) {
			s.load()
			s.Send(settings(1))
			s.callAndExpect("echo", "still here", "still here")
			s.Send(invoke(0, "sleep", "300"), invoke(1, "sleep", "1")) // the second waits for the first
			s.expectAnswer(0, protocol.Done)
			s.expectAnswer(1, protocol.Done)
			s.finish()
		},
	},
	{
		name: "settings/cancel", modes: []mode{pooled}, needs: protocol.CanSettings, rule: ruleSettings,
		run: func(s *session) {
			s.load()
			s.Send(invoke(0, "sleep", tooLong), invoke(1, "sleep", tooLong))
			s.pause()
			s.Send(settings(1), cancel(0), cancel(1))
			s.expectAnswers(2)
			s.callAndExpect("echo", "still here", "still here")
			s.finish()
		},
	},
	{
		name: "settings/drain", modes: []mode{one, pooled}, needs: protocol.CanSettings, rule: driver.RuleEnds,
		run: func(s *session) {
			s.load()
			s.Send(invoke(0, "sleep", "300"), settings(2), settings(1), invoke(1, "echo", "x"), drain())
			s.expectAnswers(2)
			s.ExpectExit0()
		},
	},
	{
		name: "settings/async", modes: []mode{async}, needs: protocol.CanSettings, rule: ruleSettings,
		run: func(s *session) {
			s.load()
			s.Send(invoke(0, "sleep", "300"), settings(4), settings(2), invoke(1, "echo", "x"))
			s.expectAnswers(2)
			s.finish()
		},
	},
	{
		name: "settings/threaded", modes: []mode{async}, needs: protocol.CanSettings, rule: ruleSettings,
		run: func(s *session) {
			s.load()
			s.Send(invoke(0, "sleep", "300"), threaded(2), invoke(1, "echo", "x"), invoke(2, "fail", "oops"))
			for id, r := range s.expectAnswers(3) {
				if want := map[uint32]protocol.Status{2: protocol.Failure}[id]; r.Status != want {
					s.Fail(fmt.Sprintf("call %d ended with status %d", id, r.Status), fmt.Sprint(want))
				}
			}
			s.callAndExpect("say", "in a thread", "")
			s.Send(invoke(0, "sleep", "300"), drain())
			s.expectAnswer(0, protocol.Done)
			s.ExpectExit0()
		},
	},
	{
		name: "settings/threaded-cancel", modes: []mode{async}, needs: protocol.CanSettings, rule: ruleSettings,
		run: func(s *session) {
			s.load()
			s.Send(threaded(2), invoke(0, "sleep", tooLong), invoke(1, "sleep", tooLong), invoke(2, "sleep", tooLong))
			s.pause() // two run, and one waits
			s.Send(cancel(0), cancel(1), cancel(2))
			s.expectAnswers(3)
			s.callAndExpect("echo", "still here", "still here")
			s.finish()
		},
	},
	{
		name: "settings/away", modes: []mode{async}, needs: protocol.CanSettings, rule: "each call of these functions that has not begun is answered \"not tried\" at once",
		run: func(s *session) {
			s.load()
			away := driver.JSONFrame(protocol.Set, protocol.SettingsFrame{Threads: 1, Coroutines: 1, Away: []uint16{uint16(slices.Index(functions, "echo"))}})
			s.Send(invoke(0, "echo", "x"), invoke(1, "sleep", "300"), invoke(2, "echo", "x"), away, invoke(3, "echo", "x"))
			for id, r := range s.expectAnswers(4) {
				if r.Status != protocol.Done && (r.Status != protocol.NotTried || id == 1 || id == 3) {
					s.Fail(fmt.Sprintf("call %d ended with status %d", id, r.Status), "done, or, of what came before, not tried")
				}
			}
			s.finish()
		},
	},
}
