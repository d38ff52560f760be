package conformance

import (
	"fmt"
	"slices"

	"github.com/drover-run/drover/handlers/workers/conformance/driver"
	"github.com/drover-run/drover/handlers/workers/protocol"
)

const ruleSettings = "The settings apply from now on; running calls continue."

func settingsFrame(threads int) driver.Frame {
	return driver.JSONFrame(protocol.Set, protocol.SettingsFrame{Threads: threads, Coroutines: 1})
}

// threadedSettings returns SETTINGS that run all async functions in the given number of threads.
func threadedSettings(threads int) driver.Frame {
	all := make([]uint16, len(functions))
	for i := range all {
		all[i] = uint16(i)
	}
	return driver.JSONFrame(protocol.Set, protocol.SettingsFrame{Threads: threads, Coroutines: 1, Threaded: all})
}

// profileFrame returns a PROFILE of the function sleep; period 0 ends it.
func profileFrame(number, period int64) driver.Frame {
	return driver.JSONFrame(protocol.Profile, protocol.ProfileFrame{Profile: number, Function: uint16(slices.Index(functions, "sleep")), Period: period})
}

// expectProfiled reads the result of a profile.
func expectProfiled(s *session, number int64) {
	var got protocol.ProfiledFrame
	s.ExpectJSON(protocol.Profiled, &got, "profile", "lines", "stacks", "dropped")
	if got.Profile != number || got.Error != "" {
		s.Fail(fmt.Sprintf("a PROFILED %d, with the error %q", got.Profile, got.Error), fmt.Sprintf("that of %d, without", number))
	}
}

// profileChecks sample the stacks of calls.
var profileChecks = []check{{
	name: "profile/twice", modes: all, needs: protocol.CanProfile, rule: "The worker answers each profile that was started with one PROFILED",
	run: func(s *session) {
		s.loadApp()
		for number := range int64(2) {
			s.Send(profileFrame(number, 1000), invokeFrame(0, "sleep", "50"))
			s.expectAnswer(0, protocol.Done)
			s.Send(profileFrame(12_345, 0), profileFrame(number, 0)) // the former is ignored
			expectProfiled(s, number)
		}
		s.Send(profileFrame(7, 1000), drainFrame())
		expectProfiled(s, 7)
		s.ExpectExit0()
	},
}}

// settingsChecks change the number of concurrent calls.
var settingsChecks = []check{
	{
		name: "settings/more", modes: []mode{one}, needs: protocol.CanSettings, rule: ruleSettings,
		run: func(s *session) {
			s.loadApp()
			s.Send(settingsFrame(3), invokeFrame(0, "sleep", tooLong), invokeFrame(1, "sleep", tooLong), invokeFrame(2, "echo", "x"))
			s.expectAnswer(2, protocol.Done)
		},
	},
	{
		name: "settings/while-one-runs", modes: []mode{one, pooled}, needs: protocol.CanSettings, rule: ruleSettings,
		run: func(s *session) {
			s.loadApp()
			s.Send(invokeFrame(0, "sleep", "300"))
			s.pauseBriefly()
			s.Send(settingsFrame(2), invokeFrame(1, "echo", "x"), settingsFrame(1), invokeFrame(2, "echo", "y"))
			for id, r := range s.expectAnswers(3) {
				if s.expectStatus(r, protocol.Done); id == 2 && string(r.Payload) != "y" {
					s.Fail("it returned "+driver.Excerpt(r.Payload), "y")
				}
			}
			s.Send(settingsFrame(3), invokeFrame(0, "sleep", tooLong), invokeFrame(1, "sleep", tooLong), invokeFrame(2, "echo", "x"))
			s.expectAnswer(2, protocol.Done)
		},
	},
	{
		name: "settings/fewer", modes: []mode{pooled}, needs: protocol.CanSettings, rule: ruleSettings,
		run: func(s *session) {
			s.loadApp()
			s.Send(settingsFrame(1))
			s.callAndExpect("echo", "still here", "still here")
			s.Send(invokeFrame(0, "sleep", "300"), invokeFrame(1, "sleep", "1")) // the second waits for the first
			s.expectAnswer(0, protocol.Done)
			s.expectAnswer(1, protocol.Done)
			s.finishCheck()
		},
	},
	{
		name: "settings/cancel", modes: []mode{pooled}, needs: protocol.CanSettings, rule: ruleSettings,
		run: func(s *session) {
			s.loadApp()
			s.Send(invokeFrame(0, "sleep", tooLong), invokeFrame(1, "sleep", tooLong))
			s.pauseBriefly()
			s.Send(settingsFrame(1), cancelFrame(0), cancelFrame(1))
			s.expectAnswers(2)
			s.callAndExpect("echo", "still here", "still here")
			s.finishCheck()
		},
	},
	{
		name: "settings/drain", modes: []mode{one, pooled}, needs: protocol.CanSettings, rule: driver.RuleEnds,
		run: func(s *session) {
			s.loadApp()
			s.Send(invokeFrame(0, "sleep", "300"), settingsFrame(2), settingsFrame(1), invokeFrame(1, "echo", "x"), drainFrame())
			s.expectAnswers(2)
			s.ExpectExit0()
		},
	},
	{
		name: "settings/async", modes: []mode{async}, needs: protocol.CanSettings, rule: ruleSettings,
		run: func(s *session) {
			s.loadApp()
			s.Send(invokeFrame(0, "sleep", "300"), settingsFrame(4), settingsFrame(2), invokeFrame(1, "echo", "x"))
			s.expectAnswers(2)
			s.finishCheck()
		},
	},
	{
		name: "settings/threaded", modes: []mode{async}, needs: protocol.CanSettings, rule: ruleSettings,
		run: func(s *session) {
			s.loadApp()
			s.Send(invokeFrame(0, "sleep", "300"), threadedSettings(2), invokeFrame(1, "echo", "x"), invokeFrame(2, "fail", "oops"))
			for id, r := range s.expectAnswers(3) {
				if want := map[uint32]protocol.Status{2: protocol.Failure}[id]; r.Status != want {
					s.Fail(fmt.Sprintf("call %d ended with status %d", id, r.Status), fmt.Sprint(want))
				}
			}
			s.callAndExpect("say", "in a thread", "")
			s.Send(invokeFrame(0, "sleep", "300"), drainFrame())
			s.expectAnswer(0, protocol.Done)
			s.ExpectExit0()
		},
	},
	{
		name: "settings/threaded-cancel", modes: []mode{async}, needs: protocol.CanSettings, rule: ruleSettings,
		run: func(s *session) {
			s.loadApp()
			s.Send(threadedSettings(2), invokeFrame(0, "sleep", tooLong), invokeFrame(1, "sleep", tooLong), invokeFrame(2, "sleep", tooLong))
			s.pauseBriefly() // two run, and one waits
			s.Send(cancelFrame(0), cancelFrame(1), cancelFrame(2))
			s.expectAnswers(3)
			s.callAndExpect("echo", "still here", "still here")
			s.finishCheck()
		},
	},
	{
		name: "settings/away", modes: []mode{async}, needs: protocol.CanSettings, rule: "each call of these functions that has not begun is answered \"not tried\" at once",
		run: func(s *session) {
			s.loadApp()
			away := driver.JSONFrame(protocol.Set, protocol.SettingsFrame{Threads: 1, Coroutines: 1, Revoked: []uint16{uint16(slices.Index(functions, "echo"))}})
			s.Send(invokeFrame(0, "echo", "x"), invokeFrame(1, "sleep", "300"), invokeFrame(2, "echo", "x"), away, invokeFrame(3, "echo", "x"))
			for id, r := range s.expectAnswers(4) {
				if r.Status != protocol.Done && (r.Status != protocol.NotTried || id == 1 || id == 3) {
					s.Fail(fmt.Sprintf("call %d ended with status %d", id, r.Status), "done, or, of what came before, not tried")
				}
			}
			s.finishCheck()
		},
	},
}
