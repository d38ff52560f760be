package configs

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// Describe writes a readable description of a completed configuration. It prints no secrets.
func (c *Config) Describe(w io.Writer) error {
	out := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(format string, args ...any) { _, _ = fmt.Fprintf(out, format+"\n", args...) }
	for _, name := range sortedNames(c.Functions) {
		f := c.Functions[name]
		line("function %s", name)
		line("  trigger\t%s", f.Trigger)
		for _, next := range f.Trigger.Timer.NextOccurrences(time.Now()) {
			line("  due\t%s", next)
		}
		line("  handler\t%s", f.Handler)
		for _, o := range f.Output {
			line("  output\t%s", o)
		}
		concurrency := "auto: as many as the handler takes at once"
		if f.Concurrency > 0 {
			concurrency = fmt.Sprintf("%d in flight at most", f.Concurrency)
		}
		line("  concurrency\t%s, prefetch %v", concurrency, f.Prefetch)
		if f.Batch.Size > 0 {
			line("  batch\t%s", f.Batch)
		}
		bodies := "as large as the source allows"
		if f.MaxBody > 0 {
			bodies = "up to " + f.MaxBody.String()
		}
		line("  timeout\t%v, bodies %s", f.Timeout, bodies)
		how := ""
		if f.Retry.Mode == "scheduled" {
			how = ", by a scheduled copy"
		}
		if f.Retry.MaxAttempts == 1 {
			line("  retry\tnone")
		} else {
			line("  retry\t%d attempts, delays %v to %v, spread by %v%s", f.Retry.MaxAttempts, f.Retry.Initial, f.Retry.Max, f.Retry.Jitter, how)
		}
	}
	for _, name := range sortedNames(c.Apps) {
		a := c.Apps[name]
		line("app %s", name)
		line("  code\t%s", a.Dir)
		if len(a.Command) > 0 {
			line("  command\t%s", strings.Join(a.Command, " "))
		}
		a.describeWorkers(line, c.Scale.Workers.Min)
		if who := a.User + ":" + a.Group; who != ":" {
			line("  user\t%s", strings.TrimSuffix(who, ":"))
		}
		for _, what := range []struct{ key, text string }{{"limits", a.Limits.String()}, {"sandbox", a.Sandbox.String()}} {
			if what.text != "" {
				line("  %s\t%s", what.key, what.text)
			}
		}
		if a.Start == "template" {
			line("  start\tforked from a template, if the code allows it")
		}
		if limits := a.Recycle.String(); limits != "" {
			line("  recycled\t%s", limits)
		}
	}
	for _, name := range sortedNames(c.Connections) {
		line("connection %s\t%s", name, c.Connections[name])
	}
	line("scale\t%s", c.Scale)
	for _, schedule := range c.Scale.Schedules {
		line("\tat least %d from %s to %s %s", schedule.Min, schedule.From, schedule.To, strings.Join(schedule.Days, ", "))
	}
	if t := c.Traces; t.URL != "" {
		line("traces\tto %s (%s), of service %s, %v of the messages without a trace", t.URL, t.From, t.ServiceName, *t.Sample)
	}
	line("data\t%s", c.DataDir)
	for _, warning := range c.Warnings {
		line("warning: %s", warning)
	}
	return out.Flush()
}

// describeWorkers describes the processes of an app. least is the smallest number to which it is
// scaled.
func (a App) describeWorkers(line func(string, ...any), least int) {
	if a.Server != nil {
		line("  custom handler\t%s (%s)", a.Server.Program, a.Server.From)
		return
	}
	processes := fmt.Sprint(a.Processes)
	if a.Scaled {
		processes = fmt.Sprintf("%d to %d", min(least, a.Processes), a.Processes)
	}
	line("  processes\t%s (%s)", processes, a.ProcessesFrom)
	if a.Language != Node {
		line("  threads\t%d per process (%s)", a.Threads, a.ThreadsFrom)
	}
	line("  coroutines\t%d per process (%s)", a.Coroutines, a.CoroutinesFrom)
}
