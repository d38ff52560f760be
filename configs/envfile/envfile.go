// Package envfile reads environment files: files with one variable per line, such as .env. Package decode
// calls it; its functions may be called from any goroutine.
//
// A line is NAME=VALUE, after an optional export. Empty lines, and lines that begin with #, are ignored.
// A value without quotes ends at " #" or at the end of the line, and spaces around it are removed. In
// single quotes all characters are literal. In double quotes \n, \r, \t, \\, \" and \$ have their
// usual meaning. A value is a single line, and variables in it are not expanded.
package envfile

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/drover-run/drover/configs/readfile"
	"github.com/drover-run/drover/configs/trust"
)

// Variable is a variable of a file.
type Variable struct {
	Name, Value string
	Line        int
}

// Error is a mistake in a file. It never contains the value of a variable, which may be secret.
type Error struct {
	Line    int
	Message string
}

func (e *Error) Error() string { return fmt.Sprintf("line %d: %s", e.Line, e.Message) }

// Read returns the variables of a file, in the order of its lines. A relative name is relative to dir. For
// root it rejects a file that another user can change. The error is an *Error if a line is wrong.
func Read(named, dir string) ([]Variable, error) {
	text, err := readfile.Value(named, dir)
	if err != nil {
		return nil, err
	}
	path := named
	if !filepath.IsAbs(path) {
		path = filepath.Join(dir, path)
	}
	if file, err := os.Open(path); err == nil {
		err = trust.CheckConfig(path, file)
		_ = file.Close() // opened for reading only
		if err != nil {
			return nil, err
		}
	}
	return Parse(text)
}

var name = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// Parse returns the variables of a text. The error is an *Error.
func Parse(text string) (out []Variable, err error) {
	lines := make(map[string]int)
	n := 0
	for line := range strings.SplitSeq(strings.TrimPrefix(text, "\ufeff"), "\n") {
		n++
		v, found, why := parseLine(line)
		if earlier := lines[v.Name]; why == "" && found && earlier > 0 {
			why = fmt.Sprintf("%s is set twice; line %d sets it, too", v.Name, earlier)
		}
		if why != "" {
			return nil, &Error{n, why}
		}
		if found {
			lines[v.Name], v.Line = n, n
			out = append(out, v)
		}
	}
	return out, nil
}

// parseLine returns the variable of a line; found is false if the line has none. why describes a
// syntax error.
func parseLine(line string) (v Variable, found bool, why string) {
	line = strings.TrimSpace(line)
	if line == "" || line[0] == '#' {
		return v, false, ""
	}
	if !utf8.ValidString(line) || strings.ContainsRune(line, 0) {
		return v, false, "it is not UTF-8"
	}
	if rest, exported := strings.CutPrefix(line, "export"); exported && strings.TrimLeft(rest, " \t") != rest {
		line = strings.TrimLeft(rest, " \t")
	}
	key, value, cut := strings.Cut(line, "=")
	key = strings.TrimRight(key, " \t")
	switch {
	case !cut:
		return v, false, "it has no =; write NAME=VALUE"
	case !name.MatchString(key):
		return v, false, "the name before = may only have letters, digits and _, and may not begin with a digit"
	}
	value = strings.TrimSpace(value)
	if value != "" && (value[0] == '"' || value[0] == '\'') {
		value, why = unquote(value)
		return Variable{Name: key, Value: value}, true, why
	}
	for i := range len(value) {
		if value[i] == '#' && (i == 0 || value[i-1] == ' ' || value[i-1] == '\t') {
			value = strings.TrimRight(value[:i], " \t")
			break
		}
	}
	return Variable{Name: key, Value: value}, true, ""
}

var escapes = map[byte]byte{'n': '\n', 'r': '\r', 't': '\t', '\\': '\\', '"': '"', '$': '$'}

// unquote returns the value of a text that begins with a quote.
func unquote(text string) (value, why string) {
	quote := text[0]
	var out strings.Builder
	for i := 1; i < len(text); i++ {
		switch c := text[i]; {
		case c == quote:
			if rest := strings.TrimSpace(text[i+1:]); rest != "" && rest[0] != '#' {
				return "", fmt.Sprintf("there is text after the closing %c; quote the whole value, or write \\%c in double quotes", quote, '"')
			}
			return out.String(), ""
		case c == '\\' && quote == '"':
			i++
			if i == len(text) {
				return "", "the value ends with a single \\; write \\\\"
			}
			to, known := escapes[text[i]]
			if !known {
				return "", `a \ in double quotes stands before n, r, t, \, " or $; write \\ for itself, or use single quotes`
			}
			out.WriteByte(to)
		default:
			out.WriteByte(c)
		}
	}
	return "", fmt.Sprintf("the %c is not closed on this line; in double quotes, \\n is a line break", quote)
}
