package admin

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"regexp"
	"strings"

	"github.com/invopop/jsonschema"

	"github.com/drover-run/drover/daemon/internal/api"
)

type object = map[string]any

// NewOpenAPI returns the OpenAPI 3.1 document of routes, and of those that this package adds.
func NewOpenAPI(cfg Config, routes []Route) (map[string]any, error) {
	s := &schemas{components: object{}}
	paths := object{}
	for _, r := range allRoutes(cfg, routes) {
		path := strings.TrimSuffix(r.Path, "{$}")
		if paths[path] == nil {
			paths[path] = object{}
		}
		paths[path].(object)[strings.ToLower(r.Method)] = s.describeRoute(r)
	}
	s.schemaOf(api.Problem{})
	return object{
		"openapi": "3.1.0",
		"info": object{
			"title": "drover's admin API", "version": cfg.Version,
			"description": "The API of a running daemon: on a unix socket for its owner, or on a port for clients with the token or a certificate.",
		},
		"servers":    []object{{"url": "http://localhost", "description": "over the unix socket, or at the address in admin.listen"}},
		"security":   []object{{}, {"token": []string{}}, {"certificate": []string{}}},
		"paths":      paths,
		"components": object{"schemas": s.components, "securitySchemes": object{"token": object{"type": "http", "scheme": "bearer"}, "certificate": object{"type": "mutualTLS"}}},
	}, errors.Join(s.errs...)
}

// schemas holds the schemas of the types of answers.
type schemas struct {
	components object // by the type's name
	errs       []error
}

func (s *schemas) describeRoute(r Route) object {
	var params []object
	for _, p := range r.Params {
		in, schema := "query", object{"type": "string"}
		if strings.Contains(r.Path, "{"+p.Name+"}") {
			in = "path"
		}
		if p.Number {
			schema["type"] = "integer"
		}
		if p.Format != "" {
			schema["format"] = p.Format
		}
		if p.Repeated {
			schema = object{"type": "array", "items": schema}
		}
		params = append(params, object{"name": p.Name, "in": in, "required": in == "path", "description": p.Help, "schema": schema})
	}
	content := object{}
	switch {
	case r.ContentType == "":
		content["application/json"] = object{"schema": s.schemaOf(r.Response)}
	case r.Response != nil: // one on each line
		content[r.ContentType] = object{"schema": object{"type": "string"}, "x-line": s.schemaOf(r.Response)}
	default:
		content[r.ContentType] = object{"schema": object{"type": "string"}}
	}
	responses := object{"200": object{"description": "as asked", "content": content}}
	for _, status := range r.AlsoStatuses {
		responses[fmt.Sprint(status)] = object{"description": http.StatusText(status), "content": content}
	}
	problem := object{"application/json": object{"schema": s.schemaOf(api.Problem{})}}
	for _, status := range r.ErrorStatuses {
		responses[fmt.Sprint(status)] = object{"description": http.StatusText(status), "content": problem}
	}
	responses["default"] = object{"description": "what went wrong: no token, a browser's request, a wrong method", "content": problem}
	out := object{"operationId": r.ID, "summary": r.Help, "responses": responses}
	if params != nil {
		out["parameters"] = params
	}
	if r.Body != "" {
		out["requestBody"] = object{"description": r.Body, "content": object{"*/*": object{}}}
	}
	return out
}

var defs = regexp.MustCompile(`"#/\$defs/`)

// schemaOf returns the schema of a value's type: a reference to its component, if it has a
// name.
func (s *schemas) schemaOf(value any) any {
	reflector := &jsonschema.Reflector{
		Anonymous: true,
		// Clients must accept unknown fields, from newer daemons.
		AllowAdditionalProperties: true,
		LookupComment:             describeField,
		Namer:                     schemaName,
	}
	schema := reflector.Reflect(value)
	schema.Version = ""
	text, err := json.Marshal(schema)
	var out object
	if err == nil {
		err = json.Unmarshal(defs.ReplaceAll(text, []byte(`"#/components/schemas/`)), &out)
	}
	if err != nil {
		s.errs = append(s.errs, fmt.Errorf("describing %T: %w", value, err))
	}
	if more, ok := out["$defs"].(object); ok {
		for name, component := range more {
			s.components[name] = component
		}
		delete(out, "$defs")
	}
	return out
}

// schemaName returns the name of a type in the document. It does not depend on whether Go exports
// the type, nor on how the type is encoded.
func schemaName(t reflect.Type) string {
	name := strings.TrimSuffix(t.Name(), "JSON")
	if name == "" {
		return ""
	}
	return strings.ToUpper(name[:1]) + name[1:]
}

// describeField returns the description of a field, from its tag.
func describeField(t reflect.Type, field string) string {
	if field == "" || t.Kind() != reflect.Struct {
		return ""
	}
	f, _ := t.FieldByName(field) // a field without a description has no tag
	return f.Tag.Get("desc")
}
