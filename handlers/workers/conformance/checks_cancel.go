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
			s.load()
			s.Send(invoke(0, "sleep", tooLong))
			s.pause()
			s.Send(cancel(0), cancel(0))
			s.ExpectResult()
			s.callAndExpect("echo", "still here", "still here")
			s.finish()
		},
	},
	{
		name: "cancel/neighbours", modes: shared, needs: protocol.CanCancel, rule: ruleCancel,
		run: func(s *session) {
			s.load()
			s.Send(invoke(0, "sleep", tooLong), invoke(1, "sleep", "300"), invoke(2, "sleep", tooLong), cancel(0))
			if r := s.ExpectResult(); r.ID != 0 && r.ID != 1 {
				s.Fail(fmt.Sprintf("the RESULT of %d", r.ID), "that of 0, which was cancelled, and that of 1")
			}
			if r := s.ExpectResult(); r.ID != 0 && r.ID != 1 {
				s.Fail(fmt.Sprintf("the RESULT of %d", r.ID), "that of 0, which was cancelled, and that of 1")
			}
			s.Send(cancel(2))
			s.ExpectResult()
			s.finish()
		},
	},
	{
		name: "cancel/queued", modes: []mode{one}, needs: protocol.CanCancel, rule: ruleNotTried,
		run: func(s *session) {
			s.load()
			s.Send(invoke(0, "sleep", "1500"), invoke(1, "sleep", tooLong), invoke(2, "echo", "x")) // long enough for a busy machine
			s.pause()
			s.Send(cancel(1))
			got := s.expectAnswers(3) // call 1 is answered at once, or in order
			s.expectStatus(got[0], protocol.Done)
			s.expectStatus(got[1], protocol.NotTried)
			s.expectStatus(got[2], protocol.Done)
			s.finish()
		},
	},
	{
		name: "cancel/at-once", modes: all, needs: protocol.CanCancel, rule: driver.RuleOne,
		run: func(s *session) {
			s.load()
			const many = 500
			var frames []driver.Frame
			for id := range uint32(many) {
				frames = append(frames, invoke(id, "echo", "x"), cancel(id))
			}
			s.SendBehind(frames...)
			s.expectAnswers(many)
			s.callAndExpect("echo", "still here", "still here")
			s.finish()
		},
	},
	{
		name: "cancel/finished", modes: all, needs: protocol.CanCancel, rule: ruleLate,
		run: func(s *session) {
			s.load()
			s.callAndExpect("echo", "x", "x")
			for i := range 200 {
				s.Send(cancel(0), invoke(0, "echo", fmt.Sprint(i)))
				s.expectAnswer(0, protocol.Done)
			}
			s.Send(cancel(0), invoke(1, "echo", "x"), cancel(1), cancel(1))
			s.ExpectResult()
			s.Send(invoke(0, "echo", "x"), invoke(1, "echo", "x"))
			for _, r := range s.expectAnswers(2) {
				s.expectStatus(r, protocol.Done)
			}
			s.finish()
		},
	},
	{
		name: "cancel/unknown", modes: all, needs: protocol.CanCancel, rule: ruleLate,
		run: func(s *session) {
			s.load()
			s.Send(cancel(12_345), cancel(0xFFFFFFFF))
			s.Send(invoke(12_345, "echo", "x"))
			s.expectAnswer(12_345, protocol.Done)
			s.finish()
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
			s.load()
			s.Logs = nil
			const many = 20
			var frames []driver.Frame
			for id := range uint32(many) {
				frames = append(frames, invoke(id, "say", fmt.Sprintf("line ☃ of %d", id)))
			}
			s.Send(frames...)
			s.expectAnswers(many)
			for id := range int64(many) {
				expectLog(s, id, fmt.Sprintf("line ☃ of %d", id))
			}
			s.finish()
		},
	},
	{
		name: "log/level", modes: all, needs: protocol.CanLog, rule: "`level` (DEBUG, INFO, WARNING, ERROR, CRITICAL)",
		run: func(s *session) {
			s.load()
			s.Send(invoke(3, "warn", "careful"))
			s.expectAnswer(3, protocol.Done)
			if line := expectLog(s, 3, "careful"); line.Level != "WARNING" {
				s.Fail("a LOG of level "+line.Level, "WARNING")
			}
			s.finish()
		},
	},
	{
		name: "log/long", modes: all, needs: protocol.CanLog, rule: driver.RuleSizes,
		run: func(s *session) {
			s.load()
			for _, text := range []string{strings.Repeat("x", 1_000_000), strings.Repeat("😀", 300_000), strings.Repeat("\x01\"", 300_000), strings.Repeat("line\n", 2_000)} {
				s.SendBehind(invoke(0, "say", text))
				s.expectAnswer(0, protocol.Done)
				s.SendBehind(invoke(1, "warn", text))
				s.expectAnswer(1, protocol.Done)
			}
			s.callAndExpect("echo", "still here", "still here")
			s.finish()
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
