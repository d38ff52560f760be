// Package completion has the completion scripts of the shells, and finds the candidates. It reads
// the commands from their kong.Node. The commands call it, from one goroutine.
package completion

import (
	"embed"
	"fmt"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
	"github.com/goccy/go-yaml"

	"github.com/drover-run/drover/configs/decode"
	"github.com/drover-run/drover/configs/readfile"
	"github.com/drover-run/drover/handlers/workers/conformance"
	"github.com/drover-run/drover/scaler/sim"
)

// scripts are the completion scripts, by shell. They are thin: on each tab they call
// drover complete, which knows the commands of this program.
//
//go:embed scripts
var scripts embed.FS

var programName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)

// ReadScript returns the script of a shell, bash, zsh or fish, for a program of this path.
func ReadScript(shell, program string) (string, error) {
	script, err := scripts.ReadFile("scripts/" + shell + ".sh")
	if err != nil {
		return "", fmt.Errorf("reading the completions: %w", err)
	}
	name := filepath.Base(program)
	if !programName.MatchString(name) {
		name = "drover"
	}
	return strings.ReplaceAll(string(script), "PROGRAM", name), nil
}

// commandLine is the part of a command line that was read.
type commandLine struct {
	node   *kong.Node
	args   []string   // positional ones
	flag   *kong.Flag // whose value comes next
	values map[string]string
	plain  bool // after --
	lost   bool // no command has this name
}

// FindCandidates returns the candidates for the last word, each with a tab and its description;
// :files, :yaml and :dirs make the shell find those. It reads names from the configuration file,
// unless the words name another.
func FindCandidates(root *kong.Node, words []string, file string) (found []string) {
	at := commandLine{node: root, values: map[string]string{"config": file}}
	last := len(words) - 1
	for _, word := range words[:last] {
		at.readWord(word)
	}
	if at.lost {
		return nil
	}
	for _, candidate := range at.candidatesFor(words[last]) {
		if strings.HasPrefix(candidate, words[last]) || strings.HasPrefix(candidate, ":") {
			found = append(found, candidate)
		}
	}
	return found
}

// readWord reads the next word.
func (c *commandLine) readWord(word string) {
	switch {
	case c.flag != nil:
		c.values[c.flag.Name] = removeQuotes(word)
		c.flag = nil
	case c.plain || word == "-" || !strings.HasPrefix(word, "-"):
		c.readArgument(word)
	case word == "--":
		c.plain = true
	default:
		name, value, given := strings.Cut(word, "=")
		flag := c.findFlag(name)
		switch {
		case flag == nil || flag.IsBool() || flag.IsCounter():
		case given:
			c.values[flag.Name] = removeQuotes(value)
		case strings.HasPrefix(name, "--") || len(name) == 2:
			c.flag = flag
		default: // -Hname
			c.values[flag.Name] = removeQuotes(name[2:])
		}
	}
}

func (c *commandLine) readArgument(word string) {
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

// findFlag returns the flag of a word, such as --config, -c, or -cFILE; nil if there is none.
func (c *commandLine) findFlag(word string) *kong.Flag {
	for _, flags := range c.node.AllFlags(false) {
		for _, f := range flags {
			if word == "--"+f.Name || f.Short != 0 && !strings.HasPrefix(word, "--") && strings.HasPrefix(word, "-"+string(f.Short)) {
				return f
			}
		}
	}
	return nil
}

// candidatesFor returns the candidates for a word, with their descriptions.
func (c *commandLine) candidatesFor(word string) (out []string) {
	if c.flag != nil {
		return c.valuesOf(c.flag.Value, false)
	}
	if name, _, given := strings.Cut(word, "="); given && !c.plain && strings.HasPrefix(word, "--") {
		if flag := c.findFlag(name); flag != nil {
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

// valuesOf returns the values of a flag or an argument: those that it lists, or those that its
// name implies, which are the same in all commands.
func (c *commandLine) valuesOf(v *kong.Value, argument bool) []string {
	if v.Enum != "" {
		return describeAll(v.EnumSlice(), "")
	}
	file := c.values["config"]
	switch v.Name {
	case "function", "target":
		return describeAll(readNames(file).Functions, "a function of "+file)
	case "via":
		return describeAll(readNames(file).Connections, "a connection of "+file)
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
		return describeAll(conformance.Languages(), "drover's built-in worker")
	case "encoding":
		return describeAll([]string{"base64", "text"}, "")
	case "trace":
		names := []string{"all"}
		for _, t := range sim.Traces(1) {
			names = append(names, t.Name)
		}
		return append(describeAll(names, "a generated trace"), ":files")
	}
	return nil
}

// describeAll adds the same description to all names.
func describeAll(names []string, what string) []string {
	out := make([]string, 0, len(names))
	for _, name := range names {
		out = append(out, name+"\t"+what)
	}
	return out
}

// declaredNames are names of a configuration.
type declaredNames struct{ Functions, Connections []string }

// readNames reads the names of a configuration file, also of one that lacks a variable of the
// environment. It returns none if the file cannot be read.
func readNames(file string) (out declaredNames) {
	text, err := readfile.Plain(filepath.Clean(file))
	if err != nil || decode.CheckPlain(text) != nil { // it is not safe for any decoder
		return out
	}
	var cfg struct {
		Functions   map[string]any `yaml:"functions"`
		Connections map[string]any `yaml:"connections"`
	}
	if yaml.Unmarshal(text, &cfg) != nil {
		return out
	}
	return declaredNames{plainNames(cfg.Functions), plainNames(cfg.Connections)}
}

// plainNames returns the names that a shell reads as one plain word. Other names, which a file
// from elsewhere may contain, are never put on a command line.
func plainNames(named map[string]any) []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(named)), func(name string) bool { return !programName.MatchString(name) })
}

// removeQuotes removes the quotes of a word.
func removeQuotes(word string) string {
	if n := len(word); n >= 2 && (word[0] == '\'' || word[0] == '"') && word[n-1] == word[0] {
		return word[1 : n-1]
	}
	return word
}
