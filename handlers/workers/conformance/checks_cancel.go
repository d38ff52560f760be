package conformance

import (
	"fmt"
	"slices"
	"strings"

	"github.com/drover-run/drover/handlers/workers/conformance/driver"
	"github.com/drover-run/drover/handlers/workers/protocol"
)

const ruleCancel = "cancel the call if possible"

var cancelChecks = []check{
	{
		name: "cancel/running", modes: all, needs: protocol.CanCancel, rule: ruleCancel,
		run: func(s *session) {
			s.loadApp()
			s.Send(invokeFrame(0, "sleep", tooLong))
			s.pauseBriefly()
			s.Send(cancelFrame(0), cancelFrame(0))
			s.ExpectResult()
			s.callAndExpect("echo", "still here", "still here")
			s.finishCheck()
		},
	},
	{
		name: "cancel/neighbours", modes: shared, needs: protocol.CanCancel, rule: ruleCancel,
		run: func(s *session) {
			s.loadApp()
			s.Send(invokeFrame(0, "sleep", tooLong), invokeFrame(1, "sleep", "300"), invokeFrame(2, "sleep", tooLong), cancelFrame(0))
			if r := s.ExpectResult(); r.ID != 0 && r.ID != 1 {
				s.Fail(fmt.Sprintf("the RESULT of %d", r.ID), "that of 0, which was cancelled, and that of 1")
			}
			if r := s.ExpectResult(); r.ID != 0 && r.ID != 1 {
				s.Fail(fmt.Sprintf("the RESULT of %d", r.ID), "that of 0, which was cancelled, and that of 1")
			}
			s.Send(cancelFrame(2))
			s.ExpectResult()
			s.finishCheck()
		},
	},
	{
		name: "cancel/queued", modes: []mode{one}, needs: protocol.CanCancel, rule: ruleNotTried,
		run: func(s *session) {
			s.loadApp()
			s.Send(invokeFrame(0, "sleep", "1500"), invokeFrame(1, "sleep", tooLong), invokeFrame(2, "echo", "x")) // long enough for a busy machine
			s.pauseBriefly()
			s.Send(cancelFrame(1))
			got := s.expectAnswers(3) // call 1 is answered at once, or in order
			s.expectStatus(got[0], protocol.Done)
			s.expectStatus(got[1], protocol.NotTried)
			s.expectStatus(got[2], protocol.Done)
			s.finishCheck()
		},
	},
	{
		name: "cancel/at-once", modes: all, needs: protocol.CanCancel, rule: driver.RuleOne,
		run: func(s *session) {
			s.loadApp()
			const many = 500
			var frames []driver.Frame
			for id := range uint32(many) {
				frames = append(frames, invokeFrame(id, "echo", "x"), cancelFrame(id))
			}
			s.SendBehind(frames...)
			s.expectAnswers(many)
			s.callAndExpect("echo", "still here", "still here")
			s.finishCheck()
		},
	},
	{
		name: "cancel/finished", modes: all, needs: protocol.CanCancel, rule: ruleLate,
		run: func(s *session) {
			s.loadApp()
			s.callAndExpect("echo", "x", "x")
			for i := range 200 {
				s.Send(cancelFrame(0), invokeFrame(0, "echo", fmt.Sprint(i)))
				s.expectAnswer(0, protocol.Done)
			}
			s.Send(cancelFrame(0), invokeFrame(1, "echo", "x"), cancelFrame(1), cancelFrame(1))
			s.ExpectResult()
			s.Send(invokeFrame(0, "echo", "x"), invokeFrame(1, "echo", "x"))
			for _, r := range s.expectAnswers(2) {
				s.expectStatus(r, protocol.Done)
			}
			s.finishCheck()
		},
	},
	{
		name: "cancel/unknown", modes: all, needs: protocol.CanCancel, rule: ruleLate,
		run: func(s *session) {
			s.loadApp()
			s.Send(cancelFrame(12_345), cancelFrame(0xFFFFFFFF))
			s.Send(invokeFrame(12_345, "echo", "x"))
			s.expectAnswer(12_345, protocol.Done)
			s.finishCheck()
		},
	},
}

const (
	ruleLate     = "A CANCEL after the answer is ignored, and never applies to a later call with the same id."
	ruleNotTried = "not tried: cancelled before it began"
)

var logChecks = []check{
	{
		name: "log/ids", modes: all, needs: protocol.CanLog, rule: driver.RuleLogIDs,
		run: func(s *session) {
			s.loadApp()
			s.Logs = nil
			const many = 20
			var frames []driver.Frame
			for id := range uint32(many) {
				frames = append(frames, invokeFrame(id, "say", fmt.Sprintf("line ☃ of %d", id)))
			}
			s.Send(frames...)
			s.expectAnswers(many)
			for id := range int64(many) {
				expectLog(s, id, fmt.Sprintf("line ☃ of %d", id))
			}
			s.finishCheck()
		},
	},
	{
		name: "log/level", modes: all, needs: protocol.CanLog, rule: "`level` (DEBUG, INFO, WARNING, ERROR, CRITICAL)",
		run: func(s *session) {
			s.loadApp()
			s.Send(invokeFrame(3, "warn", "careful"))
			s.expectAnswer(3, protocol.Done)
			if line := expectLog(s, 3, "careful"); line.Level != "WARNING" {
				s.Fail("a LOG of level "+line.Level, "WARNING")
			}
			s.finishCheck()
		},
	},
	{
		name: "log/long", modes: all, needs: protocol.CanLog, rule: driver.RuleSizes,
		run: func(s *session) {
			s.loadApp()
			for _, text := range []string{strings.Repeat("x", 1_000_000), strings.Repeat("😀", 300_000), strings.Repeat("\x01\"", 300_000), strings.Repeat("line\n", 2_000)} {
				s.SendBehind(invokeFrame(0, "say", text))
				s.expectAnswer(0, protocol.Done)
				s.SendBehind(invokeFrame(1, "warn", text))
				s.expectAnswer(1, protocol.Done)
			}
			s.callAndExpect("echo", "still here", "still here")
			s.finishCheck()
		},
	},
}

// expectLog returns the LOG of a call with a text.
func expectLog(s *session, id int64, text string) protocol.LogFrame {
	at := slices.IndexFunc(s.Logs, func(line protocol.LogFrame) bool { return line.ID == id && strings.Contains(line.Text, text) })
	if at < 0 {
		s.Fail(fmt.Sprintf("no LOG of %d with the text %q before its RESULT", id, text), "one")
	}
	return s.Logs[at]
}
