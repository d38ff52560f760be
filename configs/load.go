package configs

import (
	"context"
	"errors"
	"io/fs"
	"reflect"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// New returns a configuration with defaults and no functions, for programs that
// write theirs in Go.
func New() *Config {
	c := new(Config)
	setDefaults(reflect.ValueOf(c).Elem())
	return c
}

// Load reads a file, and completes it. The error is an Errors with all that is
// wrong with it, or says why the file can't be read.
func Load(path string, env Env) (*Config, error) {
	return LoadContext(context.Background(), path, env)
}

// LoadContext is Load that ctx ends: a configuration can come through a pipe.
func LoadContext(ctx context.Context, path string, env Env) (*Config, error) {
	text, dir, err := read(ctx, path, trusted)
	if err != nil {
		return nil, err
	}
	c, err := Parse(path, text, dir, env)
	if err != nil {
		return nil, err
	}
	c.File = path
	return c, nil
}

// ReadPlain returns the text of a configuration that any YAML decoder can read safely: a
// regular file of bounded size, not nested deep, without aliases, which can multiply.
func ReadPlain(path string) ([]byte, error) {
	file, err := openWithoutWait(path, fs.FileMode.IsRegular)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }() // it was only read
	text, err := readAtMost(file, maxConfig)
	if err != nil {
		return nil, err
	}
	tokens := lexer.Tokenize(string(text))
	if _, what := hostile(tokens); what != "" {
		return nil, errors.New(what)
	}
	for _, t := range tokens {
		if t.Type == token.AliasType {
			return nil, errors.New("it has an alias; write the value out")
		}
	}
	return text, nil
}

// Parse reads a configuration's text, and completes it. name is what messages
// call the file; paths in it are relative to dir.
func Parse(name string, text []byte, dir string, env Env) (*Config, error) {
	d := newDecoder(name, text, dir, env)
	c := New()
	c.source = d.source
	if body := d.body(text); body != nil {
		d.decode(body, reflect.ValueOf(c).Elem(), "", field{})
	}
	// What else is wrong with a file of wrong keys can't be told well.
	if err := d.errors(); err != nil {
		return nil, err
	}
	if err := c.Complete(env); err != nil {
		return nil, err
	}
	return c, nil
}

func newDecoder(name string, text []byte, dir string, env Env) *decoder {
	return &decoder{
		source: &source{name: name, dir: dir, lines: strings.Split(string(text), "\n"), where: make(map[string]Position), files: make(map[string]string), read: make(map[string]bool)},
		env:    env,
	}
}

// body parses the text and returns its one document, or nil and a problem.
func (d *decoder) body(text []byte) ast.Node {
	tokens := lexer.Tokenize(string(text))
	if at, what := hostile(tokens); what != "" {
		d.problem(at, "%s", what)
		return nil
	}
	file, err := parser.Parse(tokens, 0)
	var syntax *yaml.SyntaxError
	if errors.As(err, &syntax) && syntax.Token != nil {
		p := syntax.Token.Position
		d.problem(Position{p.Line, p.Column}, "this is no YAML: %s", syntax.Message)
		return nil
	}
	if err != nil {
		d.problem(Position{1, 1}, "this is no YAML: %v", err)
		return nil
	}
	var bodies []ast.Node
	for _, doc := range file.Docs {
		if doc.Body != nil && doc.Body.Type() != ast.CommentType {
			bodies = append(bodies, doc.Body)
		}
	}
	switch len(bodies) {
	case 0:
		d.problem(Position{1, 1}, "the file is empty; it needs functions")
		return nil
	case 1:
		return bodies[0]
	}
	d.problem(d.position(bodies[1]), "a second document begins here; a file has one")
	return nil
}
