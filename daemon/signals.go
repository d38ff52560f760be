package daemon

import (
	"context"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

// This file counts the signals that stop the daemon.

const (
	// sameTerm is how soon after a SIGTERM another one counts as the same: GNU timeout,
	// and wrappers that forward signals, send two.
	sameTerm = time.Second
	// sameInt is the same for SIGINT: nobody presses Ctrl-C twice that fast.
	sameInt = 100 * time.Millisecond
)

// stopSignals returns a context that ends at the first SIGTERM or SIGINT, and a
// channel that is closed at the second. A third ends the process as it would
// without drover.
func stopSignals() (context.Context, <-chan struct{}, func()) {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	ctx, hurry, end := countStops(signals, func() { signal.Reset(syscall.SIGTERM, syscall.SIGINT) })
	return ctx, hurry, func() {
		signal.Stop(signals)
		end()
	}
}

// countStops is stopSignals with the signals given. It calls second at the second one;
// end waits until nothing of it is left.
func countStops(signals chan os.Signal, second func()) (stopped context.Context, hurry <-chan struct{}, end func()) {
	ctx, cancel := context.WithCancel(context.Background())
	hurried := make(chan struct{})
	var wait sync.WaitGroup
	wait.Go(func() {
		var first time.Time
		for s := range signals {
			same := sameTerm
			if s == syscall.SIGINT {
				same = sameInt
			}
			switch now := time.Now(); {
			case first.IsZero():
				first = now
				cancel()
			case now.Sub(first) >= same:
				close(hurried)
				second()
				return
			}
		}
	})
	return ctx, hurried, func() {
		close(signals)
		wait.Wait()
		cancel()
	}
}
