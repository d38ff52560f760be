package configs

import (
	"maps"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/drover-run/drover/configs/decode"
	"github.com/drover-run/drover/configs/problems"
)

// implicitConnection is the connection of a file without connections.
const implicitConnection = "embedded"

// Complete sets values that depend on other keys and on the environment, and makes the checks that
// need several keys. Load and Parse call it; a program with a configuration in Go leaves it to the
// daemon. A second call does nothing. The error is an Errors.
func (c *Config) Complete(env Env) error {
	if c.completed {
		return nil
	}
	if c.source == nil {
		c.source = &problems.Source{Dir: "."}
		c.fillIn()
	}
	c.source.Env = env
	x := &completion{c, c.source}
	x.all()
	c.Warnings = c.source.Warnings
	if err := x.Err(); err != nil {
		return err
	}
	c.completed = true
	return nil
}

// fillIn sets the defaults of a configuration that a program made, in which zero means the default.
func (c *Config) fillIn() {
	decode.Defaults(c)
	for name, v := range c.Connections {
		decode.Defaults(&v)
		c.Connections[name] = v
	}
	for name, v := range c.Apps {
		decode.Defaults(&v)
		c.Apps[name] = v
	}
	for name, v := range c.Functions {
		decode.Defaults(&v)
		for _, own := range copyKinds(&v.Trigger) {
			decode.Defaults(own)
		}
		if v.Handler.Exec != nil {
			run := *v.Handler.Exec
			decode.Defaults(&run)
			v.Handler.Exec = &run
		}
		if v.Handler.HTTP != nil {
			http := *v.Handler.HTTP
			decode.Defaults(&http)
			if http.Batch != nil {
				batch := *http.Batch
				decode.Defaults(&batch)
				http.Batch = &batch
			}
			v.Handler.HTTP = &http
		}
		v.Handler.copyCode()
		v.Output = v.Output.filledIn()
		c.Functions[name] = v
	}
}

type completion struct {
	*Config
	*problems.Source
}

func names[T any](m map[string]T) []string { return slices.Sorted(maps.Keys(m)) }

func (x *completion) all() {
	if len(x.Functions) == 0 {
		x.Wrong("functions", "it is empty; add at least one function")
		return
	}
	if x.checkNames(); len(x.Problems) > 0 {
		return // messages about other problems would quote them
	}
	x.DataDir = x.Absolute(x.DataDir)
	x.defaultConnection()
	if x.Apps == nil {
		x.Apps = make(map[string]App)
	}
	for _, name := range names(x.Connections) {
		c := x.Connections[name]
		c.connectionStringFile = x.Files["connections."+name+".connection_string"]
		x.Connections[name] = c
		x.connection("connections."+name, c)
	}
	languages := x.languages()
	for _, name := range names(x.Apps) {
		x.Apps[name] = x.app("apps."+name, x.Apps[name], languages[name])
	}
	adminChecks{x}.admin()
	x.traces(&x.Traces)
	x.scale("scale", &x.Scale)
	shortForms := make(map[string]string)
	for _, name := range names(x.Functions) {
		x.Functions[name] = x.function(name, x.Functions[name], shortForms)
	}
	x.withhold()
	x.together()
}

// kind is one of several keys, of which exactly one must be set.
type kind struct {
	key   string
	given bool
}

// pointedKinds returns the kinds of a struct with a pointer for each.
func pointedKinds(of any) (kinds []kind) {
	v := reflect.ValueOf(of)
	for i := range v.NumField() {
		kinds = append(kinds, kind{v.Type().Field(i).Tag.Get("yaml"), !v.Field(i).IsNil()})
	}
	return kinds
}

// copyKinds replaces the targets of a struct with a pointer for each kind by copies, and returns
// the copies.
func copyKinds(of any) (copies []any) {
	v := reflect.ValueOf(of).Elem()
	for i := range v.NumField() {
		if p := v.Field(i); !p.IsNil() {
			own := reflect.New(p.Type().Elem())
			own.Elem().Set(p.Elem())
			p.Set(own)
			copies = append(copies, own.Interface())
		}
	}
	return copies
}

func (h Handler) kinds() []kind {
	return []kind{{"go", h.Go != ""}, {"python", h.Python != nil}, {"node", h.Node != nil}, {"worker", h.Worker != nil}, {"http", h.HTTP != nil}, {"exec", h.Exec != nil}}
}

// oneKind reports a problem unless exactly one of the keys is set.
func (x *completion) oneKind(path, what string, kinds []kind) bool {
	var known, given []string
	for _, k := range kinds {
		known = append(known, k.key)
		if k.given {
			given = append(given, k.key)
		}
	}
	switch len(given) {
	case 0:
		x.Wrong(path, "it needs exactly one kind: %s", strings.Join(known, ", "))
	case 1:
		return true
	default:
		x.Wrong(path, "it has both %s; %s exactly one kind", strings.Join(given, " and "), what)
	}
	return false
}

func (x *completion) function(name string, f Function, shortForms map[string]string) Function {
	path := "functions." + name
	if f.Retry.Initial > f.Retry.Max {
		x.Wrong(path+".retry", "initial (%v) is more than max (%v)", f.Retry.Initial, f.Retry.Max)
	}
	if x.oneKind(path+".trigger", "messages come from", pointedKinds(f.Trigger)) {
		copyKinds(&f.Trigger)
		f.Trigger.settings().completeTrigger(x, path+".trigger", name, f.Retry)
	}
	if f.Retry.Mode == "scheduled" {
		x.scheduled(path+".retry.mode", f.Trigger)
	}
	f.Output = x.outputs(path+".output", f.Output)
	switch {
	case !x.oneKind(path+".handler", "a function has", f.Handler.kinds()):
	case f.Handler.Exec != nil:
		run := *f.Handler.Exec
		if run.Dir = x.Absolute(run.Dir); len(run.Command) == 0 || run.Command[0] == "" {
			x.Wrong(path+".handler.exec.command", "it is empty; write it as [./convert, --fast]")
		} else if strings.ContainsRune(run.Command[0], filepath.Separator) && !filepath.IsAbs(run.Command[0]) {
			run.Command = append(Strings{filepath.Join(run.Dir, run.Command[0])}, run.Command[1:]...)
		}
		x.environment(path+".handler.exec.environment", run.Environment)
		f.Handler.Exec = &run
	case f.Handler.HTTP != nil:
		x.httpHandler(path+".handler.http", f.Handler.HTTP)
	default:
		x.code(path+".handler", name, &f.Handler, shortForms)
	}
	return f
}
