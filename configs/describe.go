package configs

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// Describe writes what a completed configuration will run, for people. It prints no secrets.
func (c *Config) Describe(w io.Writer) error {
	out := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(format string, args ...any) { _, _ = fmt.Fprintf(out, format+"\n", args...) }
	for _, name := range sortedNames(c.Functions) {
		f := c.Functions[name]
		line("function %s", name)
		line("  trigger\t%s", f.Trigger)
		for _, next := range f.Trigger.Timer.nextOccurrences(time.Now()) {
			line("  due\t%s", next)
		}
		line("  handler\t%s", f.Handler)
		for _, o := range f.Output {
			line("  output\t%s", o)
		}
		concurrency := "the handler's default"
		if f.Concurrency > 0 {
			concurrency = fmt.Sprintf("%d in flight at most", f.Concurrency)
		}
		line("  concurrency\t%s, prefetch %v", concurrency, f.Prefetch)
		bodies := "as large as the source allows"
		if f.MaxBody > 0 {
			bodies = "up to " + f.MaxBody.String()
		}
		line("  timeout\t%v, bodies %s", f.Timeout, bodies)
		how := ""
		if f.Retry.Mode == "scheduled" {
			how = ", by a scheduled copy"
		}
		line("  retry\t%d attempts, delays %v to %v, spread by %v%s", f.Retry.MaxAttempts, f.Retry.Initial, f.Retry.Max, f.Retry.Jitter, how)
	}
	for _, name := range sortedNames(c.Apps) {
		a := c.Apps[name]
		line("app %s", name)
		line("  code\t%s", a.Dir)
		if len(a.Command) > 0 {
			line("  command\t%s", strings.Join(a.Command, " "))
		}
		processes := fmt.Sprint(a.Processes)
		if a.Scaled {
			processes = fmt.Sprintf("%d to %d", min(c.Scale.Workers.Min, a.Processes), a.Processes)
		}
		line("  processes\t%s (%s)", processes, a.ProcessesFrom)
		if a.Language != Node {
			line("  threads\t%d a process (%s)", a.Threads, a.ThreadsFrom)
		}
		line("  coroutines\t%d a process (%s)", a.Coroutines, a.CoroutinesFrom)
		if who := a.User + ":" + a.Group; who != ":" {
			line("  user\t%s", strings.TrimSuffix(who, ":"))
		}
		for _, what := range []struct{ key, text string }{{"limits", a.Limits.String()}, {"sandbox", a.Sandbox.String()}} {
			if what.text != "" {
				line("  %s\t%s", what.key, what.text)
			}
		}
		if a.Start == "template" {
			line("  start\tforked from a template, where the code allows it")
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
		line("traces\tto %s (%s), of service %s, %v of the messages that have no trace of their own", t.URL, t.From, t.ServiceName, *t.Sample)
	}
	line("data\t%s", c.DataDir)
	for _, warning := range c.Warnings {
		line("warning: %s", warning)
	}
	return out.Flush()
}

// String describes the source of the messages.
func (t Trigger) String() string {
	if s := t.kindSettings(); s != nil {
		return s.describeTrigger()
	}
	return "none"
}

// String describes the destinations of results; "" if there are none.
func (o Outputs) String() string {
	texts := make([]string, len(o))
	for i, output := range o {
		texts[i] = output.String()
	}
	return strings.Join(texts, " and ")
}

// String describes the destination of results.
func (o Output) String() string {
	if s := o.kindSettings(); s != nil {
		return s.describeOutput()
	}
	return "none"
}

// String describes the server of the connection, and its authentication.
func (c Connection) String() string {
	switch {
	case c.Embedded():
		return c.describeServers()
	case c.Storage():
		return c.describeAccount()
	case c.Namespace != "" || c.ConnectionString != "":
		return c.describeNamespace()
	}
	return c.describeServers()
}
