package conformance

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/drover-run/drover/handlers/workers/conformance/driver"
	"github.com/drover-run/drover/handlers/workers/protocol"
)

// streaming is the function of the test app whose response is sent in parts.
const streaming = "stream"

const (
	ruleParts  = "Their bytes, in order, are the body of the response."
	ruleHead   = "The first PART of a call has the head, and no other has."
	ruleWindow = "A worker may send 256 KiB of a body, and then as many bytes as the daemon has granted."
	ruleAfter  = "The RESULT of a call that has sent PARTs has no result of the function."
)

// longBody is more than a worker may send without CREDIT.
const longBody = 3*protocol.InitialCredit + 1

var streamChecks = []check{
	{
		name: "stream/short", modes: all, needs: protocol.CanStream, rule: ruleParts,
		run: func(s *session) {
			s.loadOne(protocol.Function{Name: streaming, Reply: true})
			for _, n := range []int{1, 5, 100_000} {
				s.Send(streamInvoke(0, strconv.Itoa(n)))
				b := &body{id: 0}
				b.readTo(s, n)
				b.readResult(s, protocol.Done)
			}
			s.finishCheck()
		},
	},
	{
		name: "stream/credit", modes: all, needs: protocol.CanStream, rule: ruleWindow,
		run: func(s *session) {
			s.loadOne(protocol.Function{Name: streaming, Reply: true})
			s.Send(streamInvoke(3, strconv.Itoa(longBody)))
			b := &body{id: 3}
			b.readTo(s, protocol.InitialCredit)
			s.Send(creditFrame(3, 1))
			b.readTo(s, protocol.InitialCredit+1)
			s.Send(creditFrame(3, 1000), creditFrame(3, 1000), creditFrame(12_345, 1000))
			b.readTo(s, protocol.InitialCredit+2001)
			s.Send(creditFrame(3, longBody))
			b.readTo(s, longBody)
			b.readResult(s, protocol.Done)
			s.Send(creditFrame(3, 1000)) // too late for this call, and not for the next
			s.Send(streamInvoke(3, strconv.Itoa(longBody)))
			b = &body{id: 3}
			b.readTo(s, protocol.InitialCredit)
			s.Send(creditFrame(3, longBody))
			b.readTo(s, longBody)
			b.readResult(s, protocol.Done)
			s.finishCheck()
		},
	},
	{
		name: "stream/fails", modes: all, needs: protocol.CanStream, rule: ruleAfter,
		run: func(s *session) {
			s.loadOne(protocol.Function{Name: streaming, Reply: true})
			s.Send(streamInvoke(0, "fail"))
			b := &body{id: 0}
			b.readTo(s, len("some"))
			if r := b.readResult(s, protocol.Failure); !strings.Contains(r.Outcome.Summary, "late") {
				s.Fail("a summary of "+r.Outcome.Summary, "late in it")
			}
			s.finishCheck()
		},
	},
	{
		name: "stream/cancel", modes: all, needs: protocol.CanStream, rule: ruleCancel,
		run: func(s *session) {
			s.loadOne(protocol.Function{Name: streaming, Reply: true})
			if !slices.Contains(s.Welcome.Capabilities, protocol.CanCancel) {
				panic(skip("the worker does not have the capability " + protocol.CanCancel))
			}
			s.Send(streamInvoke(0, strconv.Itoa(longBody)))
			b := &body{id: 0}
			b.readTo(s, protocol.InitialCredit)
			s.Send(cancelFrame(0))
			if part, _ := s.ExpectPart(); part != nil {
				s.Fail("a PART", "the RESULT of the cancelled call")
			}
			s.Send(streamInvoke(0, "5"))
			b = &body{id: 0}
			b.readTo(s, 5)
			b.readResult(s, protocol.Done)
			s.finishCheck()
		},
	},
	{
		name: "stream/neighbours", modes: shared, needs: protocol.CanStream, rule: "Other calls of the worker continue.",
		run: func(s *session) {
			s.loadOne(protocol.Function{Name: streaming, Reply: true})
			s.Send(streamInvoke(0, strconv.Itoa(longBody)))
			waiting := &body{id: 0}
			waiting.readTo(s, protocol.InitialCredit)
			s.Send(streamInvoke(1, "5"))
			other := &body{id: 1}
			other.readTo(s, 5)
			other.readResult(s, protocol.Done)
			s.Send(creditFrame(0, longBody))
			waiting.readTo(s, longBody)
			waiting.readResult(s, protocol.Done)
			s.finishCheck()
		},
	},
}

func streamInvoke(id uint32, text string) driver.Frame {
	f := oneInvoke(text)
	f = driver.Frame{Text: fmt.Sprintf("INVOKE %d of %s (%s)", id, streaming, text), Bytes: f.Bytes, Opens: []uint32{id}}
	copy(f.Bytes[5:], protocol.AppendCancel(nil, id)[5:]) // the ID is the first field
	return f
}

func creditFrame(id, n uint32) driver.Frame {
	return driver.Frame{Text: fmt.Sprintf("CREDIT %d of %d bytes", id, n), Bytes: protocol.AppendCredit(nil, id, n)}
}

// body is the received part of a response's body.
type body struct {
	id   uint32
	size int
	last bool
}

// readTo reads PARTs until the body has n bytes, which is as much as the worker may send.
func (b *body) readTo(s *session, n int) {
	for b.size < n {
		part, r := s.ExpectPart()
		if part == nil {
			s.Fail(fmt.Sprintf("the RESULT of %d, of status %d, after %d bytes", r.ID, r.Status, b.size), fmt.Sprintf("a body of %d bytes", n))
		}
		b.add(s, part, n)
	}
}

func (b *body) add(s *session, part *protocol.ResponsePart, most int) {
	switch {
	case part.ID != b.id:
		s.Fail(fmt.Sprintf("a PART of %d", part.ID), fmt.Sprintf("one of %d", b.id))
	case b.last:
		s.FailBy(ruleParts, "a PART after the last", "none")
	case (part.Head != nil) != (b.size == 0):
		s.FailBy(ruleHead, fmt.Sprintf("a PART after %d bytes, with a head: %v", b.size, part.Head != nil), "a head in the first")
	case part.Head != nil && (part.Head.Status != 201 || !hasHeader(part.Head, "x-test", "yes")):
		s.Fail(fmt.Sprintf("the status %d and the headers %v", part.Head.Status, part.Head.Headers), "201, and x-test: yes")
	case b.size+len(part.Body) > most:
		s.FailBy(ruleWindow, fmt.Sprintf("a body of %d bytes", b.size+len(part.Body)), fmt.Sprintf("%d at most so far", most))
	}
	b.size += len(part.Body)
	b.last = part.Last
}

// readResult reads the RESULT; a PART without bytes may precede it.
func (b *body) readResult(s *session, status protocol.Status) driver.Result {
	part, r := s.ExpectPart()
	if part != nil {
		b.add(s, part, b.size)
		part, r = s.ExpectPart()
	}
	if part != nil || r.ID != b.id {
		s.Fail("another frame", fmt.Sprintf("the RESULT of %d", b.id))
	}
	s.expectStatus(r, status)
	if status == protocol.Done && len(r.Payload) > 0 {
		s.FailBy(ruleAfter, "a RESULT with "+driver.Excerpt(r.Payload), "no payload")
	}
	return r
}

func hasHeader(head *protocol.ResponseHead, name, value string) bool {
	return slices.ContainsFunc(head.Headers, func(pair []string) bool { return strings.EqualFold(pair[0], name) && pair[1] == value })
}
