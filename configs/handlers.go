package configs

import (
	"cmp"
	"encoding/json"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/drover-run/drover/configs/decode"
	"github.com/drover-run/drover/configs/problems"
)

// Handler runs a function. Exactly one kind is set.
type Handler struct {
	Go     string         `yaml:"go" desc:"name of a Go function that the program registered" like:"resize"`
	Exec   *ExecHandler   `yaml:"exec" desc:"a command that runs for each message" like:"{command: [./convert, --fast]}"`
	HTTP   *HTTPHandler   `yaml:"http" desc:"an app that each message is posted to" like:"{url: \"http://127.0.0.1:8080\"}"`
	Python *PythonHandler `yaml:"python" desc:"a Python function in a pool of worker processes" like:"{path: ./app}"`
	Node   *NodeHandler   `yaml:"node" desc:"a Node.js function in a pool of worker processes" like:"{path: ./app}"`
	Worker *WorkerHandler `yaml:"worker" desc:"a function in a pool of your own worker processes" like:"{path: ./app, command: [ruby, worker.rb]}"`
}

// PythonHandler is a Python function. Either App names an entry of apps, or Path defines an app for
// all functions with the same path.
type PythonHandler struct {
	App      string `yaml:"app" desc:"one of apps"`
	Module   string `yaml:"module" desc:"module to import, such as billing.jobs; by default the file that path names, else function_app"`
	Function string `yaml:"function" desc:"function in the module; by default the function's name in this file"`

	Path        string `yaml:"path" desc:"instead of app: directory of the code, or one file in it, relative to this file"`
	Interpreter string `yaml:"interpreter" desc:"with path: as in apps"`
	Processes   int    `yaml:"processes" default:"0" zero:"auto" min:"0" max:"1024" desc:"with path: as in apps"`
	Threads     int    `yaml:"threads" default:"0" zero:"auto" min:"0" max:"4096" desc:"with path: as in apps"`
	Coroutines  int    `yaml:"coroutines" default:"0" zero:"auto" min:"0" max:"100000" desc:"with path: as in apps"`

	// Azure is set for a function of a function app. Then Function is its name there, which its
	// Python function need not have.
	Azure *AzureFunction `yaml:"-"`
}

// AzureFunction describes a function of a function app to a worker.
type AzureFunction struct {
	Entry    string            // the Python function
	File     string            // relative to the app
	Script   string            // of an app of model v2: its file with the app; "" for model v1
	HTTPType string            // function, asgi or wsgi
	Bindings []json.RawMessage // as the decorators or function.json define them
	Retry    json.RawMessage   // likewise; nil for none
}

// NodeHandler is a Node.js function. Either App names an entry of apps, or Path defines an app for
// all functions with the same path.
type NodeHandler struct {
	App      string `yaml:"app" desc:"one of apps"`
	Module   string `yaml:"module" desc:"file relative to the app, with or without extension, CommonJS or ES, or the name of a package; by default the file that path names, else main of the app's package.json, else index.js"`
	Function string `yaml:"function" desc:"the export, which may be default; by default the function's name in this file"`

	Path        string `yaml:"path" desc:"instead of app: directory of the code, or one file in it, relative to this file"`
	Interpreter string `yaml:"interpreter" desc:"with path: as in apps"`
	Processes   int    `yaml:"processes" default:"0" zero:"auto" min:"0" max:"1024" desc:"with path: as in apps"`
	Coroutines  int    `yaml:"coroutines" default:"0" zero:"auto" min:"0" max:"100000" desc:"with path: as in apps"`
}

// WorkerHandler is a function of a third-party worker, in any language. Either App names an entry
// of apps that has a command, or Path and Command define an app for all functions with the same
// path.
type WorkerHandler struct {
	App      string `yaml:"app" desc:"one of apps"`
	Module   string `yaml:"module" desc:"passed to the worker together with function; optional"`
	Function string `yaml:"function" desc:"the function; by default the function's name in this file"`

	Path       string  `yaml:"path" desc:"instead of app: directory that the command runs in, relative to this file"`
	Command    Strings `yaml:"command" desc:"with path: as in apps"`
	Processes  int     `yaml:"processes" default:"0" zero:"auto" min:"0" max:"1024" desc:"with path: as in apps"`
	Threads    int     `yaml:"threads" default:"0" zero:"auto" min:"0" max:"4096" desc:"with path: as in apps"`
	Coroutines int     `yaml:"coroutines" default:"0" zero:"auto" min:"0" max:"100000" desc:"with path: as in apps"`
}

// ExecHandler is a command. Its exit status is the verdict: 0 is done, 65 is reject, and any other
// is a failed attempt.
type ExecHandler struct {
	Command   Strings `yaml:"command" required:"true" desc:"program and arguments, run without a shell; standard input is the body, standard output is the result"`
	Dir       string  `yaml:"dir" desc:"working directory, relative to this file; by default this file's directory"`
	MaxOutput Size    `yaml:"max_output" default:"1MiB" min:"1B" max:"128MiB" desc:"a larger output fails the attempt"`

	Environment Environment `yaml:"environment" desc:"environment variables of the command; unless set, drover adds those that limit the threads of libraries (docs/tuning.md)"`
}

func (h Handler) givenKinds() []kind {
	return []kind{{"go", h.Go != ""}, {"python", h.Python != nil}, {"node", h.Node != nil}, {"worker", h.Worker != nil}, {"http", h.HTTP != nil}, {"exec", h.Exec != nil}}
}

// hasOneResult reports whether a handler cannot send to named outputs.
func (h Handler) hasOneResult() bool {
	return h.Exec != nil || h.HTTP != nil && h.HTTP.Format == ""
}

// Code is a function of an app.
type Code struct {
	Language              string // Python, Node or Worker
	App, Module, Function string
}

// Code returns the function that a handler runs in worker processes; found is false for other
// handlers.
func (h Handler) Code() (c Code, found bool) {
	p := h.codeKeys()
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

// codeKeys returns nil for a handler without worker processes.
func (h Handler) codeKeys() *code {
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

// codeHandlers completes the handlers that run in the worker processes of apps. A handler names an
// app, or has a path that defines one.
type codeHandlers struct {
	*problems.Source
	apps  map[string]App
	first map[string]string // by app that a path defines: the path of the first such handler
}

// ownKeys are the keys that require path, by language.
var ownKeys = map[string]string{
	Python: "interpreter, processes, threads and coroutines",
	Node:   "interpreter, processes and coroutines",
	Worker: "command, processes, threads and coroutines",
}

// completeCode completes a handler with worker processes. name is the function's.
func (x codeHandlers) completeCode(path, name string, h Handler) {
	c := h.codeKeys()
	if c == nil {
		return // a Go function
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
		if _, found := x.apps[*c.app]; !found {
			x.Wrong(path+".app", "there is no app %q%s", *c.app, problems.Hint(*c.app, sortedNames(x.apps)))
			return
		}
	default:
		x.shortForm(path, c)
	}
	*c.module = cmp.Or(*c.module, x.apps[*c.app].DefaultModule)
	*c.function = cmp.Or(*c.function, name)
	switch c.language {
	case Python:
		if h.Python.Azure == nil {
			c.checkPython(x.Source, path)
		}
	case Node:
		c.checkNode(x.Source, path)
	}
}

// shortForm defines an app by a handler's path, or uses the one that another function defined with
// the same directory.
func (x codeHandlers) shortForm(path string, c *code) {
	decode.Defaults(&c.own)
	whole := c.own.completeApp(x.Source, path, c.language)
	key := whole.Dir
	if relative, err := filepath.Rel(x.Dir, whole.Dir); err == nil && x.Dir != "." {
		key = relative
	}
	if x.Given("apps." + key) {
		key = "./" + key // the entry of that name may be a different app
	}
	*c.app = key
	*c.module = cmp.Or(*c.module, whole.DefaultModule) // another file of the same directory
	first, found := x.first[key]
	if !found {
		x.first[key] = path
		x.apps[key] = whole
		return
	}
	have := x.apps[key]
	if have.Language != whole.Language {
		reportLanguages(x.Source, path, whole.Language, fmt.Sprintf("the path %q", key), have.Language, first)
		return
	}
	if have.Interpreter != whole.Interpreter || !slices.Equal(have.Command, whole.Command) || have.Processes != whole.Processes || have.Threads != whole.Threads || have.Coroutines != whole.Coroutines {
		x.Wrong(path, "%s differ from those of %s (line %d), which has the same path and so the same worker processes; make them equal, or define one app for both in apps", ownKeys[c.language], first, x.At(first).Line)
	}
}

// reportLanguages reports an app that functions use in two languages.
func reportLanguages(x *problems.Source, path, language, app, other, first string) {
	x.Wrong(path, "%s is used as %s by %s (line %d), but an app has one language; add an app for %s, which may have the same path", app, other, first, x.At(first).Line, language)
}

var (
	pythonName   = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	pythonModule = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$`)
	nodeName     = regexp.MustCompile(`^[\p{L}_$][\p{L}\p{N}_$]*$`)
)

func (c *code) checkPython(x *problems.Source, path string) {
	if !pythonModule.MatchString(*c.module) {
		x.Wrong(path+".module", "%q is not a module; write billing.jobs, for example", *c.module)
	}
	if !pythonName.MatchString(*c.function) {
		x.Wrong(path+".function", "%q is not a valid name of a Python function; set function", *c.function)
	}
}

func (c *code) checkNode(x *problems.Source, path string) {
	if m := *c.module; filepath.IsAbs(m) || strings.HasPrefix(filepath.Clean(m), "..") || strings.Contains(m, ":") {
		x.Wrong(path+".module", "%q is not a module of the app; write jobs/billing.js, relative to the app's path, or the name of a package", m)
	}
	if !nodeName.MatchString(*c.function) {
		x.Wrong(path+".function", "%q is not a valid name of an export; set function, which may be default", *c.function)
	}
}

// completeCommand checks the command, and makes its paths absolute.
func (h *ExecHandler) completeCommand(x *problems.Source, path string) {
	if h.Dir = x.Absolute(h.Dir); len(h.Command) == 0 || h.Command[0] == "" {
		x.Wrong(path+".command", "it is empty; write it as [./convert, --fast]")
	}
	h.Command = inDirectory(h.Dir, h.Command)
	h.Environment.CheckNames(x, path+".environment")
}

// String describes what runs the function.
func (h Handler) String() string {
	if c, found := h.Code(); found {
		switch {
		case c.Language == Python:
			return fmt.Sprintf("python %s.%s in app %s", c.Module, c.Function, c.App)
		case c.Module == "", c.Module == ".":
			return fmt.Sprintf("%s %s in app %s", c.Language, c.Function, c.App)
		}
		return fmt.Sprintf("%s %s of %s in app %s", c.Language, c.Function, c.Module, c.App)
	}
	if run := h.Exec; run != nil {
		return "run " + strings.Join(run.Command, " ")
	}
	if h.HTTP != nil {
		return h.HTTP.String()
	}
	return "go " + h.Go
}
