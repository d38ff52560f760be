package functionapp

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/drover-run/drover/configs/functionapp/hostkeys"
	"github.com/drover-run/drover/configs/posting"
)

// Describe writes a readable description of the app: its functions, with what runs them, and the settings, each
// with the place that it is from. Config must be completed, unless it has no functions. It prints
// no secrets.
func (t *Translation) Describe(w io.Writer) error {
	out := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(format string, args ...any) { _, _ = fmt.Fprintf(out, format+"\n", args...) }
	model := "model v1 (function.json)"
	switch {
	case t.app.host.isCustom():
		model = "custom handler"
	case t.app.Script != "":
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
			describeSettings(t, line, f.Name)
		}
	}
	describeApp(t, line)
	return out.Flush()
}

func describeSettings(t *Translation, line func(string, ...any), name string) {
	f, runs := t.Config.Functions[name]
	if !runs {
		return // it is among the errors
	}
	for _, next := range f.Trigger.Timer.NextOccurrences(time.Now()) {
		line("  due\t%s", next)
	}
	concurrency := "measured"
	switch {
	case f.Concurrency > 0:
		concurrency = fmt.Sprintf("%d in flight at most", f.Concurrency)
	case f.Handler.HTTP != nil:
		concurrency = fmt.Sprintf("%d in flight at most, by default", posting.DefaultConcurrency)
	}
	line("  concurrency\t%s", concurrency)
	line("  timeout\t%v", f.Timeout)
	if f.Retry.MaxAttempts == 1 {
		line("  retry\tnone")
		return
	}
	delays := fmt.Sprintf("delay %v", f.Retry.Initial)
	if f.Retry.Initial != f.Retry.Max {
		delays = fmt.Sprintf("delays %v to %v, doubled each time", f.Retry.Initial, f.Retry.Max)
	}
	line("  retry\t%d attempts, %s", f.Retry.MaxAttempts, delays)
}

// describeApp writes the pool of workers, the connections, and host.json.
func describeApp(t *Translation, line func(string, ...any)) {
	if own := t.app.server(); own != nil {
		port := "a free port"
		if own.Port > 0 {
			port = fmt.Sprintf("port %d", own.Port)
		}
		line("custom handler\t%s, in %s, on %s (%s)", strings.Join(append([]string{own.Program}, own.Arguments...), " "), own.Dir, port, own.From)
	} else if app, found := t.Config.Apps[AppName]; found && len(t.Config.Functions) > 0 {
		processes := fmt.Sprint(app.Processes)
		if app.Scaled {
			processes = fmt.Sprintf("%d to %d", min(t.Config.Scale.Workers.Min, app.Processes), app.Processes)
		}
		line("processes\t%s (%s)", processes, t.origin(app.ProcessesFrom))
		line("threads\t%d per process (%s)", app.Threads, t.origin(app.ThreadsFrom))
	}
	for _, name := range slices.Sorted(maps.Keys(t.connections)) {
		line("connection %s\t%s", name, t.connections[name].describe())
	}
	for _, s := range t.app.host.settings {
		if key, known := hostkeys.FindKey(s.name); known && !strings.EqualFold(key.Name, "version") {
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

// DescribeIgnored returns a text for each key of host.json that has no effect, except for those that
// every app has.
func (t *Translation) DescribeIgnored() (out []string) {
	seen := map[string]bool{"extensionBundle.*": true, "logging.applicationInsights.*": true}
	for _, s := range t.app.host.settings {
		key, known := hostkeys.FindKey(s.name)
		if known && key.Use != hostkeys.Honored && !seen[key.Name] {
			seen[key.Name] = true
			out = append(out, fmt.Sprintf("%s: %s is %s: %s", s.from, s.dotted(), key.Use, key.How))
		}
	}
	return out
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
