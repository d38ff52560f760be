package console

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon/cli/term"
)

const (
	// maxListed bounds the functions, and the apps, that are listed at the start.
	maxListed = 12
	// sampleFile is the sample message in the projects that `drover init` writes.
	sampleFile = "order.json"
	// defaultPath is the configuration that commands read without a flag.
	defaultPath = "drover.yaml"
)

// Start describes a daemon that has started.
type Start struct {
	Config       *configs.Config // completed
	Path         string          // of the configuration, as the user named it
	Interpreters map[string]string
	Env          configs.Env
}

// StartText lists the functions and the apps, and commands to try next.
func StartText(r Start, s Style) string {
	var b strings.Builder
	cfg := r.Config
	what := fmt.Sprintf("drover runs %s of %s:", withNoun(len(cfg.Functions), "function"), term.Printable(r.Path))
	b.WriteString("\r\n" + strings.Join(term.Wrap(what, s.width(), ""), "\n") + "\n")
	var functions, apps []item
	for _, name := range sortedNames(cfg.Functions) {
		functions = append(functions, functionItem(name, cfg.Functions[name]))
	}
	for _, name := range sortedNames(cfg.Apps) {
		apps = append(apps, appItem(name, cfg.Apps[name], r.Interpreters[name], s.Dir))
	}
	names := 0
	for _, each := range slices.Concat(functions[:min(len(functions), maxListed)], apps[:min(len(apps), maxListed)]) {
		names = max(names, min(term.Columns(each.name), maxFunctionColumns))
	}
	s.writeItems(&b, functions, "functions", names)
	s.writeItems(&b, apps, "apps", names)
	if cfg.Scale.Instances.Scaled() {
		fmt.Fprintf(&b, "\n%s\n", s.Palette.Apply(term.Dim, "Scaled to "+cfg.Scale.String()+"."))
	}
	b.WriteString("\nIn a second terminal, try:\n")
	for _, command := range r.nextCommands() {
		b.WriteString("  " + s.Palette.Apply(term.Bold, term.Printable(command)) + "\n")
	}
	stop := fmt.Sprintf("Ctrl-C stops, and waits up to %v for messages in flight. A second Ctrl-C cancels them.", cfg.Drain)
	b.WriteString(strings.Join(term.Wrap(stop, s.width(), ""), "\n") + "\n\n")
	return b.String()
}

// width returns the columns of the terminal, or a common width.
func (s Style) width() int {
	if s.Columns > 0 {
		return s.Columns
	}
	return 80
}

// item is a name with facts, each of one or more lines.
type item struct {
	name  string
	facts []string
}

// writeItems writes a list. what names its kind, in the plural, and names is the width of the column
// of the names.
func (s Style) writeItems(b *strings.Builder, items []item, what string, names int) {
	before := strings.Repeat(" ", names+4)
	for i, each := range items {
		if i == maxListed {
			fmt.Fprintf(b, "\n  ... and %d more %s; drover check lists all\n", len(items)-i, what)
			return
		}
		b.WriteString("\n  " + s.Palette.Apply(term.Cyan, each.name))
		if n := term.Columns(each.name); n <= names {
			b.WriteString(strings.Repeat(" ", names-n+2))
		} else {
			b.WriteString("\n" + before)
		}
		var lines []string
		for _, fact := range each.facts {
			lines = append(lines, term.Wrap(term.Printable(fact), max(s.width()-len(before), 20), "")...)
		}
		b.WriteString(strings.Join(lines, "\n"+before) + "\n")
	}
}

// functionItem describes the source, the app and the settings of a function.
func functionItem(name string, f configs.Function) item {
	settings := fmt.Sprintf("timeout %v", f.Timeout)
	if f.Trigger.HTTP == nil && f.Trigger.Timer == nil {
		settings += ", " + withNoun(f.Retry.MaxAttempts, "attempt")
	}
	if f.Concurrency > 0 {
		settings += fmt.Sprintf(", at most %d in flight", f.Concurrency)
	}
	if f.Batch.Size > 0 {
		settings += ", " + f.Batch.String()
	}
	facts := []string{f.Trigger.String(), f.Handler.String()}
	for _, o := range f.Output {
		facts = append(facts, "output to "+o.String())
	}
	return item{term.Printable(name), append(facts, settings)}
}

// appItem describes the code, the interpreter and the worker processes of an app.
func appItem(name string, a configs.App, interpreter, dir string) item {
	code := a.Dir
	switch short := relative(a.Dir, dir); {
	case short == ".":
		code = "this directory"
	case short != a.Dir:
		code = "./" + short
	}
	if interpreter != "" {
		code += ", run by " + interpreter
	}
	return item{"app " + term.Printable(name), []string{code, workersText(a)}}
}

// workersText describes the worker processes of an app.
func workersText(a configs.App) string {
	if a.Server != nil {
		return "custom handler " + a.Server.Program
	}
	text := withNoun(a.Processes, "process")
	if a.Scaled {
		text = "up to " + text
	}
	if a.Language != configs.Node {
		text += ", " + withNoun(a.Threads, "thread")
	}
	text += " and " + withNoun(a.Coroutines, "coroutine") + " each"
	for _, from := range []string{a.ProcessesFrom, a.ThreadsFrom, a.CoroutinesFrom} {
		if strings.HasPrefix(from, "auto") {
			return text + " (auto)"
		}
	}
	return text
}

// parameter is a parameter of a route.
var parameter = regexp.MustCompile(`\{[^}]*\}`)

// nextCommands returns the commands that a new user is likely to need next.
func (r Start) nextCommands() (out []string) {
	flag := ""
	if named, _ := r.Env("DROVER_CONFIG"); r.Path != defaultPath && r.Path != named {
		flag = " -c " + shellWord(r.Path)
	}
	queue, request := "", ""
	for _, name := range sortedNames(r.Config.Functions) {
		t := r.Config.Functions[name].Trigger
		switch {
		case t.HTTP != nil && request == "":
			request = requestCommand(t)
		case t.HTTP == nil && t.Timer == nil && queue == "":
			queue = "drover send " + shellWord(name) + flag + " " + r.sampleMessage()
		}
	}
	for _, command := range []string{queue, request} {
		if command != "" {
			out = append(out, command)
		}
	}
	return append(out, "drover status"+flag)
}

// sampleMessage returns the flag for a sample message.
func (r Start) sampleMessage() string {
	dir := r.Path
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		dir = filepath.Dir(dir)
	}
	file := filepath.Join(dir, sampleFile)
	if _, err := os.Stat(file); err == nil {
		return "--file " + shellWord(file)
	}
	return "--body hello"
}

// requestCommand returns a request for an HTTP function; empty if its port is not known.
func requestCommand(t configs.Trigger) string {
	url, _, _ := strings.Cut(t.String(), ",")
	if strings.Contains(url, ":0/") {
		return ""
	}
	command := "curl -i"
	if len(t.HTTP.Methods) > 0 && !slices.Contains(t.HTTP.Methods, "GET") {
		command += " -X " + t.HTTP.Methods[0]
	}
	if t.HTTP.Auth != "anonymous" && t.HTTP.Server.HasKeys() {
		command += " -H 'x-functions-key: KEY'"
	}
	return command + " " + shellWord(parameter.ReplaceAllString(url, "1"))
}

// plainWord matches words that a shell does not change.
var plainWord = regexp.MustCompile(`^[A-Za-z0-9_./:@%+,=-]+$`)

// shellWord quotes a word for a shell, if necessary.
func shellWord(word string) string {
	if plainWord.MatchString(word) {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

func sortedNames[T any](of map[string]T) []string {
	names := make([]string, 0, len(of))
	for name := range of {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func withNoun(n int, noun string) string {
	switch {
	case n == 1:
		return "1 " + noun
	case strings.HasSuffix(noun, "s"):
		return fmt.Sprint(n, " ", noun, "es")
	}
	return fmt.Sprint(n, " ", noun, "s")
}
