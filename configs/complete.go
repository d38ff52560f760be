package configs

import (
	"maps"
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

// byLoad is where a number of processes is from that follows the load.
const byLoad = "default: by load, at most one a core"

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
	for name, v := range c.Apps {
		setDefaults(reflect.ValueOf(&v).Elem())
		c.Apps[name] = v
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
		if v.Trigger.StorageQueue != nil {
			queue := *v.Trigger.StorageQueue
			setDefaults(reflect.ValueOf(&queue).Elem())
			v.Trigger.StorageQueue = &queue
		}
		if v.Handler.Exec != nil {
			run := *v.Handler.Exec
			setDefaults(reflect.ValueOf(&run).Elem())
			v.Handler.Exec = &run
		}
		if v.Handler.HTTP != nil {
			http := *v.Handler.HTTP
			setDefaults(reflect.ValueOf(&http).Elem())
			if http.Batch != nil {
				batch := *http.Batch
				setDefaults(reflect.ValueOf(&batch).Elem())
				http.Batch = &batch
			}
			v.Handler.HTTP = &http
		}
		if v.Handler.Python != nil {
			python := *v.Handler.Python
			v.Handler.Python = &python
		}
		v.Output = v.Output.filledIn()
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
	x.admin()
	x.traces(&x.Traces)
	x.scale("scale", &x.Scale)
	shortForms := make(map[string]string)
	for _, name := range names(x.Functions) {
		x.Functions[name] = x.function(name, x.Functions[name], shortForms)
	}
	x.together()
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

// kind is one of several keys of which one is given.
type kind struct {
	key   string
	given bool
}

func (t Trigger) kinds() []kind {
	return []kind{{"nats", t.NATS != nil}, {"servicebus", t.ServiceBus != nil}, {"storage_queue", t.StorageQueue != nil}}
}

func (h Handler) kinds() []kind {
	return []kind{{"go", h.Go != ""}, {"python", h.Python != nil}, {"http", h.HTTP != nil}, {"exec", h.Exec != nil}}
}

// oneKind notes where not exactly one of the keys is given.
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
		x.wrong(path, "it needs exactly one kind; known are: %s", strings.Join(known, ", "))
	case 1:
		return true
	default:
		x.wrong(path, "it has both %s; %s exactly one kind", strings.Join(given, " and "), what)
	}
	return false
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
	a.Processes, a.ProcessesFrom = x.count(path+".processes", a.Processes, processesVariable, runtime.GOMAXPROCS(0), byLoad)
	a.Scaled = a.ProcessesFrom == byLoad
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
	case !x.oneKind(path+".trigger", "messages come from", f.Trigger.kinds()):
	case f.Trigger.ServiceBus != nil:
		bus := *f.Trigger.ServiceBus
		x.serviceBusTrigger(path+".trigger.servicebus", name, &bus)
		f.Trigger.ServiceBus = &bus
	case f.Trigger.NATS != nil:
		nats := *f.Trigger.NATS
		x.natsTrigger(path+".trigger.nats", name, &nats)
		f.Trigger.NATS = &nats
	case f.Trigger.StorageQueue != nil:
		queue := *f.Trigger.StorageQueue
		x.storageQueueTrigger(path+".trigger.storage_queue", name, &queue, f.Retry.MaxAttempts)
		f.Trigger.StorageQueue = &queue
	}
	if f.Retry.Mode == "scheduled" {
		x.scheduled(path+".retry.mode", f.Trigger.ServiceBus)
	}
	f.Output = x.outputs(path+".output", f.Output)
	switch {
	case !x.oneKind(path+".handler", "a function is run by", f.Handler.kinds()):
	case f.Handler.Exec != nil:
		run := *f.Handler.Exec
		if run.Dir = x.absolute(run.Dir); len(run.Command) == 0 || run.Command[0] == "" {
			x.wrong(path+".handler.exec.command", "it is empty; write it as [./convert, --fast]")
		} else if strings.ContainsRune(run.Command[0], filepath.Separator) && !filepath.IsAbs(run.Command[0]) {
			run.Command = append(Strings{filepath.Join(run.Dir, run.Command[0])}, run.Command[1:]...)
		}
		f.Handler.Exec = &run
	case f.Handler.HTTP != nil:
		x.httpHandler(path+".handler.http", f.Handler.HTTP)
	case f.Handler.Python != nil:
		python := *f.Handler.Python
		x.pythonHandler(path+".handler.python", name, &python, shortForms)
		f.Handler.Python = &python
	}
	return f
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
	setDefaults(reflect.ValueOf(&own).Elem())
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
