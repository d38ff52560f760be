package conformance

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/drover-run/drover/handlers/workers/conformance/driver"
	"github.com/drover-run/drover/handlers/workers/protocol"
	"github.com/drover-run/drover/triggers"
)

// maxBatch is the maximum number of messages in a batch that the checks send.
const maxBatch = 2000

const (
	ruleBatch    = "Flag 4 means that the message is a batch"
	ruleVerdicts = "a verdict on each message of a batch"
)

var batchChecks = []check{
	{
		name: "batch/verdicts", modes: all, needs: protocol.CanBatch, rule: ruleVerdicts,
		run: func(s *session) {
			s.loadOne(protocol.Function{Name: batchFunction, Batch: maxBatch})
			each, whole := s.callBatch("done", "reject", "a result", "retry", "fail", "done")
			s.wantVerdicts(each, protocol.Done, protocol.Reject, protocol.Done, protocol.Retry, protocol.Failure, protocol.Done)
			for i, want := range map[int]string{0: "", 2: "a result"} {
				if got := string(each[i].Payload); got != want {
					s.Fail(fmt.Sprintf("the result of message %d is %q", i, got), fmt.Sprintf("%q", want))
				}
			}
			for i, want := range map[int]string{1: "rejected", 4: "failed"} {
				var outcome protocol.Outcome
				if err := json.Unmarshal(each[i].Payload, &outcome); err != nil || !strings.Contains(outcome.Summary, want) {
					s.Fail(fmt.Sprintf("the verdict on message %d is %s", i, driver.Excerpt(each[i].Payload)), "a summary with "+want)
				}
			}
			var later protocol.Outcome
			if err := json.Unmarshal(each[3].Payload, &later); err != nil || later.After != 1.5 {
				s.Fail("the verdict on message 3 is "+driver.Excerpt(each[3].Payload), "after to be 1.5")
			}
			if whole == nil {
				s.Fail("the call has no result of its own", "a list of the messages")
			}
			s.finishCheck()
		},
	},
	{
		name: "batch/fields", modes: all, needs: protocol.CanBatch, rule: "Each is a u32 attempt, an",
		run: func(s *session) {
			s.loadOne(protocol.Function{Name: batchFunction, Batch: maxBatch})
			messages := []*triggers.Message{
				{ID: "first", Attempt: 1, Body: []byte("done")},
				{ID: "Straße", Subject: "orders.☃", Attempt: 2_000_000_000, Enqueued: time.UnixMilli(1_700_000_000_123), Attributes: map[string]string{"a": "b"}, Body: []byte{}},
				{ID: "", Attempt: 3, Enqueued: time.UnixMilli(-86_400_000), Body: []byte(strings.Repeat("x", 300_000))},
			}
			_, whole := s.callMessages(messages...)
			var got []described
			if whole == nil || json.Unmarshal(whole.Payload, &got) != nil || len(got) != len(messages) {
				s.Fail("the result of the call is not a list of the messages", "one object for each")
			}
			for i, m := range messages {
				var enqueued *int64
				if !m.Enqueued.IsZero() {
					enqueued = new(m.Enqueued.UnixMilli())
				}
				if g := got[i]; g.ID != m.ID || g.Subject != m.Subject || g.Attempt != m.Attempt || g.Size != len(m.Body) || (g.Enqueued == nil) != (enqueued == nil) || enqueued != nil && *g.Enqueued != *enqueued {
					s.Fail(fmt.Sprintf("message %d is %+v", i, g), fmt.Sprintf("%q, %q, attempt %d, %d bytes", m.ID, m.Subject, m.Attempt, len(m.Body)))
				}
			}
			s.finishCheck()
		},
	},
	{
		name: "batch/many", modes: all, needs: protocol.CanBatch, rule: ruleBatch,
		run: func(s *session) {
			s.loadOne(protocol.Function{Name: batchFunction, Batch: maxBatch})
			var bodies []string
			for i := range maxBatch {
				bodies = append(bodies, fmt.Sprint("body ", i))
			}
			each, _ := s.callBatch(bodies...)
			for i, body := range bodies {
				if got := string(each[i].Payload); got != body {
					s.Fail(fmt.Sprintf("the result of message %d is %q", i, got), fmt.Sprintf("%q: the messages and the verdicts are in order", body))
				}
			}
			each, _ = s.callBatch("alone")
			if got := string(each[0].Payload); got != "alone" {
				s.Fail(fmt.Sprintf("the result of a batch of one message is %q", got), "alone")
			}
			s.finishCheck()
		},
	},
	{
		name: "batch/whole", modes: all, needs: protocol.CanBatch, rule: "With the status 0 all messages are done, and the result belongs to the call",
		run: func(s *session) {
			s.loadOne(protocol.Function{Name: batchFunction, Batch: maxBatch})
			s.Send(batchInvoke(0, messagesOf("whole", "x", "y")...))
			if r := s.expectAnswer(0, protocol.Done); string(r.Payload) != "3" {
				s.Fail("it returned "+driver.Excerpt(r.Payload), "3")
			}
			s.Send(batchInvoke(0, messagesOf("x", "throw")...))
			s.expectAnswer(0, protocol.Failure)
			s.Send(batchInvoke(0, messagesOf("whole")...))
			s.expectAnswer(0, protocol.Done)
			s.finishCheck()
		},
	},
}

func messagesOf(bodies ...string) (out []*triggers.Message) {
	for i, body := range bodies {
		out = append(out, &triggers.Message{ID: fmt.Sprint("m", i), Attempt: 1, Body: []byte(body)})
	}
	return out
}

// batchInvoke returns an INVOKE with a batch.
func batchInvoke(id uint32, messages ...*triggers.Message) driver.Frame {
	i := &protocol.Invocation{ID: id, Message: messages[0], Batch: messages}
	return driver.Frame{Text: fmt.Sprintf("INVOKE %d with a batch of %d messages", id, len(messages)), Bytes: protocol.AppendBatch(nil, i), Opens: []uint32{id}}
}

func (s *session) callBatch(bodies ...string) (each []protocol.Reply, whole *protocol.Reply) {
	return s.callMessages(messagesOf(bodies...)...)
}

// callMessages calls the function with a batch. The answer must have a verdict on each message.
func (s *session) callMessages(messages ...*triggers.Message) (each []protocol.Reply, whole *protocol.Reply) {
	s.Send(batchInvoke(0, messages...))
	r := s.expectAnswer(0, protocol.Batch)
	each, whole, err := protocol.CutBatch(r.Payload)
	if err != nil || len(each) != len(messages) {
		s.Fail(fmt.Sprintf("%d verdicts (%v)", len(each), err), fmt.Sprint(len(messages)))
	}
	if whole != nil && whole.Described { // as JSON
		if _, whole.Payload, err = protocol.CutProperties(whole.Payload); err != nil {
			s.Fail(err.Error(), "properties")
		}
	}
	return each, whole
}

func (s *session) wantVerdicts(got []protocol.Reply, want ...protocol.Status) {
	for i, status := range want {
		if got[i].Status != status {
			s.Fail(fmt.Sprintf("a verdict of status %d on message %d", got[i].Status, i), fmt.Sprintf("status %d", status))
		}
	}
}
