package configs

import (
	"fmt"
	"maps"
	"reflect"
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
		decode.Defaults(&v)
		for _, own := range copyKinds(&v.Trigger) {
			decode.Defaults(own)
		}
		for _, own := range copyKinds(&v.Handler) {
			decode.Defaults(own)
		}
		if http := v.Handler.HTTP; http != nil && http.Batch != nil {
			batch := *http.Batch
			decode.Defaults(&batch)
			http.Batch = &batch
		}
		v.Output = slices.Clone(v.Output)
		for i := range v.Output {
			for _, own := range copyKinds(&v.Output[i]) {
				decode.Defaults(own)
			}
		}
		c.Functions[name] = v
	}
}

func (x *completion) completeAll() {
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
	x.Admin.completeServer(x.Source)
	x.Probes.checkListen(x.Source)
	x.Traces.Complete(x.Source, "traces")
	x.Scale.Complete(x.Source, "scale")
	code := codeHandlers{x.Source, x.Apps, make(map[string]string)}
	for _, name := range sortedNames(x.Functions) {
		x.Functions[name] = x.completeFunction(name, x.Functions[name], code)
	}
	x.withholdVariables()
	x.checkInstances()
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
	if f.Retry.Initial > f.Retry.Max {
		x.Wrong(path+".retry", "initial (%v) is more than max (%v)", f.Retry.Initial, f.Retry.Max)
	}
	if oneKind(x.Source, path+".trigger", "messages come from", pointedKinds(f.Trigger)) {
		copyKinds(&f.Trigger)
		f.Trigger.kindSettings().completeTrigger(x, path+".trigger", name, f.Retry)
	}
	if f.Retry.Mode == "scheduled" {
		x.checkScheduled(path+".retry.mode", f.Trigger)
	}
	f.Output = x.completeOutputs(path+".output", f.Output)
	if !oneKind(x.Source, path+".handler", "a function has", f.Handler.givenKinds()) {
		return f
	}
	copyKinds(&f.Handler)
	switch path += ".handler"; {
	case f.Handler.Exec != nil:
		f.Handler.Exec.completeCommand(x.Source, path+".exec")
	case f.Handler.HTTP != nil:
		f.Handler.HTTP.checkRequests(x.Source, path+".http")
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
			if reflect.DeepEqual(earlier, out[i]) {
				x.Wrong(at, "it is listed twice; each result would be sent twice")
			}
		}
	}
	return out
}

func (x *completion) completeOutput(path string, o *Output) {
	if oneKind(x.Source, path, "results go to", pointedKinds(*o)) {
		copyKinds(o)
		o.kindSettings().completeOutput(x, path)
	}
}

// withholdVariables sets, for each app and command, the variables that the configuration reads.
// They are mostly connection strings, which functions do not need.
func (x *completion) withholdVariables() {
	read := slices.Sorted(maps.Keys(x.Variables))
	for name, app := range x.Apps {
		app.Environment.Withheld = read
		x.Apps[name] = app
	}
	for _, f := range x.Functions {
		if f.Handler.Exec != nil {
			f.Handler.Exec.Environment.Withheld = read
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
