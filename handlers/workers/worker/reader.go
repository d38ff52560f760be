package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/drover-run/drover/handlers/workers/process"
	"github.com/drover-run/drover/handlers/workers/protocol"
)

const (
	// ahead is the amount of work queued in a worker to hide the round trip: as much as it
	// completes in this time.
	ahead = 10 * time.Millisecond
	// maxExtra bounds the queued messages.
	maxExtra = 2048
	// aheadBytes bounds the bodies of the queued messages, by their average size; aheadLarge are queued
	// even if their bodies are larger. More hides no further round trip, and leaves the processor's
	// cache before the worker reads it.
	aheadBytes, aheadLarge = 1 << 20, 4
)

// reader handles the frames of a worker, on one goroutine.
type reader struct {
	*Worker
	lastRead time.Time     // when something was read from it last
	average  time.Duration // recent average duration of a call
	size     int           // recent average size of a body, in bytes
}

func (r *reader) readFrames() error {
	p := protocol.NewParser(r.group.cfg.MaxFrame)
	for {
		n, err := r.Process.Conn.Read(p.ReadBuffer())
		p.AdvanceRead(n)
		r.lastRead = time.Now()
		if n > 0 {
			r.heartbeat.recordFrame(r.lastRead)
		}
		for {
			kind, payload, frameErr := p.NextFrame()
			if frameErr != nil {
				return frameErr
			}
			if kind == 0 {
				break
			}
			if err := r.handleFrame(kind, payload); err != nil {
				return err
			}
		}
		if err != nil {
			return err
		}
	}
}

// handleFrame handles one frame. The order is checked: WELCOME, then READY or FAILED, then all
// others.
func (r *reader) handleFrame(kind protocol.Kind, payload []byte) error {
	welcomed, answered := r.Welcome != nil, false
	select {
	case <-r.Loaded:
		answered = true
	default:
	}
	switch {
	case kind == protocol.Welcome && !welcomed:
		return r.handleWelcome(payload)
	case kind == protocol.Log && welcomed:
		return r.logLine(payload)
	case (kind == protocol.Ready || kind == protocol.Failed) && welcomed && !answered:
		return r.handleReady(kind, payload)
	case kind == protocol.Result && answered:
		return r.handleResult(payload)
	case kind == protocol.Part && answered:
		return r.handlePart(payload)
	case kind == protocol.Profiled && answered:
		return r.handleProfiled(payload)
	case kind == protocol.Stats && answered:
		return r.handleStats(payload)
	case kind == protocol.Blocked && answered:
		return r.handleBlocked(payload)
	case kind == protocol.Alive && answered:
		if len(payload) > 0 {
			return fmt.Errorf("%w: an ALIVE of %d bytes", protocol.ErrProtocol, len(payload))
		}
		return nil
	case kind == protocol.Imported && welcomed:
		return r.handleImported(payload)
	case kind == protocol.Replace && answered:
		return r.handleReplace(payload)
	case kind == protocol.Forked && answered && r.forked != nil && len(r.forked) == 0:
		var answer protocol.ForkedFrame
		err := protocol.DecodeFrame(kind, payload, &answer)
		r.forked <- answer
		return err
	}
	return fmt.Errorf("%w: a %v, which it may not send now", protocol.ErrProtocol, kind)
}

// handleWelcome checks a WELCOME, and makes the worker load the code.
func (r *reader) handleWelcome(payload []byte) error {
	r.Welcome = new(protocol.WelcomeFrame)
	if err := protocol.DecodeFrame(protocol.Welcome, payload, r.Welcome); err != nil {
		return err
	}
	if why := r.group.incompatibilityOf(r.Welcome); why != "" {
		r.Failed = &protocol.FailedFrame{Summary: why}
		r.finishLoad()
		r.Kill(process.CauseStart, errors.New(why))
		return nil
	}
	load := r.group.loadFrame(r.forked != nil)
	r.threads.Store(int64(load.Threads))
	r.inForce.Store(int64(load.Threads))
	r.loadedWith.Store(int64(load.Threads))
	frame, err := protocol.AppendJSON(nil, protocol.Load, load)
	if err != nil {
		return err
	}
	r.queueFrame(frame)
	return nil
}

// handleReady handles a READY or FAILED.
func (r *reader) handleReady(kind protocol.Kind, payload []byte) error {
	if kind == protocol.Failed {
		failed := new(protocol.FailedFrame)
		if err := protocol.DecodeFrame(kind, payload, failed); err != nil {
			return err
		}
		r.Failed = failed
	} else {
		ready := new(protocol.ReadyFrame)
		if err := protocol.DecodeFrame(kind, payload, ready); err != nil {
			return err
		}
		if err := r.group.checkReady(ready); err != nil {
			return err
		}
		r.Ready = ready
		// It starts with the average of earlier workers, so that recycling costs no throughput.
		if r.average = time.Duration(r.group.average.Load()); r.average > 0 {
			r.size = int(r.group.size.Load())
			r.extra.Store(int64(extraFor(r.average, r.size, int(r.threads.Load()))))
		}
	}
	r.finishLoad()
	r.ApplySettings() // they may have changed during the load
	r.group.joinProfile(r.Worker)
	return nil
}

func (r *reader) finishLoad() {
	close(r.Loaded)
	r.group.cfg.Changed()
}

func (r *reader) handleResult(payload []byte) error {
	answer, err := protocol.ReadResult(payload)
	if err != nil {
		return err
	}
	reply, err := replyOf(answer)
	if err != nil {
		return err
	}
	w := r.Worker
	w.mu.Lock()
	var c *Call
	if int(answer.ID) < len(w.calls) {
		c = w.calls[answer.ID]
	}
	if c == nil {
		w.mu.Unlock()
		return fmt.Errorf("%w: an answer to invocation %d, which it does not have", protocol.ErrProtocol, answer.ID)
	}
	outputs := w.group.cfg.Functions[c.Function].Outputs
	if err = reply.nameOutputs(outputs); err == nil {
		err = reply.checkBatch(len(c.Batch), outputs)
	}
	if err != nil {
		w.mu.Unlock()
		return err
	}
	if c.stream != nil && len(reply.payload) > 0 {
		w.mu.Unlock()
		return fmt.Errorf("%w: a RESULT with a result of %d bytes, after the parts of its response", protocol.ErrProtocol, len(reply.payload))
	}
	w.calls[answer.ID] = nil
	w.free = append(w.free, answer.ID)
	w.answers++
	w.answered = r.lastRead
	c.waited = r.lastRead.Sub(c.submitted) - answer.Took
	w.sums[c.Function].addAnswer(answer, c.waited)
	if reply.Status == protocol.NotTried && !c.cancelReported { // a result of RevokeUnstarted
		reply = Reply{Lost: &Loss{Err: errors.New("its worker had not started it"), Again: true}}
	}
	w.mu.Unlock()
	if w.inFlight.Add(-1) == 0 && w.retiring.Load() {
		w.group.cfg.Changed() // the worker can end
	}
	size := len(c.Message.Body)
	c.passLastReply(w, reply) // c may be another call from here on
	r.updateAverage(answer.Took, size)
	confirmSettings(w)
	return nil
}

// handlePart handles a PART.
func (r *reader) handlePart(payload []byte) error {
	part, err := protocol.ReadPart(payload)
	if err != nil {
		return err
	}
	w := r.Worker
	w.mu.Lock()
	defer w.mu.Unlock()
	var c *Call
	if int(part.ID) < len(w.calls) {
		c = w.calls[part.ID]
	}
	switch {
	case c == nil:
		return fmt.Errorf("%w: a PART of invocation %d, which it does not have", protocol.ErrProtocol, part.ID)
	case !w.group.cfg.Functions[c.Function].Reply:
		return fmt.Errorf("%w: a PART of function %s, which answers no requests", protocol.ErrProtocol, w.group.functionName(int(c.Function)))
	case (c.stream == nil) != (part.Head != nil):
		return fmt.Errorf("%w: a PART of invocation %d with a head that is not the first, or without a head that is", protocol.ErrProtocol, part.ID)
	}
	if c.stream == nil {
		c.stream = &responseStream{worker: w, call: c, id: part.ID, head: part.Head, credit: protocol.InitialCredit, wake: make(signal, 1)}
		go c.stream.passOn()
	}
	return c.stream.addPart(&part)
}

// extraFor returns how many messages are queued in a worker beyond those that run, by the duration
// of a call and the size of a body. For functions of microseconds it is enough to hide the round trip. For long ones it
// is none, so that no message waits behind another while a worker is idle.
func extraFor(average time.Duration, size, threads int) int {
	if average >= longCall {
		return 0
	}
	average = max(average, time.Microsecond)
	n := (ahead*time.Duration(threads) + average/2) / average
	return min(int(n), maxExtra, max(aheadBytes/max(size, 1), aheadLarge*threads))
}

// nextAverage returns the average duration of calls after one more; 0 is unknown.
func nextAverage(average, took time.Duration) time.Duration {
	if average == 0 || took > max(8*average, ahead) {
		return took // it is the first, or a fast function became slow: queue no more calls behind it
	}
	return average + (took-average)/8
}

// updateAverage updates the average duration of calls and size of bodies. If they have changed
// considerably, it updates the number of queued messages.
func (r *reader) updateAverage(took time.Duration, size int) {
	r.average = nextAverage(r.average, took)
	if r.size += (size - r.size) / 8; size > 8*r.size {
		r.size = size
	}
	r.group.average.Store(int64(r.average))
	r.group.size.Store(int64(r.size))
	have, want := r.extra.Load(), int64(extraFor(r.average, r.size, int(r.threads.Load())))
	if want > 2*have || want < have/2 || want == 0 && have > 0 {
		r.extra.Store(want)
		r.group.cfg.RoomChanged()
	}
}

// logLine logs a line that a function printed or logged.
func (r *reader) logLine(payload []byte) error {
	var line protocol.LogFrame
	if err := protocol.DecodeFrame(protocol.Log, payload, &line); err != nil {
		return err
	}
	var level slog.Level
	switch line.Level {
	case "DEBUG":
		level = slog.LevelDebug
	case "WARNING":
		level = slog.LevelWarn
	case "ERROR", "CRITICAL":
		level = slog.LevelError
	}
	if !r.Log.Enabled(context.Background(), level) {
		return nil
	}
	attrs := []slog.Attr{slog.String("logger", line.Logger)}
	r.mu.Lock()
	if line.ID >= 0 && line.ID < int64(len(r.calls)) && r.calls[line.ID] != nil {
		c := r.calls[line.ID]
		attrs = append(attrs, slog.String("function", r.group.functionName(int(c.Function))), slog.String("message", c.Message.ID))
		if n := len(c.Batch); n > 1 {
			attrs = append(attrs, slog.Int("messages", n)) // of the batch, whose first message this is
		}
	}
	r.mu.Unlock()
	if line.Invocation != "" {
		attrs = append(attrs, slog.String("invocation", line.Invocation))
	}
	r.Log.LogAttrs(context.Background(), level, line.Text, attrs...)
	return nil
}

// handleReplace retires the worker at its own request, and another starts in its place. Calls that
// it has not started run elsewhere, without using an attempt.
func (r *reader) handleReplace(payload []byte) error {
	var frame protocol.ReplaceFrame
	if err := protocol.DecodeFrame(protocol.Replace, payload, &frame); err != nil {
		return err
	}
	if r.Retire() {
		r.Log.Warn("worker replaced at its request", "error", frame.Why)
		r.group.cfg.Retired(process.CauseTimeout)
		r.group.cfg.Changed()
	}
	return nil
}

// handleImported passes on the files that a worker has loaded.
func (r *reader) handleImported(payload []byte) error {
	var frame protocol.ImportedFrame
	if err := protocol.DecodeFrame(protocol.Imported, payload, &frame); err != nil {
		return err
	}
	if r.group.cfg.Imported != nil {
		r.group.cfg.Imported(frame.Paths)
	}
	return nil
}

// handleProfiled passes on the result of a profile.
func (r *reader) handleProfiled(payload []byte) error {
	var frame protocol.ProfiledFrame
	if err := protocol.DecodeFrame(protocol.Profiled, payload, &frame); err != nil {
		return err
	}
	r.group.receiveProfile(r.Worker, &frame)
	return nil
}

// handleStats passes on a worker's measurements.
func (r *reader) handleStats(payload []byte) error {
	var s protocol.StatsFrame
	if err := protocol.DecodeFrame(protocol.Stats, payload, &s); err != nil {
		return err
	}
	r.mu.Lock()
	for _, looks := range s.GIL {
		if looks[0] >= int64(len(r.sums)) {
			r.mu.Unlock()
			return fmt.Errorf("%w: a STATS of function %d of %d", protocol.ErrProtocol, looks[0], len(r.sums))
		}
		r.sums[looks[0]].Looks += looks[1]
		r.sums[looks[0]].HeldGIL += looks[2]
	}
	for _, d := range s.Delays {
		if d.FunctionIndex() >= int64(len(r.sums)) {
			r.mu.Unlock()
			return fmt.Errorf("%w: a STATS of function %d of %d", protocol.ErrProtocol, d.FunctionIndex(), len(r.sums))
		}
		r.sums[d.FunctionIndex()].Examined.addDelays(d)
	}
	r.mu.Unlock()
	if r.group.cfg.Lagged == nil {
		return nil
	}
	for lag := range s.LoopWaits() {
		r.group.cfg.Lagged(lag)
	}
	return nil
}

// handleBlocked handles a BLOCKED.
func (r *reader) handleBlocked(payload []byte) error {
	b := &openBlock{reportedAt: time.Now()}
	if err := protocol.DecodeFrame(protocol.Blocked, payload, &b.BlockedFrame); err != nil {
		return err
	}
	if n := len(r.group.cfg.Functions); b.Function >= n || b.Function < -1 {
		return fmt.Errorf("%w: a BLOCKED of function %d; there are %d", protocol.ErrProtocol, b.Function, n)
	}
	b.began = b.reportedAt.Add(-b.Duration())
	b.Place, b.Stack, b.Message = cutText(b.Place), cutText(b.Stack), cutText(b.Message)
	if r.group.cfg.Blocking != nil {
		r.group.cfg.Blocking(Block{r.group.functionName(b.Function), b.Message, b.Place, b.Duration(), b.Over})
	}
	r.mu.Lock()
	if b.Message == "" && b.ID >= 0 && b.ID < int64(len(r.calls)) && r.calls[b.ID] != nil {
		b.Message = cutText(r.calls[b.ID].Message.ID) // the worker does not report it
	}
	open := r.lost.block
	r.lost.block = nil
	if open != nil && open.Block == b.Block { // it was reported earlier
		b.Stack, b.logged = open.Stack, open.logged
		open = nil
	}
	if open != nil {
		r.lost.endBlock(open, r.calls, b.reportedAt)
	}
	if b.Over {
		r.lost.endBlock(b, r.calls, b.reportedAt)
	} else {
		r.lost.block = b
	}
	r.mu.Unlock()
	if open != nil { // it ended without a report
		r.blockEnded(open, b.reportedAt)
	}
	if b.Over {
		r.blockEnded(b, b.reportedAt)
	}
	return nil
}

// blockEnded reports a block that has ended, if it counts.
func (r *reader) blockEnded(b *openBlock, now time.Time) {
	if took := b.durationAt(now); took >= leastBlock && r.sharesLoop() {
		r.group.cfg.Blocked(blockReport(r.Worker, b, took, true))
	}
}
