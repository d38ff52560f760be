package conformance

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/drover-run/drover/handlers/childproc"
	"github.com/drover-run/drover/handlers/workers/conformance/driver"
	"github.com/drover-run/drover/handlers/workers/protocol"
)

// session is a check, or several in turn, with the worker that it drives. It belongs to the goroutine of its
// check. Its methods end a check by a panic, like testing's FailNow: with a driver.Violation or a skip.
type session struct {
	*driver.Worker
	target Target
	check  check
	mode   mode
	joint  bool // more checks use the process after this one
}

// skip ends a check for which the worker lacks a capability. Its text is the reason.
type skip string

// beginCheck begins a check, in the running process if there is one.
func (s *session) beginCheck(ctx context.Context, p planned) {
	s.check, s.mode = p.check, p.mode
	s.BeginCheck(ctx, p.rule)
}

// startWorker starts the worker, without sending anything.
func (s *session) startWorker() {
	t := s.target
	s.Start(childproc.Command{Path: t.Command[0], Args: t.Command[1:], Dir: t.Dir, Env: t.Env})
}

// handshake starts the worker and exchanges HELLO and WELCOME.
func (s *session) handshake() { s.handshakeWith(daemonCan...) }

// handshakeWith is handshake with the given capabilities in HELLO.
func (s *session) handshakeWith(capabilities ...string) {
	s.startWorker()
	s.Announced = append([]string{}, capabilities...) // no null
	s.Send(helloFrame(s.Announced))
	s.ExpectWelcome()
	s.checkNeeds()
}

// checkNeeds skips the check if the worker lacks the capability that the check needs.
func (s *session) checkNeeds() {
	if need := s.check.needs; need != "" && !slices.Contains(s.Welcome.Capabilities, need) {
		panic(skip("the worker does not say that it has the capability " + need))
	}
}

// loadApp makes the worker load all functions of the test app, in the check's mode. It does nothing
// if an earlier check in the same process has loaded them.
func (s *session) loadApp() {
	if s.Ready != nil {
		s.checkNeeds()
		return
	}
	s.handshake()
	s.loadAll()
}

func (s *session) loadAll() {
	s.Send(driver.JSONFrame(protocol.Load, s.loadFrame(functions...)))
	s.ExpectReady()
}

// loadFrame returns a LOAD of functions of the test app.
func (s *session) loadFrame(names ...string) protocol.LoadFrame {
	out := protocol.LoadFrame{App: s.target.App, Threads: s.mode.threads, Coroutines: s.mode.coroutines, Functions: []protocol.Function{}}
	for _, f := range names {
		out.Functions = append(out.Functions, protocol.Function{Name: f, Module: s.target.Module, Function: s.nameOf(f)})
	}
	return out
}

// nameOf returns a function's name in the app, in the check's mode.
func (s *session) nameOf(function string) string {
	if s.mode.kind == "async" {
		return function + "_async"
	}
	return function
}

// expectAnswer returns the next RESULT, which must be of this call, with this status.
func (s *session) expectAnswer(id uint32, status protocol.Status) driver.Result {
	r := s.ExpectResult()
	if r.ID != id {
		s.Fail(fmt.Sprintf("the RESULT of %d", r.ID), fmt.Sprintf("that of %d", id))
	}
	s.expectStatus(r, status)
	return r
}

func (s *session) expectStatus(r driver.Result, status protocol.Status) {
	if r.Status != status {
		s.Fail(fmt.Sprintf("a RESULT of status %d: %s", r.Status, driver.Excerpt(r.Payload)), fmt.Sprintf("status %d", status))
	}
}

// expectAnswers returns the next n RESULTs by id.
func (s *session) expectAnswers(n int) map[uint32]driver.Result {
	out := make(map[uint32]driver.Result, n)
	for range n {
		r := s.ExpectResult()
		out[r.ID] = r
	}
	return out
}

// callAndExpect calls a function, which must return want.
func (s *session) callAndExpect(function, body, want string) {
	s.Send(invokeFrame(0, function, body))
	if r := s.expectAnswer(0, protocol.Done); string(r.Payload) != want {
		s.Fail("it returned "+driver.Excerpt(r.Payload), driver.Excerpt([]byte(want)))
	}
}

// finishCheck ends a check regularly: the worker must answer all calls and exit with status 0 after
// DRAIN. If more checks use the process, it keeps running, unless calls are in flight.
func (s *session) finishCheck() {
	s.AwaitWrites()
	if s.joint && s.InFlight() == 0 {
		return
	}
	s.Send(drainFrame())
	s.ExpectExit0()
}

// pauseBriefly gives the worker time to begin a call, because nothing reports the beginning. A
// check must also pass if the time was too short.
func (s *session) pauseBriefly() {
	select {
	case <-time.After(100 * time.Millisecond):
	case <-s.Done():
	}
}
