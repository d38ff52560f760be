// Package scaling has the policy for the numbers of workers and instances: its settings, their
// checks, and the policy of package scaler that follows from them.
package scaling

import (
	"fmt"
	"slices"
	"strings"
	"time"
	_ "time/tzdata" // schedules name time zones, and a container may lack them

	"github.com/drover-run/drover/configs/problems"
	"github.com/drover-run/drover/configs/values"
	"github.com/drover-run/drover/scaler"
)

// Scale has the policy for the numbers of workers and instances.
type Scale struct {
	ClearWithin values.Duration `yaml:"clear_within" min:"0s" max:"168h" desc:"target time to clear a backlog; by default 30s if no other target is set"`
	MaxAge      values.Duration `yaml:"max_age" default:"0s" min:"0s" max:"168h" desc:"alternative target: how long a message may wait"`
	PerInstance int             `yaml:"per_instance" default:"0" min:"0" max:"1000000000" desc:"alternative target: waiting messages per instance, as in KEDA and the Azure Functions host; workers then use clear_within 30s"`

	Utilisation  float64         `yaml:"utilisation" default:"0.95" min:"0.1" max:"1" desc:"fraction of the measured capacity to plan with"`
	MinGain      float64         `yaml:"min_gain" default:"0.1" min:"0" max:"0.9" desc:"stop adding when the last ones added less than this fraction of the throughput of the earlier ones; 0 always follows the formula"`
	Forecast     string          `yaml:"forecast" default:"auto" enum:"auto,off" desc:"auto plans for the arrivals forecast for the time when a process started now is ready"`
	ScaleInAfter values.Duration `yaml:"scale_in_after" default:"0s" min:"0s" max:"24h" desc:"how long a lower number must have been enough before scaling in; 0s is twice the measured start-up time, at least 15s"`
	Idle         values.Duration `yaml:"idle" default:"5m" min:"0s" max:"168h" desc:"if min is 0: time without messages after which the last one stops"`
	Activation   int             `yaml:"activation" default:"1" min:"1" max:"1000000000" desc:"number of messages that start the first one from zero; fewer start it after they have waited as long as idle"`
	MaxStep      int             `yaml:"max_step" default:"0" min:"0" max:"10000" desc:"maximum number of instances added at once; 0 is no limit"`
	Fallback     int             `yaml:"fallback" default:"0" min:"0" max:"10000" desc:"number of instances while a backlog could not be read for fallback_after; 0 keeps the current number"`
	FallbackAge  values.Duration `yaml:"fallback_after" default:"1m" min:"0s" max:"24h" desc:"how long a backlog must be unreadable before fallback applies"`
	Interval     values.Duration `yaml:"interval" default:"5s" min:"1s" max:"1h" desc:"time between decisions on instances; decisions on workers are made every second"`
	Timezone     string          `yaml:"timezone" desc:"time zone of the schedules, such as Europe/Berlin; by default this machine's"`
	Schedules    []Schedule      `yaml:"schedules" desc:"weekly periods with their own minimum number of instances"`
	Instances    Instances       `yaml:"instances" desc:"number of drover processes that share the work on this machine; external leaves it to another scaler"`
	Workers      Workers         `yaml:"workers" desc:"number of worker processes of an app that does not set processes"`

	location *time.Location
}

// Instances bounds the number of instances.
type Instances struct {
	Min int `yaml:"min" default:"1" min:"0" max:"10000" desc:"minimum; 0 stops the last one when it is idle"`
	Max int `yaml:"max" default:"1" min:"1" max:"10000" desc:"maximum"`

	// External is `instances: external`.
	External bool `yaml:"-" alone:"external"`
}

// Scaled reports whether this daemon manages instances.
func (i Instances) Scaled() bool { return !i.External && (i.Min != 1 || i.Max != 1) }

// Workers bounds the number of worker processes of an app.
type Workers struct {
	Min int `yaml:"min" default:"1" min:"0" max:"1024" desc:"minimum, if processes is not set; 0 stops the last one when it is idle"`
}

// Schedule is a time of the week.
type Schedule struct {
	From string         `yaml:"from" required:"true" desc:"start time, such as 08:00"`
	To   string         `yaml:"to" required:"true" desc:"end time, such as 18:00; if not after from, it is on the next day"`
	Days values.Strings `yaml:"days" desc:"days on which it starts: mon, tue, wed, thu, fri, sat, sun; all by default"`
	Min  int            `yaml:"min" default:"1" min:"1" max:"10000" desc:"minimum of instances during that time"`
}

var weekdays = []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}

// DefaultClearWithin is the target of a policy without one.
const DefaultClearWithin = values.Duration(30 * time.Second)

// Complete sets the default target, and makes the checks that need several keys. path is the
// path of the settings.
func (s *Scale) Complete(x *problems.Source, path string) {
	targets := []struct {
		key   string
		given bool
	}{{"clear_within", s.ClearWithin != 0}, {"max_age", s.MaxAge != 0}, {"per_instance", s.PerInstance != 0}}
	var given []string
	zero := "" // the first one that is written as 0
	for _, t := range targets {
		if x.Given(path+"."+t.key) && !t.given && zero == "" {
			zero = path + "." + t.key
		}
		if t.given {
			given = append(given, t.key)
		}
	}
	switch len(given) {
	case 0:
		s.ClearWithin = DefaultClearWithin
		if zero != "" {
			x.Wrong(zero, "a target of 0 cannot be met; set a higher value, or remove it")
		}
	case 1:
	default:
		x.Wrong(path, "it has both %s; set only one target", strings.Join(given, " and "))
	}
	if s.Instances.Min > s.Instances.Max {
		x.Wrong(path+".instances", "min (%d) is more than max (%d)", s.Instances.Min, s.Instances.Max)
	}
	if s.Fallback > s.Instances.Max {
		x.Wrong(path+".fallback", "%d is more than instances.max (%d)", s.Fallback, s.Instances.Max)
	}
	s.location = time.Local
	if s.Timezone != "" {
		zone, err := time.LoadLocation(s.Timezone)
		if err != nil {
			x.Wrong(path+".timezone", "%q is not a time zone on this machine; write Europe/Berlin or UTC, for example", s.Timezone)
		} else {
			s.location = zone
		}
	}
	for i, schedule := range s.Schedules {
		schedule.checkTimes(x, fmt.Sprintf("%s.schedules[%d]", path, i), s.Instances.Max)
	}
}

func (s Schedule) checkTimes(x *problems.Source, path string, most int) {
	from, ok := parseClock(s.From)
	if !ok || from == 24*time.Hour {
		x.Wrong(path+".from", "%q is not a time of day; write 08:00", s.From)
	}
	if _, ok := parseClock(s.To); !ok {
		x.Wrong(path+".to", "%q is not a time of day; write 18:00", s.To)
	}
	for i, day := range s.Days {
		if !slices.Contains(weekdays, day) {
			x.Wrong(fmt.Sprintf("%s.days[%d]", path, i), "%q is not a day; use mon, tue, wed, thu, fri, sat, sun", day)
		}
	}
	if s.Min > most {
		x.Wrong(path+".min", "%d is more than instances.max (%d)", s.Min, most)
	}
}

// parseClock parses a time of day, 00:00 to 24:00.
func parseClock(text string) (time.Duration, bool) {
	if text == "24:00" {
		return 24 * time.Hour, true
	}
	t, err := time.Parse("15:04", text)
	return time.Duration(t.Hour())*time.Hour + time.Duration(t.Minute())*time.Minute, err == nil && len(text) == len("15:04")
}

// InstancePolicy returns the scaling policy of instances.
func (s Scale) InstancePolicy() scaler.Policy {
	p := scaler.Policy{
		Min: s.Instances.Min, Max: s.Instances.Max,
		ClearWithin: s.ClearWithin.D(), MaxAge: s.MaxAge.D(), PerInstance: float64(s.PerInstance),
		Utilisation: s.Utilisation, MaxStep: s.MaxStep, ScaleInAfter: s.ScaleInAfter.D(), Idle: s.Idle.D(),
		Activation: int64(s.Activation), MinGain: s.MinGain, Fallback: s.Fallback, FallbackAfter: s.FallbackAge.D(),
		Forecast: s.Forecast != "off", Interval: s.Interval.D(),
	}
	for _, schedule := range s.Schedules {
		from, _ := parseClock(schedule.From) // checked before
		to, _ := parseClock(schedule.To)
		out := scaler.Schedule{From: from, To: to, Min: schedule.Min}
		for _, day := range schedule.Days {
			out.Days = append(out.Days, time.Weekday(slices.Index(weekdays, day)))
		}
		p.Schedules = append(p.Schedules, out)
	}
	return p
}

// Location returns the time zone of the schedules.
func (s Scale) Location() *time.Location {
	if s.location == nil {
		return time.Local
	}
	return s.location
}

// WorkersInterval is the time between two decisions on workers.
const WorkersInterval = time.Second

// WorkerPolicy returns the scaling policy of an app's workers, with the maximum most. It is the
// same policy without the settings of instances.
func (s Scale) WorkerPolicy(most int) scaler.Policy {
	p := s.InstancePolicy()
	p.Min, p.Max = min(s.Workers.Min, most), most
	p.MaxStep, p.Fallback, p.Activation, p.Schedules, p.Interval = 0, 0, 1, nil, WorkersInterval
	if p.PerInstance > 0 {
		p.PerInstance, p.ClearWithin = 0, DefaultClearWithin.D()
	}
	return p
}

// String returns the bounds of the workers and instances as text.
func (s Scale) String() string {
	target := fmt.Sprintf("a backlog is cleared within %v", s.ClearWithin)
	switch {
	case s.MaxAge > 0:
		target = fmt.Sprintf("no message waits for more than %v", s.MaxAge)
	case s.PerInstance > 0:
		target = fmt.Sprintf("%d messages wait for each instance", s.PerInstance)
	}
	switch i := s.Instances; {
	case i.External:
		return "external scaling of instances; workers so that " + target
	case i.Scaled():
		return fmt.Sprintf("%d to %d instances, so that %s", i.Min, i.Max, target)
	}
	return "one instance; workers so that " + target
}
