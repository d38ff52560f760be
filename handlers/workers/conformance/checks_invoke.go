package conformance

import (
	"encoding/json"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"time"

	"github.com/drover-run/drover/handlers/workers/conformance/driver"
	"github.com/drover-run/drover/handlers/workers/protocol"
	"github.com/drover-run/drover/triggers"
)

// described is the result of the function describe.
type described struct {
	ID          string              `json:"id"`
	Subject     string              `json:"subject"`
	OrderingKey string              `json:"ordering_key"`
	Attributes  map[string]string   `json:"attributes"`
	Repeated    map[string][]string `json:"repeated"`
	Properties  map[string]string   `json:"properties"`
	Attempt     int                 `json:"attempt"`
	Enqueued    *int64              `json:"enqueued_ms"`
	Deadline    *int64              `json:"deadline_ms"`
	Size        int                 `json:"size"`
}

// expectDescribed calls describe with a message, and checks the result.
func expectDescribed(s *session, m *triggers.Message, deadline time.Time) described {
	s.Send(fullInvoke("describe", &protocol.Invocation{ID: 7, Message: m, Deadline: deadline}))
	r := s.expectAnswer(7, protocol.Done)
	var got described
	if err := json.Unmarshal(r.Payload, &got); err != nil {
		s.Fail("describe returned no JSON: "+driver.Excerpt(r.Payload), "what docs/worker-protocol.md says of describe")
	}
	same := func(name string, got, want any) {
		if got != want {
			s.Fail(fmt.Sprintf("%s was %.200q", name, fmt.Sprint(got)), fmt.Sprintf("%.200q", fmt.Sprint(want)))
		}
	}
	same("the id", got.ID, m.ID)
	same("the subject", got.Subject, m.Subject)
	same("the ordering key", got.OrderingKey, m.OrderingKey)
	same("the attempt", got.Attempt, m.Attempt)
	same("the size of the body", got.Size, len(m.Body))
	same("the number of attributes", len(got.Attributes), len(m.Attributes))
	same("the repeated attribute", fmt.Sprint(got.Repeated), fmt.Sprint(m.Repeated))
	same("the properties", fmt.Sprint(got.Properties), fmt.Sprint(map[string]string(m.Properties())))
	ms := func(t time.Time) string {
		if t.IsZero() {
			return "null"
		}
		return fmt.Sprint(t.UnixMilli())
	}
	text := func(ms *int64) string {
		if ms == nil {
			return "null"
		}
		return fmt.Sprint(*ms)
	}
	same("enqueued_ms", text(got.Enqueued), ms(m.Enqueued))
	same("deadline_ms", text(got.Deadline), ms(deadline))
	return got
}

const ruleInvoke = "u32 id, u16 function (its index in LOAD), u16 flags, u32 attempt (from 1), i64 enqueued and i64 deadline"

var invokeChecks = []check{
	{
		name: "invoke/echo", modes: all, rule: "The body is the rest of the frame, as the sender sent it.",
		run: func(s *session) {
			s.loadApp()
			for _, body := range []string{"", "x", "\x00\xff\xfe", "käse ☃", strings.Repeat("0123456789", 50_000)} {
				s.callAndExpect("echo", body, body)
			}
			s.finishCheck()
		},
	},
	{
		name: "invoke/fields", modes: all, rule: ruleInvoke,
		run: func(s *session) {
			s.loadApp()
			expectDescribed(s, &triggers.Message{Attempt: 1}, time.Time{})
			m := &triggers.Message{
				ID: "Straße:7", Subject: "orders.☃", OrderingKey: "ключ", Attempt: 2_000_000_000, Body: []byte("body"),
				Enqueued: time.UnixMilli(1_700_000_000_123), Attributes: map[string]string{"n": "v", "é": ""},
			}
			expectDescribed(s, m, time.UnixMilli(4_102_444_800_456))
			m.ID, m.Enqueued = strings.Repeat("long", 5_000), time.UnixMilli(-86_400_000) // before 1970
			expectDescribed(s, m, time.UnixMilli(1_000_000_000_000))                      // the deadline has passed
			s.finishCheck()
		},
	},
	{
		name: "invoke/attributes", modes: all, rule: "names and values of its attributes in turn",
		run: func(s *session) {
			s.loadApp()
			m := &triggers.Message{ID: "m", Attempt: 1, Attributes: map[string]string{
				"": "no name", "empty": "", "nul\x00": "\x00", "quote\"'\\": "\r\n\t\u2028", "__proto__": "p", "constructor": "c",
				"smile 😀": strings.Repeat("😀", 10_000), "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
			}}
			for i := range 500 {
				m.Attributes[fmt.Sprint("a", i)] = fmt.Sprint(i)
			}
			got := expectDescribed(s, m, time.Time{})
			for name, value := range m.Attributes {
				if got.Attributes[name] != value {
					s.Fail(fmt.Sprintf("the attribute %q was %.100q", name, got.Attributes[name]), fmt.Sprintf("%.100q", value))
				}
			}
			s.finishCheck()
		},
	},
	{
		name: "invoke/repeated", modes: all, rule: "An attribute with several values has one pair for each, in order",
		run: func(s *session) {
			s.loadApp()
			m := &triggers.Message{ID: "m", Attempt: 1, Attributes: map[string]string{"": "no name", "a": "1", "once": "o"}, Repeated: map[string][]string{"a": {"1", "", "1", "2"}}}
			if got := expectDescribed(s, m, time.Time{}); got.Attributes["a"] != "1" {
				s.Fail(fmt.Sprintf("the attribute a was %q", got.Attributes["a"]), "1, the first value")
			}
			s.finishCheck()
		},
	},
	{
		name: "invoke/properties", modes: all, rule: "after a pair of two empty strings, the names and values of its properties",
		run: func(s *session) {
			s.loadApp()
			known := triggers.Known{triggers.ContentType: "text/käse", triggers.SequenceNumber: "9223372036854775807", triggers.To: "", "of-tomorrow": "x"}
			expectDescribed(s, &triggers.Message{ID: "m", Attempt: 1, Origin: known}, time.Time{})
			expectDescribed(s, &triggers.Message{ID: "m", Attempt: 1, Attributes: map[string]string{"to": "a", "": "b"}, Origin: known}, time.Time{})
			s.finishCheck()
		},
	},
	{
		name: "invoke/no-utf-8", modes: all, rule: "the worker decodes them as well as it can, and calls the function",
		run: func(s *session) {
			s.loadApp()
			s.Send(fullInvoke("describe", &protocol.Invocation{Message: &triggers.Message{
				ID: "m", Attempt: 1, Attributes: map[string]string{"fine": "yes", "latin": "k\xe4se", "cut": "\xf0\x9f"},
			}}))
			r := s.expectAnswer(0, protocol.Done)
			var got described
			if err := json.Unmarshal(r.Payload, &got); err != nil || got.Attributes["fine"] != "yes" {
				s.Fail("describe returned "+driver.Excerpt(r.Payload), "fine to be yes among the attributes")
			}
			s.finishCheck()
		},
	},
	{
		name: "invoke/largest", modes: all, rule: "`max_frame` is 130 MiB by default",
		run: func(s *session) {
			s.loadApp()
			empty := len(invokeFrame(0, "echo", "").Bytes) - 4
			body := strings.Repeat("x", driver.MaxFrame-empty)
			s.SendBehind(invokeFrame(0, "echo", body), invokeFrame(1, "echo", "small"), invokeFrame(2, "echo", body))
			got := s.expectAnswers(3)
			if len(got[0].Payload) != len(body) || string(got[1].Payload) != "small" || string(got[2].Payload) != body {
				s.Fail(fmt.Sprintf("bodies of %d, %d and %d bytes came back", len(got[0].Payload), len(got[1].Payload), len(got[2].Payload)),
					fmt.Sprintf("%d, 5 and %d", len(body), len(body)))
			}
			s.finishCheck()
		},
	},
	{
		name: "invoke/many-in-one-write", modes: all, rule: "Either side may put many frames in one write, and should.",
		run: func(s *session) {
			s.loadApp()
			const many = 2_000
			frames := make([]driver.Frame, 0, many)
			for id := range uint32(many) {
				frames = append(frames, invokeFrame(id, "echo", fmt.Sprint("body ", id)))
			}
			s.SendBehind(frames...)
			for id, r := range s.expectAnswers(many) {
				if s.expectStatus(r, protocol.Done); string(r.Payload) != fmt.Sprint("body ", id) {
					s.Fail(fmt.Sprintf("call %d returned %s", id, driver.Excerpt(r.Payload)), fmt.Sprint("body ", id))
				}
			}
			s.finishCheck()
		},
	},
	{
		name: "invoke/split", modes: all, rule: "A frame may arrive in any number of pieces.",
		run: func(s *session) {
			s.loadApp()
			s.SendSplit(invokeFrame(0, "echo", "in single bytes"), invokeFrame(1, "echo", ""), cancelFrame(99), invokeFrame(2, "echo", "y"))
			for id, want := range []string{"in single bytes", "", "y"} {
				if r := s.expectAnswer(uint32(id), protocol.Done); string(r.Payload) != want {
					s.Fail("it returned "+driver.Excerpt(r.Payload), want)
				}
			}
			s.finishCheck()
		},
	},
	{
		name: "invoke/ids-again", modes: all, rule: "An id is in use from its INVOKE to its RESULT; after that the daemon reuses it.",
		run: func(s *session) {
			s.loadApp()
			for i := range 500 {
				s.callAndExpect("echo", fmt.Sprint(i), fmt.Sprint(i))
			}
			s.finishCheck()
		},
	},
	{
		name: "invoke/any-id", modes: all, rule: ruleInvoke,
		run: func(s *session) {
			s.loadApp()
			for _, id := range []uint32{0xFFFFFFFF, 0x80000000, 0, 65_536} {
				s.Send(invokeFrame(id, "echo", "x"))
				s.expectAnswer(id, protocol.Done)
			}
			s.finishCheck()
		},
	},
	{
		name: "invoke/each-function", modes: all, rule: ruleInvoke,
		run: func(s *session) {
			s.loadApp()
			s.Send(invokeFrame(0, "nothing", "x"), invokeFrame(1, "large", "3"), invokeFrame(2, "sleep", "1"))
			got := s.expectAnswers(3)
			if len(got[0].Payload) != 0 || string(got[1].Payload) != "xxx" || string(got[2].Payload) != "slept" {
				s.Fail(fmt.Sprintf("they returned %q, %q and %q", got[0].Payload, got[1].Payload, got[2].Payload), `"", "xxx" and "slept"`)
			}
			s.finishCheck()
		},
	},
}

var resultChecks = []check{
	{
		name: "result/failed", modes: all, rule: driver.RuleOutcome,
		run: func(s *session) {
			s.loadApp()
			s.Send(invokeFrame(0, "fail", "first line\nsecond \"line\" ☃"))
			r := s.expectAnswer(0, protocol.Failure)
			if !strings.Contains(r.Outcome.Summary, "first line") {
				s.Fail(fmt.Sprintf("a summary of %q", r.Outcome.Summary), "the error's text in it")
			}
			if !strings.Contains(r.Outcome.Detail, "fail") {
				s.Fail(fmt.Sprintf("a detail of %.200q", r.Outcome.Detail), "the traceback, with the function's name in it")
			}
			s.callAndExpect("echo", "still here", "still here")
			s.finishCheck()
		},
	},
	{
		name: "result/rejected", modes: all, rule: "rejected: dead-letter the message",
		run: func(s *session) {
			s.loadApp()
			s.Send(invokeFrame(0, "reject", "not for us"))
			if r := s.expectAnswer(0, protocol.Reject); !strings.Contains(r.Outcome.Summary, "not for us") {
				s.Fail(fmt.Sprintf("a summary of %q", r.Outcome.Summary), "the rejection's text in it")
			}
			s.finishCheck()
		},
	},
	{
		name: "result/retry", modes: all, rule: "failed; retry after",
		run: func(s *session) {
			s.loadApp()
			for _, after := range []float64{0, 1.5, 86_400} {
				s.Send(invokeFrame(0, "retry", strconv.FormatFloat(after, 'f', -1, 64)))
				if r := s.expectAnswer(0, protocol.Retry); r.Outcome.After != after {
					s.Fail(fmt.Sprintf("after %v s", r.Outcome.After), fmt.Sprintf("after %v s", after))
				}
			}
			s.finishCheck()
		},
	},
	{
		name: "result/largest", modes: all, rule: "If a RESULT would exceed `max_frame`, the worker sends a failure instead.",
		run: func(s *session) {
			s.loadApp()
			const room = driver.MaxFrame - 1 - 17 // type, id, status, three times
			s.Send(invokeFrame(0, "large", fmt.Sprint(room)))
			if r := s.expectAnswer(0, protocol.Done); len(r.Payload) != room {
				s.Fail(fmt.Sprintf("%d bytes came back", len(r.Payload)), fmt.Sprint(room))
			}
			for _, n := range []int{room + 1, 10 * driver.MaxFrame} {
				s.Send(invokeFrame(0, "large", fmt.Sprint(n)))
				s.expectAnswer(0, protocol.Failure)
			}
			s.callAndExpect("echo", "still here", "still here")
			s.finishCheck()
		},
	},
	{
		name: "result/large-error", modes: all, rule: "longer ones are cut",
		run: func(s *session) {
			s.loadApp()
			for _, n := range []string{"1500000", "10000000"} { // more than such a RESULT takes, and than any
				s.Send(invokeFrame(0, "fail_large", n))
				if r := s.expectAnswer(0, protocol.Failure); !strings.Contains(r.Outcome.Summary, "xxx") {
					s.Fail(fmt.Sprintf("a summary of %q", r.Outcome.Summary), "the beginning of the error's text in it")
				}
			}
			s.SendBehind(invokeFrame(1, "reject", strings.Repeat("☃", 500_000)))
			s.expectAnswer(1, protocol.Reject)
			s.callAndExpect("echo", "still here", "still here")
			s.finishCheck()
		},
	},
	{
		name: "result/time", modes: all, rule: "`wall` is the duration of the call.",
		run: func(s *session) {
			s.loadApp()
			began := time.Now()
			s.Send(invokeFrame(0, "sleep", "200"))
			r := s.expectAnswer(0, protocol.Done)
			if took := time.Since(began); r.Took < 190*time.Millisecond || r.Took > took+time.Millisecond {
				s.Fail(fmt.Sprintf("a sleep of 200 ms took %v, says its RESULT", r.Took), fmt.Sprintf("190 ms to %v", took))
			}
			if !r.Measured {
				s.finishCheck()
				return
			}
			if r.CPU > 150*time.Millisecond || s.mode.kind == "sync" && r.Held != r.Took || s.mode.kind == "async" && r.Held > 150*time.Millisecond {
				s.FailBy(ruleHeld, fmt.Sprintf("a sleep of 200 ms, of a function that is %s, used %v and held its thread for %v, says its RESULT", s.mode.kind, r.CPU, r.Held),
					"next to no processor time, and the whole time where it is sync")
			}
			s.finishCheck()
		},
	},
}

const ruleHeld = "`cpu` is the CPU time of its own thread"

// orderChecks leave calls running that do not end, or need their own process.
var orderChecks = []check{
	{
		name: "result/order", modes: shared, rule: "not until a long call ends",
		run: func(s *session) {
			s.loadApp()
			s.Send(invokeFrame(0, "sleep", tooLong), invokeFrame(1, "echo", "x"))
			s.expectAnswer(1, protocol.Done)
		},
	},
	{
		name: "result/not-held-back", modes: all, rule: "not until a long call ends",
		run: func(s *session) {
			s.loadApp()
			s.Send(invokeFrame(0, "echo", "x"), invokeFrame(1, "sleep", tooLong))
			s.expectAnswer(0, protocol.Done)
		},
	},
	{
		name: "log/standard-output", modes: all, rule: "standard output and standard error belong to the app",
		run: func(s *session) {
			s.loadApp()
			out := strings.Repeat(string(invokeFrame(0, "echo", "x").Bytes), 5_000) // more than a pipe takes
			s.SendBehind(invokeFrame(0, "write", out))
			s.expectAnswer(0, protocol.Done)
			s.callAndExpect("echo", "still here", "still here")
			s.finishCheck()
			if n := s.Process.PrintedBytes(); n < len(out) {
				s.Fail(fmt.Sprintf("%d bytes came on standard output", n), fmt.Sprint(len(out)))
			}
		},
	},
	{
		name: "stats/lags", modes: []mode{async}, needs: protocol.CanStats, rule: driver.RuleStats,
		run: func(s *session) {
			s.loadApp()
			s.Send(invokeFrame(0, "sleep", tooLong))
			for id := uint32(1); len(s.Stats) == 0; id = 3 - id { // a STATS is taken aside while we wait for a RESULT
				s.Send(invokeFrame(id, "sleep", "200"))
				s.expectAnswer(id, protocol.Done)
			}
		},
	},
	{
		name: "heartbeat/busy", modes: all, needs: protocol.CanHeartbeat, rule: driver.RuleAlive,
		run: func(s *session) {
			s.loadApp()
			for before := s.Beats; s.Beats < before+2; { // an ALIVE is taken aside while we wait for a RESULT
				s.Send(invokeFrame(0, "sleep", "200"))
				s.expectAnswer(0, protocol.Done)
			}
		},
	},
	{
		name: "pressure/results", modes: all, rule: "The worker continues when the daemon reads again.",
		run: func(s *session) {
			s.loadApp()
			const many, size = 40, 500_000
			var frames []driver.Frame
			body := strings.Repeat("x", size)
			for id := range uint32(many) {
				frames = append(frames, invokeFrame(id, "echo", body))
			}
			s.SendBehind(frames...)
			s.pauseBriefly() // and does not read
			for _, r := range s.expectAnswers(many) {
				if s.expectStatus(r, protocol.Done); len(r.Payload) != size {
					s.Fail(fmt.Sprintf("%d bytes came back", len(r.Payload)), fmt.Sprint(size))
				}
			}
			s.finishCheck()
		},
	},
}

var propertyChecks = []check{
	{
		name: "result/properties", modes: all, needs: protocol.CanProperties, rule: "128: the result has properties",
		run: func(s *session) {
			s.loadApp()
			for _, body := range []string{"x", "", "käse\x00\xff"} {
				s.Send(fullInvoke("output", &protocol.Invocation{Message: &triggers.Message{ID: "the-id", Attempt: 1, Body: []byte(body)}}))
				want := triggers.Properties{triggers.ContentType: "text/x-test", triggers.CorrelationID: "the-id", "attribute:n": "é"}
				if r := s.expectAnswer(0, protocol.Done); string(r.Payload) != body || !maps.Equal(r.Properties, want) {
					s.Fail(fmt.Sprintf("it returned %q with %v", driver.Excerpt(r.Payload), r.Properties), fmt.Sprintf("%q with %v", body, want))
				}
			}
			s.finishCheck()
		},
	},
}

var stateChecks = []check{
	{
		name: "state/get", modes: all, needs: protocol.CanSessionState, rule: ruleState,
		run: func(s *session) {
			s.loadApp()
			for _, c := range []struct {
				state []byte
				want  string
			}{{nil, "none"}, {[]byte{}, "was "}, {[]byte("\x00\xff käse"), "was \x00\xff käse"}} {
				s.Send(statefulInvoke(c.state, "keep"))
				if r := s.expectAnswer(0, protocol.Done); string(r.Payload) != c.want {
					s.Fail("it returned "+driver.Excerpt(r.Payload), c.want)
				}
			}
			s.finishCheck()
		},
	},
	{
		name: "state/set", modes: all, needs: protocol.CanSessionState, rule: "done, and set the session's state",
		run: func(s *session) {
			s.loadApp()
			for _, c := range []struct {
				body, want string
				none       bool
			}{{"set a new one ☃", "a new one ☃", false}, {"set ", "", false}, {"clear", "", true}} {
				s.Send(statefulInvoke([]byte("old"), c.body))
				r := s.expectAnswer(0, protocol.State)
				state, output, err := protocol.CutState(r.Payload)
				if err != nil || string(state) != c.want || (state == nil) != c.none || string(output) != "was old" {
					s.Fail(fmt.Sprintf("the state %q, the output %q (%v)", state, output, err), fmt.Sprintf("the state %q, the output %q", c.want, "was old"))
				}
			}
			s.finishCheck()
		},
	},
	{
		name: "state/failed", modes: all, needs: protocol.CanSessionState, rule: "A call that fails sets nothing.",
		run: func(s *session) {
			s.loadApp()
			s.Send(statefulInvoke(nil, "fail new"))
			s.expectAnswer(0, protocol.Failure)
			s.Send(statefulInvoke([]byte("old"), "keep")) // no state of the earlier call is left
			if r := s.expectAnswer(0, protocol.Done); string(r.Payload) != "was old" {
				s.Fail("it returned "+driver.Excerpt(r.Payload), "was old")
			}
			s.finishCheck()
		},
	},
	{
		name: "state/unasked", modes: all, needs: protocol.CanSessionState, rule: ruleState,
		run: func(s *session) { // by a function that does not look at it
			s.loadApp()
			f := fullInvoke("echo", &protocol.Invocation{Message: &triggers.Message{ID: "m", Attempt: 1, Body: []byte("x")}, Stateful: true, State: []byte("old")})
			s.Send(f)
			if r := s.expectAnswer(0, protocol.Done); string(r.Payload) != "x" {
				s.Fail("it returned "+driver.Excerpt(r.Payload), "x")
			}
			s.finishCheck()
		},
	},
}

const ruleState = "Flag 1 means that the message has a session whose state is passed to the function"

func statefulInvoke(state []byte, body string) driver.Frame {
	return fullInvoke("state", &protocol.Invocation{
		Message: &triggers.Message{ID: "m", Attempt: 1, Body: []byte(body)}, Stateful: true, State: state,
	})
}
