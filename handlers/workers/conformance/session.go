package conformance

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/drover-run/drover/handlers/childproc"
	"github.com/drover-run/drover/handlers/workers/protocol"
	"github.com/drover-run/drover/triggers"
)

// session is one worker process and what was said with it. All but the writing is
// done from the goroutine of the check.
type session struct {
	ctx    context.Context
	reaper *childproc.Reaper
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
	beats   int      // how many ALIVE came
	imports []string // the paths of IMPORTED; nil before the first

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

// result is a RESULT that came, with a payload of its own.
type result struct {
	protocol.Reply
	outcome protocol.Outcome // where it is no success
	about   triggers.Properties
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

// errSilent says that nothing came in time.
var errSilent = errors.New("nothing more came")

// receive returns the next frame, but takes LOG, STATS, ALIVE and IMPORTED into the books itself.
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

// aside takes what may come at any time.
func (s *session) aside(kind protocol.Kind, payload []byte) bool {
	switch kind {
	case protocol.Log:
		s.logged(payload)
	case protocol.Stats:
		s.measured(payload)
	case protocol.Alive:
		s.beat(payload)
	case protocol.Imported:
		s.imported(payload)
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
	case len(stats.GIL) > 0 && stats.Period == 0 && len(stats.Lags) == 0:
		return // of threads
	case stats.Period <= 0 || slices.ContainsFunc(stats.Lags, func(us int64) bool { return us < 0 }):
		s.failBy(ruleStats, "STATS of "+excerpt(payload), "a period above 0, and lags of 0 and more")
	}
	s.stats = append(s.stats, stats)
}

func (s *session) beat(payload []byte) {
	switch {
	case s.ready == nil:
		s.failBy(ruleAlive, "an ALIVE before READY", "none")
	case !slices.Contains(s.can, protocol.CanHeartbeat):
		s.failBy(ruleLog, "an ALIVE, though HELLO did not have the capability heartbeat", "none")
	case len(payload) > 0:
		s.failBy(ruleAlive, fmt.Sprintf("an ALIVE with %d bytes", len(payload)), "no payload")
	}
	s.beats++
}

func (s *session) imported(payload []byte) {
	var frame protocol.ImportedFrame
	err := protocol.Decode(protocol.Imported, payload, &frame)
	switch {
	case err != nil:
		s.failBy(ruleImport, err.Error(), "an IMPORTED with paths")
	case s.welcome == nil:
		s.failBy(ruleImport, "an IMPORTED before WELCOME", "none")
	case !slices.Contains(s.can, protocol.CanImports):
		s.failBy(ruleLog, "an IMPORTED, though HELLO did not have the capability imports", "none")
	case slices.ContainsFunc(frame.Paths, func(path string) bool { return !filepath.IsAbs(path) }):
		s.failBy(ruleImport, "an IMPORTED of "+excerpt(payload), "absolute paths")
	}
	s.imports = append(append([]string{}, s.imports...), frame.Paths...)
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
