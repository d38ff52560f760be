package configs

import (
	"fmt"
	"strings"
	"time"

	"github.com/drover-run/drover/triggers/timer/schedule"
)

// TimerTrigger is a schedule. The state of the timer is in data_dir, or at a connection.
type TimerTrigger struct {
	Schedule     string `yaml:"schedule" required:"true" desc:"when the timer is due: an NCRONTAB expression as in Azure Functions, {second} {minute} {hour} {day} {month} {day of the week}, such as 0 */5 * * * *, where the second may be omitted; or the time between the end of a run and the next, such as 00:05:00"`
	Timezone     string `yaml:"timezone" default:"UTC" desc:"time zone of the schedule, such as Europe/Berlin"`
	RunOnStartup bool   `yaml:"run_on_startup" default:"false" desc:"also run once when drover starts, not once for each instance"`
	UseMonitor   *bool  `yaml:"use_monitor" desc:"make up, once, for occurrences that were missed while no instance ran; by default true. It has no effect if the timer is due more than once a minute"`

	Connection string   `yaml:"connection" desc:"a connection to NATS or Azure Storage that keeps the state, so that only one of several machines runs each occurrence; by default data_dir keeps it, for the instances of one machine"`
	Group      string   `yaml:"group" desc:"with a connection: a name for the instances that share the timer, such as the name of the deployment; functions with the same name and group share each run"`
	Lease      Duration `yaml:"lease" default:"10s" min:"1s" max:"10m" desc:"with a connection: how long an instance owns the timer unless it renews it. A run that was killed is repeated after this time; whole seconds"`
}

const (
	maxTimerGroup    = 24 // characters of a group, which is a part of a queue's name
	shownOccurrences = 5  // by drover check
)

// IsMonitored reports whether missed occurrences are made up for.
func (t *TimerTrigger) IsMonitored() bool { return t.UseMonitor == nil || *t.UseMonitor }

// Parse returns the schedule.
func (t *TimerTrigger) Parse() (*schedule.Schedule, error) {
	zone, err := time.LoadLocation(t.Timezone)
	if err != nil {
		return nil, fmt.Errorf("timezone: %w", err)
	}
	return schedule.Parse(t.Schedule, zone)
}

// NextOccurrences returns the next occurrences as text. t may be nil.
func (t *TimerTrigger) NextOccurrences(now time.Time) (out []string) {
	if t == nil {
		return nil
	}
	if s, err := t.Parse(); err == nil {
		for _, next := range s.ListNext(now, shownOccurrences) {
			out = append(out, next.Format("Mon 2006-01-02 15:04:05 MST"))
		}
	}
	return out
}

func (t *TimerTrigger) connectionName() string { return t.Connection }

func (t *TimerTrigger) describeTrigger() string {
	text := fmt.Sprintf("timer %s, in %s", t.Schedule, t.Timezone)
	if strings.ContainsRune(t.Schedule, ':') {
		text = fmt.Sprintf("timer, %s after each run", t.Schedule)
	}
	if t.RunOnStartup {
		text += ", and at the start"
	}
	if t.Connection != "" {
		return text + fmt.Sprintf(", shared by group %s on %s", t.Group, t.Connection)
	}
	return text
}

func (t *TimerTrigger) completeTrigger(x *completion, path, _ string, _ Retry) {
	path += ".timer"
	if t.Timezone == "Local" {
		x.Wrong(path+".timezone", "Local is not the same on all machines; write Europe/Berlin or UTC, for example")
	} else if _, err := time.LoadLocation(t.Timezone); err != nil {
		x.Wrong(path+".timezone", "%q is not a time zone on this machine; write Europe/Berlin or UTC, for example", t.Timezone)
	} else if s, err := t.Parse(); err != nil {
		x.Wrong(path+".schedule", "%v", err)
	} else {
		for _, note := range s.Notes() {
			x.Warn("%s.schedule: %s", path, note)
		}
	}
	t.completeStore(x, path)
}

// completeStore checks where the state is.
func (t *TimerTrigger) completeStore(x *completion, path string) {
	if t.Connection == "" {
		onlyFor(x.Source, path, "a timer with a connection", []string{"group", "lease"})
		if x.Scale.Instances.External {
			x.Warn("%s: its state is in data_dir, so each instance with a data_dir of its own runs it; set connection and group", path)
		}
		return
	}
	x.connectionOf(path, &t.Connection, "NATS or Azure Storage", func(c Connection) bool { return c.hasServers() || c.Storage() })
	switch {
	case t.Group == "":
		x.Wrong(path, "a timer with a connection needs a group: a name for this deployment, so that no other one on the same connection takes its turns")
	case len(t.Group) > maxTimerGroup || !queueForm.MatchString(t.Group):
		x.Wrong(path+".group", "%q cannot be a group: use up to %d lower-case letters, digits and single hyphens, with a letter or digit first and last", t.Group, maxTimerGroup)
	}
	if t.Lease.D()%time.Second != 0 {
		x.Wrong(path+".lease", "%v is not a whole number of seconds", t.Lease)
	}
}
