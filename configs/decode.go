package configs

import (
	"fmt"
	"math"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"github.com/drover-run/drover/configs/problems"
	"github.com/drover-run/drover/configs/readfile"
	"github.com/drover-run/drover/configs/values"
)

// decoder walks a YAML tree and the Go types side by side. It continues after an error, to find all
// errors at once.
type decoder struct {
	*problems.Source
	env  Env
	skip func(path string) bool // for a key that is not read; nil reads all
}

// field is a key of a struct.
type field struct {
	name, def, enum, min, max string
	zero                      string // a word that represents 0
	required                  bool
	index                     int
}

func fieldsOf(t reflect.Type) (out []field) {
	for i := range t.NumField() {
		tag := t.Field(i).Tag
		name := tag.Get("yaml")
		if name == "" || name == "-" {
			continue
		}
		out = append(out, field{name, tag.Get("default"), tag.Get("enum"), tag.Get("min"), tag.Get("max"), tag.Get("zero"), tag.Get("required") == "true", i})
	}
	return out
}

func (d *decoder) position(n ast.Node) Position {
	// A mapping's own token is a colon or a brace; its first key is a better place.
	if m, ok := n.(*ast.MappingNode); ok && len(m.Values) > 0 && !m.IsFlowStyle {
		return d.position(m.Values[0].Key)
	}
	if m, ok := n.(*ast.MappingValueNode); ok {
		return d.position(m.Key)
	}
	p := n.GetToken().Position
	return Position{Line: p.Line, Column: p.Column}
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// named returns the name of a path in messages.
func named(path string) string {
	if path == "" {
		return "the configuration"
	}
	return path
}

// decode reads a node into a value, which has its default already.
func (d *decoder) decode(n ast.Node, v reflect.Value, path string, f field) {
	d.Where[path] = d.position(n)
	switch node := n.(type) {
	case *ast.AnchorNode, *ast.AliasNode, *ast.TagNode, *ast.MergeKeyNode:
		d.Report(d.position(n), "%s: anchors, aliases, tags and merge keys are not supported; write the value itself", named(path))
		return
	case *ast.NullNode:
		if v.Type() == reflect.TypeFor[Outputs]() {
			v.Set(reflect.ValueOf(make(Outputs, 1))) // one output without a kind, which is an error later
			return
		}
		if v.Kind() == reflect.Pointer && v.Type().Elem().Kind() == reflect.Struct {
			v.Set(reflect.New(v.Type().Elem())) // `nats:` alone is `nats: {}`
			setDefaults(v.Elem())
			d.missing(v.Elem(), nil, path, d.position(node))
			return
		}
		if f.required {
			d.Report(d.position(n), "%s is empty", named(path))
		}
		return
	}
	switch {
	case v.Type() == reflect.TypeFor[Instances]() && isScalar(n):
		d.external(n, v, path)
	case v.Type() == reflect.TypeFor[Sandbox]() && isScalar(n):
		d.scalar(n, v.FieldByName("Profile"), path, fieldsOf(v.Type())[0])
	case v.Type() == reflect.TypeFor[Outputs]() && n.Type() != ast.SequenceType:
		one := make(Outputs, 1)
		d.decode(n, reflect.ValueOf(one).Index(0), path, f)
		v.Set(reflect.ValueOf(one))
	case v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.Struct:
		d.structures(n, v, path)
	case v.Kind() == reflect.Pointer:
		fresh := reflect.New(v.Type().Elem())
		if fresh.Elem().Kind() == reflect.Struct {
			setDefaults(fresh.Elem())
		}
		d.decode(n, fresh.Elem(), path, f)
		v.Set(fresh)
	case v.Kind() == reflect.Struct:
		d.structure(n, v, path)
	case v.Kind() == reflect.Map:
		d.mapping(n, v, path)
	case v.Type() == reflect.TypeFor[Strings]():
		d.list(n, v, path)
	case v.Type() == reflect.TypeFor[Ports]():
		d.ports(n, v, path)
	default:
		d.scalar(n, v, path, f)
	}
}

// pairs returns a mapping's entries; false if the node is not a mapping.
func (d *decoder) pairs(n ast.Node, path string) ([]*ast.MappingValueNode, bool) {
	switch m := n.(type) {
	case *ast.MappingNode:
		return m.Values, true
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{m}, true
	}
	d.Report(d.position(n), "%s must have keys below it, as in `key: value`", named(path))
	return nil, false
}

func (d *decoder) structure(n ast.Node, v reflect.Value, path string) {
	pairs, ok := d.pairs(n, path)
	if !ok {
		return
	}
	fields := fieldsOf(v.Type())
	seen := make(map[string]bool)
	for _, pair := range pairs {
		key := pair.Key.GetToken().Value
		i := slices.IndexFunc(fields, func(f field) bool { return f.name == key })
		if i < 0 {
			known := make([]string, len(fields))
			for i, f := range fields {
				known[i] = f.name
			}
			d.Report(d.position(pair.Key), "%s has no key %q%s", named(path), key, problems.Hint(key, known))
			continue
		}
		f := fields[i]
		seen[key] = true
		if d.skips(join(path, key)) {
			continue
		}
		d.decode(pair.Value, v.Field(f.index), join(path, key), f)
	}
	d.missing(v, seen, path, d.position(n))
}

func (d *decoder) skips(path string) bool { return d.skip != nil && d.skip(path) }

func (d *decoder) missing(v reflect.Value, seen map[string]bool, path string, at Position) {
	for _, f := range fieldsOf(v.Type()) {
		if f.required && !seen[f.name] && !d.skips(join(path, f.name)) {
			d.Report(at, "%s has no key %s, which is required", named(path), f.name)
		}
	}
}

func (d *decoder) mapping(n ast.Node, v reflect.Value, path string) {
	pairs, ok := d.pairs(n, path)
	if !ok {
		return
	}
	v.Set(reflect.MakeMap(v.Type()))
	for _, pair := range pairs {
		key := pair.Key.GetToken().Value
		if key == "" || strings.ContainsAny(key, ". \t\n") {
			d.Report(d.position(pair.Key), "%s: the name %q must not be empty or have dots or spaces", named(path), key)
			continue
		}
		fresh := reflect.New(v.Type().Elem()).Elem()
		setDefaults(fresh)
		d.decode(pair.Value, fresh, join(path, key), field{required: true})
		v.SetMapIndex(reflect.ValueOf(key), fresh)
	}
}

func (d *decoder) list(n ast.Node, v reflect.Value, path string) {
	sequence, ok := n.(*ast.SequenceNode)
	if !ok {
		var one string
		d.scalar(n, reflect.ValueOf(&one).Elem(), path, field{})
		v.Set(reflect.ValueOf(Strings{one}))
		return
	}
	out := make(Strings, len(sequence.Values))
	for i, item := range sequence.Values {
		d.decode(item, reflect.ValueOf(&out[i]).Elem(), fmt.Sprintf("%s[%d]", path, i), field{})
	}
	v.Set(reflect.ValueOf(out))
}

// ports reads a list of ports, or a single one.
func (d *decoder) ports(n ast.Node, v reflect.Value, path string) {
	if text, _, _ := scalarText(n); text == "any" {
		v.Set(reflect.ValueOf(Ports{AnyPort}))
		return
	}
	items := []ast.Node{n}
	if sequence, ok := n.(*ast.SequenceNode); ok {
		items = sequence.Values
	}
	out := make(Ports, len(items))
	for i, item := range items {
		d.decode(item, reflect.ValueOf(&out[i]).Elem(), fmt.Sprintf("%s[%d]", path, i), field{})
	}
	for i, port := range out {
		if port == AnyPort {
			d.Report(d.position(items[i]), "%s[%d]: -1 is not a port; write a number from 1 to 65535, or any as the whole value", path, i)
		}
	}
	v.Set(reflect.ValueOf(out))
}

// structures reads a list of structs.
func (d *decoder) structures(n ast.Node, v reflect.Value, path string) {
	sequence, ok := n.(*ast.SequenceNode)
	if !ok {
		d.Report(d.position(n), "%s must be a list", named(path))
		return
	}
	out := reflect.MakeSlice(v.Type(), len(sequence.Values), len(sequence.Values))
	for i, item := range sequence.Values {
		setDefaults(out.Index(i))
		d.decode(item, out.Index(i), fmt.Sprintf("%s[%d]", path, i), field{required: true})
	}
	v.Set(out)
}

func isScalar(n ast.Node) bool {
	_, _, ok := scalarText(n)
	return ok
}

// external reads instances in the form of one word.
func (d *decoder) external(n ast.Node, v reflect.Value, path string) {
	if text, _, _ := scalarText(n); text != external {
		d.Report(d.position(n), "%s is %q; it must be {min: N, max: N}, or the word %s", path, text, external)
		return
	}
	v.Set(reflect.ValueOf(Instances{Min: 1, Max: 1, External: true}))
}

// scalar reads a single value, after inserting the values of environment variables.
func (d *decoder) scalar(n ast.Node, v reflect.Value, path string, f field) {
	at := d.position(n)
	raw, isText, ok := scalarText(n)
	if !ok {
		d.Report(at, "%s must be one value, not a list or keys", named(path))
		return
	}
	if v.Type() == reflect.TypeFor[Secret]() && raw != "" {
		d.Secrets = append(d.Secrets, raw)
	}
	text, err := values.Expand(raw, func(name string) (string, bool) {
		d.Variables[name] = true
		return d.env(name)
	})
	if err != nil {
		for _, line := range strings.Split(err.Error(), "\n") {
			d.Report(at, "%s: %s", named(path), line)
		}
		return
	}
	if f.zero != "" && text == f.zero {
		text, raw, isText = "0", "0", false
	}
	if v.Kind() == reflect.String {
		if !isText {
			d.Report(at, "%s must be a string; quote it: %q", named(path), raw)
			return
		}
		if name, isFile := strings.CutPrefix(text, "file:"); isFile && strings.HasPrefix(raw, "file:") {
			if text, err = readfile.Value(name, d.Dir); err != nil {
				d.Report(at, "%s: %v", named(path), err)
				return
			}
			if !filepath.IsAbs(name) {
				name = filepath.Join(d.Dir, name)
			}
			d.Files[path] = name
		}
	} else if isText && text == raw && (v.CanInt() && v.Type() == reflect.TypeFor[int]() || v.Kind() == reflect.Bool || v.CanFloat()) {
		d.Report(at, "%s must be %s, not %q", named(path), kindName(v), text)
		return
	}
	if err := setScalar(v, text); err != nil {
		d.Report(at, "%s: %v", named(path), err)
		return
	}
	if err := inBounds(v, f); err != nil {
		d.Report(at, "%s %v", named(path), err)
	}
}

// scalarText returns a value as it is written, and whether it is a string.
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

// setScalar converts a text to the value's type, and sets it.
func setScalar(v reflect.Value, text string) error {
	var out any
	var err error
	switch v.Interface().(type) {
	case Duration:
		out, err = values.ParseDuration(text)
	case Size:
		out, err = values.ParseSize(text)
	case Prefetch:
		out, err = values.ParsePrefetch(text)
	default:
		switch v.Kind() {
		case reflect.String:
			v.SetString(text)
			return nil
		case reflect.Bool:
			if text != "true" && text != "false" {
				return fmt.Errorf("%q is neither true nor false", text)
			}
			out = text == "true"
		case reflect.Int:
			if out, err = strconv.Atoi(text); err != nil {
				return fmt.Errorf("%q is not a whole number", text)
			}
		case reflect.Float64:
			number, parseErr := strconv.ParseFloat(text, 64)
			if parseErr != nil || math.IsNaN(number) || math.IsInf(number, 0) {
				return fmt.Errorf("%q is not a number", text)
			}
			out = number
		default:
			panic("a configuration type that the decoder does not know: " + v.Type().String())
		}
	}
	if err != nil {
		return err
	}
	v.Set(reflect.ValueOf(out))
	return nil
}

// inBounds checks a value against its field's enum, min and max.
func inBounds(v reflect.Value, f field) error {
	if f.enum != "" {
		words := strings.Split(f.enum, ",")
		if text := fmt.Sprint(v.Interface()); !slices.Contains(words, text) {
			return fmt.Errorf("is %s; allowed: %s", text, strings.Join(words, ", "))
		}
	}
	for _, bound := range []struct {
		text, word string
		sign       float64
	}{{f.min, "minimum", 1}, {f.max, "maximum", -1}} {
		if bound.text == "" {
			continue
		}
		limit := reflect.New(v.Type()).Elem()
		if err := setScalar(limit, bound.text); err != nil {
			panic("a bound in a tag is wrong: " + err.Error())
		}
		if (number(v)-number(limit))*bound.sign < 0 {
			return fmt.Errorf("is %v; the %s is %s", v.Interface(), bound.word, bound.text)
		}
	}
	return nil
}

func number(v reflect.Value) float64 {
	if v.CanInt() {
		return float64(v.Int())
	}
	return v.Float()
}

func setDefaults(v reflect.Value) {
	if v.Kind() != reflect.Struct {
		return
	}
	for _, f := range fieldsOf(v.Type()) {
		inner := v.Field(f.index)
		if inner.Kind() == reflect.Struct {
			setDefaults(inner)
			continue
		}
		if f.def != "" && inner.IsZero() {
			if err := setScalar(inner, f.def); err != nil {
				panic("a default in a tag is wrong: " + err.Error())
			}
		}
	}
}
