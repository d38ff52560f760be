package configs

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// Describe writes what a completed configuration will run, for people. It prints no secrets.
func (c *Config) Describe(w io.Writer) error {
	out := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(format string, args ...any) { _, _ = fmt.Fprintf(out, format+"\n", args...) }
	for _, name := range names(c.Functions) {
		f := c.Functions[name]
		line("function %s", name)
		line("  trigger\t%s", f.Trigger)
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
	for _, name := range names(c.Apps) {
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
	for _, name := range names(c.Connections) {
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
	if s := t.settings(); s != nil {
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
	if s := o.target(); s != nil {
		return s.describeOutput()
	}
	return "none"
}

// String describes what runs the function.
func (h Handler) String() string {
	if c, found := h.Code(); found {
		switch {
		case c.Language == Python:
			return fmt.Sprintf("python %s.%s in app %s", c.Module, c.Function, c.App)
		case c.Module == "", c.Module == ".":
			return fmt.Sprintf("%s %s in app %s", c.Language, c.Function, c.App)
		}
		return fmt.Sprintf("%s %s of %s in app %s", c.Language, c.Function, c.Module, c.App)
	}
	if run := h.Exec; run != nil {
		return "run " + strings.Join(run.Command, " ")
	}
	if w := h.HTTP; w != nil {
		text := "post to " + w.URL
		if w.Batch != nil {
			text = fmt.Sprintf("post up to %d together to %s", w.Batch.Max, w.URL)
		}
		if w.Format != "" {
			text = "invoke the custom handler at " + w.URL
		}
		if w.Ready != "" {
			text += ", when " + w.Ready + " is well"
		}
		return text
	}
	return "go " + h.Go
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

// String describes when a worker is replaced; "" is never.
func (r Recycle) String() string {
	var after []string
	add := func(set bool, format string, value any) {
		if set {
			after = append(after, fmt.Sprintf(format, value))
		}
	}
	add(r.MaxInvocations > 0, "after %d invocations", r.MaxInvocations)
	add(r.MaxMemory > 0, "at %v of memory of its own", r.MaxMemory)
	add(r.MaxAge > 0, "after %v", r.MaxAge)
	add(r.MaxIdle > 0, "after %v with nothing to do", r.MaxIdle)
	return strings.Join(after, ", ")
}
