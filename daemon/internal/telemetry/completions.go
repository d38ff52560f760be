package telemetry

import (
	"log/slog"
	"sync"
	"time"
)

const (
	// maxCompletionLines bounds the completed messages that are logged on a terminal, per second. Nobody
	// can read more.
	maxCompletionLines = 20
	// completionInterval is the time between two lines that count completed messages.
	completionInterval = 10 * time.Second
)

// Completions decides which completed messages are logged at level info. With a limit, it logs the
// messages of seconds in which at most maxCompletionLines complete, and only the counts of others.
type Completions struct {
	terminal bool

	mu      sync.Mutex
	always  bool
	limited bool
	second  time.Time // the start of the current second
	count   int       // the messages in it
	omitted []*FunctionCompletions
	since   time.Time   // when omitting began, or the counts were last logged; zero: every message is logged
	check   *time.Timer // runs checkRate while messages are omitted
}

// NewCompletions returns the completions of a daemon. terminal is true if it logs to a terminal. Without
// Configure nothing is logged.
func NewCompletions(terminal bool) *Completions { return &Completions{terminal: terminal} }

// Configure sets log.done: nil is the limit on a terminal, and nothing elsewhere.
func (c *Completions) Configure(done *bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.always = done != nil && *done
	c.limited = done == nil && c.terminal
}

// FunctionCompletions are the completions of one function.
type FunctionCompletions struct {
	all     *Completions
	log     *slog.Logger
	omitted int // since it was last logged; guarded by all.mu
}

// Of returns the completions of a function with a log.
func (c *Completions) Of(log *slog.Logger) *FunctionCompletions {
	return &FunctionCompletions{all: c, log: log}
}

// CountMessage counts a completed message, and reports whether it is logged. It may be called from
// any goroutine, and on nil.
func (f *FunctionCompletions) CountMessage() (logged bool) {
	if f == nil {
		return false
	}
	c := f.all
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.limited {
		return c.always
	}
	now := time.Now()
	if c.since.IsZero() && now.Sub(c.second) >= time.Second {
		c.second, c.count = now, 0
	}
	if c.count++; c.since.IsZero() && c.count <= maxCompletionLines {
		return true
	}
	if c.since.IsZero() {
		c.since = now
		c.check = time.AfterFunc(time.Second, c.checkRate)
	}
	if f.omitted++; f.omitted == 1 {
		c.omitted = append(c.omitted, f)
	}
	return false
}

// checkRate runs each second while messages are omitted. After a slower second, messages are logged
// again.
func (c *Completions) checkRate() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.since.IsZero() {
		return
	}
	now := time.Now()
	slow := c.count <= maxCompletionLines
	if slow || now.Sub(c.since) >= completionInterval {
		c.logOmitted(now)
	}
	c.second, c.count = now, 0
	if slow {
		c.since = time.Time{}
		return
	}
	c.check.Reset(time.Second)
}

// Flush logs the counts of the messages that were omitted.
func (c *Completions) Flush() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.check != nil {
		c.check.Stop()
	}
	c.logOmitted(time.Now())
	c.since = time.Time{}
}

// logOmitted logs how many messages were omitted since then; mu is held.
func (c *Completions) logOmitted(now time.Time) {
	for _, f := range c.omitted {
		f.log.Info("more messages completed", "count", f.omitted, "in", max(now.Sub(c.since).Round(time.Second), time.Second))
		f.omitted = 0
	}
	c.omitted, c.since = nil, now
}
