// Package functionapp reads Azure Functions apps in Python, and translates them into
// configurations. A function app is a directory with a host.json.
//
// Read reads its files. App.Request is what the app's own interpreter is asked for: which functions
// the code has (package python runs it). App.Translate makes a configuration of the answer, and a
// list of what differs from Azure. Nothing here starts a process or opens a connection, and all is
// for use by one goroutine.
package functionapp

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/configs/decode"
	"github.com/drover-run/drover/configs/functionapp/custom"
	"github.com/drover-run/drover/configs/posting"
	"github.com/drover-run/drover/configs/problems"
	"github.com/drover-run/drover/configs/readfile"
)

// App has the contents of a function app's files.
type App struct {
	// Name is the directory as the user wrote it, and Dir its absolute path.
	Name, Dir string
	Settings  Settings
	// Script is the file of model v2; "" if the app has model v1.
	Script string

	host      host
	described []Described // of model v1
	warnings  []string
	shared    bool           // other machines run the app, too
	errs      configs.Errors // of single functions
}

// Request is the request to the app's interpreter, as JSON.
type Request struct {
	Dir       string      `json:"dir"`
	Script    string      `json:"script,omitempty"`
	Functions []Described `json:"functions,omitempty"`
	// Patience is the number of seconds after which an import that still runs prints its stacks; 0
	// is never.
	Patience float64 `json:"patience"`
}

// Index is the answer.
type Index struct {
	Python     string    `json:"python"`
	Executable string    `json:"executable"`
	Library    string    `json:"library"` // the version of azure-functions
	Functions  []Indexed `json:"functions"`
	Problems   []Wrong   `json:"problems"`
	Warnings   []string  `json:"warnings"`
	// Shadowed are modules of the app that have the name of one of the standard library.
	Shadowed []string `json:"shadowed"`
}

// Indexed is a function of the app.
type Indexed struct {
	Name     string            `json:"name"`
	Module   string            `json:"module"`
	Entry    string            `json:"entry"` // its name in Python
	File     string            `json:"file"`
	Line     int               `json:"line"`
	Bindings []json.RawMessage `json:"bindings"`
	Lines    map[string]int    `json:"lines"` // of the bindings, by name
	Retry    json.RawMessage   `json:"retry"`
	Async    bool              `json:"async"`
	HTTPType string            `json:"http_type"` // function, asgi or wsgi
}

// Wrong is something that is wrong with a function, or with the whole app.
type Wrong struct {
	Message  string `json:"message"`
	Function string `json:"function"`
	File     string `json:"file"`
	Line     int    `json:"line"`
	Detail   string `json:"detail"` // a traceback
}

// besideFile sets what Azure has no setting for.
const besideFile = "drover.yaml"

// Find returns the directory of the function app that a path names: a directory with a host.json,
// or the drover.yaml beside one. A drover.yaml with triggers beside a host.json with a custom handler
// is a whole configuration, which posts to a handler that the user starts.
func Find(path string) (dir string, found bool) {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		dir = path
	} else if dir = filepath.Dir(path); filepath.Base(path) != besideFile {
		return "", false
	}
	if !isFile(filepath.Join(dir, hostFile)) {
		return dir, false
	}
	d, _ := readDocument(dir, hostFile)
	_, isCustom := child(d.root, custom.Section)
	return dir, !isCustom || !isWhole(filepath.Join(dir, besideFile))
}

// wholeForm matches a drover.yaml whose functions have triggers and handlers of their own.
var wholeForm = regexp.MustCompile(`(?m)(^\s+|[{,]\s*)(trigger|handler)\s*:`)

// isWhole reports whether a drover.yaml beside host.json is a whole configuration.
func isWhole(path string) bool {
	text, err := readfile.Plain(path)
	return err == nil && wholeForm.Match(text)
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

// scriptForm matches the names that Azure allows for the file of model v2.
var scriptForm = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_-]*\.py$`)

const (
	runtimeSetting = "FUNCTIONS_WORKER_RUNTIME"
	scriptSetting  = "PYTHON_SCRIPT_FILE_NAME"
	usualScript    = "function_app.py"
)

// Read reads the files of the function app in a directory. env and environ are the daemon's
// environment. The error is a configs.Errors if a file is wrong. Problems of single functions of
// model v1 are reported by Translate.
func Read(dir string, env configs.Env, environ []string) (*App, error) {
	full, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("finding the function app %s: %w", dir, err)
	}
	a := &App{Name: dir, Dir: full}
	var errs, more configs.Errors
	a.Settings, errs = readSettings(full, env)
	a.host, a.warnings, more = readHost(full, a.Settings, environ)
	errs = append(errs, more...)
	if a.host.isCustom() {
		errs = append(errs, checkCustom(a.host)...)
	} else if language, from, found := a.Settings.Lookup(runtimeSetting); found && !strings.EqualFold(language, "python") {
		errs = append(errs, configs.Problem{File: from, Message: otherLanguage(language)})
	}
	if len(errs) == 0 {
		errs = a.findFunctions()
	}
	if len(errs) > 0 {
		return nil, a.placed(errs)
	}
	return a, nil
}

func otherLanguage(language string) string {
	if strings.EqualFold(language, "custom") {
		return fmt.Sprintf("%s is custom, but %s has no %s.description.defaultExecutablePath, the program of the custom handler", runtimeSetting, hostFile, custom.Section)
	}
	return fmt.Sprintf("%s is %s; drover runs function apps in Python, and custom handlers in any language", runtimeSetting, language)
}

// findFunctions finds out which model the app has, and reads the functions of model v1.
func (a *App) findFunctions() configs.Errors {
	if a.host.isCustom() {
		a.described, a.errs = readDescribed(a.Dir, a.Settings, true)
		if len(a.described)+len(a.errs) == 0 {
			return configs.Errors{{Message: fmt.Sprintf("0 functions: the directory has a %s with a custom handler, but no folder with a %s", hostFile, functionFile)}}
		}
		return nil
	}
	script, from, given := a.Settings.Lookup(scriptSetting)
	if !given || script == "" {
		script = usualScript
	} else if !scriptForm.MatchString(script) {
		return configs.Errors{{File: from, Message: fmt.Sprintf("%s is %q, which is not the name of a Python file in the app's directory; write shop_app.py, for example", scriptSetting, script)}}
	}
	described, errs := readDescribed(a.Dir, a.Settings, false)
	if isFile(filepath.Join(a.Dir, script)) {
		a.Script = script
		for _, one := range described {
			a.warnings = append(a.warnings, fmt.Sprintf("%s/%s: ignored, as on Azure, because there is a %s: an app has one model", one.Name, functionFile, script))
		}
		return nil
	}
	a.described, a.errs = described, errs
	if given && script != usualScript {
		return configs.Errors{{File: from, Message: fmt.Sprintf("%s is %s, but there is no such file in %s", scriptSetting, script, a.Dir)}}
	}
	if len(described)+len(errs) == 0 {
		return configs.Errors{{Message: fmt.Sprintf("0 functions: the directory has a %s, but neither a %s (model v2) nor a folder with a %s (model v1); another file name is set by %s", hostFile, usualScript, functionFile, scriptSetting)}}
	}
	return nil
}

// Request returns the request to the app's interpreter. Disabled functions are not imported. ok is
// false if there is nothing to request.
func (a *App) Request() (r Request, ok bool) {
	if a.host.isCustom() {
		return Request{}, false
	}
	r = Request{Dir: a.Dir, Script: a.Script}
	for _, one := range a.described {
		if a.disabled(one.Name, one.disabled) == "" {
			r.Functions = append(r.Functions, one)
		}
	}
	return r, r.Script != "" || len(r.Functions) > 0
}

// AppName is the name of the app in the configuration: a drover.yaml sets its keys in apps.app.
const AppName = "app"

// withDefaults returns settings with the defaults of a configuration.
func withDefaults[T any]() (out T) {
	decode.Defaults(&out)
	return out
}

// workers returns the app's settings before a drover.yaml.
func (a *App) workers() configs.App {
	app := withDefaults[configs.App]()
	app.Path, app.Server = a.Dir, a.server()
	app.Environment.Set = a.workerVariables()
	return app
}

// workerVariables returns the variables that workers get beside the daemon's own.
func (a *App) workerVariables() map[string]configs.Secret {
	set := a.Settings.variables()
	for name, value := range map[string]string{runtimeSetting: "python", "AzureWebJobsScriptRoot": a.Dir, "FUNCTIONS_APPLICATION_DIRECTORY": a.Dir} {
		if _, _, given := a.Settings.Lookup(name); !given {
			set[name] = configs.Secret(value)
		}
	}
	return set
}

// disabled returns why a function does not run; "" if it does.
func (a *App) disabled(name, own string) string {
	for _, form := range []string{"AzureWebJobs.%s.Disabled", "AzureWebJobs__%s__Disabled", "AzureWebJobs_%s_Disabled"} {
		setting := fmt.Sprintf(form, name)
		if value, from, found := a.Settings.Lookup(setting); found {
			if truthy(value) {
				return fmt.Sprintf("disabled by %s (%s)", setting, from)
			}
			return "" // the setting wins over function.json
		}
	}
	if only := a.host.only(); own == "" && len(only) > 0 {
		for _, listed := range only {
			if strings.EqualFold(listed, name) {
				return ""
			}
		}
		return "disabled: functions in host.json does not list it"
	}
	return own
}

// placed puts the directory before the names of files.
func (a *App) placed(errs configs.Errors) configs.Errors {
	for i, p := range errs {
		switch {
		case p.File == "":
			errs[i].File = a.Name
		case !filepath.IsAbs(p.File) && p.File != fromEnvironment:
			errs[i].File = filepath.Join(a.Name, p.File)
		}
	}
	return errs
}

// problemAt returns a problem at a line of a file of the app, with that line.
func (a *App) problemAt(file string, line int, format string, args ...any) configs.Problem {
	s := problems.New(file, nil, a.Dir, nil)
	s.Lines = nil
	if text, err := os.ReadFile(filepath.Join(a.Dir, file)); err == nil && file != "" && line > 0 {
		s.Lines = strings.Split(string(text), "\n")
	}
	column := 0
	if line > 0 && line <= len(s.Lines) {
		column = len(s.Lines[line-1]) - len(strings.TrimLeft(s.Lines[line-1], " \t")) + 1
	}
	s.Report(problems.Position{Line: line, Column: column}, format, args...)
	_ = s.Err() // it adds the line to the problem
	return s.Problems[0]
}

// server returns the program of the custom handler; nil if the app has none.
func (a *App) server() *posting.Server {
	if !a.host.isCustom() {
		return nil
	}
	return custom.Server(custom.Files{
		Dir: a.Dir, IsFile: isFile,
		Lookup: func(dotted string) (text, from string, found bool) {
			s, found := a.host.lookup(dotted)
			return s.text, s.from, found
		},
		Expand: a.Settings.expand,
	})
}

// customIndex returns the index of an app whose code drover does not read.
func (a *App) customIndex() (index Index) {
	for _, one := range a.described {
		if a.disabled(one.Name, one.disabled) == "" {
			index.Functions = append(index.Functions, Indexed{Name: one.Name, File: one.Name + "/" + functionFile, Bindings: one.Bindings})
		}
	}
	return index
}
