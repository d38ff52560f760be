// Package ownprocess is for the program's own process: its signals, the notifications of systemd,
// and what other processes may read of it. The command line calls it.
package ownprocess

import (
	"context"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// TermInterval is how soon after the first SIGTERM a second one is ignored: GNU timeout, and
	// wrappers that forward signals, send two.
	TermInterval = time.Second
	// intInterval is the same for SIGINT: a person does not press Ctrl-C twice that fast.
	intInterval = 100 * time.Millisecond
)

// StopSignals returns a context that ends at the first SIGTERM or SIGINT, and a channel that is
// closed at the second. A SIGTERM sooner than termInterval after the first signal is
// ignored; TermInterval is the default. A third one ends the process, as Go does by default. end stops counting.
func StopSignals(termInterval time.Duration) (stopped context.Context, forceStop <-chan struct{}, end func()) {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	stopped, forceStop, endCount := countStops(signals, termInterval, func() { signal.Reset(syscall.SIGTERM, syscall.SIGINT) })
	return stopped, forceStop, func() {
		signal.Stop(signals)
		endCount()
	}
}

// countStops is StopSignals for the signals of a channel. It calls second at the second one. end
// closes the channel and waits for its goroutine.
func countStops(signals chan os.Signal, termInterval time.Duration, second func()) (stopped context.Context, forceStop <-chan struct{}, end func()) {
	ctx, cancel := context.WithCancel(context.Background())
	forced := make(chan struct{})
	var wait sync.WaitGroup
	wait.Go(func() {
		var first time.Time
		for s := range signals {
			if to := diverted.Load(); to != nil && s == syscall.SIGINT {
				(*to)()
				continue
			}
			same := termInterval
			if s == syscall.SIGINT {
				same = intInterval
			}
			switch now := time.Now(); {
			case first.IsZero():
				first = now
				cancel()
			case now.Sub(first) >= same:
				close(forced)
				second()
				return
			}
		}
	})
	return ctx, forced, func() {
		close(signals)
		wait.Wait()
		cancel()
	}
}

var diverted atomic.Pointer[func()]

// DivertInterrupts calls a function for each SIGINT instead of stopping, until stop is called.
// Meanwhile Ctrl-Z has no effect: a suspended drover would leave the terminal to the function.
func DivertInterrupts(to func()) (stop func()) {
	diverted.Store(&to)
	signal.Ignore(syscall.SIGTSTP)
	return func() {
		signal.Reset(syscall.SIGTSTP)
		diverted.Store(nil)
	}
}

// HangUps returns a channel that receives each SIGHUP, which otherwise ends the process, until
// ignore is called.
func HangUps() (hangUps <-chan os.Signal, ignore func()) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGHUP)
	return signals, func() { signal.Stop(signals) }
}

// ReloadAtHangUps calls reload at each SIGHUP, until leave is called. If the SIGHUP comes from a
// closed terminal, as isGone reports, it calls stop instead. hangUps is HangUps; nil: SIGHUP is not
// handled.
func ReloadAtHangUps(ctx context.Context, hangUps func() (<-chan os.Signal, func()), isGone func() bool, stop func(), reload func(context.Context)) (leave func()) {
	if hangUps == nil {
		return func() {}
	}
	signals, ignore := hangUps()
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() {
		for {
			select {
			case <-signals:
			case <-ctx.Done():
				return
			}
			if isGone() {
				stop()
				return
			}
			reload(ctx)
		}
	})
	return func() {
		ignore()
		cancel()
		running.Wait()
	}
}

// CatchSIGPIPE keeps the process alive when the reader of its log has gone, until stop is
// called: Go would end it at the next line. SIGPIPE is caught and not ignored, because the
// commands that the process starts would ignore it too.
func CatchSIGPIPE() (stop func()) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGPIPE)
	return func() { signal.Stop(signals) }
}

// Resizes returns a channel that receives each change of the terminal's size, until stop is called.
func Resizes() (resizes <-chan os.Signal, stop func()) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGWINCH)
	return signals, func() { signal.Stop(signals) }
}
