package configs

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/drover-run/drover/triggers/httptrigger/routes"
)

// HTTPTrigger is a route of the server of HTTP functions.
type HTTPTrigger struct {
	Route              string  `yaml:"route" desc:"path below http.prefix, such as orders/{id:int}, with the parameters and constraints of Azure Functions; not case-sensitive; by default the function's name; / is the prefix itself"`
	Methods            Strings `yaml:"methods" desc:"one or a list, such as [GET, POST]; by default all"`
	Auth               string  `yaml:"auth" default:"function" enum:"anonymous,function,admin" desc:"which key a request needs: anonymous is none; function is a key of the function, one for all, or the master key; admin is the master key (http.keys)"`
	CancelOnDisconnect *bool   `yaml:"cancel_on_disconnect" desc:"cancel the function when its client disconnects; by default true"`

	// Server has the settings of the server. Complete sets it, so that a change of them is one of
	// the function.
	Server HTTPServer `yaml:"-"`

	shape string // of the route with its prefix, to find two that are the same
}

// methodForm matches a method. The standard has no list of them.
var methodForm = regexp.MustCompile(`^[A-Z][A-Z-]{0,31}$`)

// ParseRoute returns the route with its prefix.
func (t *HTTPTrigger) ParseRoute() (*routes.Route, error) {
	return routes.Parse(strings.Trim(t.Server.Prefix, "/") + "/" + strings.Trim(t.Route, "/"))
}

func (t *HTTPTrigger) connectionName() string { return "" }

func (t *HTTPTrigger) describeTrigger() string {
	route, methods := t.Route, "all methods"
	if r, err := t.ParseRoute(); err == nil {
		route = r.String()
	}
	if len(t.Methods) > 0 {
		methods = strings.Join(t.Methods, ", ")
	}
	key := map[string]string{"anonymous": "without a key", "function": "with a key", "admin": "with the master key"}[t.Auth]
	if t.Auth != "anonymous" && t.Server.IsLocal() && !t.Server.HasKeys() {
		key = "without a key, because http.listen is local and there are no keys"
	}
	return fmt.Sprintf("http://%s/%s, %s, %s", t.Server.Listen, route, methods, key)
}

func (t *HTTPTrigger) completeTrigger(x *completion, path, name string, retry Retry) {
	path += ".http"
	if t.Route == "" {
		t.Route = name
	}
	t.Server = x.HTTP
	t.Methods = slices.Clone(t.Methods)
	for i, m := range t.Methods {
		if t.Methods[i] = strings.ToUpper(m); !methodForm.MatchString(t.Methods[i]) {
			x.Wrong(path+".methods", "%q is not a method; write [GET, POST], for example", m)
		}
	}
	if retry.MaxAttempts != 1 {
		x.Wrong("functions."+name+".retry.max_attempts", "it is %d, but a request runs once, because its client waits for the response; remove it", retry.MaxAttempts)
	}
	r, err := t.ParseRoute()
	if err != nil {
		x.Wrong(path+".route", "%v", err)
		return
	}
	t.shape = r.Shape()
	for _, other := range sortedNames(x.Functions) {
		o := x.Functions[other].Trigger.HTTP
		if other < name && o != nil && o.shape == t.shape && overlap(o.Methods, t.Methods) {
			x.Wrong(path+".route", "function %s has the same route %q, with the same methods", other, r)
		}
	}
}

// overlap reports whether two lists of methods have one in common. An empty list stands for all methods.
func overlap(a, b []string) bool {
	return len(a) == 0 || len(b) == 0 || slices.ContainsFunc(a, func(m string) bool { return slices.Contains(b, m) })
}

// checkHTTP checks the server together with its functions.
func (x *completion) checkHTTP() {
	var locked []string
	used := false
	for _, name := range sortedNames(x.Functions) {
		f := x.Functions[name]
		if f.Trigger.HTTP == nil {
			continue
		}
		if used = true; f.Trigger.HTTP.Auth != "anonymous" {
			locked = append(locked, name)
		}
		if f.Output.TakesResult() {
			x.Wrong("functions."+name+".output", "the result of a function with an http trigger is the response; give each output a name, under which the function sends to it")
		}
	}
	if len(locked) > 0 && !x.HTTP.IsLocal() && !x.HTTP.HasKeys() {
		x.Warn("http: all requests to %s are answered with 401, because %s can be reached from other machines and there is no key; make one with `openssl rand -hex 32`, and set http.keys.all to it, usually as ${NAME} or file:PATH; or set auth: anonymous", strings.Join(locked, ", "), x.HTTP.Listen)
	}
	if used && x.HTTP.PicksPort() && x.Scale.Instances.Max > 1 && !x.Scale.Instances.External {
		x.Wrong("http.listen", "several instances share one port; write a port other than 0, or set scale.instances.max to 1")
	}
	for name := range x.HTTP.Keys.Functions {
		if t := x.Functions[name].Trigger.HTTP; t == nil {
			x.Wrong("http.keys.functions."+name, "there is no function %s with an http trigger", name)
		}
	}
}
