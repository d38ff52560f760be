package daemon

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"regexp"
	"strings"

	"github.com/invopop/jsonschema"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon/internal/api"
	"github.com/drover-run/drover/daemon/internal/buildinfo"
)

// This file describes the admin API as OpenAPI 3.1, made of the list of routes and
// of the types of their answers.

func (d *Daemon) answerOpenAPI(w http.ResponseWriter, _ *http.Request) {
	document, err := openAPI(d.routes())
	if err != nil {
		refuse(w, http.StatusInternalServerError, "%v", err)
		return
	}
	answer(w, http.StatusOK, document)
}

type object = map[string]any

// openAPI is the document on routes.
func openAPI(routes []route) (object, error) {
	s := &schemas{components: object{}}
	paths := object{}
	for _, r := range routes {
		path := strings.TrimSuffix(r.path, "{$}")
		if paths[path] == nil {
			paths[path] = object{}
		}
		paths[path].(object)[strings.ToLower(r.method)] = s.operation(r)
	}
	s.of(api.Problem{})
	return object{
		"openapi": "3.1.0",
		"info": object{
			"title": "drover's admin API", "version": buildinfo.Version(),
			"description": "What a running daemon answers to: on a unix socket for its owner, or on a port to those who bring the token or a certificate.",
		},
		"servers":    []object{{"url": "http://localhost", "description": "by the unix socket, or as admin.listen says"}},
		"security":   []object{{}, {"token": []string{}}, {"certificate": []string{}}},
		"paths":      paths,
		"components": object{"schemas": s.components, "securitySchemes": object{"token": object{"type": "http", "scheme": "bearer"}, "certificate": object{"type": "mutualTLS"}}},
	}, errors.Join(s.errs...)
}

// schemas are those of the types that answers have.
type schemas struct {
	components object // by the type's name
	errs       []error
}

func (s *schemas) operation(r route) object {
	var params []object
	for _, p := range r.params {
		in, schema := "query", object{"type": "string"}
		if strings.Contains(r.path, "{"+p.name+"}") {
			in = "path"
		}
		if p.number {
			schema["type"] = "integer"
		}
		if p.format != "" {
			schema["format"] = p.format
		}
		params = append(params, object{"name": p.name, "in": in, "required": in == "path", "description": p.help, "schema": schema})
	}
	content := object{}
	switch {
	case r.kind == "":
		content["application/json"] = object{"schema": s.of(r.answer)}
	case r.answer != nil: // one in each line
		content[r.kind] = object{"schema": object{"type": "string"}, "x-line": s.of(r.answer)}
	default:
		content[r.kind] = object{"schema": object{"type": "string"}}
	}
	responses := object{"200": object{"description": "as asked", "content": content}}
	for _, status := range r.also {
		responses[fmt.Sprint(status)] = object{"description": http.StatusText(status), "content": content}
	}
	problem := object{"application/json": object{"schema": s.of(api.Problem{})}}
	for _, status := range r.fails {
		responses[fmt.Sprint(status)] = object{"description": http.StatusText(status), "content": problem}
	}
	responses["default"] = object{"description": "what went wrong: no token, a browser's request, a wrong method", "content": problem}
	out := object{"operationId": r.id, "summary": r.help, "responses": responses}
	if params != nil {
		out["parameters"] = params
	}
	return out
}

var defs = regexp.MustCompile(`"#/\$defs/`)

// of returns the schema of a value's type: a reference to its component, where it
// has a name.
func (s *schemas) of(value any) any {
	reflector := &jsonschema.Reflector{
		Anonymous: true,
		// An older client reads the answers of a newer daemon.
		AllowAdditionalProperties: true,
		LookupComment:             aboutField,
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

// schemaName is what a type is called in the document: that it is not exported, or
// how it comes to be JSON, is none of the reader's business.
func schemaName(t reflect.Type) string {
	name := strings.TrimSuffix(t.Name(), "JSON")
	if name == "" {
		return ""
	}
	return strings.ToUpper(name[:1]) + name[1:]
}

// aboutField is what a field's tag says about it.
func aboutField(t reflect.Type, field string) string {
	if field == "" || t.Kind() != reflect.Struct {
		return ""
	}
	f, _ := t.FieldByName(field) // without one there is no tag
	return f.Tag.Get("desc")
}

// openAPICommand is `drover config openapi`.
type openAPICommand struct{}

func (openAPICommand) Help() string {
	return `Generators make clients in many languages from it. A running daemon also serves it.

Examples:

    drover config openapi > drover.openapi.json
    curl --unix-socket .drover/admin.sock http://drover/v1/openapi.json
`
}

func (openAPICommand) Run(std *IO) error {
	cfg := configs.New()
	cfg.Admin.Pprof = true
	document, err := openAPI(New(cfg).routes())
	if err != nil {
		return err
	}
	text, err := json.MarshalIndent(document, "", "  ")
	if err != nil {
		return fmt.Errorf("writing the document: %w", err)
	}
	_, err = std.Out.Write(append(text, '\n'))
	return err
}
