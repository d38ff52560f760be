// Package suggest finds the right command for a mistyped one, and for commands of other tools. The
// command line calls it, from one goroutine.
package suggest

import (
	"errors"
	"slices"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/drover-run/drover/configs"
)

// synonyms maps commands of other tools to the equivalent command.
var synonyms = map[string]string{
	"start": "run", "serve": "run", "up": "run", "host": "run", "work": "run", "worker start": "run",
	"new": "init", "create": "init", "scaffold": "init",
	"validate": "check", "lint": "check", "test": "check", "verify": "check", "doctor": "check",
	"publish": "send", "enqueue": "send", "push": "send", "produce": "send",
	"call": "invoke", "exec": "invoke", "trigger": "invoke",
	"ps": "status", "top": "status", "list": "status", "ls": "status", "stats": "status", "functions": "status",
	"log": "tail", "logs": "tail", "follow": "tail",
	"why": "explain", "restart": "reload", "ping": "health", "live": "health", "ready": "health",
	"unpause": "resume", "dlq": "dead list", "deadletter": "dead list", "dead-letters": "dead list", "purge": "dead purge", "retry": "dead replay", "requeue": "dead replay",
	"peek": "capture", "record": "capture", "autotune": "tune", "benchmark": "tune",
	"config print": "config show", "config view": "config show", "config get": "config show", "schema": "config schema", "openapi": "config openapi",
	"emulator": "emulate storagequeue", "servicebus": "emulate servicebus", "storagequeue": "emulate storagequeue",
	"types": "worker typings", "completions": "completion",
}

// stopping is the advice for commands that would stop a daemon: drover has none.
const stopping = "a daemon stops at SIGTERM, or at Ctrl-C in its terminal"

var stops = []string{"stop", "down", "kill", "quit", "shutdown"}

// Unknown returns an error about the first unknown command in a command line, with a suggestion if a
// command is similar. It returns "" if all commands are known.
func Unknown(root *kong.Node, args []string) string {
	at, path := root, ""
	for _, word := range args {
		if strings.HasPrefix(word, "-") {
			if path == "" {
				continue // a flag before the command
			}
			return ""
		}
		next := childOf(at, word)
		if next == nil {
			if len(at.Children) == 0 || at.DefaultCmd != nil {
				return ""
			}
			return unknownWord(root, at, path, word)
		}
		at, path = next, strings.TrimSpace(path+" "+word)
	}
	return ""
}

// Command returns the command that a command line names, such as "drover dead list", as far as the parser
// has read it. parsed and err are the parser's results.
func Command(parsed *kong.Context, err error) string {
	if wrong := new(kong.ParseError); errors.As(err, &wrong) {
		parsed = wrong.Context
	}
	if parsed != nil {
		if n := parsed.Selected(); n != nil {
			return n.FullPath()
		}
	}
	return "drover"
}

func childOf(n *kong.Node, name string) *kong.Node {
	for _, c := range n.Children {
		if c.Name == name && c.Type == kong.CommandNode {
			return c
		}
	}
	return nil
}

// unknownWord returns the error about an unknown subcommand of the command at a path.
func unknownWord(root, at *kong.Node, path, word string) string {
	full := strings.TrimSpace(path + " " + word)
	text := "there is no command " + full
	if path == "" && slices.Contains(stops, word) {
		return text + ": " + stopping
	}
	if meant := nearest(root, at, path, word); meant != "" {
		return text + "; did you mean drover " + meant + "?"
	}
	if path == "" {
		return text
	}
	var names []string
	for _, c := range at.Children {
		if !c.Hidden {
			names = append(names, c.Name)
		}
	}
	return text + "; drover " + path + " has: " + strings.Join(names, ", ")
}

// nearest returns the command with the most similar name: a command at this place, a synonym, or the last
// word of a longer command.
func nearest(root, at *kong.Node, path, word string) string {
	known := make(map[string]string) // from a word to the command that it stands for
	if path == "" {
		for _, leaf := range root.Leaves(true) {
			known[leaf.Name] = leaf.Path()
		}
	}
	for from, to := range synonyms {
		if name, found := strings.CutPrefix(from, path+" "); found && path != "" || path == "" && !strings.Contains(from, " ") {
			if path == "" {
				name = from
			}
			if exists(root, to) {
				known[name] = to
			}
		}
	}
	for _, c := range at.Children {
		if !c.Hidden {
			known[c.Name] = strings.TrimSpace(path + " " + c.Name)
		}
	}
	if to := known[word]; to != "" {
		return to
	}
	var names []string
	for name := range known {
		names = append(names, name)
	}
	slices.Sort(names)
	if len([]rune(word)) < 3 {
		return "" // too short to be similar
	}
	return known[configs.Nearest(word, names)]
}

// exists reports whether the command line has the command of a path.
func exists(root *kong.Node, path string) bool {
	at := root
	for word := range strings.FieldsSeq(path) {
		if at = childOf(at, word); at == nil {
			return false
		}
	}
	return true
}
