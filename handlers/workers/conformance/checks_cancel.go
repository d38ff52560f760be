package conformance

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/drover-run/drover/handlers/workers/protocol"
)

const ruleCancel = "cancel the call if possible"

var cancelChecks = []check{
	{
		name: "cancel/running", modes: all, needs: protocol.CanCancel, rule: ruleCancel,
		run: func(s *session) {
			s.load()
			s.send(invoke(0, "sleep", tooLong))
			s.pause()
			s.send(cancel(0), cancel(0))
			s.result()
			s.says("echo", "still here", "still here")
			s.finish()
		},
	},
	{
		name: "cancel/neighbours", modes: shared, needs: protocol.CanCancel, rule: ruleCancel,
		run: func(s *session) {
			s.load()
			s.send(invoke(0, "sleep", tooLong), invoke(1, "sleep", "300"), invoke(2, "sleep", tooLong), cancel(0))
			if r := s.result(); r.ID != 0 && r.ID != 1 {
				s.fail(fmt.Sprintf("the RESULT of %d", r.ID), "that of 0, which was cancelled, and that of 1")
			}
			if r := s.result(); r.ID != 0 && r.ID != 1 {
				s.fail(fmt.Sprintf("the RESULT of %d", r.ID), "that of 0, which was cancelled, and that of 1")
			}
			s.send(cancel(2))
			s.result()
			s.finish()
		},
	},
	{
		name: "cancel/queued", modes: []mode{one}, needs: protocol.CanCancel, rule: ruleNotTried,
		run: func(s *session) {
			s.load()
			s.send(invoke(0, "sleep", "1500"), invoke(1, "sleep", tooLong), invoke(2, "echo", "x")) // long enough for a busy machine
			s.pause()
			s.send(cancel(1))
			got := s.answers(3) // 1 is answered at once, or in its turn
			s.is(got[0], protocol.Done)
			s.is(got[1], protocol.NotTried)
			s.is(got[2], protocol.Done)
			s.finish()
		},
	},
	{
		name: "cancel/at-once", modes: all, needs: protocol.CanCancel, rule: ruleOne,
		run: func(s *session) {
			s.load()
			const many = 500
			var frames []frame
			for id := range uint32(many) {
				frames = append(frames, invoke(id, "echo", "x"), cancel(id))
			}
			s.sendBehind(frames...)
			s.answers(many)
			s.says("echo", "still here", "still here")
			s.finish()
		},
	},
	{
		name: "cancel/finished", modes: all, needs: protocol.CanCancel, rule: ruleLate,
		run: func(s *session) {
			s.load()
			s.says("echo", "x", "x")
			for i := range 200 {
				s.send(cancel(0), invoke(0, "echo", fmt.Sprint(i)))
				s.answer(0, protocol.Done)
			}
			s.send(cancel(0), invoke(1, "echo", "x"), cancel(1), cancel(1))
			s.result()
			s.send(invoke(0, "echo", "x"), invoke(1, "echo", "x"))
			for _, r := range s.answers(2) {
				s.is(r, protocol.Done)
			}
			s.finish()
		},
	},
	{
		name: "cancel/unknown", modes: all, needs: protocol.CanCancel, rule: ruleLate,
		run: func(s *session) {
			s.load()
			s.send(cancel(12_345), cancel(0xFFFFFFFF))
			s.send(invoke(12_345, "echo", "x"))
			s.answer(12_345, protocol.Done)
			s.finish()
		},
	},
}

const (
	ruleLate     = "A CANCEL after the answer is ignored, and never applies to a later call with the same id."
	ruleNotTried = "not tried: cancelled before it began"
)

// pause gives the worker the time to begin with a call, of which nothing tells us.
// A check holds, too, where that was not enough.
func (s *session) pause() {
	select {
	case <-time.After(100 * time.Millisecond):
	case <-s.ctx.Done():
	}
}

var logChecks = []check{
	{
		name: "log/ids", modes: all, needs: protocol.CanLog, rule: ruleLogIDs,
		run: func(s *session) {
			s.load()
			s.logs = nil
			const many = 20
			var frames []frame
			for id := range uint32(many) {
				frames = append(frames, invoke(id, "say", fmt.Sprintf("line ☃ of %d", id)))
			}
			s.send(frames...)
			s.answers(many)
			for id := range int64(many) {
				s.logged1(id, fmt.Sprintf("line ☃ of %d", id))
			}
			s.finish()
		},
	},
	{
		name: "log/level", modes: all, needs: protocol.CanLog, rule: "`level` (DEBUG, INFO, WARNING, ERROR, CRITICAL)",
		run: func(s *session) {
			s.load()
			s.send(invoke(3, "warn", "careful"))
			s.answer(3, protocol.Done)
			if line := s.logged1(3, "careful"); line.Level != "WARNING" {
				s.fail("a LOG of level "+line.Level, "WARNING")
			}
			s.finish()
		},
	},
	{
		name: "log/long", modes: all, needs: protocol.CanLog, rule: ruleSizes,
		run: func(s *session) {
			s.load()
			for _, text := range []string{strings.Repeat("x", 1_000_000), strings.Repeat("😀", 300_000), strings.Repeat("\x01\"", 300_000), strings.Repeat("line\n", 2_000)} {
				s.sendBehind(invoke(0, "say", text))
				s.answer(0, protocol.Done)
				s.sendBehind(invoke(1, "warn", text))
				s.answer(1, protocol.Done)
			}
			s.says("echo", "still here", "still here")
			s.finish()
		},
	},
}

// logged1 returns the LOG of a call with a text.
func (s *session) logged1(id int64, text string) protocol.LogFrame {
	at := slices.IndexFunc(s.logs, func(line protocol.LogFrame) bool { return line.ID == id && strings.Contains(line.Text, text) })
	if at < 0 {
		s.fail(fmt.Sprintf("no LOG of %d with the text %q before its RESULT", id, text), "one")
	}
	return s.logs[at]
}
