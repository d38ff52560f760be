// Package decode reads YAML into structs, strictly and with the place of each problem, and derives
// a JSON Schema from the same structs. It knows no configuration: the tags of the fields define
// all.
//
//   - yaml is the key. A field without it, or with "-", is not read.
//   - required makes a key mandatory, default is the value of a missing one, and desc its
//     description in the schema.
//   - min, max and enum are bounds, and zero is a word that represents 0.
//   - single, on a list of structs, allows one struct instead of the list.
//   - from, on a map of structs, names a sibling key: the values that the file sets there are the defaults
//     of each entry of the map, key by key.
//   - first: the key is read before its siblings, regardless of its position in the file.
//   - like is an example of the value, for errors about a value of the wrong shape.
//   - alone lists the words that are allowed instead of all keys of the struct. The field is a
//     string, which is set to the word, or a bool, which is set to true.
package decode

import (
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"

	"github.com/drover-run/drover/configs/problems"
	"github.com/drover-run/drover/configs/readfile"
	"github.com/drover-run/drover/configs/values"
)

// Document reads the only document of a source into a struct, which has its defaults already. into
// points to the struct. It reports all problems to the source. skip returns true for the path of a
// key that is not read; nil reads all.
func Document(s *problems.Source, into any, skip func(path string) bool) {
	(&decoder{s, skip, nil}).readInto(into)
}

// Over reads the only document of a source over a complete struct: values that are not in the document
// are kept, also in an entry of a map. refuse returns why the key at a path must not be
// set; "" if it may be. skip is the same as for Document.
func Over(s *problems.Source, into any, skip func(path string) bool, refuse func(path string) string) {
	(&decoder{s, skip, refuse}).readInto(into)
}

func (d *decoder) readInto(into any) {
	if d.Inherited == nil {
		d.Inherited = make(map[string]string)
	}
	if body := d.parseBody(d.Text()); body != nil {
		d.decodeNode(body, reflect.ValueOf(into).Elem(), "", Field{})
	}
}

// CheckPlain returns an error if a text is not safe for any YAML decoder: it has bounded nesting,
// and no aliases, which can multiply.
func CheckPlain(text []byte) error {
	tokens := lexer.Tokenize(string(text))
	if _, what := findHostile(tokens); what != "" {
		return errors.New(what)
	}
	for _, t := range tokens {
		if t.Type == token.AliasType {
			return errors.New("it has an alias; write the value itself")
		}
	}
	return nil
}

// decoder walks a YAML tree and the Go types side by side. It continues after an error, to find all
// errors at once.
type decoder struct {
	*problems.Source
	skip   func(path string) bool   // for a key that is not read; nil reads all
	refuse func(path string) string // why a key must not be set; nil: each may, and there are no values yet
}

// isRefused reports a key that must not be set.
func (d *decoder) isRefused(key ast.Node, path string) bool {
	if d.refuse == nil {
		return false
	}
	why := d.refuse(path)
	if why != "" {
		d.Report(d.positionOf(key), "%s: %s", path, why)
	}
	return why != ""
}

// parseBody parses the text and returns its only document. It returns nil and reports a problem
// otherwise.
func (d *decoder) parseBody(text []byte) ast.Node {
	tokens := lexer.Tokenize(string(text))
	if at, what := findHostile(tokens); what != "" {
		d.Report(at, "%s", what)
		return nil
	}
	file, err := parser.Parse(tokens, 0)
	var syntax *yaml.SyntaxError
	if errors.As(err, &syntax) && syntax.Token != nil {
		p := syntax.Token.Position
		d.Report(problems.Position{Line: p.Line, Column: p.Column}, "invalid YAML: %s", syntax.Message)
		return nil
	}
	if err != nil {
		d.Report(problems.Position{Line: 1, Column: 1}, "invalid YAML: %v", err)
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
		d.Report(problems.Position{Line: 1, Column: 1}, "the file is empty; it needs functions")
		return nil
	case 1:
		return bodies[0]
	}
	d.Report(d.positionOf(bodies[1]), "a second document begins here; a file may have only one")
	return nil
}

func (d *decoder) positionOf(n ast.Node) problems.Position {
	// A mapping's own token is a colon or a brace; its first key is a better place.
	if m, ok := n.(*ast.MappingNode); ok && len(m.Values) > 0 && !m.IsFlowStyle {
		return d.positionOf(m.Values[0].Key)
	}
	if m, ok := n.(*ast.MappingValueNode); ok {
		return d.positionOf(m.Key)
	}
	p := n.GetToken().Position
	return problems.Position{Line: p.Line, Column: p.Column}
}

func joinPath(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// pathName returns the name of a path in messages.
func pathName(path string) string {
	if path == "" {
		return "the configuration"
	}
	return path
}

// decodeNode reads a node into a value, which has its default already.
func (d *decoder) decodeNode(n ast.Node, v reflect.Value, path string, f Field) {
	d.Where[path] = d.positionOf(n)
	switch node := n.(type) {
	case *ast.AnchorNode, *ast.AliasNode, *ast.TagNode, *ast.MergeKeyNode:
		d.Report(d.positionOf(n), "%s: anchors, aliases, tags and merge keys are not supported; write the value itself", pathName(path))
		return
	case *ast.NullNode:
		if f.single {
			v.Set(reflect.MakeSlice(v.Type(), 1, 1)) // an empty struct, for its checks
			return
		}
		if v.Kind() == reflect.Pointer && v.Type().Elem().Kind() == reflect.Struct {
			v.Set(reflect.New(v.Type().Elem())) // `nats:` alone is `nats: {}`
			setDefaults(v.Elem())
			d.reportMissing(v.Elem(), nil, path, d.positionOf(node))
			return
		}
		if f.required {
			d.Report(d.positionOf(n), "%s is empty", pathName(path))
		}
		return
	}
	switch {
	case v.Kind() == reflect.Struct && d.decodeAlone(n, v, path):
	case v.Kind() == reflect.Slice && f.single && n.Type() != ast.SequenceType:
		one := reflect.MakeSlice(v.Type(), 1, 1)
		setDefaults(one.Index(0))
		d.decodeNode(n, one.Index(0), path, Field{like: f.like})
		v.Set(one)
	case v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.Struct:
		d.decodeStructs(n, v, path)
	case v.Kind() == reflect.Pointer:
		fresh := reflect.New(v.Type().Elem())
		if fresh.Elem().Kind() == reflect.Struct {
			setDefaults(fresh.Elem())
		}
		d.decodeNode(n, fresh.Elem(), path, f)
		v.Set(fresh)
	case v.Kind() == reflect.Struct:
		d.decodeStruct(n, v, path, f)
	case v.Kind() == reflect.Map:
		d.decodeMap(n, v, path, f)
	case v.Type() == reflect.TypeFor[values.Strings]():
		d.decodeStrings(n, v, path)
	case v.Type() == reflect.TypeFor[values.Ports]():
		d.decodePorts(n, v, path)
	case v.Type() == reflect.TypeFor[values.EnvFiles]():
		d.decodeEnvFiles(n, v, path)
	default:
		d.decodeScalar(n, v, path, f)
	}
}

// pairsOf returns a mapping's entries; false if the node is not a mapping.
func (d *decoder) pairsOf(n ast.Node, path string, f Field) ([]*ast.MappingValueNode, bool) {
	switch m := n.(type) {
	case *ast.MappingNode:
		return m.Values, true
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{m}, true
	}
	d.Report(d.positionOf(n), "%s must have keys below it; write %s", pathName(path), exampleOf(path, f))
	return nil, false
}

func (d *decoder) decodeStruct(n ast.Node, v reflect.Value, path string, of Field) {
	pairs, ok := d.pairsOf(n, path, of)
	if !ok {
		return
	}
	fields := Fields(v.Type())
	seen := make(map[string]bool)
	for _, pair := range inOrder(pairs, fields) {
		key := pair.Key.GetToken().Value
		i := slices.IndexFunc(fields, func(f Field) bool { return f.Name == key })
		if i < 0 {
			d.Report(d.positionOf(pair.Key), "%s has no key %q%s", pathName(path), key, problems.Hint(key, keyNames(v.Type())))
			continue
		}
		f := fields[i]
		f.template = siblingOf(v, fields, f)
		seen[key] = true
		if d.isSkipped(joinPath(path, key)) || d.isRefused(pair.Key, joinPath(path, key)) {
			continue
		}
		d.decodeNode(pair.Value, v.Field(f.Index), joinPath(path, key), f)
	}
	d.inheritRest(v, fields, path)
	d.reportMissing(v, seen, path, d.positionOf(n))
}

func (d *decoder) isSkipped(path string) bool { return d.skip != nil && d.skip(path) }

func (d *decoder) reportMissing(v reflect.Value, seen map[string]bool, path string, at problems.Position) {
	for _, f := range Fields(v.Type()) {
		if d.refuse != nil && !v.Field(f.Index).IsZero() {
			continue // it has a value
		}
		if f.required && !seen[f.Name] && !d.isSkipped(joinPath(path, f.Name)) {
			d.Report(at, "%s has no key %s, which is required", pathName(path), f.Name)
		}
	}
}

func (d *decoder) decodeMap(n ast.Node, v reflect.Value, path string, f Field) {
	whole := f
	if whole.like = ""; f.like != "" {
		whole.like = "{NAME: " + f.like + "}"
	}
	pairs, ok := d.pairsOf(n, path, whole)
	if !ok {
		return
	}
	fresh := reflect.MakeMap(v.Type())
	if d.refuse != nil {
		for entries := v.MapRange(); entries.Next(); {
			fresh.SetMapIndex(entries.Key(), entries.Value())
		}
	}
	v.Set(fresh)
	for _, pair := range pairs {
		key := pair.Key.GetToken().Value
		if key == "" || strings.ContainsAny(key, ". \t\n") {
			d.Report(d.positionOf(pair.Key), "%s: the name %q must not be empty or have dots or spaces", pathName(path), key)
			continue
		}
		if d.isRefused(pair.Key, joinPath(path, key)) {
			continue
		}
		entry := reflect.New(v.Type().Elem()).Elem()
		if have := v.MapIndex(reflect.ValueOf(key)); have.IsValid() {
			entry.Set(have)
		} else {
			setDefaults(entry)
		}
		if f.template.IsValid() {
			d.inherit(entry, f.template, f.from, joinPath(path, key))
		}
		d.decodeNode(pair.Value, entry, joinPath(path, key), Field{required: true, like: f.like})
		v.SetMapIndex(reflect.ValueOf(key), entry)
	}
}

func (d *decoder) decodeStrings(n ast.Node, v reflect.Value, path string) {
	sequence, ok := n.(*ast.SequenceNode)
	if !ok {
		var one string
		d.decodeScalar(n, reflect.ValueOf(&one).Elem(), path, Field{})
		v.Set(reflect.ValueOf(values.Strings{one}))
		return
	}
	out := make(values.Strings, len(sequence.Values))
	for i, item := range sequence.Values {
		d.decodeNode(item, reflect.ValueOf(&out[i]).Elem(), fmt.Sprintf("%s[%d]", path, i), Field{})
	}
	v.Set(reflect.ValueOf(out))
}

// decodePorts reads a list of ports, or a single one.
func (d *decoder) decodePorts(n ast.Node, v reflect.Value, path string) {
	if text, _, _ := scalarText(n); text == "any" {
		v.Set(reflect.ValueOf(values.Ports{values.AnyPort}))
		return
	}
	items := []ast.Node{n}
	if sequence, ok := n.(*ast.SequenceNode); ok {
		items = sequence.Values
	}
	out := make(values.Ports, len(items))
	for i, item := range items {
		d.decodeNode(item, reflect.ValueOf(&out[i]).Elem(), fmt.Sprintf("%s[%d]", path, i), Field{})
	}
	for i, port := range out {
		if port == values.AnyPort {
			d.Report(d.positionOf(items[i]), "%s[%d]: -1 is not a port; write a number from 1 to 65535, or any as the whole value", path, i)
		}
	}
	v.Set(reflect.ValueOf(out))
}

// decodeStructs reads a list of structs.
func (d *decoder) decodeStructs(n ast.Node, v reflect.Value, path string) {
	sequence, ok := n.(*ast.SequenceNode)
	if !ok {
		d.Report(d.positionOf(n), "%s must be a list; write one item per line, each after a dash, or [...]", pathName(path))
		return
	}
	out := reflect.MakeSlice(v.Type(), len(sequence.Values), len(sequence.Values))
	for i, item := range sequence.Values {
		setDefaults(out.Index(i))
		d.decodeNode(item, out.Index(i), fmt.Sprintf("%s[%d]", path, i), Field{required: true})
	}
	v.Set(out)
}

// decodeAlone reads a value instead of a struct's keys; it returns false if the struct allows
// none.
func (d *decoder) decodeAlone(n ast.Node, v reflect.Value, path string) bool {
	text, _, isScalar := scalarText(n)
	i, words := aloneField(v.Type())
	if !isScalar || i < 0 {
		return false
	}
	if f := v.Type().Field(i); f.Type.Kind() == reflect.String {
		d.decodeScalar(n, v.Field(i), path, fieldOf(f, i))
		return true
	}
	if !slices.Contains(words, text) {
		d.Report(d.positionOf(n), "%s is %q; it must be {%s: N}, or the word %s", path, text, strings.Join(keyNames(v.Type()), ": N, "), strings.Join(words, " or "))
		return true
	}
	v.SetZero()
	setDefaults(v)
	v.Field(i).SetBool(true)
	return true
}

// decodeScalar reads a single value, after inserting the values of environment variables.
func (d *decoder) decodeScalar(n ast.Node, v reflect.Value, path string, f Field) {
	at := d.positionOf(n)
	raw, isText, ok := scalarText(n)
	if !ok {
		d.Report(at, "%s must be one value, not a list or keys; write %s", pathName(path), scalarExample(path, f))
		return
	}
	if v.Type() == reflect.TypeFor[values.Secret]() && raw != "" {
		d.Secrets = append(d.Secrets, raw)
	}
	text, err := values.Expand(raw, func(name string) (string, bool) {
		d.Variables[name] = true
		d.Reads[path] = append(d.Reads[path], name)
		return d.Lookup(name)
	})
	if err != nil {
		for _, line := range strings.Split(err.Error(), "\n") {
			d.Report(at, "%s: %s", pathName(path), line)
		}
		return
	}
	if f.Zero != "" && text == f.Zero {
		text, raw, isText = "0", "0", false
	}
	if v.Kind() == reflect.String {
		if !isText {
			d.Report(at, "%s must be a string; quote it: %q", pathName(path), raw)
			return
		}
		if name, isFile := strings.CutPrefix(text, "file:"); isFile && strings.HasPrefix(raw, "file:") {
			if text, err = readfile.Value(name, d.Dir); err != nil {
				d.Report(at, "%s: %v", pathName(path), err)
				return
			}
			if !filepath.IsAbs(name) {
				name = filepath.Join(d.Dir, name)
			}
			d.Files[path] = name
		}
	} else if isText && text == raw && (v.CanInt() && v.Type() == reflect.TypeFor[int]() || v.Kind() == reflect.Bool || v.CanFloat()) {
		d.Report(at, "%s must be %s, not %q", pathName(path), kindName(v), text)
		return
	}
	if err := setScalar(v, text); err != nil {
		d.Report(at, "%s: %v", pathName(path), err)
		return
	}
	if err := inBounds(v, f); err != nil {
		d.Report(at, "%s %v", pathName(path), err)
	}
}

// scalarText returns a value as written, and whether it is a string.
func scalarText(n ast.Node) (text string, isText, ok bool) {
	switch node := n.(type) {
	case *ast.StringNode:
		return node.Value, true, true
	case *ast.LiteralNode:
		return node.Value.Value, true, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return n.GetToken().Value, false, true
	}
	return "", false, false
}

func kindName(v reflect.Value) string {
	switch v.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.Float64:
		return "a number"
	}
	return "a whole number"
}
