package conformance

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/drover-run/drover/handlers/workers/conformance/driver"
	"github.com/drover-run/drover/handlers/workers/protocol"
	"github.com/drover-run/drover/triggers"
)

// The checks in this file load one function, for which LOAD has fields that only workers with a
// capability get.

const (
	ruleSent    = "64: the function sends messages to named outputs"
	ruleUnknown = "A message for an output that LOAD does not name is status 2"
	ruleOrigin  = "Flag 2 means that the source's own fields follow"
)

var outputChecks = []check{
	{
		name: "outputs/sent", modes: all, needs: protocol.CanOutputs, rule: ruleSent,
		run: func(s *session) {
			s.loadOne(protocol.Function{Name: sending, Outputs: outputNames})
			for _, body := range []string{"x", "", "käse\x00\xff"} {
				expectSent(s, oneInvoke(body), body, "plain")
			}
			s.Send(oneInvoke("none"))
			if r := s.expectAnswer(0, protocol.Done); len(r.Messages) > 0 || len(r.Output) > 0 {
				s.Fail(fmt.Sprintf("%d messages and the result %s", len(r.Messages), driver.Excerpt(r.Output)), "none")
			}
			s.finishCheck()
		},
	},
	{
		name: "outputs/dropped", modes: all, needs: protocol.CanOutputs, rule: "Messages for named outputs are sent in any case.",
		run: func(s *session) {
			s.loadOne(protocol.Function{Name: sending, Outputs: outputNames, Results: protocol.Dropped})
			expectSent(s, oneInvoke("x"), "x", "")
			s.finishCheck()
		},
	},
	{
		name: "outputs/unknown", modes: all, needs: protocol.CanOutputs, rule: ruleUnknown,
		run: func(s *session) {
			s.loadOne(protocol.Function{Name: sending, Outputs: outputNames})
			s.Send(oneInvoke("unknown"))
			r := s.expectAnswer(0, protocol.Reject)
			for _, name := range append([]string{"nobody"}, outputNames...) {
				if !strings.Contains(r.Outcome.Summary, name) {
					s.Fail(fmt.Sprintf("a summary of %q", r.Outcome.Summary), name+" in it")
				}
			}
			expectSent(s, oneInvoke("x"), "x", "plain")
			s.finishCheck()
		},
	},
	{
		name: "outputs/state", modes: all, needs: protocol.CanOutputs, rule: ruleSent,
		run: func(s *session) {
			s.loadOne(protocol.Function{Name: sending, Outputs: outputNames})
			if !slices.Contains(s.Welcome.Capabilities, protocol.CanSessionState) {
				panic(skip("the worker does not have the capability " + protocol.CanSessionState))
			}
			s.Send(frameOf(&protocol.Invocation{Message: &triggers.Message{ID: "the-id", Attempt: 1, Body: []byte("state")}, Stateful: true, State: []byte("old")}))
			r := s.expectAnswer(0, protocol.State)
			if checkSent(s, r, "state", "plain"); string(r.State) != "new" {
				s.Fail(fmt.Sprintf("the state %q", r.State), "new")
			}
			s.finishCheck()
		},
	},
	{
		name: "invoke/origin", modes: all, needs: protocol.CanOrigin, rule: ruleOrigin,
		run: func(s *session) {
			s.loadOne(protocol.Function{Name: "describe", Origin: true})
			for _, origin := range []string{"", `{}`, `{"PopReceipt":"☃","Times":{"a":"2026-12-01T02:03:04.000005+00:00"}}`} {
				i := &protocol.Invocation{Message: &triggers.Message{ID: "the-id", Subject: "s", Attempt: 1, Body: []byte("body"), Attributes: map[string]string{"n": "é"}}}
				if origin != "" {
					i.Origin = []byte(origin)
				}
				s.Send(frameOf(i))
				r := s.expectAnswer(0, protocol.Done)
				var got described
				if err := json.Unmarshal(r.Payload, &got); err != nil || got.ID != "the-id" || got.Attributes["n"] != "é" || got.Size != len("body") {
					s.Fail("describe returned "+driver.Excerpt(r.Payload), "the message as without its origin")
				}
			}
			s.finishCheck()
		},
	},
}

// loadOne makes the worker load one function of the test app, by its name.
func (s *session) loadOne(f protocol.Function) {
	s.handshake()
	f.Module, f.Function = s.target.Module, s.nameOf(f.Name)
	l := s.loadFrame()
	l.Functions = append(l.Functions, f)
	s.Send(driver.JSONFrame(protocol.Load, l))
	s.ExpectReady()
}

// oneInvoke returns an INVOKE of the only function that is loaded.
func oneInvoke(body string) driver.Frame {
	return frameOf(&protocol.Invocation{Message: &triggers.Message{ID: "the-id", Attempt: 1, Body: []byte(body)}})
}

func frameOf(i *protocol.Invocation) driver.Frame {
	return driver.Frame{Text: fmt.Sprintf("INVOKE %d (%d bytes)", i.ID, len(i.Message.Body)), Bytes: protocol.AppendInvoke(nil, i), Opens: []uint32{i.ID}}
}

// expectSent sends an INVOKE, and checks the messages that the function sends for a body.
func expectSent(s *session, f driver.Frame, body, result string) {
	s.Send(f)
	checkSent(s, s.expectAnswer(0, protocol.Done), body, result)
}

// checkSent checks the messages for a body, and the plain result.
func checkSent(s *session, r driver.Result, body, result string) {
	want := []protocol.Sent{
		{Output: 0, Body: []byte(body), Properties: triggers.Properties{triggers.ContentType: "text/x-test", triggers.CorrelationID: "the-id", "attribute:n": "é"}},
		{Output: 1, Body: []byte("1")}, {Output: 1, Body: []byte("2")},
	}
	same := slices.EqualFunc(r.Messages, want, func(got, want protocol.Sent) bool {
		return got.Output == want.Output && string(got.Body) == string(want.Body) && maps.Equal(got.Properties, want.Properties)
	})
	if !same || string(r.Output) != result {
		s.Fail(fmt.Sprintf("it sent %s and returned %s", describeSent(r.Messages), driver.Excerpt(r.Output)), fmt.Sprintf("%s and %q", describeSent(want), result))
	}
}

func describeSent(all []protocol.Sent) string {
	var out []string
	for _, m := range all {
		out = append(out, fmt.Sprintf("%q to output %d with %v", m.Body, m.Output, m.Properties))
	}
	return "[" + strings.Join(out, ", ") + "]"
}
