package workers

import (
	"log/slog"
	"sync"

	"github.com/drover-run/drover/handlers/workers/process"
	"github.com/drover-run/drover/handlers/workers/worker"
)

// launcher starts workers: each as a process of its own, or forked from the template where
// there is one.
type launcher struct {
	starter *process.Starter // whose Reaper Run sets
	group   *worker.Group
	log     *slog.Logger

	mu       sync.Mutex
	template *worker.Worker // that workers are forked from; nil if there is none, now
	unforked string         // why none are, though they should be
}

// startWorker starts a worker. It is usable when Loaded is closed and Ready is set.
func (l *launcher) startWorker() (*worker.Worker, error) {
	l.mu.Lock()
	template := l.template
	l.mu.Unlock()
	var proc *process.Process
	var err error
	if template != nil {
		proc, err = l.starter.Fork(template.Process, template.Fork)
	} else {
		proc, err = l.starter.Start()
	}
	if err != nil {
		return nil, err
	}
	return l.begin(proc, false)
}

// startTemplate starts a process for setTemplate.
func (l *launcher) startTemplate() (*worker.Worker, error) {
	proc, err := l.starter.Start()
	if err != nil {
		return nil, err
	}
	return l.begin(proc, true)
}

func (l *launcher) begin(proc *process.Process, template bool) (*worker.Worker, error) {
	w := l.group.New(proc)
	if err := w.Begin(template); err != nil {
		return nil, err
	}
	return w, nil
}

// setTemplate has workers forked from one, or started if it is nil.
func (l *launcher) setTemplate(w *worker.Worker) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.template = w
}

// giveUpTemplate has workers started without a template from now on.
func (l *launcher) giveUpTemplate(why string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.unforked, l.template = why, nil
	l.log.Warn("start: template is not possible; each worker loads the code itself", "since", why)
}

// forking reports whether workers are forked, and why they are not though they should be.
func (l *launcher) forking() (forked bool, unforked string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.template != nil, l.unforked
}
