// Package local is the provisioner without dependencies: instances are child processes on this
// machine.
//
// A Provisioner lives as long as its Run, which one goroutine calls; another one calls Count
// and Set. An instance reads its initial settings from file descriptor 3, as one line, and
// reports on file descriptor 4, one line of JSON each; see Link. It drains when the pipe to it
// is closed. So it also drains when the process of the provisioner dies.
package local

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/drover-run/drover/scaler"
)

// Command is the command line of an instance.
type Command struct {
	Path string
	Args []string
	Env  []string
	// Stdout and Stderr receive its output.
	Stdout, Stderr io.Writer
}

// Config is the configuration of a Provisioner.
type Config struct {
	Command Command
	// Hello returns the initial settings of an instance, one line. IDs are counted from 1, and
	// used again when their instance has ended.
	Hello func(id int) (json.RawMessage, error)
	// Reported is called with each report of an instance, and Gone when it has ended; how is
	// nil after exit status 0. Both must not block.
	Reported func(id int, load json.RawMessage)
	Gone     func(id int, how error)
	// StartLimit bounds the time until an instance is ready, and DrainLimit the time until a
	// draining one has ended. An instance that takes longer is killed.
	StartLimit, DrainLimit time.Duration
	Log                    *slog.Logger
}

const (
	// healthy is the lifetime of an instance that resets the backoff.
	healthy = 10 * time.Second
	// lookEvery bounds the delay with which an exceeded limit is noticed.
	lookEvery = time.Second
)

// Provisioner runs a number of instances. It implements scaler.Provisioner.
type Provisioner struct {
	cfg     Config
	wakeUps chan struct{}
	first   chan struct{} // closed when the first instance is ready, or could not start

	mu        sync.Mutex
	wanted    int
	instances []*instance // the oldest first
	startUp   time.Duration
	failing   error // why the last start failed
	once      bool  // an instance was ready
	pause     *backoff.ExponentialBackOff
	next      time.Time // the earliest time of the next start
	ending    bool
}

type state uint8

const (
	starting state = iota
	ready
	draining
)

var _ scaler.Provisioner = (*Provisioner)(nil)

// New returns a provisioner without instances; Run starts them.
func New(cfg Config) *Provisioner {
	return &Provisioner{
		cfg: cfg, wakeUps: make(chan struct{}, 1), first: make(chan struct{}),
		pause: backoff.NewExponentialBackOff(
			backoff.WithInitialInterval(200*time.Millisecond), backoff.WithMaxInterval(30*time.Second), backoff.WithMaxElapsedTime(0)),
	}
}

// Count implements scaler.Provisioner.
func (p *Provisioner) Count(context.Context) (scaler.Count, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := scaler.Count{StartUp: p.startUp}
	if p.failing != nil {
		c.Failing = p.failing.Error()
	}
	for _, i := range p.instances {
		switch i.state {
		case starting:
			c.Starting++
		case ready:
			c.Ready++
		case draining:
			c.Draining++
		}
	}
	return c, nil
}

// Set implements scaler.Provisioner.
func (p *Provisioner) Set(_ context.Context, n int) error {
	if n < 0 {
		return fmt.Errorf("%d instances were asked for", n)
	}
	p.mu.Lock()
	p.wanted = n
	p.mu.Unlock()
	p.wakeUp()
	return nil
}

// EndedError reports that an instance ended before it was ready.
type EndedError struct {
	ID     int
	Reason string
	Status int // the exit status; -1 if it was killed
}

// Error implements error.
func (e *EndedError) Error() string {
	return fmt.Sprintf("instance %d ended before it was ready: %s", e.ID, e.Reason)
}

// WaitReady waits until the first instance is ready. It returns the reason if it could not start: an
// *EndedError if its process ended. Later instances are retried.
func (p *Provisioner) WaitReady(ctx context.Context) error {
	select {
	case <-p.first:
	case <-ctx.Done():
		return ctx.Err()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.once {
		return nil
	}
	return p.failing
}

// ForceStop interrupts the draining instances by a SIGINT, which counts as a second signal soon
// after a SIGTERM.
func (p *Provisioner) ForceStop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, i := range p.instances {
		if i.state == draining {
			_ = i.cmd.Process.Signal(syscall.SIGINT) // it may have ended
		}
	}
}

func (p *Provisioner) wakeUp() {
	select {
	case p.wakeUps <- struct{}{}:
	default:
	}
}

// Run starts and drains instances until ctx ends; then it drains all, and returns when the last
// one has ended. Starts, crashes and replacements take the same path.
func (p *Provisioner) Run(ctx context.Context) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	stop := ctx.Done()
	for {
		if p.reconcile() == 0 && ctx.Err() != nil {
			return nil
		}
		var again <-chan time.Time
		if pause := p.pauseLeft(); pause > 0 {
			again = time.After(pause)
		}
		select {
		case <-stop:
			stop = nil
			p.mu.Lock()
			p.wanted, p.ending = 0, true
			p.mu.Unlock()
		case <-p.wakeUps:
		case <-again:
		case <-tick.C:
		}
	}
}

// pauseLeft returns how long to wait until a missing instance may be started.
func (p *Provisioner) pauseLeft() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.activeCount() >= p.wanted {
		return 0
	}
	return time.Until(p.next)
}

// activeCount returns the number of instances that are not draining. The caller holds mu.
func (p *Provisioner) activeCount() (n int) {
	for _, i := range p.instances {
		if i.state != draining {
			n++
		}
	}
	return n
}

// reconcile starts and drains instances until the wanted number runs. It returns how many
// exist.
func (p *Provisioner) reconcile() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	left := p.instances[:0]
	for _, i := range p.instances {
		if !p.checkEnded(i, now) {
			left = append(left, i)
		}
	}
	clear(p.instances[len(left):])
	p.instances = left
	p.drainUnits(p.activeCount()-p.wanted, now)
	for n := p.activeCount(); n < p.wanted && !now.Before(p.next); n++ {
		i, err := p.startInstance(now)
		if err != nil {
			p.notReady(fmt.Errorf("an instance cannot be started: %w", err), now)
			break
		}
		p.instances = append(p.instances, i)
	}
	return len(p.instances)
}

// checkEnded reports whether an instance has ended, and kills one that exceeds a limit. The caller
// holds mu.
func (p *Provisioner) checkEnded(i *instance, now time.Time) bool {
	select {
	case <-i.gone:
	default:
		switch {
		case i.state == starting && now.Sub(i.since) > p.cfg.StartLimit:
			i.killGroup(fmt.Sprintf("it was not ready within %v", p.cfg.StartLimit))
		case i.state == draining && now.Sub(i.since) > p.cfg.DrainLimit:
			i.killGroup(fmt.Sprintf("it had not drained within %v", p.cfg.DrainLimit))
		}
		return false
	}
	i.wait()
	if p.cfg.Gone != nil {
		p.cfg.Gone(i.id, i.err)
	}
	lived := now.Sub(i.since).Round(time.Millisecond)
	switch {
	case i.state == draining && i.killed == "":
		p.cfg.Log.Info("an instance has ended", "instance", i.id, "drained_in", lived)
	case i.state == draining:
		p.cfg.Log.Error("an instance was killed while it drained; its messages will be redelivered when their leases expire", "instance", i.id, "error", i.killed)
	case i.state == starting:
		p.notReady(&EndedError{i.id, i.endReason(), i.cmd.ProcessState.ExitCode()}, now)
	default:
		if lived > healthy {
			p.pause.Reset()
		}
		delay := p.pause.NextBackOff()
		p.next = now.Add(delay)
		p.cfg.Log.Error("an instance died; it will be replaced", "instance", i.id, "error", i.endReason(), "lived", lived, "in", delay.Round(time.Millisecond))
	}
	return true
}

// notReady records a failed start, and delays the next. The caller holds mu.
func (p *Provisioner) notReady(why error, now time.Time) {
	if p.ending {
		return
	}
	delay := p.pause.NextBackOff()
	p.next = now.Add(delay)
	p.failing = why
	p.cfg.Log.Error("an instance did not start; will try again", "error", why, "in", delay.Round(time.Millisecond))
	p.closeFirst()
}

// closeFirst closes first: the first instance is ready, or could not start. The caller holds mu.
func (p *Provisioner) closeFirst() {
	select {
	case <-p.first:
	default:
		close(p.first)
	}
}

// drainUnits drains n instances: first those that are not ready yet, then those with the fewest
// messages in flight. The caller holds mu.
func (p *Provisioner) drainUnits(n int, now time.Time) {
	if n <= 0 {
		return
	}
	byLoad := slices.Clone(p.instances)
	slices.SortStableFunc(byLoad, func(a, b *instance) int {
		return cmp.Or(cmp.Compare(a.state, b.state), cmp.Compare(a.inFlight, b.inFlight), -cmp.Compare(a.id, b.id))
	})
	for _, i := range byLoad[:min(n, len(byLoad))] {
		if i.state == draining {
			break
		}
		p.cfg.Log.Info("draining an instance", "instance", i.id, "in_flight", i.inFlight)
		i.state, i.since = draining, now
		i.startDrain()
	}
}

// handleReport takes an instance's report. The first one makes it ready.
func (p *Provisioner) handleReport(i *instance, r report) {
	if p.cfg.Reported != nil { // first, so that its load is known when it counts as ready
		p.cfg.Reported(i.id, r.Load)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	i.inFlight = r.InFlight
	if i.state != starting {
		return
	}
	now := time.Now()
	p.startUp = now.Sub(i.since)
	i.state, i.since = ready, now
	p.failing, p.once = nil, true
	p.cfg.Log.Info("an instance is ready", "instance", i.id, "pid", i.cmd.Process.Pid, "start_up", p.startUp.Round(time.Millisecond))
	p.closeFirst()
	p.wakeUp()
}
