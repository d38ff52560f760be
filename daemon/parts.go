package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/handlers/python"
	"github.com/drover-run/drover/handlers/workers"
	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/natsjs"
)

// This file makes what a configuration names: connections, pools, triggers and
// handlers. There is one explicit list of kinds each, and no other registry.

const (
	// defaultGoConcurrency is what a Go function has in flight: goroutines are
	// cheap, what they call usually is not.
	defaultGoConcurrency = 256
	// coroutines is what an async function has in flight in each process.
	coroutines = 512
	// startLimit bounds the import of an app.
	startLimit = 2 * time.Minute
	// killGrace is how long a worker has to obey a cancellation.
	killGrace = 5 * time.Second
	// closeLimit bounds the closing of a trigger.
	closeLimit = 10 * time.Second
)

// parts is what one run of a daemon has open.
type parts struct {
	daemon    *Daemon
	functions []*function
	pools     []*pool
	stopPools context.CancelFunc
	servers   []*natsjs.Embedded
	opened    map[string]*natsjs.Connection // those that are ours to close
	settled   sync.WaitGroup                // the pools' Run
}

// pool is the pool of worker processes of one app.
type pool struct {
	*workers.Pool
	app   string
	ended error // what Run returned; read after parts.settled
}

func (p *pool) ready() int { return p.Stats().Ready }

// open makes everything, in the order in which it is needed.
func (p *parts) open(ctx context.Context) error {
	d := p.daemon
	if err := d.cfg.Complete(d.env, cores()); err != nil {
		return err
	}
	p.opened = make(map[string]*natsjs.Connection)
	if err := p.openPools(ctx); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(d.cfg.Functions)) {
		f, err := p.openFunction(ctx, name, d.cfg.Functions[name])
		if err != nil {
			return fmt.Errorf("function %s: %w", name, err)
		}
		p.functions = append(p.functions, f)
	}
	return nil
}
