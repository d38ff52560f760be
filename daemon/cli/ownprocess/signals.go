// Package ownprocess is for the program's own process: its signals, the notifications of systemd,
// and what other processes may read of it. The command line calls it.
package ownprocess

import (
	"context"
	"os"
	"os/signal"
	"sync"
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

// HangUps returns a channel that receives each SIGHUP, which otherwise ends the process, until
// ignore is called.
func HangUps() (hangUps <-chan os.Signal, ignore func()) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGHUP)
	return signals, func() { signal.Stop(signals) }
}

// CatchSIGPIPE keeps the process alive when the reader of its log has gone, until stop is
// called: Go would end it at the next line. SIGPIPE is caught and not ignored, because the
// commands that the process starts would ignore it too.
func CatchSIGPIPE() (stop func()) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGPIPE)
	return func() { signal.Stop(signals) }
}
