package conformance

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/drover-run/drover/handlers/processes"
	"github.com/drover-run/drover/handlers/workers/protocol"
	"github.com/drover-run/drover/triggers"
)

// maxFrame is what the worker is told: small, so that frames of that size are cheap.
const maxFrame = 2 << 20

// daemonCan is what the worker is told that we can.
var daemonCan = []string{protocol.CanCancel, protocol.CanLog, protocol.CanSessionState, protocol.CanStats}

// session is one worker process and what was said with it. All but the writing is
// done from the goroutine of the check.
type session struct {
	ctx    context.Context
	reaper *processes.Reaper
	target Target
	check  check
	mode   mode
	limit  time.Duration
	joint  bool // the process is used for more checks after this one

	process *process
	forks   []*session // of the workers that were forked from it
	given   []uint64   // of a forked one: the inodes of its socket and outputs
	parser  *protocol.Parser
	can     []string // what we told it that we can
	writing sync.WaitGroup
	unbind  func() bool

	welcome *protocol.WelcomeFrame
	ready   *protocol.ReadyFrame
	open    map[uint32]bool
	logs    []protocol.LogFrame
	stats   []protocol.StatsFrame

	mu         sync.Mutex // guards sent
	sent, came transcript
}

// transcript is the latest of what was said, in words.
type transcript struct{ lines []string }

const maxTranscript = 12

func (t *transcript) add(line string) {
	if n := len(t.lines); n > 0 && t.lines[n-1] == line {
		return
	}
	if t.lines = append(t.lines, line); len(t.lines) > maxTranscript {
		t.lines = append([]string{"…"}, t.lines[2:]...)
	}
}

// frame is one frame to send, and its name in the transcript.
type frame struct {
	text  string
	bytes []byte
	opens []uint32 // ids of invocations
}

// result is a RESULT that came, with a payload of its own.
type result struct {
	protocol.Reply
	outcome protocol.Outcome // where it is no success
}

// fail ends the check: it saw why, and wanted something else.
func (s *session) fail(why, wanted string) { s.failBy(s.check.rule, why, wanted) }

func (s *session) failBy(rule, why, wanted string) {
	panic(verdict{verdict: Failed, why: why, wanted: wanted, rule: rule})
}

func (s *session) skip(why string) { panic(verdict{verdict: Skipped, why: why}) }

// begin begins a check, in the process that is there, if one is.
func (s *session) begin(ctx context.Context, p planned) {
	s.ctx, s.check, s.mode, s.logs = ctx, p.check, p.mode, nil
	s.mu.Lock()
	s.sent, s.came = transcript{}, transcript{}
	s.mu.Unlock()
	if s.process != nil {
		s.bound()
	}
}

// bound has reading and writing end with the check's time, until unbind.
func (s *session) bound() {
	conn := s.process.conn
	s.unbind = context.AfterFunc(s.ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) }) // an error shows when it is used
}

// start starts the worker, and says nothing to it.
func (s *session) start() {
	p, err := startProcess(s.reaper, s.target)
	if err != nil {
		s.failBy("", err.Error(), "the command to start")
	}
	s.drive(p)
}

// drive begins with a process that is there.
func (s *session) drive(p *process) {
	s.process, s.parser, s.open = p, protocol.NewParser(maxFrame), make(map[uint32]bool)
	deadline, _ := s.ctx.Deadline()
	_ = p.conn.SetDeadline(deadline) // an error shows when it is used
}

// greet starts the worker and exchanges HELLO and WELCOME.
func (s *session) greet() { s.greetAs(daemonCan...) }

func (s *session) greetAs(can ...string) {
	s.start()
	s.can = append([]string{}, can...) // no null
	s.send(hello(s.can))
	s.welcomed()
	s.need()
}

// need skips the check where the worker does not claim to be able to.
func (s *session) need() {
	if need := s.check.needs; need != "" && !slices.Contains(s.welcome.Capabilities, need) {
		s.skip("the worker does not say that it has the capability " + need)
	}
}

// load has the worker load all functions of the test app, in the check's mode.
func (s *session) load() {
	if s.ready != nil {
		s.need()
		return
	}
	s.greet()
	s.loadAll()
}

func (s *session) loadAll() {
	s.send(jsonFrame(protocol.Load, s.loadFrame(functions...)))
	s.readied()
}

func (s *session) loadFrame(names ...string) protocol.LoadFrame {
	out := protocol.LoadFrame{App: s.target.App, Threads: s.mode.threads, Coroutines: s.mode.coroutines, Functions: []protocol.Function{}}
	for _, f := range names {
		out.Functions = append(out.Functions, protocol.Function{Name: f, Module: s.target.Module, Function: s.named(f)})
	}
	return out
}

// named is a function's name in the app.
func (s *session) named(function string) string {
	if s.mode.kind == "async" {
		return function + "_async"
	}
	return function
}

func hello(can []string) frame {
	return jsonFrame(protocol.Hello, protocol.HelloFrame{Protocol: protocol.Version, MaxFrame: maxFrame, Capabilities: can})
}

func jsonFrame(kind protocol.Kind, value any) frame {
	out, err := protocol.AppendJSON(nil, kind, value)
	if err != nil {
		panic(err) // of our own making
	}
	return frame{text: fmt.Sprintf("%v %s", kind, excerpt(out[5:])), bytes: out}
}

// excerpt is the beginning of a payload, for people.
func excerpt(text []byte) string {
	if len(text) > 100 {
		return fmt.Sprintf("%s… (%d bytes)", strings.ToValidUTF8(string(text[:100]), "?"), len(text))
	}
	return strings.ToValidUTF8(string(text), "?")
}

// raw is a frame of any kind and payload.
func raw(kind protocol.Kind, payload []byte) frame {
	out := binary.LittleEndian.AppendUint32(nil, uint32(1+len(payload)))
	return frame{text: fmt.Sprintf("%v of %d bytes", kind, 1+len(payload)), bytes: append(append(out, byte(kind)), payload...)}
}

// invoke is an INVOKE of a function of the app.
func invoke(id uint32, function, body string) frame {
	return invocation(function, &protocol.Invocation{ID: id, Message: &triggers.Message{ID: fmt.Sprint("m", id), Attempt: 1, Body: []byte(body)}})
}

// invocation is an INVOKE with all that may be in it.
func invocation(function string, i *protocol.Invocation) frame {
	i.Function = uint16(slices.Index(functions, function))
	return frame{
		text:  fmt.Sprintf("INVOKE %d of %s (%d bytes)", i.ID, function, len(i.Message.Body)),
		bytes: protocol.AppendInvoke(nil, i), opens: []uint32{i.ID},
	}
}

func cancel(id uint32) frame {
	return frame{text: fmt.Sprint("CANCEL ", id), bytes: protocol.AppendCancel(nil, id)}
}

func drain() frame { return frame{text: "DRAIN", bytes: protocol.AppendDrain(nil)} }

// noted takes frames into the books, before they are sent.
func (s *session) noted(frames []frame) (out []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range frames {
		s.sent.add(f.text)
		out = append(out, f.bytes...)
		for _, id := range f.opens {
			s.open[id] = true
		}
	}
	return out
}

// send writes frames in one go. That a worker does not take them shows in what it
// answers.
func (s *session) send(frames ...frame) { _, _ = s.process.conn.Write(s.noted(frames)) }

// sendBehind writes frames while the check goes on: more than a worker takes that
// waits for us to read.
func (s *session) sendBehind(frames ...frame) {
	out := s.noted(frames)
	s.writing.Go(func() { _, _ = s.process.conn.Write(out) })
}

// sendSplit writes frames byte by byte, the first of them so slowly that a worker
// reads one at a time.
func (s *session) sendSplit(frames ...frame) {
	out := s.noted(frames)
	slowly := time.NewTicker(2 * time.Millisecond)
	defer slowly.Stop()
	for i := range out {
		if _, err := s.process.conn.Write(out[i : i+1]); err != nil {
			return
		}
		if i < 100 {
			<-slowly.C
		}
	}
}

// errSilent says that nothing came in time.
var errSilent = errors.New("nothing more came")

// receive returns the next frame, but takes LOG and STATS into the books itself.
// The error is io.EOF where the worker closed its socket, and errSilent.
func (s *session) receive() (protocol.Kind, []byte, error) {
	for {
		kind, payload, err := s.parser.Next()
		if err != nil {
			s.failBy(ruleSizes, err.Error(), "a frame within its bounds")
		}
		if kind != 0 {
			s.came.add(fmt.Sprintf("%v %s", kind, describe(kind, payload)))
			if !s.aside(kind, payload) {
				return kind, payload, nil
			}
			continue
		}
		n, err := s.process.conn.Read(s.parser.Space())
		s.parser.Took(n)
		switch {
		case n > 0:
		case errors.Is(err, os.ErrDeadlineExceeded), s.ctx.Err() != nil:
			return 0, nil, errSilent
		case err != nil:
			return 0, nil, io.EOF // a reset, too: it ended with something unread
		}
	}
}

// describe is a frame's payload, for people.
func describe(kind protocol.Kind, payload []byte) string {
	if kind != protocol.Result {
		return excerpt(payload)
	}
	r, err := protocol.ReadResult(payload)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%d, status %d: %s", r.ID, r.Status, excerpt(r.Payload))
}

// The rules that hold in every check.
const (
	ruleSizes  = "It is at least 1, and at most what the tables say."
	ruleLog    = "to one that does not, none may be sent"
	ruleOpen   = "An id is in use from its INVOKE to its RESULT"
	ruleOne    = "Every INVOKE is answered by one RESULT, in any order"
	ruleLogIDs = "A LOG of a call comes before its RESULT."
	ruleStats  = "For workers with a loop, after READY."
	ruleLogTo  = "From WELCOME on."
)

// aside takes what may come at any time.
func (s *session) aside(kind protocol.Kind, payload []byte) bool {
	switch kind {
	case protocol.Log:
		s.logged(payload)
	case protocol.Stats:
		s.measured(payload)
	default:
		return false
	}
	return true
}

var levels = []string{"DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"}

func (s *session) logged(payload []byte) {
	var line protocol.LogFrame
	switch err := protocol.Decode(protocol.Log, payload, &line); {
	case err != nil:
		s.failBy(ruleLogTo, err.Error(), "a LOG with id, level, logger and text")
	case s.welcome == nil:
		s.failBy(ruleLogTo, "a LOG before WELCOME", "none")
	case !slices.Contains(s.can, protocol.CanLog):
		s.failBy(ruleLog, "a LOG, though HELLO did not have the capability log", "none")
	case !slices.Contains(levels, line.Level):
		s.failBy(ruleLogTo, fmt.Sprintf("a LOG of level %q", line.Level), "one of "+strings.Join(levels, ", "))
	case line.ID != -1 && !s.isOpen(line.ID):
		s.failBy(ruleLogIDs, fmt.Sprintf("a LOG of %d, which is not in flight: %q", line.ID, excerpt([]byte(line.Text))), "-1, or the id of a call that has no RESULT yet")
	}
	s.logs = append(s.logs, line)
}

func (s *session) isOpen(id int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return id >= 0 && id <= 0xFFFFFFFF && s.open[uint32(id)]
}

func (s *session) measured(payload []byte) {
	var stats protocol.StatsFrame
	switch err := protocol.Decode(protocol.Stats, payload, &stats); {
	case err != nil:
		s.failBy(ruleStats, err.Error(), "a STATS with period_us and lags_us")
	case s.ready == nil:
		s.failBy(ruleStats, "a STATS before READY", "none")
	case !slices.Contains(s.can, protocol.CanStats):
		s.failBy(ruleLog, "a STATS, though HELLO did not have the capability stats", "none")
	case stats.Period <= 0 || slices.ContainsFunc(stats.Lags, func(us int64) bool { return us < 0 }):
		s.failBy(ruleStats, "STATS of "+excerpt(payload), "a period above 0, and lags of 0 and more")
	}
	s.stats = append(s.stats, stats)
}

// frame returns the next frame, which must be of this kind.
func (s *session) frame(want protocol.Kind) []byte {
	kind, payload, err := s.receive()
	switch {
	case errors.Is(err, io.EOF):
		s.fail("the worker closed its socket: "+s.process.waitFor(s.ctx), fmt.Sprint("a ", want))
	case err != nil:
		s.fail(fmt.Sprintf("%v within %v", err, s.limit), fmt.Sprint("a ", want))
	case kind != want:
		s.fail(fmt.Sprintf("a %v: %s", kind, describe(kind, payload)), fmt.Sprint("a ", want))
	}
	return payload
}

// decode reads JSON, in which these keys must be.
func (s *session) decode(kind protocol.Kind, payload []byte, into any, keys ...string) {
	if err := protocol.Decode(kind, payload, into); err != nil {
		s.fail(err.Error(), fmt.Sprintf("a %v as documented", kind))
	}
	var there map[string]any
	if err := protocol.Decode(kind, payload, &there); err != nil {
		s.fail(err.Error(), fmt.Sprintf("a %v as documented", kind))
	}
	for _, key := range keys {
		if there[key] == nil {
			s.fail(fmt.Sprintf("a %v without %s: %s", kind, key, excerpt(payload)), fmt.Sprintf("a %v as documented", kind))
		}
	}
}

// welcomed takes the WELCOME.
func (s *session) welcomed() {
	payload := s.frame(protocol.Welcome)
	welcome := new(protocol.WelcomeFrame)
	s.decode(protocol.Welcome, payload, welcome, "protocol", "pid", "language", "version", "capabilities")
	if welcome.Protocol != protocol.Version {
		s.fail(fmt.Sprintf("a WELCOME with protocol %d", welcome.Protocol), fmt.Sprintf("protocol %d", protocol.Version))
	}
	s.welcome = welcome
}

// readied takes the READY.
func (s *session) readied() {
	payload := s.frame(protocol.Ready)
	ready := new(protocol.ReadyFrame)
	s.decode(protocol.Ready, payload, ready, "functions")
	s.ready = ready
}

// misloaded takes the FAILED, and the end of the worker.
func (s *session) misloaded() protocol.FailedFrame {
	var failed protocol.FailedFrame
	s.decode(protocol.Failed, s.frame(protocol.Failed), &failed, "summary")
	s.gone()
	return failed
}

// result returns the next RESULT, of whatever call is open.
func (s *session) result() result {
	payload := s.frame(protocol.Result)
	reply, err := protocol.ReadResult(payload)
	if err != nil {
		s.failBy(ruleOne, err.Error(), "a RESULT as documented")
	}
	s.mu.Lock()
	open := s.open[reply.ID]
	delete(s.open, reply.ID)
	s.mu.Unlock()
	if !open {
		s.failBy(ruleOpen, fmt.Sprintf("a RESULT of %d, which is not in flight", reply.ID), "one RESULT for each INVOKE")
	}
	out := result{Reply: reply}
	out.Payload = slices.Clone(reply.Payload)
	switch reply.Status {
	case protocol.Failure, protocol.Reject, protocol.Retry:
		s.decode(protocol.Result, reply.Payload, &out.outcome, "summary")
		if strings.ContainsAny(out.outcome.Summary, "\n\r") {
			s.failBy(ruleOutcome, fmt.Sprintf("a summary of several lines: %q", excerpt([]byte(out.outcome.Summary))), "one line")
		}
	case protocol.NotTried:
		if len(reply.Payload) > 0 {
			s.failBy(ruleOne, fmt.Sprintf("a RESULT of status 4 with a payload: %s", excerpt(reply.Payload)), "no payload")
		}
	}
	return out
}

// answer returns the next RESULT, which must be of this call, and of this status.
func (s *session) answer(id uint32, status protocol.Status) result {
	r := s.result()
	if r.ID != id {
		s.fail(fmt.Sprintf("the RESULT of %d", r.ID), fmt.Sprintf("that of %d", id))
	}
	s.is(r, status)
	return r
}

// is checks a status.
func (s *session) is(r result, status protocol.Status) {
	if r.Status != status {
		s.fail(fmt.Sprintf("a RESULT of status %d: %s", r.Status, excerpt(r.Payload)), fmt.Sprintf("status %d", status))
	}
}

// answers returns the next RESULTs by id.
func (s *session) answers(n int) map[uint32]result {
	out := make(map[uint32]result, n)
	for range n {
		r := s.result()
		out[r.ID] = r
	}
	return out
}

// says calls a function and wants this as its answer.
func (s *session) says(function, body, want string) {
	s.send(invoke(0, function, body))
	if r := s.answer(0, protocol.Done); string(r.Payload) != want {
		s.fail("it returned "+excerpt(r.Payload), excerpt([]byte(want)))
	}
}

// finish drains the worker, which must have answered all, and end well.
func (s *session) finish() {
	s.writing.Wait()
	if s.joint && len(s.open) == 0 {
		return
	}
	s.send(drain())
	s.ended()
}

const (
	ruleEnds    = "finish what was invoked, answer, and end, with exit status 0"
	ruleOutcome = "JSON: `summary`, a line, and `detail`"
)

// ended wants the worker to end with exit status 0, and to have answered all.
func (s *session) ended() {
	s.silent()
	if len(s.open) > 0 {
		s.failBy(ruleOne, fmt.Sprintf("the worker ended, and %d calls are without a RESULT", len(s.open)), "a RESULT for each")
	}
	if state := s.process.waitFor(s.ctx); state != exitedWell {
		s.failBy(ruleEnds, state, exitedWell)
	}
}

// gone wants the worker to end, in whatever way, and to say nothing more but logs.
func (s *session) gone() {
	s.silent()
	if state := s.process.waitFor(s.ctx); state == stillThere {
		s.fail("the worker closed its socket, but "+state, "the process to end")
	}
}

// silent wants the socket to be closed with no frame before but LOG and STATS.
func (s *session) silent() {
	kind, payload, err := s.receive()
	switch {
	case errors.Is(err, io.EOF):
	case err != nil:
		s.fail(fmt.Sprintf("the worker was still there after %v", s.limit), "it to end")
	case kind == protocol.Result:
		if reply, err := protocol.ReadResult(payload); err == nil && !s.isOpen(int64(reply.ID)) {
			s.failBy(ruleOpen, fmt.Sprintf("a RESULT of %d, which is not in flight", reply.ID), "one RESULT for each INVOKE")
		}
		fallthrough
	default:
		s.fail(fmt.Sprintf("a %v: %s", kind, describe(kind, payload)), "the worker to end")
	}
}

// said is what was said lately, by us, by the worker, and on its standard error; and
// the same of those that were forked from it.
func (s *session) said() (sent, came, stderr []string) {
	s.mu.Lock()
	sent, came = slices.Clone(s.sent.lines), slices.Clone(s.came.lines)
	s.mu.Unlock()
	if s.process != nil {
		stderr = s.process.lastWords()
	}
	for _, w := range s.forks {
		theirs := func(lines, more []string) []string {
			for _, line := range more {
				lines = append(lines, fmt.Sprintf("(process %d) %s", w.process.PID, line))
			}
			return lines
		}
		to, from, words := w.said()
		sent, came, stderr = theirs(sent, to), theirs(came, from), theirs(stderr, words)
	}
	return sent, came, stderr
}

// kill kills the processes that there are, and waits for them.
func (s *session) kill() {
	if s.process != nil {
		s.process.end()
	}
	for _, w := range s.forks { // a template that is gone cannot keep them from being collected
		w.kill()
	}
}

// killAlone kills the process, and none that was forked from it.
func (s *session) killAlone() {
	s.noted([]frame{{text: "(it was killed)"}})
	s.process.Signal(syscall.SIGKILL)
	_ = s.process.conn.Close()
	if state := s.process.waitFor(s.ctx); state == stillThere {
		s.failBy(ruleTwice, state+" after it was killed: its parent does not collect it", "it to be gone")
	}
}

// end kills what is left.
func (s *session) end() {
	s.kill()
	s.writing.Wait()
}

// hangUp closes our end of the socket, as when the daemon is gone.
func (s *session) hangUp() { _ = s.process.conn.(*net.UnixConn).Close() }
