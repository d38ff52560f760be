package daemon

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/drover-run/drover/daemon/internal/apps"
)

// runningSet is the functions that run. Its methods must be called from one goroutine.
//
// A stop ends two contexts: first that of receiving, then that of the calls in flight. Each
// function has its own two below them, so that it can stop alone.
type runningSet struct {
	daemon                                   *Daemon
	receiving, working, settling             context.Context
	stopReceiving, stopWorking, stopSettling context.CancelFunc

	members map[*apps.Function]*runningFunction
	ended   chan struct{} // receives when a function has ended
	atEnd   []func()      // called when all have ended
}

// runningFunction is one function of the set.
type runningFunction struct {
	stopReceiving, stopWorking context.CancelFunc
	ended                      chan struct{} // closed when everything that it received is settled
	err                        error         // why it stopped; read after ended is closed
}

// newRunningSet returns an empty set, which stops receiving when ctx ends.
func newRunningSet(ctx context.Context, d *Daemon) *runningSet {
	c := &runningSet{daemon: d, members: make(map[*apps.Function]*runningFunction), ended: make(chan struct{}, 1)}
	c.receiving, c.stopReceiving = context.WithCancel(ctx)
	c.working, c.stopWorking = context.WithCancel(context.WithoutCancel(ctx))
	c.settling, c.stopSettling = context.WithCancel(context.WithoutCancel(ctx))
	return c
}

// endContexts ends the contexts. It must be called when all functions have ended, or the caller
// has given up waiting for them.
func (c *runningSet) endContexts() {
	c.stopReceiving()
	c.stopWorking()
	c.stopSettling()
	for _, do := range c.atEnd {
		do()
	}
}

// startFunction runs a function.
func (c *runningSet) startFunction(f *apps.Function) {
	m := &runningFunction{ended: make(chan struct{})}
	var receiving, working context.Context
	receiving, m.stopReceiving = context.WithCancel(c.receiving)
	working, m.stopWorking = context.WithCancel(c.working)
	c.members[f] = m
	go func() {
		if m.err = f.Run(receiving, working, c.settling); m.err != nil {
			c.daemon.log.Error("function disabled: its code failed to load; fix it and run drover reload",
				"function", f.Name, "error", m.err, "detail", loadErrorDetail(m.err))
		}
		m.stopReceiving()
		m.stopWorking()
		close(m.ended)
		select {
		case c.ended <- struct{}{}:
		default:
		}
	}()
}

// allEnded reports whether all functions have ended, and returns their errors.
func (c *runningSet) allEnded() (err error, all bool) {
	var failures []error
	for _, m := range c.members {
		select {
		case <-m.ended:
			failures = append(failures, m.err)
		default:
			return nil, false
		}
	}
	return errors.Join(failures...), true
}

// stopFunctions stops functions, and calls gone for each when its messages are settled. At the end
// of the drain time, the calls in flight are cancelled and their messages released. If the daemon
// stops meanwhile, stopFunctions returns at once, and the stop drains them.
func (c *runningSet) stopFunctions(functions []*apps.Function, drain time.Duration, gone func(*apps.Function)) {
	for _, f := range functions {
		c.members[f].stopReceiving()
	}
	limit := time.NewTimer(drain)
	defer limit.Stop()
	late := 0
	for left := functions; ; {
		left = slices.DeleteFunc(slices.Clone(left), func(f *apps.Function) bool {
			select {
			case <-c.members[f].ended:
			default:
				if late < 2 {
					return false
				}
				f.Log.Error("function ignored cancellation; its messages will be redelivered when their locks expire", "in_flight", f.Stats.InFlight())
			}
			delete(c.members, f)
			gone(f)
			return true
		})
		if len(left) == 0 {
			return
		}
		select {
		case <-c.ended:
		case <-c.receiving.Done():
			return
		case <-limit.C:
			if late++; late == 1 {
				for _, f := range left {
					f.Log.Warn("drain time exceeded; cancelling messages in flight", "in_flight", f.Stats.InFlight())
					c.members[f].stopWorking()
				}
				limit.Reset(cutShortGrace)
			}
		}
	}
}

// drainAll stops all functions. At the drain deadline, or when the stop is forced, the calls in
// flight are cancelled.
func (c *runningSet) drainAll() error {
	d := c.daemon
	limit := d.Config().Drain
	c.stopReceiving()
	d.log.Info("stopping: receiving has ended; waiting for messages in flight", "in_flight", d.InFlight(), "at_most", limit.String())
	defer logStopped(d, time.Now(), d.Status())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for _, m := range c.members {
			<-m.ended
		}
	}()
	select {
	case <-ended:
		return nil
	case <-time.After(limit.D()):
		d.log.Warn("drain time exceeded; cancelling messages in flight", "in_flight", d.InFlight())
	case <-d.given.ForceStop:
		d.log.Warn("second signal; cancelling messages in flight", "in_flight", d.InFlight())
	}
	c.stopWorking()
	select {
	case <-ended:
	case <-time.After(cutShortGrace):
		d.log.Error("functions ignored cancellation; their messages will be redelivered when their locks expire", "in_flight", d.InFlight())
	}
	return ErrCutShort
}
