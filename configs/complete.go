package configs

import (
	"fmt"
	"maps"
	"net"
	"net/url"
	"path/filepath"
	"reflect"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

// The variables that users of Azure Functions know.
const (
	processesVariable = "FUNCTIONS_WORKER_PROCESS_COUNT"
	threadsVariable   = "PYTHON_THREADPOOL_THREAD_COUNT"
)

// implicitConnection is the connection of a file that has none.
const implicitConnection = "embedded"

// Complete fills in what follows from other keys and from the environment, and
// checks what one key alone can't tell. Load and Parse call it; a program that
// writes its configuration in Go leaves it to the daemon. Calling it again does
// nothing. The error is an Errors.
func (c *Config) Complete(env Env) error {
	if c.completed {
		return nil
	}
	if c.source == nil {
		c.source = &source{dir: "."}
		c.fillIn()
	}
	x := &completion{c, c.source, env}
	x.all()
	if err := x.errors(); err != nil {
		return err
	}
	c.completed = true
	return nil
}

// fillIn sets the defaults of a configuration that a program made, where zero
// means the default.
func (c *Config) fillIn() {
	setDefaults(reflect.ValueOf(c).Elem())
	for name, v := range c.Connections {
		setDefaults(reflect.ValueOf(&v).Elem())
		c.Connections[name] = v
	}
	for name, v := range c.Functions {
		setDefaults(reflect.ValueOf(&v).Elem())
		if v.Trigger.NATS != nil {
			nats := *v.Trigger.NATS
			setDefaults(reflect.ValueOf(&nats).Elem())
			v.Trigger.NATS = &nats
		}
		if v.Trigger.ServiceBus != nil {
			bus := *v.Trigger.ServiceBus
			setDefaults(reflect.ValueOf(&bus).Elem())
			v.Trigger.ServiceBus = &bus
		}
		if v.Handler.Python != nil {
			python := *v.Handler.Python
			v.Handler.Python = &python
		}
		if v.Output != nil {
			output := *v.Output
			v.Output = &output
		}
		c.Functions[name] = v
	}
}

type completion struct {
	*Config
	*source
	env Env
}

// wrong notes a problem at a path's value.
func (x *completion) wrong(path, format string, args ...any) {
	x.problem(x.at(path), path+": "+format, args...)
}

func names[T any](m map[string]T) []string { return slices.Sorted(maps.Keys(m)) }

func (x *completion) all() {
	if len(x.Functions) == 0 {
		x.wrong("functions", "there is none; name at least one function")
		return
	}
	x.DataDir = x.absolute(x.DataDir)
	if len(x.Connections) == 0 {
		embedded := Connection{NATS: Strings{"embedded"}}
		setDefaults(reflect.ValueOf(&embedded).Elem())
		x.Connections = map[string]Connection{implicitConnection: embedded}
	}
	if x.Apps == nil {
		x.Apps = make(map[string]App)
	}
	for _, name := range names(x.Connections) {
		c := x.Connections[name]
		c.connectionStringFile = x.files["connections."+name+".connection_string"]
		x.Connections[name] = c
		x.connection("connections."+name, c)
	}
	for _, name := range names(x.Apps) {
		x.Apps[name] = x.app("apps."+name, x.Apps[name])
	}
	shortForms := make(map[string]string)
	for _, name := range names(x.Functions) {
		x.Functions[name] = x.function(name, x.Functions[name], shortForms)
	}
}

func (x *completion) absolute(path string) string {
	if !filepath.IsAbs(path) {
		path = filepath.Join(x.dir, path)
	}
	if absolute, err := filepath.Abs(path); err == nil {
		return absolute
	}
	return path
}

// Embedded reports whether the connection is to the server in this process.
func (c Connection) Embedded() bool { return len(c.NATS) == 1 && c.NATS[0] == "embedded" }

// ServiceBus reports whether the connection is to an Azure Service Bus namespace.
func (c Connection) ServiceBus() bool { return c.ConnectionString != "" || c.Namespace != "" }

// ReadConnectionString is the connection string as it is now: one from a file is
// read again.
func (c Connection) ReadConnectionString() (string, error) {
	if c.connectionStringFile == "" {
		return string(c.ConnectionString), nil
	}
	return fileValue(c.connectionStringFile, "")
}

// The keys of a connection that are for one kind.
var (
	natsOnly      = []string{"credentials", "nkey", "token", "user", "password", "tls.cert", "tls.key", "tls.server_name", "listen", "sync", "max_store"}
	namespaceOnly = []string{"identity", "client_id", "tenant_id", "certificate", "endpoint"}
)

// only notes keys that are for another kind.
func (x *completion) only(path, kind string, keys []string) {
	for _, key := range keys {
		if at, given := x.where[path+"."+key]; given {
			x.problem(at, "%s.%s: this is for %s only; leave it out", path, key, kind)
		}
	}
}

// namespaceName is a namespace's host, also in the clouds of China and the US
// government.
var namespaceName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9-]{4,48}[A-Za-z0-9](\.[a-z0-9-]+)+$`)

func (x *completion) serviceBusConnection(path string, c Connection) {
	x.only(path, "NATS", natsOnly)
	if c.Namespace != "" {
		x.namespace(path, c)
		return
	}
	x.only(path, "a namespace", namespaceOnly)
	parts := make(map[string]string)
	for part := range strings.SplitSeq(string(c.ConnectionString), ";") {
		name, value, _ := strings.Cut(part, "=")
		parts[strings.ToLower(strings.TrimSpace(name))] = strings.TrimSpace(value)
	}
	if !strings.HasPrefix(parts["endpoint"], "sb://") || parts["sharedaccesskey"] == "" && parts["sharedaccesssignature"] == "" {
		x.wrong(path+".connection_string", "this is no connection string of Service Bus: Endpoint=sb://NAMESPACE.servicebus.windows.net/;SharedAccessKeyName=...;SharedAccessKey=...")
	}
}

func (x *completion) namespace(path string, c Connection) {
	if !namespaceName.MatchString(c.Namespace) {
		x.wrong(path+".namespace", "%q is no host of a namespace; write it as contoso.servicebus.windows.net", c.Namespace)
	}
	if c.Identity == "certificate" && (c.Certificate == "" || c.ClientID == "" || c.TenantID == "") {
		x.wrong(path, "identity: certificate needs certificate, client_id and tenant_id")
	}
	if c.Identity != "certificate" && c.Certificate != "" {
		x.wrong(path+".certificate", "it goes with identity: certificate")
	}
	if c.Endpoint != "" {
		if _, port, err := net.SplitHostPort(c.Endpoint); err != nil || port == "" {
			x.wrong(path+".endpoint", "%q is no address; write HOST:PORT", c.Endpoint)
		}
	}
}

func (x *completion) connection(path string, c Connection) {
	var kinds []string
	for _, kind := range []struct {
		key string
		set bool
	}{{"nats", len(c.NATS) > 0}, {"connection_string", c.ConnectionString != ""}, {"namespace", c.Namespace != ""}} {
		if kind.set {
			kinds = append(kinds, kind.key)
		}
	}
	switch {
	case len(kinds) > 1:
		x.wrong(path, "it has both %s; a connection goes to one of them", strings.Join(kinds, " and "))
		return
	case c.ServiceBus():
		x.serviceBusConnection(path, c)
		return
	case len(c.NATS) == 0:
		x.wrong(path, "it needs nats (embedded, or the URLs of a cluster's servers), or connection_string or namespace (of Azure Service Bus)")
		return
	}
	x.only(path, "a namespace", namespaceOnly)
	var ways []string
	for _, way := range []struct {
		key string
		set bool
	}{{"credentials", c.Credentials != ""}, {"nkey", c.NKey != ""}, {"token", c.Token != ""}, {"user", c.User != ""}} {
		if way.set {
			ways = append(ways, way.key)
		}
	}
	if c.Embedded() {
		if len(ways) > 0 || c.Password != "" || c.TLS != nil {
			x.wrong(path, "the embedded server needs no credentials, nkey, token, user, password or tls; leave them out")
		}
		x.listen(path+".listen", c.Listen)
		return
	}
	if len(ways) > 1 {
		x.wrong(path, "it has %s; one way to say who you are is enough", strings.Join(ways, " and "))
	}
	if c.Password != "" && c.User == "" {
		x.wrong(path+".password", "it needs a user")
	}
	if c.TLS != nil && (c.TLS.Cert == "") != (c.TLS.Key == "") {
		x.wrong(path+".tls", "cert and key go together")
	}
	for _, key := range []string{"listen", "sync", "max_store"} {
		if at, given := x.where[path+"."+key]; given {
			x.problem(at, "%s.%s: this is for the embedded server only; leave it out", path, key)
		}
	}
	for i, u := range c.NATS {
		at := path + ".nats"
		if len(c.NATS) > 1 {
			at = fmt.Sprintf("%s.nats[%d]", path, i)
		}
		parsed, err := url.Parse(u)
		switch {
		case u == "embedded":
			x.wrong(at, "embedded stands alone, without URLs beside it")
		case err != nil, parsed.Host == "":
			x.wrong(at, "this is neither embedded nor a URL; write it as nats://host:4222")
		case !slices.Contains([]string{"nats", "tls", "ws", "wss"}, parsed.Scheme):
			x.wrong(at, "a URL that begins with %s://; nats, tls, ws and wss are known", parsed.Scheme)
		case parsed.User != nil:
			x.secrets = append(x.secrets, parsed.User.String())
			x.wrong(at, "no user or password in a URL, which gets printed; use the keys user, password or token")
		}
	}
}

func (x *completion) listen(path, listen string) {
	if listen == "off" {
		return
	}
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		x.wrong(path, "%q is no address; write HOST:PORT, or off", listen)
		return
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		x.wrong(path, "%q is no port; write 0 to 65535", port)
	}
	ip := net.ParseIP(host)
	if host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		x.Warnings = append(x.Warnings, fmt.Sprintf("%s: %s can be reached from other machines, without encryption; the token in the data directory is all that keeps them out", path, listen))
	}
}

// app completes a pool's settings.
func (x *completion) app(path string, a App) App {
	if a.Path == "" {
		x.wrong(path, "it lacks a path")
		return a
	}
	a.Dir, a.DefaultModule = x.absolute(a.Path), "function_app"
	if file := filepath.Base(a.Dir); strings.HasSuffix(file, ".py") {
		a.Dir, a.DefaultModule = filepath.Dir(a.Dir), strings.TrimSuffix(file, ".py")
	}
	if strings.ContainsRune(a.Interpreter, filepath.Separator) {
		a.Interpreter = x.absolute(a.Interpreter)
	}
	a.Processes, a.ProcessesFrom = x.count(path+".processes", a.Processes, processesVariable, runtime.GOMAXPROCS(0), "default: one a core")
	a.Threads, a.ThreadsFrom = x.count(path+".threads", a.Threads, threadsVariable, 1, "default: inline")
	return a
}

// count is a number from the file, else from a variable, else its default, and
// where it is from.
func (x *completion) count(path string, given int, variable string, def int, why string) (int, string) {
	if given > 0 {
		return given, path
	}
	text, found := x.env(variable)
	if !found || text == "" {
		return def, why
	}
	n, err := strconv.Atoi(strings.TrimSpace(text))
	if err != nil || n < 1 || n > 4096 {
		x.wrong(path, "the environment's %s is %q; it must be a number from 1 to 4096, or unset", variable, text)
		return def, why
	}
	return n, variable
}

func (x *completion) function(name string, f Function, shortForms map[string]string) Function {
	path := "functions." + name
	if f.Retry.Initial > f.Retry.Max {
		x.wrong(path+".retry", "initial (%v) is more than max (%v)", f.Retry.Initial, f.Retry.Max)
	}
	switch {
	case f.Trigger.NATS != nil && f.Trigger.ServiceBus != nil:
		x.wrong(path+".trigger", "it has both nats and servicebus; messages come from exactly one kind")
	case f.Trigger.ServiceBus != nil:
		bus := *f.Trigger.ServiceBus
		x.serviceBusTrigger(path+".trigger.servicebus", name, &bus)
		f.Trigger.ServiceBus = &bus
	case f.Trigger.NATS != nil:
		nats := *f.Trigger.NATS
		x.natsTrigger(path+".trigger.nats", name, &nats)
		f.Trigger.NATS = &nats
	default:
		x.wrong(path+".trigger", "it needs exactly one kind; known are: nats, servicebus")
	}
	if f.Retry.Mode == "scheduled" {
		x.scheduled(path+".retry.mode", f.Trigger.ServiceBus)
	}
	if f.Output != nil {
		output := *f.Output
		x.output(path+".output", &output)
		f.Output = &output
	}
	switch {
	case f.Handler.Go != "" && f.Handler.Python != nil:
		x.wrong(path+".handler", "it has both go and python; exactly one kind runs a function")
	case f.Handler.Go != "":
	case f.Handler.Python != nil:
		python := *f.Handler.Python
		x.pythonHandler(path+".handler.python", name, &python, shortForms)
		f.Handler.Python = &python
	default:
		x.wrong(path+".handler", "it needs exactly one kind; known are: go, python")
	}
	return f
}

// streamName is what NATS allows as the name of a stream or consumer, and what
// does as a directory's.
var streamName = regexp.MustCompile(`^[^\s.*>/\\\x00-\x1f\x7f]{1,255}$`)

func (x *completion) natsTrigger(path, name string, t *NATSTrigger) {
	connection, found := x.connectionOf(path, &t.Connection, "NATS", func(c Connection) bool { return len(c.NATS) > 0 })
	if !found {
		return
	}
	if t.Create == nil {
		create := connection.Embedded()
		t.Create = &create
	}
	def := func(v *string, value string) {
		if *v == "" {
			*v = value
		}
	}
	def(&t.Stream, name)
	def(&t.Consumer, name)
	def(&t.DeadLetters, t.Stream+"-DEAD")
	if *t.Create {
		def(&t.Subject, name)
	}
	for _, key := range []struct{ name, value string }{{"stream", t.Stream}, {"consumer", t.Consumer}, {"dead_letters", t.DeadLetters}} {
		if !streamName.MatchString(key.value) {
			x.wrong(path+"."+key.name, "%q cannot be the name of a stream or consumer: no spaces, dots, slashes, * or >", key.value)
		}
	}
	if t.DeadLetters == t.Stream {
		x.wrong(path+".dead_letters", "it is the stream itself; rejected messages would come back")
	}
	if t.Subject != "" && !validSubject(t.Subject) {
		x.wrong(path+".subject", "%q is no subject: tokens with dots between them, * for a token, > for the rest", t.Subject)
	}
	for _, other := range names(x.Functions) {
		o := x.Functions[other].Trigger.NATS
		if other >= name || o == nil {
			continue
		}
		if o.Connection == t.Connection && o.Stream == t.Stream && o.Consumer == t.Consumer {
			x.wrong(path, "function %s reads the same consumer, %s of stream %s: each would get a part of the messages; give each a consumer", other, t.Consumer, t.Stream)
		}
	}
}

// connectionOf is the connection that a trigger names, or the only one of its kind.
func (x *completion) connectionOf(path string, name *string, kind string, fits func(Connection) bool) (Connection, bool) {
	if *name == "" {
		var fitting []string
		for _, n := range names(x.Connections) {
			if fits(x.Connections[n]) {
				fitting = append(fitting, n)
			}
		}
		switch len(fitting) {
		case 0:
			x.wrong(path, "there is no connection to %s; add one to connections", kind)
			return Connection{}, false
		case 1:
			*name = fitting[0]
		default:
			x.wrong(path, "connection is needed, since there are several: %s", strings.Join(fitting, ", "))
			return Connection{}, false
		}
	}
	c, found := x.Connections[*name]
	if !found {
		x.wrong(path+".connection", "there is no connection %q%s", *name, meant(*name, names(x.Connections)))
		return c, false
	}
	if !fits(c) {
		x.wrong(path+".connection", "the connection %s is not one to %s", *name, kind)
		return c, false
	}
	return c, true
}

func (x *completion) serviceBusTrigger(path, name string, t *ServiceBusTrigger) {
	if _, found := x.connectionOf(path, &t.Connection, "Azure Service Bus", Connection.ServiceBus); !found {
		return
	}
	switch {
	case t.Queue != "" && (t.Topic != "" || len(t.Subscription) > 0):
		x.wrong(path, "it has a queue and a topic or subscription; messages come from a queue, or from a subscription of a topic")
		return
	case t.Topic == "" && len(t.Subscription) > 0:
		x.wrong(path, "it has a subscription and no topic")
		return
	case t.Topic != "" && len(t.Subscription) == 0:
		t.Subscription = Strings{name}
	case t.Topic == "" && t.Queue == "":
		t.Queue = name
	}
	x.entity(path+".queue", t.Queue)
	x.entity(path+".topic", t.Topic)
	for i, s := range t.Subscription {
		switch {
		case !subscriptionName.MatchString(s):
			x.wrong(path+".subscription", "%q cannot be the name of a subscription: letters, digits, . - and _, at most 50, with a letter or digit first and last", s)
		case slices.Contains(t.Subscription[:i], s):
			x.wrong(path+".subscription", "%s is there twice", s)
		}
	}
	if !t.Sessions {
		for _, key := range []string{"max_concurrent_sessions", "session_idle_timeout", "session_turn", "session_state"} {
			if at, given := x.where[path+"."+key]; given {
				x.problem(at, "%s.%s: this goes with sessions: true", path, key)
			}
		}
	}
	for _, other := range names(x.Functions) {
		o := x.Functions[other].Trigger.ServiceBus
		if other >= name || o == nil || o.Connection != t.Connection {
			continue
		}
		shared := slices.ContainsFunc(t.Subscription, func(s string) bool { return slices.Contains(o.Subscription, s) })
		if t.Queue != "" && strings.EqualFold(o.Queue, t.Queue) || t.Topic != "" && strings.EqualFold(o.Topic, t.Topic) && shared {
			x.wrong(path, "function %s reads the same %s: each would get a part of the messages; give each one of its own", other, kindOf(t))
		}
	}
}

func kindOf(t *ServiceBusTrigger) string {
	if t.Queue != "" {
		return "queue"
	}
	return "subscription"
}

// The names that the service takes.
var (
	entityName       = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._/~-]{0,258}[A-Za-z0-9_])?$`)
	subscriptionName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,48}[A-Za-z0-9_])?$`)
)

func (x *completion) entity(path, name string) {
	if name != "" && !entityName.MatchString(name) {
		x.wrong(path, "%q cannot be the name of a queue or topic: letters, digits, . - _ ~ and /, at most 260, with a letter or digit first and last", name)
	}
}

// scheduled refuses a retry by a copy where a copy would not be the same: in a
// topic it reaches every subscription, and a session loses its order.
func (x *completion) scheduled(path string, t *ServiceBusTrigger) {
	switch {
	case t == nil:
		x.wrong(path, "scheduled is for Service Bus queues; leave it out, or set hold")
	case t.Topic != "":
		x.wrong(path, "scheduled is for queues: a copy sent to a topic reaches every subscription; set hold")
	case t.Sessions:
		x.wrong(path, "scheduled is not for sessions: the copy would lose its place; set hold")
	}
}

func (x *completion) output(path string, o *Output) {
	switch {
	case o.NATS != nil && o.ServiceBus != nil:
		x.wrong(path, "it has both nats and servicebus; results go to exactly one kind")
	case o.NATS != nil:
		nats := *o.NATS
		x.connectionOf(path+".nats", &nats.Connection, "NATS", func(c Connection) bool { return len(c.NATS) > 0 })
		if !validSubject(nats.Subject) || strings.ContainsAny(nats.Subject, "*>") {
			x.wrong(path+".nats.subject", "%q is no subject to send to: tokens with dots between them, without * and >", nats.Subject)
		}
		o.NATS = &nats
	case o.ServiceBus != nil:
		bus := *o.ServiceBus
		x.connectionOf(path+".servicebus", &bus.Connection, "Azure Service Bus", Connection.ServiceBus)
		if (bus.Queue == "") == (bus.Topic == "") {
			x.wrong(path+".servicebus", "it needs a queue or a topic, and not both")
		}
		x.entity(path+".servicebus.queue", bus.Queue)
		x.entity(path+".servicebus.topic", bus.Topic)
		o.ServiceBus = &bus
	default:
		x.wrong(path, "it needs exactly one kind; known are: nats, servicebus")
	}
}

func validSubject(subject string) bool {
	tokens := strings.Split(subject, ".")
	for i, t := range tokens {
		if t == "" || strings.ContainsAny(t, " \t\r\n") || t == ">" && i < len(tokens)-1 {
			return false
		}
	}
	return true
}

var (
	pythonName   = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	pythonModule = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$`)
)

func (x *completion) pythonHandler(path, name string, h *PythonHandler, shortForms map[string]string) {
	switch {
	case h.App != "" && h.Path != "":
		x.wrong(path, "it has both app and path; app names an entry of apps, path makes one")
		return
	case h.App == "" && h.Path == "":
		x.wrong(path, "it lacks a path: the directory of the code, or one file in it (or app, an entry of apps)")
		return
	case h.App != "":
		if h.Interpreter != "" || h.Processes != 0 || h.Threads != 0 {
			x.wrong(path, "interpreter, processes and threads go with path; those of an app stand once, in apps.%s", h.App)
		}
		if _, found := x.Apps[h.App]; !found {
			x.wrong(path+".app", "there is no app %q%s", h.App, meant(h.App, names(x.Apps)))
			return
		}
	default:
		x.shortForm(path, h, shortForms)
	}
	if h.Module == "" {
		h.Module = x.Apps[h.App].DefaultModule
	}
	if h.Function == "" {
		h.Function = name
	}
	if !pythonModule.MatchString(h.Module) {
		x.wrong(path+".module", "%q is no module; write it as billing.jobs", h.Module)
	}
	if !pythonName.MatchString(h.Function) {
		x.wrong(path+".function", "%q is no name of a Python function; name it with function", h.Function)
	}
}

// shortForm makes an app of a handler's path, or joins the one that another
// function made of the same directory.
func (x *completion) shortForm(path string, h *PythonHandler, shortForms map[string]string) {
	own := App{Path: h.Path, Interpreter: h.Interpreter, Processes: h.Processes, Threads: h.Threads}
	whole := x.app(path, own)
	key := whole.Dir
	if relative, err := filepath.Rel(x.dir, whole.Dir); err == nil && x.dir != "." {
		key = relative
	}
	h.App = key
	first, found := shortForms[key]
	if !found {
		shortForms[key] = path
		x.Apps[key] = whole
		return
	}
	have := x.Apps[key]
	if have.Interpreter != whole.Interpreter || have.Processes != whole.Processes || have.Threads != whole.Threads {
		at := x.at(first)
		x.wrong(path, "interpreter, processes and threads differ from those of %s (line %d), which has the same path and so the same worker processes; make them equal, or name an app for both in apps", first, at.Line)
	}
	if h.Module == "" {
		h.Module = whole.DefaultModule // another file of the same directory
	}
}
