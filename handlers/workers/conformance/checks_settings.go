package conformance

import (
	"github.com/drover-run/drover/handlers/workers/protocol"
)

const ruleSettings = "That is how it is to be from now on; what runs goes on."

func settings(threads int) frame {
	return jsonFrame(protocol.Set, protocol.SettingsFrame{Threads: threads, Coroutines: 1})
}

// settingsChecks change how many calls run at once.
var settingsChecks = []check{
	{
		name: "settings/more", modes: []mode{one}, needs: protocol.CanSettings, rule: ruleSettings,
		run: func(s *session) {
			s.load()
			s.send(settings(3), invoke(0, "sleep", tooLong), invoke(1, "sleep", tooLong), invoke(2, "echo", "x"))
			s.answer(2, protocol.Done)
		},
	},
	{
		name: "settings/while-one-runs", modes: []mode{one, pooled}, needs: protocol.CanSettings, rule: ruleSettings,
		run: func(s *session) {
			s.load()
			s.send(invoke(0, "sleep", "300"))
			s.pause()
			s.send(settings(2), invoke(1, "echo", "x"), settings(1), invoke(2, "echo", "y"))
			for id, r := range s.answers(3) {
				if s.is(r, protocol.Done); id == 2 && string(r.Payload) != "y" {
					s.fail("it returned "+excerpt(r.Payload), "y")
				}
			}
			s.send(settings(3), invoke(0, "sleep", tooLong), invoke(1, "sleep", tooLong), invoke(2, "echo", "x"))
			s.answer(2, protocol.Done)
		},
	},
	{
		name: "settings/fewer", modes: []mode{pooled}, needs: protocol.CanSettings, rule: ruleSettings,
		run: func(s *session) {
			s.load()
			s.send(settings(1))
			s.says("echo", "still here", "still here")
			s.send(invoke(0, "sleep", "300"), invoke(1, "sleep", "1")) // the one waits for the other
			s.answer(0, protocol.Done)
			s.answer(1, protocol.Done)
			s.finish()
		},
	},
	{
		name: "settings/cancel", modes: []mode{pooled}, needs: protocol.CanSettings, rule: ruleSettings,
		run: func(s *session) {
			s.load()
			s.send(invoke(0, "sleep", tooLong), invoke(1, "sleep", tooLong))
			s.pause()
			s.send(settings(1), cancel(0), cancel(1))
			s.answers(2)
			s.says("echo", "still here", "still here")
			s.finish()
		},
	},
	{
		name: "settings/drain", modes: []mode{one, pooled}, needs: protocol.CanSettings, rule: ruleEnds,
		run: func(s *session) {
			s.load()
			s.send(invoke(0, "sleep", "300"), settings(2), settings(1), invoke(1, "echo", "x"), drain())
			s.answers(2)
			s.ended()
		},
	},
	{
		name: "settings/async", modes: []mode{async}, needs: protocol.CanSettings, rule: ruleSettings,
		run: func(s *session) {
			s.load()
			s.send(invoke(0, "sleep", "300"), settings(4), settings(2), invoke(1, "echo", "x"))
			s.answers(2)
			s.finish()
		},
	},
}
