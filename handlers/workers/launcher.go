package workers

import (
	"log/slog"
	"sync"

	"github.com/drover-run/drover/handlers/workers/process"
	"github.com/drover-run/drover/handlers/workers/worker"
)

// launcher starts workers: as new processes, or by forking the template if there is one.
type launcher struct {
	starter *process.Starter // its Reaper is set by Run
	group   *worker.Group
	log     *slog.Logger

	mu       sync.Mutex
	template *worker.Worker // from which workers are forked; nil if there is none now
	unforked string         // why workers are not forked although Config.Template is set
}

// startWorker starts a worker. It is usable when Loaded is closed and Ready is set.
func (l *launcher) startWorker() (*worker.Worker, error) {
	l.mu.Lock()
	template := l.template
	l.mu.Unlock()
	var proc *process.Process
	var err error
	if template != nil {
		proc, err = l.starter.ForkProcess(template.Process, template.ForkProcess)
	} else {
		proc, err = l.starter.Start()
	}
	if err != nil {
		return nil, err
	}
	return l.beginWorker(proc, false)
}

// startTemplate starts a process that can become the template, see setTemplate.
func (l *launcher) startTemplate() (*worker.Worker, error) {
	proc, err := l.starter.Start()
	if err != nil {
		return nil, err
	}
	return l.beginWorker(proc, true)
}

func (l *launcher) beginWorker(proc *process.Process, template bool) (*worker.Worker, error) {
	w := l.group.NewWorker(proc)
	if err := w.BeginHandshake(template); err != nil {
		return nil, err
	}
	return w, nil
}

// isOutdated reports that the share of the cores has changed since a worker started.
func (l *launcher) isOutdated(w *worker.Worker) bool {
	return w.Process.CoreShare != l.starter.CoreShare()
}

// setTemplate sets the template from which workers are forked; nil: they are started.
func (l *launcher) setTemplate(w *worker.Worker) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.template = w
}

// giveUpTemplate makes all later workers start without a template.
func (l *launcher) giveUpTemplate(why string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.unforked, l.template = why, nil
	l.log.Warn("start: template is not possible; each worker loads the code itself", "since", why)
}

// forkState reports whether workers are forked. unforked is the reason if they are not although
// Config.Template is set.
func (l *launcher) forkState() (forked bool, unforked string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.template != nil, l.unforked
}
