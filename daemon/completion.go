package daemon

import (
	"cmp"
	"embed"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
	"github.com/goccy/go-yaml"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon/cli/term"
	"github.com/drover-run/drover/handlers/workers/conformance"
	"github.com/drover-run/drover/scaler/sim"
)

// completions are the scripts, by shell. They are thin: on each tab they ask
// `drover complete`, which knows the commands that this program has.
//
//go:embed completion
var completions embed.FS

// completionCommand is `drover completion`.
type completionCommand struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"Print the script for this shell: bash, zsh or fish."`
}

func (*completionCommand) Help() string {
	return `Completes commands, flags, values, files, and the functions of ./drover.yaml. The program must be in $PATH.

Examples:

    source <(drover completion bash)      # in ~/.bashrc
    source <(drover completion zsh)       # in ~/.zshrc, after compinit
    drover completion fish > ~/.config/fish/completions/drover.fish
`
}

var programName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)

func (c *completionCommand) Run(std *IO) error {
	script, err := completions.ReadFile("completion/" + c.Shell + ".sh")
	if err != nil {
		return fmt.Errorf("reading the completions: %w", err)
	}
	name := filepath.Base(std.Program)
	if !programName.MatchString(name) {
		name = "drover"
	}
	_, err = io.WriteString(std.Out, strings.ReplaceAll(string(script), "PROGRAM", name))
	return err
}

// completeCommand is `drover complete`, which the scripts call. It prints a
// candidate a line, with a tab and what it is; :files, :yaml and :dirs have the
// shell find those.
type completeCommand struct {
	Words []string `arg:"" optional:"" passthrough:"" help:"Complete the last of these words, which follow the program's name."`
}

func (c *completeCommand) Run(parsed *kong.Context, std *IO) error {
	words := c.Words
	if len(words) > 0 && words[0] == "--" {
		words = words[1:]
	}
	if len(words) == 0 {
		words = []string{""}
	}
	file, _ := std.Env("DROVER_CONFIG")
	for _, found := range complete(parsed.Model.Node, words, cmp.Or(file, "drover.yaml")) {
		fmt.Fprintln(std.Out, term.Printable(found))
	}
	return nil
}

// completion is a command line as far as it goes.
type completion struct {
	node   *kong.Node
	args   []string   // positional ones
	flag   *kong.Flag // whose value comes next
	values map[string]string
	plain  bool // after --
	lost   bool // no command is meant
}

// complete finds what the last word may become. It reads names from the configuration file,
// unless the words name another.
func complete(root *kong.Node, words []string, file string) (found []string) {
	at := completion{node: root, values: map[string]string{"config": file}}
	last := len(words) - 1
	for _, word := range words[:last] {
		at.take(word)
	}
	if at.lost {
		return nil
	}
	for _, candidate := range at.possible(words[last]) {
		if strings.HasPrefix(candidate, words[last]) || strings.HasPrefix(candidate, ":") {
			found = append(found, candidate)
		}
	}
	return found
}

// take goes one word on.
func (c *completion) take(word string) {
	switch {
	case c.flag != nil:
		c.values[c.flag.Name] = unquoted(word)
		c.flag = nil
	case c.plain || word == "-" || !strings.HasPrefix(word, "-"):
		c.positional(word)
	case word == "--":
		c.plain = true
	default:
		name, value, given := strings.Cut(word, "=")
		flag := c.find(name)
		switch {
		case flag == nil || flag.IsBool() || flag.IsCounter():
		case given:
			c.values[flag.Name] = unquoted(value)
		case strings.HasPrefix(name, "--") || len(name) == 2:
			c.flag = flag
		default: // -Hname
			c.values[flag.Name] = unquoted(name[2:])
		}
	}
}

func (c *completion) positional(word string) {
	if len(c.node.Children) == 0 {
		c.args = append(c.args, word)
		return
	}
	for _, child := range c.node.Children {
		if child.Name == word || slices.Contains(child.Aliases, word) {
			c.node = child
			return
		}
	}
	c.lost = true
}

// find is the flag of a word, such as --config, -c, or -cFILE.
func (c *completion) find(word string) *kong.Flag {
	for _, flags := range c.node.AllFlags(false) {
		for _, f := range flags {
			if word == "--"+f.Name || f.Short != 0 && !strings.HasPrefix(word, "--") && strings.HasPrefix(word, "-"+string(f.Short)) {
				return f
			}
		}
	}
	return nil
}

// possible are what may stand in a word's place, with their texts.
func (c *completion) possible(word string) (out []string) {
	if c.flag != nil {
		return c.valuesOf(c.flag.Value, false)
	}
	if name, _, given := strings.Cut(word, "="); given && !c.plain && strings.HasPrefix(word, "--") {
		if flag := c.find(name); flag != nil {
			for _, value := range c.valuesOf(flag.Value, false) {
				if !strings.HasPrefix(value, ":") {
					value = name + "=" + value
				}
				out = append(out, value)
			}
		}
		return out
	}
	if strings.HasPrefix(word, "-") && !c.plain {
		for _, flags := range c.node.AllFlags(true) {
			for _, f := range flags {
				out = append(out, "--"+f.Name+"\t"+f.Help)
			}
		}
		return out
	}
	for _, child := range c.node.Children {
		if !child.Hidden {
			out = append(out, child.Name+"\t"+child.Help)
		}
	}
	if n := len(c.args); n < len(c.node.Positional) {
		out = append(out, c.valuesOf(c.node.Positional[n], true)...)
	}
	return out
}

// valuesOf are the values of a flag or an argument: those that it lists, or what
// its name says, which is the same in all commands.
func (c *completion) valuesOf(v *kong.Value, argument bool) []string {
	if v.Enum != "" {
		return candidates(v.EnumSlice(), "")
	}
	file := c.values["config"]
	switch v.Name {
	case "function", "target":
		return candidates(namesIn(file).Functions, "a function of "+file)
	case "via":
		return candidates(namesIn(file).Connections, "a connection of "+file)
	case "config", "policy":
		return []string{":yaml"}
	case "file", "lines", "output", "messages", "html":
		if argument {
			return []string{":yaml"}
		}
		return []string{":files"}
	case "dir", "data-dir", "plot", "write", "app":
		return []string{":dirs"}
	case "command":
		return candidates(conformance.Languages(), "the worker that drover brings")
	case "encoding":
		return candidates([]string{"base64", "text"}, "")
	case "trace":
		names := []string{"all"}
		for _, t := range sim.Traces(1) {
			names = append(names, t.Name)
		}
		return append(candidates(names, "a generated trace"), ":files")
	}
	return nil
}

func candidates(names []string, what string) []string {
	out := make([]string, 0, len(names))
	for _, name := range names {
		out = append(out, name+"\t"+what)
	}
	return out
}

// declared are names of a configuration.
type declared struct{ Functions, Connections []string }

// namesIn reads a configuration as it is: one that is being written, or lacks a
// variable of the environment, still has names. None where that can't be.
func namesIn(file string) (out declared) {
	text, err := configs.ReadPlain(filepath.Clean(file))
	if err != nil {
		return out
	}
	var cfg struct {
		Functions   map[string]any `yaml:"functions"`
		Connections map[string]any `yaml:"connections"`
	}
	if yaml.Unmarshal(text, &cfg) != nil {
		return out
	}
	return declared{completable(cfg.Functions), completable(cfg.Connections)}
}

// completable are the names that a shell reads as one plain word: others, which a
// file of somebody else's may have, are never put on a command line.
func completable(named map[string]any) []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(named)), func(name string) bool { return !programName.MatchString(name) })
}

// unquoted takes the quotes off a word that a shell has left them on.
func unquoted(word string) string {
	if n := len(word); n >= 2 && (word[0] == '\'' || word[0] == '"') && word[n-1] == word[0] {
		return word[1 : n-1]
	}
	return word
}
