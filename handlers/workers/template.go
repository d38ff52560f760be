package workers

import (
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drover-run/drover/handlers/workers/process"
	"github.com/drover-run/drover/handlers/workers/protocol"
)

// This file is the template: a process that has loaded the code and runs nothing,
// from which workers are forked.

const (
	// forkLimit bounds the forking of one worker.
	forkLimit = 10 * time.Second
	// maxTemplates is how many templates may end in a row, before workers are
	// started without one.
	maxTemplates = 3
)

// fork asks the template for a process with the files given, and returns its number.
func (w *worker) fork(temporary string, files []*os.File) (pid int, err error) {
	conn, ok := w.process.Conn.(*net.UnixConn)
	if !ok {
		return 0, errors.New("its template has no socket of the right kind")
	}
	var rights []int
	for _, f := range files {
		rights = append(rights, int(f.Fd()))
	}
	frame := protocol.AppendFork(nil, temporary)
	if n, _, err := conn.WriteMsgUnix(frame, unix.UnixRights(rights...), nil); err != nil || n != len(frame) {
		return 0, fmt.Errorf("asking the template, of which %d of %d bytes were written: %w", n, len(frame), err)
	}
	limit := time.NewTimer(forkLimit)
	defer limit.Stop()
	select {
	case answer := <-w.forked:
		if answer.Error != "" {
			return 0, errors.New(answer.Error)
		}
		return answer.PID, nil
	case <-w.gone:
		return 0, fmt.Errorf("the template is gone: %w", w.reason)
	case <-limit.C:
		err := fmt.Errorf("the template did not fork within %v", forkLimit)
		w.kill(process.CauseStart, err)
		return 0, err
	}
}

// forget has workers started without a template from now on; p.mu is held.
func (p *Pool) forget(why string) {
	p.unforked = why
	p.template = nil
	p.log.Warn("start: template is not possible; each worker loads the code itself", "since", why)
}

// tend sees to the template: one is started where it is missing. It reports
// whether workers can be started now, and the one that is to be a worker itself,
// since it cannot be forked from.
func (r *reconciler) tend(wanted int) (able bool, ordinary *worker) {
	p := r.pool
	p.mu.Lock()
	without := !p.cfg.Template || p.unforked != "" || p.misload != nil
	p.mu.Unlock()
	if without {
		return true, nil
	}
	if r.template != nil {
		if lived, lives := r.look(r.template); !lives {
			r.lost(lived)
		}
	}
	if r.template == nil {
		r.startTemplate(wanted)
		return false, nil
	}
	w := r.template
	if !w.usable() {
		return false, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	why := w.ready.Unforkable
	if !w.can(protocol.CanFork) {
		why = "a worker in " + w.welcome.Language + " cannot be forked from"
	}
	if why != "" {
		r.template = nil
		p.forget(why)
		return true, w
	}
	p.template = w
	return true, nil
}

// endTemplate ends it.
func (r *reconciler) endTemplate() {
	if r.template != nil {
		r.template.stop(stopGrace)
	}
}

// lost notes that the template is gone. Whatever was forked from it goes on.
func (r *reconciler) lost(lived time.Duration) {
	p, w := r.pool, r.template
	r.template = nil
	p.mu.Lock()
	p.template = nil
	p.mu.Unlock()
	if p.halted() || r.dud(w) {
		return
	}
	if lived > healthy {
		r.templates = 0
	}
	if r.templates++; r.templates == maxTemplates {
		p.mu.Lock()
		p.forget(fmt.Sprintf("%d templates in a row ended; the last one: %v", maxTemplates, w.reason))
		p.mu.Unlock()
		return
	}
	r.mourn("the template is gone; it will be replaced", w, lived)
}

// startTemplate starts one, when it is time, and where workers are wanted.
func (r *reconciler) startTemplate(wanted int) {
	now := time.Now()
	if wanted == 0 || now.Before(r.next) {
		return
	}
	proc, err := r.pool.starter.Start()
	if err == nil {
		r.template, err = r.pool.greet(proc, true)
	}
	if err != nil {
		r.template = nil
		r.pool.log.Error("cannot start the template; will try again", "error", err)
		r.next = now.Add(r.pause.NextBackOff())
		return
	}
	r.since[r.template] = now
}
