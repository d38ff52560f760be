package decode

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"github.com/invopop/jsonschema"

	"github.com/drover-run/drover/configs/values"
)

// Schema returns the JSON Schema (2020-12) of a struct. Instead of a number it also allows a text
// with ${NAME}. Without complete, no key is required. of points to a struct.
func Schema(title string, of any, complete bool) ([]byte, error) {
	reflector := &jsonschema.Reflector{
		FieldNameTag:   "yaml",
		DoNotReference: true,
		Anonymous:      true,
		ExpandedStruct: true,
		Mapper:         mapType,
		// The tag required sets this, below.
		RequiredFromJSONSchemaTags: true,
	}
	schema := reflector.Reflect(of)
	schema.Title = title
	addTags(schema, reflect.TypeOf(of).Elem(), complete)
	out, err := json.MarshalIndent(schema, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("writing the schema: %w", err)
	}
	return out, nil
}

const referencePattern = `\$\{[A-Za-z_][A-Za-z0-9_]*(:-[^}]*)?\}`

// mapType returns the schema of the types that are written as a text.
func mapType(t reflect.Type) *jsonschema.Schema {
	text := func(pattern string) *jsonschema.Schema {
		return &jsonschema.Schema{Type: "string", Pattern: pattern}
	}
	switch t {
	case reflect.TypeFor[values.Duration]():
		return text(`^([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+$|` + referencePattern)
	case reflect.TypeFor[values.Size]():
		return text(`^[0-9]+(\.[0-9]+)? ?(B|kB|MB|GB|KiB|MiB|GiB)$|` + referencePattern)
	case reflect.TypeFor[values.Secret]():
		return &jsonschema.Schema{Type: "string"}
	case reflect.TypeFor[values.Strings](), reflect.TypeFor[values.EnvFiles]():
		one := &jsonschema.Schema{Type: "string"}
		return &jsonschema.Schema{OneOf: []*jsonschema.Schema{one, {Type: "array", Items: one}}}
	case reflect.TypeFor[values.Ports]():
		one := &jsonschema.Schema{OneOf: []*jsonschema.Schema{{Type: "integer", Minimum: "1", Maximum: "65535"}, text(referencePattern)}}
		return &jsonschema.Schema{OneOf: append([]*jsonschema.Schema{text("^any$")}, append(one.OneOf[:2:2], &jsonschema.Schema{Type: "array", Items: one})...)}
	case reflect.TypeFor[values.Spare]():
		return &jsonschema.Schema{OneOf: []*jsonschema.Schema{{Type: "integer", Minimum: "0", Maximum: "1"}, text("^auto$|" + referencePattern)}}
	case reflect.TypeFor[values.Prefetch]():
		return &jsonschema.Schema{OneOf: []*jsonschema.Schema{{Type: "integer", Minimum: "0"}, text("^auto$|" + referencePattern)}}
	}
	return nil
}

// addTags adds the information of the tags to the schema of a struct.
func addTags(s *jsonschema.Schema, t reflect.Type, complete bool) {
	for i := range t.NumField() {
		f := t.Field(i)
		name := f.Tag.Get("yaml")
		property, found := s.Properties.Get(name)
		if !found {
			continue
		}
		property.Description = f.Tag.Get("desc")
		if complete && f.Tag.Get("required") == "true" {
			s.Required = append(s.Required, name)
		}
		inner := f.Type
		if inner.Kind() == reflect.Pointer {
			inner = inner.Elem()
		}
		switch inner.Kind() {
		case reflect.Struct:
			addTags(property, inner, complete)
			if _, words := aloneField(inner); words != nil {
				keys, word := *property, &jsonschema.Schema{Type: "string"}
				keys.Description = ""
				for _, w := range words {
					word.Enum = append(word.Enum, w)
				}
				s.Properties.Set(name, &jsonschema.Schema{Description: property.Description, OneOf: []*jsonschema.Schema{&keys, word}})
			}
		case reflect.Slice:
			if inner.Elem().Kind() == reflect.Struct {
				addTags(property.Items, inner.Elem(), complete)
				if f.Tag.Get("single") == "true" {
					least := uint64(1)
					s.Properties.Set(name, &jsonschema.Schema{
						Description: property.Description,
						OneOf:       []*jsonschema.Schema{property.Items, {Type: "array", Items: property.Items, MinItems: &least}},
					})
				}
			} else {
				s.Properties.Set(name, withBounds(property, f.Tag, inner))
			}
		case reflect.Map:
			if inner.Elem().Kind() == reflect.Struct {
				addTags(property.AdditionalProperties, inner.Elem(), complete)
			}
		default:
			s.Properties.Set(name, withBounds(property, f.Tag, inner))
		}
	}
}

// orWord returns a pattern for a word that represents 0.
func orWord(word string) string {
	if word == "" {
		return ""
	}
	return "^" + word + "$|"
}

// withBounds adds default and bounds to a scalar's schema.
func withBounds(s *jsonschema.Schema, tag reflect.StructTag, t reflect.Type) *jsonschema.Schema {
	isNumber := s.Type == "integer" || s.Type == "number"
	value := func(text string) any {
		if isNumber {
			return json.Number(text)
		}
		return text
	}
	if def := tag.Get("default"); def != "" {
		s.Default = value(def)
	}
	if enum := tag.Get("enum"); enum != "" {
		for _, word := range strings.Split(enum, ",") {
			s.Enum = append(s.Enum, value(word))
		}
	}
	if !isNumber {
		if low, high := tag.Get("min"), tag.Get("max"); low != "" || high != "" { // of durations and sizes, for the reference
			s.Extras = map[string]any{"x-minimum": low, "x-maximum": high}
		}
		return s
	}
	s.Minimum, s.Maximum = json.Number(tag.Get("min")), json.Number(tag.Get("max"))
	if t.Kind() == reflect.Int {
		if _, err := strconv.Atoi(tag.Get("default")); err == nil {
			s.Default = json.Number(tag.Get("default"))
		}
	}
	// A number may be a variable of the environment.
	number := *s
	number.Description, number.Default = "", nil
	return &jsonschema.Schema{
		Description: s.Description, Default: s.Default,
		OneOf: []*jsonschema.Schema{&number, {Type: "string", Pattern: orWord(tag.Get("zero")) + referencePattern}},
	}
}
