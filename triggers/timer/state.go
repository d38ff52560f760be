package timer

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/drover-run/drover/triggers/timer/schedule"
)

// State is the state of a timer in a Store.
type State struct {
	// Schedule identifies the schedule that Next was computed with.
	Schedule string `json:"schedule"`
	// Last is when the latest run started that ended, zero if there was none. Next is the
	// next occurrence. Updated is when the state was changed.
	Last    time.Time `json:"last,omitzero"`
	Next    time.Time `json:"next"`
	Updated time.Time `json:"updated"`
	// Started is the start of the app for which the timer has run at startup.
	Started time.Time `json:"started,omitzero"`
	// Failed is the run that failed and waits for its next attempt; nil if there is none.
	Failed *FailedRun `json:"failed,omitempty"`
}

// FailedRun is a run that waits for its next attempt.
type FailedRun struct {
	Due      time.Time `json:"due"` // as scheduled
	PastDue  bool      `json:"past_due,omitempty"`
	Failures int       `json:"failures"`
	RetryAt  time.Time `json:"retry_at"`
}

// NextDue returns when the timer is due next.
func (s State) NextDue() time.Time {
	if s.Failed != nil {
		return s.Failed.RetryAt
	}
	return s.Next
}

const (
	// maxSkew is by how much the clock may be set back, or the clocks of two instances differ,
	// without repeating an occurrence. After a larger step the earlier time was wrong.
	maxSkew = 5 * time.Minute
	// onTime is how late a run may start that is not past due.
	onTime = time.Second
	// waits is how late a run may start, without a monitor, if it had to wait for a slot or for
	// the store.
	waits = time.Minute
	// oneStart is the time within which instances start that belong to one start of the app.
	oneStart = time.Minute
)

// plan is what to do about a state at a time.
type plan struct {
	state   State // updated
	changed bool  // the state must be stored
	due     bool  // the timer runs now

	at      time.Time // when the run was due
	pastDue bool
	attempt int
}

// needsLease reports whether the plan needs the timer's lease.
func (p plan) needsLease() bool { return p.due || p.changed }

// rules are the settings that decide when a timer runs.
type rules struct {
	schedule *schedule.Schedule
	monitor  bool      // a missed occurrence is made up for
	started  time.Time // the start of the app, at which the timer runs once; zero: it does not
}

// scheduleID identifies a schedule.
func (r rules) scheduleID() string {
	if r.schedule.Span() > 0 {
		return r.schedule.String()
	}
	return r.schedule.String() + " " + r.schedule.Zone().String()
}

// planAt decides what to do about a state. first is set for the first decision of an instance.
func (r rules) planAt(s State, now time.Time, first bool) plan {
	p := plan{state: s}
	if s.Schedule != r.scheduleID() || s.Updated.After(now.Add(maxSkew)) {
		p.changed = true
		p.state = State{Schedule: r.scheduleID(), Last: s.Last, Next: r.schedule.Next(now), Updated: now, Started: s.Started}
		if s.Last.After(now) {
			p.state.Last = time.Time{}
		}
	}
	if f := p.state.Failed; f != nil {
		p.due, p.at, p.pastDue, p.attempt = !now.Before(f.RetryAt), f.Due, f.PastDue, f.Failures+1
		return p
	}
	next := p.state.Next
	late := now.Sub(next)
	missed := late > waits || late > onTime && first || late > 0 && !r.schedule.Next(next).After(now)
	switch {
	case late >= 0 && (r.monitor || !missed):
		p.due, p.at, p.attempt = true, next, 1
		p.pastDue = r.monitor && (first && late > 0 || late > onTime)
	case r.startsUp(p.state):
		p.due, p.at, p.attempt = true, now, 1
	}
	if missed && !r.monitor {
		p.changed = true
		p.state.Next, p.state.Updated = r.schedule.Next(now), now
	}
	return p
}

// startsUp reports whether the timer must still run because the app started.
func (r rules) startsUp(s State) bool {
	return !r.started.IsZero() && r.started.Sub(s.Started).Abs() > oneStart
}

// afterRun returns the state after a run that has ended, with its attempts used up or not.
func (r rules) afterRun(p plan, start, now time.Time) State {
	s := p.state
	s.Last, s.Updated, s.Failed = start, now, nil
	from := now
	if r.schedule.Span() == 0 && p.at.After(now) {
		from = p.at
	}
	if next := r.schedule.Next(from); !s.Next.After(from) || r.schedule.Span() > 0 {
		s.Next = next
	}
	if !r.started.IsZero() {
		s.Started = r.started
	}
	return s
}

// afterFailure returns the state after a run that has failed so often in all, and runs again at a
// time. With no failures the run has not begun.
func (r rules) afterFailure(p plan, failures int, retryAt, now time.Time) State {
	s := p.state
	s.Updated, s.Failed = now, nil
	if failures > 0 {
		s.Failed = &FailedRun{Due: p.at, PastDue: p.pastDue, Failures: failures, RetryAt: retryAt}
		if !r.started.IsZero() {
			s.Started = r.started
		}
	}
	return s
}

// Info is the body of a timer's message, as Azure's TimerInfo in JSON.
type Info struct {
	Schedule struct {
		AdjustForDST bool
	}
	// ScheduleStatus is the state at the start of the run; nil for a timer without a monitor.
	ScheduleStatus *ScheduleStatus
	// IsPastDue is set if the occurrence was missed at its time.
	IsPastDue bool
}

// ScheduleStatus is part of Info. The times are zero if there is none.
type ScheduleStatus struct {
	Last        time.Time
	Next        time.Time
	LastUpdated time.Time
}

// NewBody returns the body of a message about a run. status may be nil.
func NewBody(pastDue bool, status *ScheduleStatus) []byte {
	info := Info{IsPastDue: pastDue, ScheduleStatus: status}
	info.Schedule.AdjustForDST = true
	body, err := json.Marshal(info)
	if err != nil {
		panic(fmt.Sprintf("encoding a timer's message: %v", err)) // a year with five digits
	}
	return body
}

// body returns the body for a run.
func (r rules) body(p plan) []byte {
	if !r.monitor {
		return NewBody(p.pastDue, nil)
	}
	in := func(t time.Time) time.Time {
		if t.IsZero() {
			return t
		}
		return t.In(r.schedule.Zone())
	}
	return NewBody(p.pastDue, &ScheduleStatus{Last: in(p.state.Last), Next: in(p.state.Next), LastUpdated: in(p.state.Updated)})
}
