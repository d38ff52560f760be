package cli

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

// shellWord is one word of a command line: bare, or in quotes.
var shellWord = regexp.MustCompile(`(?:'[^']*'|"[^"]*"|[^\s'"()])+`)

// droverArgs finds a call of drover in a line of shell: after a pipe, and up to a redirection, a
// pipe or a comment.
func droverArgs(line string) (args []string, found bool) {
	for _, word := range shellWord.FindAllString(line, -1) {
		switch {
		case word == "drover" && !found:
			found = true
		case !found:
		case word == "|" || word == ">" || word == "&" || strings.HasPrefix(word, "#"):
			return args, true
		default:
			args = append(args, strings.NewReplacer("'", "", `"`, "").Replace(word))
		}
	}
	return args, found
}

func TestDroverArgs(t *testing.T) {
	for line, want := range map[string]string{
		"drover run  # a comment":                      "run",
		`ls | drover send f -H 'a=b c' | wc`:           "send,f,-H,a=b c",
		`drover send f --body "x y"`:                   "send,f,--body,x y",
		"source <(drover completion bash) # here":      "completion,bash",
		"drover config schema > f.json":                "config,schema",
		"drover emulate storagequeue --queue images &": "emulate,storagequeue,--queue,images",
	} {
		args, found := droverArgs(line)
		if got := strings.Join(args, ","); !found || got != want {
			t.Errorf("%s: %q, %v", line, got, found)
		}
	}
	if _, found := droverArgs("make test"); found {
		t.Error("found in make test")
	}
}

func testParser(t *testing.T) *kong.Kong {
	t.Helper()
	return newParser(t.Context(), &IO{Out: io.Discard, Err: io.Discard}, func(int) {})
}

// parses parses a command line and returns the command that it calls, such as scale explain.
func parses(t *testing.T, args []string) (path string, err error) {
	t.Helper()
	parsed, err := testParser(t).Parse(args)
	if err != nil {
		return "", err
	}
	return parsed.Selected().Path(), nil
}

func TestEveryCommandHasHelpWithAnExample(t *testing.T) {
	t.Parallel()
	commands := testParser(t).Model.Leaves(true)
	if len(commands) < 10 {
		t.Fatalf("only %d commands found", len(commands))
	}
	for _, c := range commands {
		if c.Help == "" {
			t.Errorf("drover %s lacks a help text", c.Path())
		}
		own := 0
		for _, line := range examplesOf(c) {
			args, calls := droverArgs(line)
			if !calls {
				continue
			}
			path, err := parses(t, args)
			switch {
			case err != nil:
				t.Errorf("drover %s: its example %q is wrong: %v", c.Path(), line, err)
			case path == c.Path():
				own++
			}
		}
		if own == 0 {
			t.Errorf("the help of drover %s lacks an Example: give it a method Help() string as the others have", c.Path())
		}
		for _, v := range append(c.Positional, flagValues(c)...) {
			if v.Help == "" {
				t.Errorf("drover %s: %s lacks a help text", c.Path(), v.Summary())
			}
		}
	}
}

func flagValues(c *kong.Node) (out []*kong.Value) {
	for _, flags := range c.AllFlags(true) {
		for _, f := range flags {
			out = append(out, f.Value)
		}
	}
	return out
}

// checkGroups checks that the page has a section for each group of the help, with its commands in the same
// order.
func checkGroups(t *testing.T, page string) {
	t.Helper()
	var want, got []string
	group := ""
	for _, g := range commandGroups {
		want = append(want, "## "+strings.TrimSuffix(g.Title, ":"))
		for _, c := range testParser(t).Model.Leaves(true) {
			if own := c.ClosestGroup(); own == nil {
				t.Errorf("drover %s has no group", c.Path())
			} else if own.Key == g.Key {
				want = append(want, "### drover "+c.Path())
			}
		}
	}
	for line := range strings.Lines(page) {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, "## ") {
			group = line
		}
		if group != "" && group != "## Exit status" && (line == group || strings.HasPrefix(line, "### drover ")) {
			got = append(got, line)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("docs/commands.md has the headings\n%s\nand the help has\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// docs/commands.md lists every exit status.
func TestExitStatusesAreDocumented(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/commands.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(text), "## Exit status")
	table, _, _ = strings.Cut(table, "\n## ")
	for _, status := range []int{ExitOK, ExitFailed, ExitUsage, ExitStart, ExitCutShort, ExitCode} {
		if !strings.Contains(table, fmt.Sprintf("\n| %d | ", status)) {
			t.Errorf("the table lacks %d", status)
		}
	}
}

// An empty $DROVER_CONFIG counts as unset.
func TestConfigurationOfTheEnvironment(t *testing.T) {
	t.Parallel()
	dir := write(t, map[string]string{"orders.yaml": "functions: {orders: {trigger: {nats: {}}, handler: {exec: {command: [cat]}}}}\n"})
	for value, want := range map[string]string{"": "no configuration drover.yaml; ", filepath.Join(dir, "orders.yaml"): "function orders"} {
		out := newPrinted()
		env := func(name string) (string, bool) { return value, name == "DROVER_CONFIG" }
		Command(t.Context(), []string{"check"}, &IO{Out: out, Err: out, Env: env, Environ: func() []string { return nil }})
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q: %s", value, out)
		}
	}
}

var commandHeading = regexp.MustCompile("(?m)^### drover (.+)$")

func TestEveryCommandIsDocumented(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/commands.md")
	if err != nil {
		t.Fatal(err)
	}
	checkGroups(t, string(text))
	sections := make(map[string]string)
	at := commandHeading.FindAllSubmatchIndex(text, -1)
	for i, m := range at {
		end := len(text)
		if i+1 < len(at) {
			end = at[i+1][0]
		}
		sections[string(text[m[2]:m[3]])] = string(text[m[1]:end])
	}
	for _, c := range testParser(t).Model.Leaves(true) {
		section, found := sections[c.Path()]
		if !found {
			t.Errorf("docs/commands.md lacks a heading ### drover %s", c.Path())
			continue
		}
		delete(sections, c.Path())
		own := false
		for _, block := range shBlock.FindAllStringSubmatch(section, -1) {
			for line := range strings.Lines(block[1]) {
				args, calls := droverArgs(line)
				if !calls {
					continue
				}
				path, err := parses(t, args)
				if err != nil {
					t.Errorf("docs/commands.md, drover %s: %q is wrong: %v", c.Path(), strings.TrimSpace(line), err)
				}
				own = own || path == c.Path()
			}
		}
		if !own {
			t.Errorf("docs/commands.md has no example of drover %s in a sh block under its heading", c.Path())
		}
	}
	for path := range sections {
		t.Errorf("docs/commands.md has a heading for drover %s, which is not a command", path)
	}
}

// All commands that need a configuration name it in the same way.
func TestTheConfigurationIsNamedInOneWay(t *testing.T) {
	dir := write(t, map[string]string{"other.yaml": "version: 1\nfunctions: {orders: {trigger: {nats: {}}, handler: {exec: {command: [cat]}}}}\n"})
	file := filepath.Join(dir, "other.yaml")
	for _, args := range [][]string{{"check", file}, {"check", "-c", file}, {"check", "--config", file}} {
		if status, out, errs := command(t.Context(), nil, nil, args...); status != ExitOK || !strings.Contains(out, "orders") {
			t.Errorf("%v: status %d\n%s%s", args, status, out, errs)
		}
	}
	for _, args := range [][]string{{"status", "-c", file}, {"health", "-c", file}, {"reload", "-c", file}, {"pause", "orders", "-c", file}, {"tail", "orders", "-c", file}, {"profile", "orders", "-c", file}, {"scale", "explain", "-c", file}} {
		if status, out, errs := command(t.Context(), nil, nil, args...); status != ExitFailed || !strings.Contains(errs, "no daemon") {
			t.Errorf("%v: status %d\n%s%s", args, status, out, errs)
		}
	}
	if status, _, errs := command(t.Context(), nil, nil, "status", file); status != ExitUsage || !strings.Contains(errs, "unexpected argument") {
		t.Errorf("status %d: %s", status, errs)
	}
	t.Setenv("DROVER_CONFIG", file)
	if status, out, errs := command(t.Context(), nil, nil, "check"); status != ExitOK || !strings.Contains(out, "orders") {
		t.Errorf("DROVER_CONFIG: status %d\n%s%s", status, out, errs)
	}
}

func TestHelpAndVersion(t *testing.T) {
	for want, args := range map[string][]string{"Usage: drover <command>": nil, "Usage: drover status": {"help", "status"}, "Usage: drover dead list": {"help", "dead", "list"}} {
		if status, out, errs := command(t.Context(), nil, nil, args...); status != ExitOK || !strings.Contains(out, want) {
			t.Errorf("%v: status %d\n%s%s", args, status, out, errs)
		}
	}
	_, version, _ := command(t.Context(), nil, nil, "version")
	if status, out, errs := command(t.Context(), nil, nil, "--version"); status != ExitOK || out != version {
		t.Errorf("--version: status %d, %q, %s", status, out, errs)
	}
}

// Each configuration in configs passes drover check as it is.
func TestExamplesPassTheCheck(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("../../configs/*.yaml")
	if err != nil || len(files) < 6 {
		t.Fatalf("%v, %v", files, err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			if filepath.Base(file) == "example.yaml" {
				needNode(t)
			}
			out := newPrinted()
			env := func(name string) (string, bool) { v, found := os.LookupEnv(name); return v, found && name == "PATH" }
			status := Command(t.Context(), []string{"check", file}, &IO{Out: out, Err: out, Env: env, Environ: os.Environ})
			if status != ExitOK || !strings.Contains(out.String(), "\nfunction ") && !strings.HasPrefix(out.String(), "function ") {
				t.Errorf("status %d\n%s", status, out)
			}
		})
	}
}
