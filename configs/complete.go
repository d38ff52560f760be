package configs

import (
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/drover-run/drover/configs/decode"
	"github.com/drover-run/drover/configs/problems"
	"github.com/drover-run/drover/configs/values"
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
	x.completeAll()
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
		c.Functions[name] = v.fillIn(c.Defaults)
	}
}

// fillIn returns a function of a program, completed with the defaults for all functions and then drover's.
func (f Function) fillIn(all Defaults) Function {
	decode.Inherit(&f, &all)
	decode.Defaults(&f)
	kinds := slices.Concat(decode.CopyKinds(&f.Trigger), decode.CopyKinds(&f.Handler))
	if http := f.Handler.HTTP; http != nil && http.Batch != nil {
		batch := *http.Batch
		http.Batch = &batch
		kinds = append(kinds, http.Batch)
	}
	f.Output = slices.Clone(f.Output)
	for i := range f.Output {
		kinds = append(kinds, decode.CopyKinds(&f.Output[i])...)
	}
	for _, own := range kinds {
		decode.Defaults(own)
	}
	return f
}

// AddFunctions adds the functions of a program, and completes the configuration. They get the same
// defaults and checks as functions in a file. Functions that were added before are skipped. The error
// is an Errors; having no functions at all is one.
func (c *Config) AddFunctions(env Env, functions map[string]Function) error {
	fresh := make(map[string]bool)
	for _, name := range sortedNames(functions) {
		if _, before := c.added[name]; before {
			continue
		}
		if _, found := c.Functions[name]; found {
			return fmt.Errorf("the program and the configuration both define function %s; remove one of them", name)
		}
		if own := functions[name].Handler.codeKeys(); c.completed && own != nil && *own.app != "" {
			return fmt.Errorf("function %s, which the program adds, uses app %s of the configuration: set path instead", name, *own.app)
		}
		if c.Functions == nil {
			c.Functions = make(map[string]Function)
		}
		c.Functions[name], fresh[name] = functions[name].fillIn(c.Defaults), true
	}
	complete := c.completed
	if err := c.Complete(env); err != nil {
		return err
	}
	x := &completion{c, c.source}
	if complete && len(fresh) > 0 {
		if x.checkNames(); len(x.Problems) == 0 {
			x.completeFunctions(fresh)
		}
	}
	if c.Warnings = c.source.Warnings; len(c.Functions) == 0 {
		x.Wrong("functions", "it is empty; add at least one function")
	}
	if len(fresh) > 0 {
		c.added = functions
	}
	return x.Err()
}

// completeFunctions completes the new functions, and checks them together with the others.
func (x *completion) completeFunctions(fresh map[string]bool) {
	code := codeHandlers{x.Source, x.Apps, make(map[string]string)}
	for _, name := range sortedNames(x.Functions) {
		f := x.Functions[name]
		if fresh[name] {
			x.Functions[name] = x.completeFunction(name, f, code)
		} else if s := f.Trigger.kindSettings(); s != nil {
			warnings := x.Source.Warnings
			s.completeTrigger(x, "functions."+name+".trigger", name, f.Retry)
			x.Source.Warnings = warnings
		}
	}
	x.shareVariables()
	x.checkInstances()
	x.checkHTTP()
}

func (x *completion) completeAll() {
	if len(x.EnvFile) > 0 && x.FileEnv == nil {
		x.Wrong("env_file", "only a configuration file can have it; a program passes the environment with daemon.WithEnv")
	}
	if x.checkNames(); len(x.Problems) > 0 {
		return // messages about other problems would quote them
	}
	x.DataDir = x.Absolute(x.DataDir)
	x.defaultConnection()
	if x.Apps == nil {
		x.Apps = make(map[string]App)
	}
	for _, name := range sortedNames(x.Connections) {
		c := x.Connections[name]
		c.connectionStringFile = x.Files["connections."+name+".connection_string"]
		x.Connections[name] = c
		x.checkConnection("connections."+name, c)
	}
	languages := x.appLanguages()
	for _, name := range sortedNames(x.Apps) {
		x.Apps[name] = x.Apps[name].completeApp(x.Source, "apps."+name, languages[name])
	}
	x.Admin.CompleteServer(x.Source)
	x.Probes.CheckListen(x.Source)
	x.HTTP.Complete(x.Source, "http")
	x.Traces.Complete(x.Source, "traces")
	x.Scale.Complete(x.Source, "scale")
	all := make(map[string]bool)
	for name := range x.Functions {
		all[name] = true
	}
	x.completeFunctions(all)
}

// checkNames checks the names in the configuration.
func (x *completion) checkNames() {
	for _, of := range []struct {
		key   string
		names []string
	}{{"connections", sortedNames(x.Connections)}, {"apps", sortedNames(x.Apps)}, {"functions", sortedNames(x.Functions)}} {
		for _, name := range of.names {
			if err := values.CheckName(name); err != nil {
				x.Report(x.At(of.key+"."+name), "%s: %v", of.key, err)
			}
		}
	}
}

// defaultConnection adds the embedded server if there is no connection.
func (x *completion) defaultConnection() {
	if len(x.Connections) > 0 {
		return
	}
	c := embeddedServer()
	decode.Defaults(&c)
	x.Connections = map[string]Connection{implicitConnection: c}
}

// checkConnection checks that a connection has one kind, and its keys.
func (x *completion) checkConnection(path string, c Connection) {
	var kinds []string
	for _, k := range []kind{{"nats", c.hasServers()}, {"connection_string", c.ConnectionString != ""}, {"namespace", c.Namespace != ""}, {"storage_account", c.StorageAccount != ""}} {
		if k.given {
			kinds = append(kinds, k.key)
		}
	}
	switch {
	case len(kinds) > 1:
		x.Wrong(path, "it has both %s; a connection goes to one of them", strings.Join(kinds, " and "))
		return
	case len(kinds) == 1 && !c.hasServers():
		c.checkAzure(x.Source, path)
		return
	case len(kinds) == 0:
		x.Wrong(path, "it needs nats (embedded, or the URLs of a cluster's servers), or connection_string, namespace (of Azure Service Bus) or storage_account")
		return
	}
	c.checkServers(x.Source, path)
}

// appLanguages returns the languages of the apps that functions name. An app has one language,
// because one kind of worker process runs it.
func (x *completion) appLanguages() map[string]string {
	out, first := make(map[string]string), make(map[string]string)
	for _, name := range sortedNames(x.Functions) {
		c := x.Functions[name].Handler.codeKeys()
		if c == nil || *c.app == "" {
			continue
		}
		path := "functions." + name + ".handler." + c.language
		if other := out[*c.app]; other != "" && other != c.language {
			reportLanguages(x.Source, path, c.language, "app "+*c.app, other, first[*c.app])
			continue
		}
		out[*c.app], first[*c.app] = c.language, path
	}
	return out
}

// completeFunction returns the function with its defaults.
func (x *completion) completeFunction(name string, f Function, code codeHandlers) Function {
	path := "functions." + name
	if f.Trigger.HTTP != nil && !x.Given(path+".retry.max_attempts") {
		f.Retry.MaxAttempts = 1 // a client waits
	}
	if f.Retry.Initial > f.Retry.Max {
		x.Wrong(path+".retry", "initial (%v) is more than max (%v)", f.Retry.Initial, f.Retry.Max)
	}
	if !f.Trigger.Program && oneKind(x.Source, path+".trigger", "messages come from", pointedKinds(f.Trigger)) {
		decode.CopyKinds(&f.Trigger)
		f.Trigger.kindSettings().completeTrigger(x, path+".trigger", name, f.Retry)
	}
	if f.Retry.Mode == "scheduled" {
		x.checkScheduled(path+".retry.mode", f.Trigger)
	}
	f.Output = x.completeOutputs(path+".output", f.Output)
	if names := f.Output.OutputNames(); len(names) > 0 && f.Handler.hasOneResult() {
		x.Wrong(path+".output", "the handler has one result, and cannot send to the output %s by its name; remove name, and the output receives the result", names[0])
	}
	f.checkBatch(x.Source, path+".batch")
	if !oneKind(x.Source, path+".handler", "a function has", f.Handler.givenKinds()) {
		return f
	}
	decode.CopyKinds(&f.Handler)
	switch path += ".handler"; {
	case f.Handler.Exec != nil:
		f.Handler.Exec.completeCommand(x.Source, path+".exec")
	case f.Handler.HTTP != nil:
		f.Handler.HTTP.CheckRequests(x.Source, path+".http")
	default:
		code.completeCode(path, name, f.Handler)
	}
	return f
}

// completeOutputs completes a copy of the outputs.
func (x *completion) completeOutputs(path string, given Outputs) Outputs {
	if x.Given(path) && len(given) == 0 {
		x.Wrong(path, "the list is empty; remove the key to drop results")
	}
	out := slices.Clone(given)
	for i := range out {
		at := path
		if x.Given(path+"[0]") || len(out) > 1 {
			at = fmt.Sprintf("%s[%d]", path, i)
		}
		x.completeOutput(at, &out[i])
		for _, earlier := range out[:i] {
			switch {
			case earlier.Name != "" && earlier.Name == out[i].Name:
				x.Wrong(at+".name", "another output of the function has the name %s, too; names are unique in a function", earlier.Name)
			case reflect.DeepEqual(earlier, out[i]):
				x.Wrong(at, "it is listed twice; each result would be sent twice")
			}
		}
	}
	return out
}

// outputName is the form of the name of an output: an identifier, also with hyphens, or $return.
var outputName = regexp.MustCompile(`^[A-Za-z_$][A-Za-z0-9_$-]{0,63}$`)

func (x *completion) completeOutput(path string, o *Output) {
	if oneKind(x.Source, path, "results go to", pointedKinds(*o)) {
		decode.CopyKinds(o)
		o.kindSettings().completeOutput(x, path)
	}
	if o.Name != "" && !outputName.MatchString(o.Name) {
		x.Wrong(path+".name", "%q cannot be the name of an output: it has at most 64 letters, digits, _, - and $, and does not begin with a digit or -", o.Name)
	}
}

// shareVariables sets, for each app and command, the variables from environment files and the names of the
// variables that the configuration reads. The latter are mostly connection strings, which functions do not need.
func (x *completion) shareVariables() {
	read := slices.Sorted(maps.Keys(x.Variables))
	for name, app := range x.Apps {
		app.Environment.Withheld, app.Environment.Files = read, x.FileEnv
		x.Apps[name] = app
	}
	for _, f := range x.Functions {
		if f.Handler.Exec != nil {
			f.Handler.Exec.Environment.Withheld, f.Handler.Exec.Environment.Files = read, x.FileEnv
		}
	}
}

// checkInstances checks settings that do not work with several instances.
func (x *completion) checkInstances() {
	i := x.Scale.Instances
	if i.Max < 2 || i.External {
		return
	}
	x.checkOrderingTokens()
	for _, name := range sortedNames(x.Connections) {
		if c := x.Connections[name]; c.Embedded() && c.Listen == "off" {
			x.Wrong("connections."+name+".listen", "several instances connect to the embedded server through its listener; remove listen, or set scale.instances.max to 1")
		}
	}
}
