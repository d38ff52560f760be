package configs

import (
	"bytes"
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/invopop/jsonschema"
)

// write makes TestConfigurationPage write the page.
var write = flag.Bool("write", false, "write the reference of all keys into docs/configuration.md")

const (
	page       = "../docs/configuration.md"
	beginMark  = "<!-- The rest of this page is generated from the schema: make reference -->\n"
	sectionFor = "trigger handler output" // each kind below them has a section
)

// TestConfigurationPage compares the reference of all keys with the schema; make reference writes it.
func TestConfigurationPage(t *testing.T) {
	schema, err := Schema()
	if err != nil {
		t.Fatal(err)
	}
	var typed jsonschema.Schema
	var raw map[string]any
	if err := errorsOf(json.Unmarshal(schema, &typed), json.Unmarshal(schema, &raw)); err != nil {
		t.Fatal(err)
	}
	var out reference
	out.addSection("", "", &typed, raw)
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	top, _, found := strings.Cut(string(text), beginMark)
	if !found {
		t.Fatalf("%s lacks the line %s", page, beginMark)
	}
	want := top + beginMark + "\n" + strings.TrimSpace(out.String()) + "\n"
	if want == string(text) {
		return
	}
	if !*write {
		t.Fatalf("%s differs from the schema; run: make reference", page)
	}
	if err := os.WriteFile(page, []byte(want), 0o644); err != nil {
		t.Fatal(err)
	}
}

func errorsOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// reference is the text of the page.
type reference struct{ bytes.Buffer }

// addSection writes the keys of an object, and then the sections of its keys.
func (r *reference) addSection(path, description string, s *jsonschema.Schema, raw map[string]any) {
	title := cmp.Or(path, "Top level")
	if path != "" {
		title = "`" + path + "`"
	}
	fmt.Fprintf(r, "## %s\n\n", title)
	if description != "" {
		fmt.Fprintf(r, "%s.\n\n", sentence(description))
	}
	r.WriteString("| key | type | default | bounds | description |\n| --- | --- | --- | --- | --- |\n")
	type later struct {
		path, description string
		s                 *jsonschema.Schema
		raw               map[string]any
	}
	var sections []later
	var addKeys func(prefix string, s *jsonschema.Schema, raw map[string]any)
	addKeys = func(prefix string, s *jsonschema.Schema, raw map[string]any) {
		for pair := s.Properties.Oldest(); pair != nil; pair = pair.Next() {
			key, own := pair.Key, pair.Value
			ownRaw := raw["properties"].(map[string]any)[key].(map[string]any)
			full := strings.TrimPrefix(path+"."+prefix+key, ".")
			inner, innerRaw, shape := objectOf(own, ownRaw)
			bold := ""
			if slices.Contains(s.Required, key) {
				bold = "; required"
			}
			switch {
			case inner == nil:
				kind, def, bounds := describeScalar(own, ownRaw)
				fmt.Fprintf(r, "| `%s%s` | %s%s | %s | %s | %s |\n", prefix, key, kind, bold, def, bounds, cell(own.Description))
			case shape == "" && path != "" && !slices.Contains(strings.Fields(sectionFor), strings.TrimSuffix(prefix[strings.LastIndexByte("."+strings.TrimSuffix(prefix, "."), '.'):], ".")):
				fmt.Fprintf(r, "| `%s%s` | keys%s%s | | | %s |\n", prefix, key, wordsOf(own), bold, cell(own.Description))
				addKeys(prefix+key+".", inner, innerRaw)
			default:
				if shape == "list" && path != "" {
					fmt.Fprintf(r, "| `%s%s` | keys, or a list of them%s | | | %s |\n", prefix, key, bold, cell(own.Description))
					addKeys(prefix+key+".", inner, innerRaw)
					continue
				}
				name := full
				if shape == "map" {
					name += ".NAME"
				}
				fmt.Fprintf(r, "| `%s%s` | [below](#%s)%s | | | %s |\n", prefix, key, anchor(name), bold, cell(own.Description))
				sections = append(sections, later{name, own.Description, inner, innerRaw})
			}
		}
	}
	addKeys("", s, raw)
	r.WriteString("\n")
	for _, one := range sections {
		r.addSection(one.path, one.description, one.s, one.raw)
	}
}

// anchor returns the anchor of a heading.
func anchor(title string) string {
	return strings.ToLower(strings.ReplaceAll(title, ".", ""))
}

func sentence(text string) string {
	return strings.ToUpper(text[:1]) + text[1:]
}

func cell(text string) string { return strings.ReplaceAll(text, "|", `\|`) }

// objectOf returns the object that a schema allows; nil if it allows none. shape is map or list if the
// object is an entry of a map or a list.
func objectOf(s *jsonschema.Schema, raw map[string]any) (inner *jsonschema.Schema, innerRaw map[string]any, shape string) {
	if s.Properties != nil && s.Properties.Len() > 0 {
		return s, raw, ""
	}
	if s.AdditionalProperties != nil && s.AdditionalProperties.Properties.Len() > 0 {
		return s.AdditionalProperties, raw["additionalProperties"].(map[string]any), "map"
	}
	if s.Items != nil && s.Items.Properties != nil && s.Items.Properties.Len() > 0 {
		return s.Items, raw["items"].(map[string]any), "list"
	}
	for i, one := range s.OneOf {
		if one.Properties != nil && one.Properties.Len() > 0 {
			shape := ""
			if len(s.OneOf) > 1 && s.OneOf[1].Items != nil {
				shape = "list"
			}
			return one, raw["oneOf"].([]any)[i].(map[string]any), shape
		}
	}
	return nil, nil, ""
}

// wordsOf returns the words that may replace the keys.
func wordsOf(s *jsonschema.Schema) string {
	for _, one := range s.OneOf {
		if len(one.Enum) > 0 {
			return ", or " + enum(one.Enum)
		}
	}
	return ""
}

func enum(words []any) string {
	var out []string
	for _, w := range words {
		out = append(out, fmt.Sprintf("`%v`", w))
	}
	return strings.Join(out, ", ")
}

// describeScalar returns the type, the default and the bounds of a value.
func describeScalar(s *jsonschema.Schema, raw map[string]any) (kind, def, bounds string) {
	if s.Default != nil {
		def = fmt.Sprintf("`%v`", s.Default)
	}
	limit := func(low, high any) string {
		if low == nil && high == nil {
			return ""
		}
		return fmt.Sprintf("%v to %v", low, high)
	}
	bounds = limit(raw["x-minimum"], raw["x-maximum"])
	of := s
	if len(s.OneOf) > 0 {
		of = s.OneOf[0]
		if of.Minimum != "" || of.Maximum != "" {
			bounds = limit(of.Minimum, of.Maximum)
		}
	}
	switch {
	case len(of.Enum) > 0 && of.Type != "integer":
		return "one of " + enum(of.Enum), def, bounds
	case strings.Contains(of.Pattern, "|ns|") || strings.Contains(of.Pattern, "(ns|"):
		return "duration", def, bounds
	case strings.Contains(of.Pattern, "KiB"):
		return "size", def, bounds
	case of.Type == "integer":
		kind = "whole number"
		for _, one := range s.OneOf[min(1, len(s.OneOf)):] {
			if word, found := strings.CutPrefix(one.Pattern, "^"); found && !strings.HasPrefix(word, "(") {
				word, _, _ = strings.Cut(word, "$")
				kind += " or `" + word + "`"
			}
		}
		return kind, def, bounds
	case of.Type == "number":
		return "number", def, bounds
	case of.Type == "boolean":
		return "`true` or `false`", def, bounds
	case of.Pattern == "^any$":
		return "list of ports, or `any`", def, bounds
	case len(s.OneOf) == 2 && s.OneOf[1].Type == "array":
		return "text, or a list", def, bounds
	case s.Type == "object":
		return "names with texts", def, bounds
	case s.Type == "array":
		return "list", def, bounds
	}
	return "text", def, bounds
}
