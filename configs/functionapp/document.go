package functionapp

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/tailscale/hujson"

	"github.com/drover-run/drover/configs/problems"
	"github.com/drover-run/drover/configs/readfile"
)

// document is a JSON file, in which comments and trailing commas are allowed.
type document struct {
	*problems.Source
	text []byte
	root hujson.Value
}

// readDocument reads a file of an app. name is relative to dir. missing is set if the file does not
// exist; then the document is an empty object. Problems are reported to the document's Source.
func readDocument(dir, name string) (d *document, missing bool) {
	d = &document{Source: problems.New(name, nil, dir, nil)}
	text, err := readfile.Plain(filepath.Join(dir, name))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, os.ErrNotExist) {
		d.root = hujson.Value{Value: &hujson.Object{}}
		return d, true
	}
	if err != nil {
		d.Report(problems.Position{}, "it cannot be read: %v", err)
		return d, false
	}
	d.parse(text)
	return d, false
}

// syntaxError finds the place in an error of hujson.
var syntaxError = regexp.MustCompile(`^hujson: line (\d+), column (\d+): (?:parsing value: )?(.*)$`)

// parse reads the text, which may begin with a byte order mark.
func (d *document) parse(text []byte) {
	d.text = bytes.TrimPrefix(text, []byte("\ufeff"))
	d.Lines = strings.Split(string(d.text), "\n")
	root, err := hujson.Parse(d.text)
	if err != nil {
		at, message := problems.Position{Line: 1, Column: 1}, err.Error()
		if m := syntaxError.FindStringSubmatch(message); m != nil {
			at.Line, _ = strconv.Atoi(m[1])
			at.Column, _ = strconv.Atoi(m[2])
			message = m[3]
		}
		if strings.Contains(message, "unexpected EOF") {
			message = "the text ends too early: a brace, a bracket or a quote is not closed"
		}
		d.Report(at, "invalid JSON: %s", message)
		return
	}
	d.root = root
	if _, isObject := root.Value.(*hujson.Object); !isObject {
		d.Report(d.at(root), "it must be an object: { ... }")
		d.root.Value = &hujson.Object{}
	}
}

// at returns the place of a value.
func (d *document) at(v hujson.Value) problems.Position {
	before := d.text[:min(v.StartOffset, len(d.text))]
	line := bytes.Count(before, []byte("\n"))
	column := len([]rune(string(before[bytes.LastIndexByte(before, '\n')+1:])))
	return problems.Position{Line: line + 1, Column: column + 1}
}

// member is a member of an object.
type member struct {
	name       string
	key, value hujson.Value
}

// members returns the members of an object; none of another value.
func members(v hujson.Value) (out []member) {
	object, ok := v.Value.(*hujson.Object)
	if !ok {
		return nil
	}
	for _, m := range object.Members {
		name := m.Name.Value.(hujson.Literal).String()
		out = append(out, member{name, m.Name, m.Value})
	}
	return out
}

// child returns the member of an object with a name, in any case.
func child(v hujson.Value, name string) (hujson.Value, bool) {
	for _, m := range members(v) {
		if strings.EqualFold(m.name, name) {
			return m.value, true
		}
	}
	return hujson.Value{}, false
}

// scalar returns the text of a string, number or boolean; false for another value.
func scalar(v hujson.Value) (text string, ok bool) {
	literal, isLiteral := v.Value.(hujson.Literal)
	if !isLiteral || literal.Kind() == 'n' {
		return "", false
	}
	if literal.Kind() == '"' {
		return literal.String(), true
	}
	return string(literal), true
}

// text returns a string member; "" if it is missing. It reports a member that is not a string.
func (d *document) textOf(v hujson.Value, name string) string {
	value, found := child(v, name)
	if !found {
		return ""
	}
	literal, ok := value.Value.(hujson.Literal)
	if ok && literal.Kind() == 'n' {
		return ""
	}
	if !ok || literal.Kind() != '"' {
		d.Report(d.at(value), "%s must be a string", name)
		return ""
	}
	return literal.String()
}

// standard returns a value as plain JSON.
func standard(v hujson.Value) []byte {
	own := v.Clone()
	own.Minimize()
	return own.Pack()
}

// setting is one value of the host's configuration, and where it is from.
type setting struct {
	name string // its path, with colons: a part may have dots
	text string
	from string
	at   problems.Position
}

// dotted returns the path with dots.
func (s setting) dotted() string { return strings.ReplaceAll(s.name, ":", ".") }

// flatten adds the single values of a document, as .NET does: an element of a list has its index as
// its name.
func (d *document) flatten(v hujson.Value, path string, add func(setting)) {
	switch value := v.Value.(type) {
	case *hujson.Object:
		for _, m := range members(v) {
			d.flatten(m.value, joined(path, m.name), add)
		}
	case *hujson.Array:
		for i, element := range value.Elements {
			d.flatten(element, joined(path, strconv.Itoa(i)), add)
		}
	default:
		if text, ok := scalar(v); ok {
			at := d.at(v)
			add(setting{path, text, fmt.Sprintf("%s:%d", d.Name, at.Line), at})
		}
	}
}

func joined(path, name string) string {
	if path == "" {
		return name
	}
	return path + ":" + name
}
