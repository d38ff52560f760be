// Package edit changes the numbers of an app in a configuration file, as drover tune
// --write does. Nothing else in the text changes.
package edit

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"github.com/drover-run/drover/configs"
)

// Number is a key of an app, such as processes, and its value.
type Number struct {
	Key   string
	Value int
}

// Numbers is a change of a file that is not written yet.
type Numbers struct {
	// Diff has the changed lines in the format of diff; empty if the file has the numbers already.
	Diff string

	path  string
	text  []byte
	state os.FileInfo
}

// SetNumbers finds the place of an app's numbers in a file: among apps, or in the handlers that
// define the app by their path. It returns an error if there is none.
func SetNumbers(path string, env configs.Env, app string, numbers []Number) (*Numbers, error) {
	real, err := filepath.EvalSymlinks(path) // a rename would replace the link by a file
	if err != nil {
		return nil, fmt.Errorf("finding the configuration: %w", err)
	}
	state, err := os.Stat(real)
	if err != nil {
		return nil, fmt.Errorf("reading the configuration: %w", err)
	}
	text, dir, err := configs.Read(context.Background(), path)
	if err != nil {
		return nil, err
	}
	before, err := configs.Parse(path, text, dir, env)
	if err != nil {
		return nil, err
	}
	values := make(map[string]int, len(numbers))
	for _, n := range numbers {
		values[n.Key] = n.Value
	}
	e := &edit{lines: strings.Split(string(text), "\n"), changes: make(map[int]string)}
	if err := e.setNumbers(text, before, app, numbers); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	out := &Numbers{path: real, state: state}
	out.Diff, out.text = e.diffLines(path), []byte(e.newText())
	after, err := configs.Parse(path, out.text, dir, env)
	if err != nil {
		return nil, fmt.Errorf("the configuration with these numbers would be invalid, and is unchanged: %w", err)
	}
	if !configs.SameButNumbers(before, after, app, values) {
		return nil, fmt.Errorf("%s: cannot find the place for the numbers of app %s; the file is unchanged", path, app)
	}
	return out, nil
}

// edit has the lines of a file, and the changed ones.
type edit struct {
	lines   []string
	changes map[int]string // by index; an added line is part of the change of the one above it
}

// setNumbers changes all places with the numbers of an app.
func (e *edit) setNumbers(text []byte, cfg *configs.Config, app string, numbers []Number) error {
	file, err := parser.ParseBytes(text, 0)
	if err != nil {
		return err // it was parsed already
	}
	var root ast.Node
	for _, doc := range file.Docs {
		if doc.Body != nil && doc.Body.Type() != ast.CommentType {
			root = doc.Body
		}
	}
	if at := nodeAt(root, "apps", app); at != nil {
		return e.setIn(at, "apps."+app, numbers)
	}
	places := 0
	for _, name := range slices.Sorted(maps.Keys(cfg.Functions)) {
		c, found := cfg.Functions[name].Handler.Code()
		if !found || c.App != app {
			continue
		}
		at := nodeAt(root, "functions", name, "handler", c.Language)
		if at == nil {
			continue
		}
		if err := e.setIn(at, "functions."+name+".handler."+c.Language, numbers); err != nil {
			return err
		}
		places++
	}
	if places == 0 {
		return fmt.Errorf("it has no place for the numbers of app %s", app)
	}
	return nil
}

// pairsOf returns a mapping's entries; none if the node is not a mapping.
func pairsOf(n ast.Node) []*ast.MappingValueNode {
	switch m := n.(type) {
	case *ast.MappingNode:
		return m.Values
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{m}
	}
	return nil
}

// nodeAt returns the mapping at the end of a path of keys; nil if there is none.
func nodeAt(n ast.Node, path ...string) ast.Node {
	for _, key := range path {
		var next ast.Node
		for _, pair := range pairsOf(n) {
			if pair.Key.GetToken().Value == key {
				next = pair.Value
			}
		}
		n = next
	}
	if len(pairsOf(n)) == 0 {
		return nil
	}
	return n
}

// setIn changes one mapping.
func (e *edit) setIn(at ast.Node, path string, numbers []Number) error {
	var missing []string
	for _, number := range numbers {
		value := strconv.Itoa(number.Value)
		found := false
		for _, pair := range pairsOf(at) {
			if pair.Key.GetToken().Value != number.Key {
				continue
			}
			found = true
			token := pair.Value.GetToken()
			if _, isNumber := pair.Value.(*ast.IntegerNode); !isNumber {
				return fmt.Errorf("%s.%s is %s, which is not a number in the file: set it to %s at its origin", path, number.Key, token.Value, value)
			}
			if !e.replaceWord(token.Position.Line-1, token.Position.Column-1, token.Value, value) {
				return fmt.Errorf("%s.%s is not found in the text", path, number.Key)
			}
		}
		if !found {
			missing = append(missing, number.Key+": "+value)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	if m, ok := at.(*ast.MappingNode); ok && m.IsFlowStyle {
		return e.addInBraces(m, path, missing)
	}
	return e.addLines(pairsOf(at), path, missing)
}

// currentLine returns a line with its changes so far.
func (e *edit) currentLine(i int) string {
	if changed, found := e.changes[i]; found {
		return changed
	}
	return e.lines[i]
}

// replaceWord replaces a word in a line, which it searches from the word's original column on.
func (e *edit) replaceWord(line, column int, old, now string) bool {
	if line < 0 || line >= len(e.lines) {
		return false
	}
	runes := []rune(e.lines[line])
	if column < 0 || column > len(runes) || !strings.HasPrefix(string(runes[column:]), old) {
		return false
	}
	// Earlier changes in this line may have moved the word; the text after it is unchanged.
	changed := e.currentLine(line)
	from := len(changed) - len(string(runes[column:]))
	if from < 0 || !strings.HasPrefix(changed[from:], old) {
		if from = strings.Index(changed, string(runes[column:])); from < 0 {
			return false
		}
	}
	e.changes[line] = changed[:from] + now + changed[from+len(old):]
	return true
}

// addInBraces adds keys to {path: ./app}.
func (e *edit) addInBraces(m *ast.MappingNode, path string, missing []string) error {
	if m.Start == nil || m.End == nil {
		return fmt.Errorf("%s: its braces are not found", path)
	}
	text := strings.Join(missing, ", ")
	line, column := m.End.Position.Line-1, m.End.Position.Column-1
	if runes := []rune(e.lines[line]); column < len(runes) {
		before := strings.TrimRight(string(runes[:column]), " ")
		switch {
		case before == "": // a brace on its own line
		case strings.HasSuffix(before, ","):
			return e.insertText(line, len([]rune(before)), " "+text, path)
		default:
			return e.insertText(line, len([]rune(before)), ", "+text, path)
		}
	}
	return e.insertText(m.Start.Position.Line-1, m.Start.Position.Column, text+", ", path)
}

// insertText inserts a text into a line, at a column of the original line.
func (e *edit) insertText(line, column int, text, path string) error {
	runes := []rune(e.lines[line])
	behind := string(runes[min(column, len(runes)):])
	changed := e.currentLine(line)
	if !strings.HasSuffix(changed, behind) {
		return fmt.Errorf("%s: its place in the line is not found", path)
	}
	from := len(changed) - len(behind)
	e.changes[line] = changed[:from] + text + changed[from:]
	return nil
}

// addLines adds lines below the last of the entries that they belong to.
func (e *edit) addLines(pairs []*ast.MappingValueNode, path string, missing []string) error {
	best := -1
	indent := ""
	for _, pair := range pairs {
		key, value := pair.Key.GetToken(), pair.Value.GetToken()
		switch key.Value {
		case "path", "app", "processes", "threads", "coroutines":
			if line := key.Position.Line - 1; value.Position.Line == key.Position.Line && line > best {
				best, indent = line, strings.Repeat(" ", key.Position.Column-1)
			}
		}
	}
	if best < 0 {
		return fmt.Errorf("%s: there is no line to write below", path)
	}
	end := ""
	changed := e.currentLine(best)
	if strings.HasSuffix(changed, "\r") {
		end = "\r"
	}
	for _, key := range missing {
		changed += "\n" + indent + key + end
	}
	e.changes[best] = changed
	return nil
}

func (e *edit) newText() string {
	out := make([]string, len(e.lines))
	for i := range e.lines {
		out[i] = e.currentLine(i)
	}
	return strings.Join(out, "\n")
}

// diffLines returns the changed lines, each with its number; lines that only got additions are
// included as context.
func (e *edit) diffLines(name string) string {
	var b strings.Builder
	for i, old := range e.lines {
		now, found := e.changes[i]
		if !found || now == old {
			continue
		}
		if b.Len() == 0 {
			fmt.Fprintf(&b, "--- %s\n+++ %s\n", name, name)
		}
		fmt.Fprintf(&b, "@@ line %d @@\n", i+1)
		added, only := strings.CutPrefix(now, old+"\n")
		if only {
			fmt.Fprintf(&b, " %s\n", strings.TrimSuffix(old, "\r"))
			now = added
		} else {
			fmt.Fprintf(&b, "-%s\n", strings.TrimSuffix(old, "\r"))
		}
		for line := range strings.SplitSeq(now, "\n") {
			fmt.Fprintf(&b, "+%s\n", strings.TrimSuffix(line, "\r"))
		}
	}
	return b.String()
}

// Write writes the change to a file beside the original, and then replaces the original, so that it
// is never incomplete. A file that has changed meanwhile is not replaced.
func (n *Numbers) Write() (err error) {
	if n.Diff == "" {
		return nil
	}
	now, err := os.Stat(n.path)
	if err != nil {
		return fmt.Errorf("writing the configuration: %w", err)
	}
	if now.Size() != n.state.Size() || !now.ModTime().Equal(n.state.ModTime()) {
		return fmt.Errorf("%s has changed meanwhile; it is unchanged", n.path)
	}
	beside, err := os.CreateTemp(filepath.Dir(n.path), "."+filepath.Base(n.path)+".*")
	if err != nil {
		return fmt.Errorf("writing the configuration: %w", err)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("writing the configuration, which is unchanged: %w", errors.Join(err, os.Remove(beside.Name())))
		}
	}()
	if err := errors.Join(fillFile(beside, n.text, now), beside.Close()); err != nil {
		return err
	}
	if err := os.Rename(beside.Name(), n.path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(n.path))
	if err != nil {
		return nil //nolint:nilerr // the file is written; only its sync is missing
	}
	_ = dir.Sync() // some file systems do not support it
	_ = dir.Close()
	return nil
}

// fillFile writes a file that will replace another.
func fillFile(file *os.File, text []byte, like os.FileInfo) error {
	if _, err := file.Write(text); err != nil {
		return err
	}
	if of, ok := like.Sys().(*syscall.Stat_t); ok {
		_ = file.Chown(int(of.Uid), int(of.Gid)) // only root can, and only root needs it
	}
	if err := file.Chmod(like.Mode().Perm()); err != nil {
		return err
	}
	return file.Sync()
}
