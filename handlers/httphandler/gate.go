package httphandler

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/drover-run/drover/handlers"
)

// gate is a circuit breaker that sets the number of slots. It is shut while the app is down, open
// for one message that tries the app, or open for all.
type gate struct {
	slots    *handlers.Slots
	capacity int
	probe    func(context.Context) error
	log      *slog.Logger
	wake     chan struct{}

	mu       sync.Mutex
	state    gateState
	why      string
	failures int // in a row
	backOff  *backoff.ExponentialBackOff
	until    time.Time // no check before this time
}

type gateState uint8

const (
	gateShut gateState = iota // run checks the app
	gateTrying
	gateOpen
)

const (
	// tripAfter is the number of failures in a row that shut the gate.
	tripAfter = 20
	// lookLimit bounds one check of the app.
	lookLimit = 5 * time.Second
	// pausedFor is the time until a misconfigured app is checked again.
	pausedFor = 30 * time.Second
)

func newGate(all int, look func(context.Context) error, log *slog.Logger) *gate {
	return &gate{
		slots: handlers.NewSlots(0), capacity: all, probe: look, log: log, wake: make(chan struct{}, 1),
		backOff: backoff.NewExponentialBackOff(backoff.WithInitialInterval(100*time.Millisecond), backoff.WithMaxInterval(10*time.Second), backoff.WithMaxElapsedTime(0)),
	}
}

// run checks the app while the gate is shut, until ctx ends.
func (g *gate) run(ctx context.Context) {
	for ctx.Err() == nil {
		g.mu.Lock()
		shut, rest := g.state == gateShut, time.Until(g.until)
		g.mu.Unlock()
		if !shut {
			select {
			case <-g.wake:
			case <-ctx.Done():
			}
			continue
		}
		if rest > 0 {
			timer := time.NewTimer(rest)
			select {
			case <-timer.C:
			case <-ctx.Done():
			}
			timer.Stop()
			continue
		}
		g.tryAgain(ctx)
	}
}

// tryAgain checks the app once. If the check succeeds, one message may try the app.
func (g *gate) tryAgain(ctx context.Context) {
	looking, cancel := context.WithTimeout(ctx, lookLimit)
	err := g.probe(looking)
	cancel()
	if ctx.Err() != nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if err != nil {
		g.shutFor("it cannot be reached: "+err.Error(), g.backOff.NextBackOff())
		return
	}
	if g.why == "" { // the first check
		g.open()
		return
	}
	g.state = gateTrying
	g.slots.Resize(1)
}

// shutFor sets the slots to zero for a while; mu is held.
func (g *gate) shutFor(why string, rest time.Duration) {
	if g.why != why {
		g.log.Error("the app is not healthy; nothing is received until it is", "why", why)
	}
	g.state, g.why, g.until = gateShut, why, time.Now().Add(rest)
	g.slots.Resize(0)
	select {
	case g.wake <- struct{}{}:
	default:
	}
}

// open restores all slots; mu is held.
func (g *gate) open() {
	if g.why != "" {
		g.log.Info("the app is healthy again")
	}
	g.state, g.why, g.failures = gateOpen, "", 0
	g.backOff.Reset()
	g.slots.Resize(g.capacity)
}

// isOpen reports whether the gate is open for all messages.
func (g *gate) isOpen() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.state == gateOpen
}

func (g *gate) recordSuccess() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.failures = 0; g.state == gateTrying {
		g.open()
	}
}

// recordFailure counts a failure. Several in a row shut the gate, as does a failure of the message
// that tries the app.
func (g *gate) recordFailure() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.failures++
	switch {
	case g.state == gateTrying:
		g.shutFor(g.why, g.backOff.NextBackOff())
	case g.state == gateOpen && g.failures >= tripAfter:
		g.shutFor("it failed many times in a row", g.backOff.NextBackOff())
	}
}

// shutUnreachable shuts the gate because the app cannot be reached.
func (g *gate) shutUnreachable(why string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.state != gateShut {
		g.shutFor(why, g.backOff.NextBackOff())
	}
}

// shutMisconfigured shuts the gate for pausedFor, because the app seems to be misconfigured.
func (g *gate) shutMisconfigured(why string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.state != gateShut {
		g.shutFor("misconfigured: "+why, pausedFor)
	}
}
