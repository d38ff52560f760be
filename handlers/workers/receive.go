package workers

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/drover-run/drover/handlers/workers/process"
	"github.com/drover-run/drover/handlers/workers/protocol"
)

// This file takes the frames that a worker sends.

func (w *worker) readFrames() error {
	p := protocol.NewParser(w.pool.cfg.MaxFrame)
	for {
		n, err := w.process.Conn.Read(p.Space())
		p.Took(n)
		w.heard = time.Now()
		if n > 0 {
			w.sent(w.heard)
		}
		for {
			kind, payload, frameErr := p.Next()
			if frameErr != nil {
				return frameErr
			}
			if kind == 0 {
				break
			}
			if err := w.frame(kind, payload); err != nil {
				return err
			}
		}
		if err != nil {
			return err
		}
	}
}

// frame takes one frame. Each has its time: WELCOME, READY or FAILED, and then
// all others.
func (w *worker) frame(kind protocol.Kind, payload []byte) error {
	welcomed, answered := w.welcome != nil, false
	select {
	case <-w.loaded:
		answered = true
	default:
	}
	switch {
	case kind == protocol.Welcome && !welcomed:
		return w.welcomed(payload)
	case kind == protocol.Log && welcomed:
		return w.logLine(payload)
	case (kind == protocol.Ready || kind == protocol.Failed) && welcomed && !answered:
		return w.answered(kind, payload)
	case kind == protocol.Result && answered:
		return w.result(payload)
	case kind == protocol.Stats && answered:
		return w.stats(payload)
	case kind == protocol.Blocked && answered:
		return w.blocked(payload)
	case kind == protocol.Alive && answered:
		if len(payload) > 0 {
			return fmt.Errorf("%w: an ALIVE of %d bytes", protocol.ErrProtocol, len(payload))
		}
		return nil
	case kind == protocol.Imported && welcomed:
		return w.imported(payload)
	case kind == protocol.Replace && answered:
		return w.replace(payload)
	case kind == protocol.Forked && answered && w.forked != nil && len(w.forked) == 0:
		var answer protocol.ForkedFrame
		err := protocol.Decode(kind, payload, &answer)
		w.forked <- answer
		return err
	}
	return fmt.Errorf("%w: a %v, which it may not send now", protocol.ErrProtocol, kind)
}

// welcomed has the worker load the code, if it is one for us.
func (w *worker) welcomed(payload []byte) error {
	w.welcome = new(protocol.WelcomeFrame)
	if err := protocol.Decode(protocol.Welcome, payload, w.welcome); err != nil {
		return err
	}
	if why := w.pool.unfit(w.welcome); why != "" {
		w.failed = &protocol.FailedFrame{Summary: why}
		w.settled()
		w.kill(process.CauseStart, errors.New(why))
		return nil
	}
	load := w.pool.load(w.forked != nil)
	w.threads.Store(int64(load.Threads))
	w.born.Store(int64(load.Threads))
	frame, err := protocol.AppendJSON(nil, protocol.Load, load)
	if err != nil {
		return err
	}
	w.send(frame)
	return nil
}

// answered takes what became of the loading.
func (w *worker) answered(kind protocol.Kind, payload []byte) error {
	if kind == protocol.Failed {
		failed := new(protocol.FailedFrame)
		if err := protocol.Decode(kind, payload, failed); err != nil {
			return err
		}
		w.failed = failed
	} else {
		ready := new(protocol.ReadyFrame)
		if err := protocol.Decode(kind, payload, ready); err != nil {
			return err
		}
		if err := w.pool.agrees(ready); err != nil {
			return err
		}
		w.ready = ready
		// It goes on as those before it: one that is recycled costs no throughput.
		if w.average = time.Duration(w.pool.average.Load()); w.average > 0 {
			w.extra.Store(int64(extraFor(w.average, int(w.threads.Load()))))
		}
	}
	w.settled()
	w.set(w.pool.Settings()) // they may have changed while it loaded
	return nil
}

// agrees compares a READY with the LOAD that it answers.
func (p *Pool) agrees(ready *protocol.ReadyFrame) error {
	if got, want := len(ready.Functions), len(p.cfg.Functions); got != want {
		return fmt.Errorf("%w: it was asked for %d functions and has %d", protocol.ErrProtocol, want, got)
	}
	for i, f := range ready.Functions {
		switch want := p.cfg.Functions[i].Name; {
		case f.Name != want:
			return fmt.Errorf("%w: a READY whose function %d is %.100q, where LOAD has %q there", protocol.ErrProtocol, i, f.Name, want)
		case f.Kind != "sync" && f.Kind != "async":
			return fmt.Errorf("%w: a READY with %q of kind %.100q, where there are sync and async", protocol.ErrProtocol, f.Name, f.Kind)
		}
	}
	return nil
}

func (w *worker) settled() {
	close(w.loaded)
	w.pool.nudge()
}

// can reports whether the worker said that it can do something; it is to be
// called when loaded is closed.
func (w *worker) can(what string) bool { return slices.Contains(w.welcome.Capabilities, what) }

func (w *worker) result(payload []byte) error {
	answer, err := protocol.ReadResult(payload)
	if err != nil {
		return err
	}
	r, err := replyOf(answer)
	if err != nil {
		return err
	}
	w.mu.Lock()
	var c *call
	if int(answer.ID) < len(w.calls) {
		c = w.calls[answer.ID]
	}
	if c == nil {
		w.mu.Unlock()
		return fmt.Errorf("%w: an answer to invocation %d, which it does not have", protocol.ErrProtocol, answer.ID)
	}
	w.calls[answer.ID] = nil
	w.free = append(w.free, answer.ID)
	w.answers++
	w.sums[c.Function].add(answer, w.heard.Sub(c.submitted)-answer.Took)
	if r.status == protocol.NotTried && !c.given { // it was asked for by away
		r = reply{lost: errors.New("its worker gave it back"), again: true}
	}
	w.mu.Unlock()
	if w.inFlight.Add(-1) == 0 && w.retiring.Load() {
		w.pool.nudge() // it can end
	}
	c.replied(w, r)
	w.measured(answer.Took)
	return nil
}

// measured follows how long calls take, and sets the room for those that are
// queued when that has changed by much.
func (w *worker) measured(took time.Duration) {
	w.average += (took - w.average) / 8
	if w.average == 0 || took > 8*w.average {
		w.average = took // what was fast has become slow: queue no more behind it
	}
	w.pool.average.Store(int64(w.average))
	have, want := w.extra.Load(), int64(extraFor(w.average, int(w.threads.Load())))
	if want > 2*have || want < have/2 || want == 0 && have > 0 {
		w.extra.Store(want)
		w.pool.resize()
	}
}

// logLine logs what a function printed or logged.
func (w *worker) logLine(payload []byte) error {
	var line protocol.LogFrame
	if err := protocol.Decode(protocol.Log, payload, &line); err != nil {
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
	if !w.log.Enabled(context.Background(), level) {
		return nil
	}
	attrs := []slog.Attr{slog.String("logger", line.Logger)}
	w.mu.Lock()
	if line.ID >= 0 && line.ID < int64(len(w.calls)) && w.calls[line.ID] != nil {
		c := w.calls[line.ID]
		attrs = append(attrs, slog.String("function", c.handler.name), slog.String("message", c.Message.ID))
	}
	w.mu.Unlock()
	w.log.LogAttrs(context.Background(), level, line.Text, attrs...)
	return nil
}

// replace has the worker take no more, and another started in its place, as it asks.
// What it has not begun runs elsewhere, without using an attempt.
func (w *worker) replace(payload []byte) error {
	var frame protocol.ReplaceFrame
	if err := protocol.Decode(protocol.Replace, payload, &frame); err != nil {
		return err
	}
	if w.retire() {
		w.log.Warn("worker replaced at its request", "error", frame.Why)
		w.pool.count(process.CauseTimeout)
		w.pool.nudge()
	}
	return nil
}

// imported hands on which files a worker has loaded.
func (w *worker) imported(payload []byte) error {
	var frame protocol.ImportedFrame
	if err := protocol.Decode(protocol.Imported, payload, &frame); err != nil {
		return err
	}
	if w.pool.cfg.Imported != nil {
		w.pool.cfg.Imported(frame.Paths)
	}
	return nil
}

// stats hands on what a worker measured.
func (w *worker) stats(payload []byte) error {
	var s protocol.StatsFrame
	if err := protocol.Decode(protocol.Stats, payload, &s); err != nil {
		return err
	}
	w.mu.Lock()
	for _, looks := range s.GIL {
		if looks[0] >= int64(len(w.sums)) {
			w.mu.Unlock()
			return fmt.Errorf("%w: a STATS of function %d of %d", protocol.ErrProtocol, looks[0], len(w.sums))
		}
		w.sums[looks[0]].Looks += looks[1]
		w.sums[looks[0]].HeldGIL += looks[2]
	}
	w.mu.Unlock()
	if w.pool.cfg.Lagged == nil {
		return nil
	}
	for lag := range s.Waits() {
		w.pool.cfg.Lagged(lag)
	}
	return nil
}
