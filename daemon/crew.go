package daemon

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/drover-run/drover/daemon/internal/apps"
)

// crew is the functions that run. Its methods are called from one goroutine, the
// daemon's.
//
// Stopping is two contexts: the first ends receiving, the second ends work. Each
// function has two of its own below them, so that one can stop without the others.
type crew struct {
	daemon                                   *Daemon
	receiving, working, settling             context.Context
	stopReceiving, stopWorking, stopSettling context.CancelFunc

	members map[*apps.Function]*member
	ended   chan struct{} // told when one has ended
	atLast  []func()      // what is left to do when all have
}

// member is one function that runs.
type member struct {
	stopReceiving, stopWorking context.CancelFunc
	ended                      chan struct{} // closed when everything that it received is settled
	err                        error         // why it could not go on; read after ended is closed
}

// newCrew returns one without functions, that stops receiving when ctx ends.
func newCrew(ctx context.Context, d *Daemon) *crew {
	c := &crew{daemon: d, members: make(map[*apps.Function]*member), ended: make(chan struct{}, 1)}
	c.receiving, c.stopReceiving = context.WithCancel(ctx)
	c.working, c.stopWorking = context.WithCancel(context.WithoutCancel(ctx))
	c.settling, c.stopSettling = context.WithCancel(context.WithoutCancel(ctx))
	return c
}

// leave frees the contexts, when all have ended or are given up.
func (c *crew) leave() {
	c.stopReceiving()
	c.stopWorking()
	c.stopSettling()
	for _, do := range c.atLast {
		do()
	}
}

// start runs a function.
func (c *crew) start(f *apps.Function) {
	m := &member{ended: make(chan struct{})}
	var receiving, working context.Context
	receiving, m.stopReceiving = context.WithCancel(c.receiving)
	working, m.stopWorking = context.WithCancel(c.working)
	c.members[f] = m
	go func() {
		if m.err = f.Run(receiving, working, c.settling); m.err != nil {
			c.daemon.log.Error("function disabled: its code failed to load; fix it and run drover reload",
				"function", f.Name, "error", m.err, "detail", detailOf(m.err))
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

// over reports whether no function goes on any more, and why.
func (c *crew) over() (why error, over bool) {
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

// retire has functions receive no more, and calls gone for each when what it has
// in flight is settled: that is cut short, and given back, when the drain time is
// over. Where the daemon is told to stop it does not wait: the stop does.
func (c *crew) retire(functions []*apps.Function, drain time.Duration, gone func(*apps.Function)) {
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

// drain ends all, when receiving has ended: at the drain deadline, or at once when
// it is hurried, what is in flight is cut short.
func (c *crew) drain() error {
	d := c.daemon
	limit := d.config().Drain
	c.stopReceiving()
	d.log.Info("stopping: receiving has ended; waiting for messages in flight", "in_flight", d.InFlight(), "at_most", limit.String())
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
	case <-d.hurry:
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
