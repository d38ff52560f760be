package configs

import (
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/drover-run/drover/configs/posting"
	"github.com/drover-run/drover/configs/problems"
)

// App is a directory of code and the pool of worker processes that runs it.
type App struct {
	Path        string  `yaml:"path" required:"true" desc:"the directory, or one file in it; relative to this file"`
	Interpreter string  `yaml:"interpreter" desc:"the Python or Node.js to run; by default, for Python: $VIRTUAL_ENV, else .venv beside the app, else python3; for Node.js: node"`
	Command     Strings `yaml:"command" desc:"for functions with a worker handler: the worker program and its arguments; it runs in path and speaks the protocol of docs/worker-protocol.md"`
	Processes   int     `yaml:"processes" default:"0" zero:"auto" min:"0" max:"1024" desc:"number of worker processes; 0 or auto is FUNCTIONS_WORKER_PROCESS_COUNT if set, else as many as the load needs, as long as each one improves throughput (docs/tuning.md)"`
	Threads     int     `yaml:"threads" default:"0" zero:"auto" min:"0" max:"4096" desc:"threads per process, for functions that are not async; 0 or auto is PYTHON_THREADPOOL_THREAD_COUNT if set, else measured; not for Node.js"`
	Coroutines  int     `yaml:"coroutines" default:"0" zero:"auto" min:"0" max:"100000" desc:"async calls in flight per process; 0 or auto is measured"`

	Start        string   `yaml:"start" default:"spawn" enum:"spawn,template" desc:"how a worker starts: spawn loads the code in each; template loads it once, and forks workers from that process in milliseconds, sharing its memory. Not for code that starts threads or opens connections while it loads"`
	StartTimeout Duration `yaml:"start_timeout" default:"2m" min:"1s" max:"1h" desc:"time limit for a worker to load the code"`
	KillGrace    Duration `yaml:"kill_grace" default:"5s" min:"100ms" max:"10m" desc:"how long a cancelled call (for example at its timeout) may take to return before its worker is killed"`
	OnBlocked    string   `yaml:"on_blocked" default:"warn" enum:"warn,isolate,off" desc:"what to do about an async function that blocks the event loop, as time.sleep does: warn logs it once for each place and counts it; isolate also runs a repeat offender in its own worker; off disables detection, so that a crash or timeout cannot be attributed to the call that blocked. Python and Node.js"`
	Spare        Spare    `yaml:"spare" default:"auto" desc:"number of spare workers: one more process that has loaded the code and is idle, so that the messages of a worker that dies run again at once. auto is 1 if a worker needs at most a twentieth of the memory, and a tenth stays free; 0 and 1 are always so. None with start: template, whose forks take milliseconds, or while the app is scaled to zero"`
	Recycle      Recycle  `yaml:"recycle" desc:"when to replace a healthy worker: one at a time, after its replacement is ready; each limit is lowered by up to a tenth at random"`

	User          string      `yaml:"user" desc:"user that workers run as, a name or a number; only root can choose another; by default the daemon's user"`
	Group         string      `yaml:"group" desc:"group that workers run as; by default the user's"`
	NewPrivileges bool        `yaml:"new_privileges" default:"false" desc:"allow workers to gain privileges through set-user-ID programs such as sudo"`
	Environment   Environment `yaml:"environment" desc:"environment variables of workers; unless set, drover adds those that limit the threads of libraries (docs/tuning.md)"`
	Limits        Limits      `yaml:"limits" desc:"resource limits; a limit that this machine cannot enforce is an error"`
	Sandbox       Sandbox     `yaml:"sandbox" desc:"off, strict, or keys: what workers can access (docs/workers.md)"`

	ResolvedApp `yaml:"-"`
}

// ResolvedApp has what Complete finds out about an app.
type ResolvedApp struct {
	// Server is set if the app is a web server that drover starts, as for a function app with a
	// custom handler.
	Server *posting.Server `yaml:"-"`

	// Language is the language of the workers; empty for an app that no function uses.
	Language      string
	Dir           string // the directory to import from
	DefaultModule string // of its functions
	// Scaled is set if the user did not set Processes: then Processes is the maximum, and the
	// number follows the load.
	Scaled bool
	// AutoThreads and AutoCoroutines are set if the user did not set the numbers: then they are the
	// first ones, and measurements change them.
	AutoThreads, AutoCoroutines bool
	// The origins of the numbers.
	ProcessesFrom, ThreadsFrom, CoroutinesFrom string
}

// Variables of Azure Functions.
const (
	processesVariable = "FUNCTIONS_WORKER_PROCESS_COUNT"
	threadsVariable   = "PYTHON_THREADPOOL_THREAD_COUNT"
)

// The origins of numbers that the user did not set.
const (
	byLoad      = "auto: by load and measurements, at first one per core"
	byMeasure   = "auto: measured, at first"
	inOneThread = "functions run in one thread"
)

// firstCoroutines is the number of async calls in flight in a process before any measurement.
const firstCoroutines = 512

// The languages of apps, named as the handlers that run in them.
const (
	Python = "python"
	Node   = "node"
	Worker = "worker" // any program that speaks the worker protocol
	Server = "server" // a web server, whose functions have an HTTP handler
)

// fileEndings are the endings of a path that names one file, by language. For other workers they
// are unknown.
var fileEndings = map[string][]string{
	Python: {".py"},
	Node:   {".js", ".mjs", ".cjs", ".ts", ".mts", ".cts"},
}

// completeApp returns the app with its defaults. path is the app's path.
func (a App) completeApp(x *problems.Source, path, language string) App {
	if a.Path == "" {
		x.Wrong(path, "it has no path")
		return a
	}
	if a.Server != nil {
		language = Server
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
	a.completeCommand(x, path)
	a.Processes, a.ProcessesFrom = countFrom(x, path+".processes", a.Processes, processesVariable, runtime.GOMAXPROCS(0), byLoad)
	a.Scaled = a.ProcessesFrom == byLoad
	a.Environment.CheckNames(x, path+".environment")
	a.Limits.CheckMinimums(x, path+".limits")
	if a.Sandbox.Strict() && a.NewPrivileges {
		x.Wrong(path+".new_privileges", "a strict sandbox allows no new privileges; remove one of them")
	}
	a.Sandbox.Complete(x, path+".sandbox")
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
	a.Threads, a.ThreadsFrom = countFrom(x, path+".threads", a.Threads, variable, 1, threads)
	a.Coroutines, a.CoroutinesFrom = countFrom(x, path+".coroutines", a.Coroutines, "", firstCoroutines, byMeasure)
	a.AutoThreads, a.AutoCoroutines = a.ThreadsFrom == byMeasure, a.CoroutinesFrom == byMeasure
	return a
}

// completeCommand checks the command that starts an app's workers.
func (a *App) completeCommand(x *problems.Source, path string) {
	switch {
	case a.Language != Worker && len(a.Command) > 0 && a.Language != "":
		x.Wrong(path, "command is only for functions with a worker handler, but these are %s; use interpreter", a.Language)
	case a.Language == Worker && a.Interpreter != "":
		x.Wrong(path, "interpreter is only for python and node; a worker is started by its command")
	case a.Language == Worker && (len(a.Command) == 0 || a.Command[0] == ""):
		x.Wrong(path, "it has no command that starts a worker; write [ruby, worker.rb], for example")
	default:
		a.Command = inDirectory(a.Dir, a.Command)
	}
}

// inDirectory returns a command whose program, if it is a relative path, is in a directory.
func inDirectory(dir string, command Strings) Strings {
	if len(command) > 0 && strings.ContainsRune(command[0], filepath.Separator) && !filepath.IsAbs(command[0]) {
		return append(Strings{filepath.Join(dir, command[0])}, command[1:]...)
	}
	return command
}

// countFrom returns a number and its origin: the file, else a variable, else the default.
func countFrom(x *problems.Source, path string, given int, variable string, def int, why string) (int, string) {
	if given > 0 {
		return given, path
	}
	text := ""
	if variable != "" {
		text, _ = x.Lookup(variable)
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
