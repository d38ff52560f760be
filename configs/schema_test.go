package configs

import (
	"bytes"
	"os"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

func compileSchema(t *testing.T) *jsonschema.Schema {
	text, err := Schema()
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	compiler := jsonschema.NewCompiler()
	compiler.DefaultDraft(jsonschema.Draft2020)
	if err := compiler.AddResource("drover.json", doc); err != nil {
		t.Fatal(err)
	}
	schema, err := compiler.Compile("drover.json")
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

func TestSchemaAgreesWithTheLoader(t *testing.T) {
	schema := compileSchema(t)
	validate := func(file string) error {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var value any
		if err := yaml.Unmarshal(text, &value); err != nil {
			t.Fatal(err)
		}
		return schema.Validate(value)
	}
	for _, file := range examples {
		if err := validate(file); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
	for _, name := range []string{"unknown-key", "bad-duration", "bad-size", "wrong-type", "no-trigger", "no-functions", "enum", "too-small", "too-large"} {
		if validate("testdata/"+name+".bad.yaml") == nil {
			t.Errorf("the schema takes %s", name)
		}
	}
	text, err := Schema()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"$schema": "https://json-schema.org/draft/2020-12/schema"`, `"description": "maximum number of messages in flight`, `"default": "5m"`} {
		if !bytes.Contains(text, []byte(want)) {
			t.Errorf("the schema lacks %s", want)
		}
	}
}
