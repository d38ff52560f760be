package configs

import (
	"cmp"
	"fmt"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/drover-run/drover/configs/decode"
	"github.com/drover-run/drover/configs/problems"
)

// This file completes apps, and the handlers that run in their worker processes:
// python, node and worker. A handler names an app, or has a path that defines one.

// Variables of Azure Functions.
const (
	processesVariable = "FUNCTIONS_WORKER_PROCESS_COUNT"
	threadsVariable   = "PYTHON_THREADPOOL_THREAD_COUNT"
)

// The origins of numbers that the user did not set.
const (
	byLoad      = "auto: by load and by measure, one a core at first"
	byMeasure   = "auto: by measure, at first"
	inOneThread = "functions run in one thread"
)

// firstCoroutines is the number of async calls in flight in a process before any measurement.
const firstCoroutines = 512

// The languages of apps, named as the handlers that run in them.
const (
	Python = "python"
	Node   = "node"
	Worker = "worker" // any program that speaks the worker protocol
)

// Code is a function of an app.
type Code struct {
	Language              string // Python, Node or Worker
	App, Module, Function string
}

// Code returns the function that a handler runs in worker processes; found is false for other
// handlers.
func (h Handler) Code() (c Code, found bool) {
	p := h.code()
	if p == nil {
		return Code{}, false
	}
	return Code{p.language, *p.app, *p.module, *p.function}, true
}

// code points to the keys of a handler, and has the app that the keys beside path define.
type code struct {
	language              string
	app, module, function *string
	own                   App
}

// code returns nil for a handler without worker processes.
func (h Handler) code() *code {
	switch {
	case h.Python != nil:
		p := h.Python
		return &code{Python, &p.App, &p.Module, &p.Function, App{Path: p.Path, Interpreter: p.Interpreter, Processes: p.Processes, Threads: p.Threads, Coroutines: p.Coroutines}}
	case h.Node != nil:
		n := h.Node
		return &code{Node, &n.App, &n.Module, &n.Function, App{Path: n.Path, Interpreter: n.Interpreter, Processes: n.Processes, Coroutines: n.Coroutines}}
	case h.Worker != nil:
		w := h.Worker
		return &code{Worker, &w.App, &w.Module, &w.Function, App{Path: w.Path, Command: w.Command, Processes: w.Processes, Threads: w.Threads, Coroutines: w.Coroutines}}
	}
	return nil
}

// copyCode replaces a handler's keys by a copy, which can be completed.
func (h *Handler) copyCode() {
	switch {
	case h.Python != nil:
		own := *h.Python
		h.Python = &own
	case h.Node != nil:
		own := *h.Node
		h.Node = &own
	case h.Worker != nil:
		own := *h.Worker
		h.Worker = &own
	}
}

// languages returns the languages of the apps that functions name. An app has one language, because
// one kind of worker process runs it.
func (x *completion) languages() map[string]string {
	out, first := make(map[string]string), make(map[string]string)
	for _, name := range names(x.Functions) {
		c := x.Functions[name].Handler.code()
		if c == nil || *c.app == "" {
			continue
		}
		path := "functions." + name + ".handler." + c.language
		if other := out[*c.app]; other != "" && other != c.language {
			x.twoLanguages(path, c.language, "app "+*c.app, other, first[*c.app])
			continue
		}
		out[*c.app], first[*c.app] = c.language, path
	}
	return out
}

func (x *completion) twoLanguages(path, language, app, other, first string) {
	x.Wrong(path, "%s is used as %s by %s (line %d), but an app has one language; add an app for %s, which may have the same path", app, other, first, x.At(first).Line, language)
}

// fileEndings are the endings of a path that names one file, by language. For other workers they
// are unknown.
var fileEndings = map[string][]string{
	Python: {".py"},
	Node:   {".js", ".mjs", ".cjs", ".ts", ".mts", ".cts"},
}

// app completes an app's settings.
func (x *completion) app(path string, a App, language string) App {
	if a.Path == "" {
		x.Wrong(path, "it has no path")
		return a
	}
	a.Language, a.Dir = language, x.Absolute(a.Path)
	switch file := filepath.Base(a.Dir); {
	case strings.HasSuffix(file, ".py") && (language == Python || language == ""):
		a.Dir, a.DefaultModule = filepath.Dir(a.Dir), strings.TrimSuffix(file, ".py")
	case slices.Contains(fileEndings[language], filepath.Ext(file)):
		a.Dir, a.DefaultModule = filepath.Dir(a.Dir), file
	case language == Python:
		a.DefaultModule = "function_app"
	case language == Node:
		a.DefaultModule = "." // as Node.js resolves a directory
	}
	if strings.ContainsRune(a.Interpreter, filepath.Separator) {
		a.Interpreter = x.Absolute(a.Interpreter)
	}
	x.workerCommand(path, &a)
	a.Processes, a.ProcessesFrom = x.count(path+".processes", a.Processes, processesVariable, runtime.GOMAXPROCS(0), byLoad)
	a.Scaled = a.ProcessesFrom == byLoad
	x.confinement(path, &a)
	if language == Node && a.Threads != 0 {
		x.Wrong(path+".threads", "Node.js runs functions in one thread; remove it, and set processes")
	}
	variable := threadsVariable
	if language == Node || language == Worker {
		variable = "" // the variable is for Python
	}
	threads := byMeasure
	if language == Node {
		threads = inOneThread
	}
	a.Threads, a.ThreadsFrom = x.count(path+".threads", a.Threads, variable, 1, threads)
	a.Coroutines, a.CoroutinesFrom = x.count(path+".coroutines", a.Coroutines, "", firstCoroutines, byMeasure)
	a.AutoThreads, a.AutoCoroutines = a.ThreadsFrom == byMeasure, a.CoroutinesFrom == byMeasure
	return a
}

// workerCommand checks the command that starts an app's workers.
func (x *completion) workerCommand(path string, a *App) {
	switch {
	case a.Language != Worker && len(a.Command) > 0 && a.Language != "":
		x.Wrong(path, "command is only for functions with a worker handler, but these are %s; use interpreter", a.Language)
	case a.Language == Worker && a.Interpreter != "":
		x.Wrong(path, "interpreter is only for python and node; a worker is started by its command")
	case a.Language == Worker && (len(a.Command) == 0 || a.Command[0] == ""):
		x.Wrong(path, "it has no command that starts a worker; write [ruby, worker.rb], for example")
	case len(a.Command) > 0 && strings.ContainsRune(a.Command[0], filepath.Separator) && !filepath.IsAbs(a.Command[0]):
		a.Command = append(Strings{filepath.Join(a.Dir, a.Command[0])}, a.Command[1:]...)
	}
}

// count returns a number and its origin: the file, else a variable, else the default.
func (x *completion) count(path string, given int, variable string, def int, why string) (int, string) {
	if given > 0 {
		return given, path
	}
	text := ""
	if variable != "" {
		text, _ = x.Env(variable)
	}
	if text == "" {
		return def, why
	}
	n, err := strconv.Atoi(strings.TrimSpace(text))
	if err != nil || n < 1 || n > 4096 {
		x.Wrong(path, "the environment's %s is %q; it must be a number from 1 to 4096, or unset", variable, text)
		return def, why
	}
	return n, variable
}

// ownKeys are the keys that require path, by language.
var ownKeys = map[string]string{
	Python: "interpreter, processes, threads and coroutines",
	Node:   "interpreter, processes and coroutines",
	Worker: "command, processes, threads and coroutines",
}

// code completes a handler with worker processes.
func (x *completion) code(path, name string, h *Handler, shortForms map[string]string) {
	h.copyCode()
	c := h.code()
	if c == nil {
		return // no kind, or several
	}
	path += "." + c.language
	switch {
	case *c.app != "" && c.own.Path != "":
		x.Wrong(path, "it has both app and path; app names an entry of apps, path defines one; keep one of them")
		return
	case *c.app == "" && c.own.Path == "":
		x.Wrong(path, "it has no path: the directory of the code, or one file in it (or app, an entry of apps)")
		return
	case *c.app != "":
		if c.own.Interpreter != "" || len(c.own.Command) > 0 || c.own.Processes != 0 || c.own.Threads != 0 || c.own.Coroutines != 0 {
			x.Wrong(path, "%s require path; set those of an app in apps.%s", ownKeys[c.language], *c.app)
		}
		if _, found := x.Apps[*c.app]; !found {
			x.Wrong(path+".app", "there is no app %q%s", *c.app, problems.Hint(*c.app, names(x.Apps)))
			return
		}
	default:
		x.shortForm(path, c, shortForms)
	}
	*c.module = cmp.Or(*c.module, x.Apps[*c.app].DefaultModule)
	*c.function = cmp.Or(*c.function, name)
	switch c.language {
	case Python:
		x.pythonNames(path, c)
	case Node:
		x.nodeNames(path, c)
	}
}

var (
	pythonName   = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	pythonModule = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$`)
	nodeName     = regexp.MustCompile(`^[\p{L}_$][\p{L}\p{N}_$]*$`)
)

func (x *completion) pythonNames(path string, c *code) {
	if !pythonModule.MatchString(*c.module) {
		x.Wrong(path+".module", "%q is not a module; write billing.jobs, for example", *c.module)
	}
	if !pythonName.MatchString(*c.function) {
		x.Wrong(path+".function", "%q is not a valid name of a Python function; set function", *c.function)
	}
}

func (x *completion) nodeNames(path string, c *code) {
	if m := *c.module; filepath.IsAbs(m) || strings.HasPrefix(filepath.Clean(m), "..") || strings.Contains(m, ":") {
		x.Wrong(path+".module", "%q is not a module of the app; write jobs/billing.js, relative to the app's path, or the name of a package", m)
	}
	if !nodeName.MatchString(*c.function) {
		x.Wrong(path+".function", "%q is not a valid name of an export; set function, which may be default", *c.function)
	}
}

// shortForm defines an app by a handler's path, or uses the one that another function defined with
// the same directory.
func (x *completion) shortForm(path string, c *code, shortForms map[string]string) {
	decode.Defaults(&c.own)
	whole := x.app(path, c.own, c.language)
	key := whole.Dir
	if relative, err := filepath.Rel(x.Dir, whole.Dir); err == nil && x.Dir != "." {
		key = relative
	}
	if x.Given("apps." + key) {
		key = "./" + key // the entry of that name may be a different app
	}
	*c.app = key
	*c.module = cmp.Or(*c.module, whole.DefaultModule) // another file of the same directory
	first, found := shortForms[key]
	if !found {
		shortForms[key] = path
		x.Apps[key] = whole
		return
	}
	have := x.Apps[key]
	if have.Language != whole.Language {
		x.twoLanguages(path, whole.Language, fmt.Sprintf("the path %q", key), have.Language, first)
		return
	}
	if have.Interpreter != whole.Interpreter || !slices.Equal(have.Command, whole.Command) || have.Processes != whole.Processes || have.Threads != whole.Threads || have.Coroutines != whole.Coroutines {
		x.Wrong(path, "%s differ from those of %s (line %d), which has the same path and so the same worker processes; make them equal, or define one app for both in apps", ownKeys[c.language], first, x.At(first).Line)
	}
}
