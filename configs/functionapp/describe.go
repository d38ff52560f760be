package functionapp

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
)

// Describe writes the app for people: its functions, with what runs them, and the settings, each
// with the place that it is from. Config must be completed, unless it has no functions. It prints
// no secrets.
func (t *Translation) Describe(w io.Writer) error {
	out := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(format string, args ...any) { _, _ = fmt.Fprintf(out, format+"\n", args...) }
	model := "model v1 (function.json)"
	if t.app.Script != "" {
		model = "model v2 (" + t.app.Script + ")"
	}
	line("function app %s: %s, %s", t.app.Name, counted(len(t.Functions), "function"), model)
	if t.index.Library != "" {
		line("  azure-functions\t%s, for %s (Python %s)", t.index.Library, t.index.Executable, t.index.Python)
	}
	for _, f := range t.Functions {
		line("function %s\t%s", f.Name, f.place())
		line("  trigger\t%s %s: %s", f.Trigger().Type, f.Trigger().Name, f.trigger)
		for _, o := range f.outputs {
			line("  output\t%s", o)
		}
		switch {
		case f.Disabled != "":
			line("  does not run\t%s", f.Disabled)
		case f.Unsupported != "":
			line("  does not run\t%s", f.Unsupported)
		default:
			t.describeSettings(line, f.Name)
		}
	}
	t.describeApp(line)
	return out.Flush()
}

func (t *Translation) describeSettings(line func(string, ...any), name string) {
	f, runs := t.Config.Functions[name]
	if !runs {
		return // it is among the errors
	}
	concurrency := "measured"
	if f.Concurrency > 0 {
		concurrency = fmt.Sprintf("%d in flight at most", f.Concurrency)
	}
	line("  concurrency\t%s", concurrency)
	line("  timeout\t%v", f.Timeout)
	delays := fmt.Sprintf("delay %v", f.Retry.Initial)
	if f.Retry.Initial != f.Retry.Max {
		delays = fmt.Sprintf("delays %v to %v, doubled each time", f.Retry.Initial, f.Retry.Max)
	}
	line("  retry\t%d attempts, %s", f.Retry.MaxAttempts, delays)
}

// describeApp writes the pool of workers, the connections, and host.json.
func (t *Translation) describeApp(line func(string, ...any)) {
	if app, found := t.Config.Apps[AppName]; found && len(t.Config.Functions) > 0 {
		processes := fmt.Sprint(app.Processes)
		if app.Scaled {
			processes = fmt.Sprintf("%d to %d", min(t.Config.Scale.Workers.Min, app.Processes), app.Processes)
		}
		line("processes\t%s (%s)", processes, t.origin(app.ProcessesFrom))
		line("threads\t%d a process (%s)", app.Threads, t.origin(app.ThreadsFrom))
	}
	for _, name := range slices.Sorted(maps.Keys(t.connections)) {
		line("connection %s\t%s", name, t.connections[name].describe())
	}
	for _, s := range t.app.host.settings {
		if key, known := find(s.name); known && !strings.EqualFold(key.Name, "version") {
			line("%s\t%s (%s): %s", s.dotted(), s.text, s.from, key.Use)
		}
	}
}

// origin adds to the name of a setting where it is from.
func (t *Translation) origin(from string) string {
	if _, where, found := t.app.Settings.Lookup(from); found {
		return from + ", " + where
	}
	return from
}

// CountUnsupported returns how many functions do not run because drover lacks what they need.
func (t *Translation) CountUnsupported() (n int) {
	for _, f := range t.Functions {
		if f.Unsupported != "" && f.Disabled == "" {
			n++
		}
	}
	return n
}

func (f Function) place() string {
	if f.Line == 0 {
		return f.File
	}
	return fmt.Sprintf("%s:%d", f.File, f.Line)
}

func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
