package apps

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/handlers/interpreters"
	"github.com/drover-run/drover/handlers/node"
	"github.com/drover-run/drover/handlers/python"
	"github.com/drover-run/drover/handlers/workers/process"
)

// Runtime makes the worker processes of apps in one language.
type Runtime struct {
	// Find returns the interpreter of an app, or the program of its own worker. The error names
	// the missing program.
	Find func(ctx context.Context, app configs.App, env configs.Env) (interpreters.Interpreter, error)
	// Install writes drover's worker below a directory, and returns its path; empty if
	// the app brings its own.
	Install func(dir string) (home string, err error)
	// Layout returns the files that the interpreter consists of.
	Layout func(ctx context.Context, i interpreters.Interpreter) (interpreters.Layout, error)
	// Command returns the command line of a worker process.
	Command func(i interpreters.Interpreter, home string, app configs.App, environ []string) process.Command
	// Kinds are the kinds of files in an app's code.
	Kinds interpreters.Kinds
}

// readCode reads the state of the code in a directory.
func (r Runtime) readCode(dir string) *interpreters.Code { return interpreters.ReadCode(dir, r.Kinds) }

// RuntimeOf returns the runtime of a language, one of those in configs. The list is
// the only registry.
func RuntimeOf(language string) Runtime { return runtimes[language] }

var runtimes = map[string]Runtime{
	configs.Server: serverRuntime,
	configs.Python: {
		Find: func(ctx context.Context, app configs.App, env configs.Env) (interpreters.Interpreter, error) {
			return python.FindInterpreter(ctx, app.Dir, app.Interpreter, env)
		},
		Install: python.InstallWorker,
		Layout:  python.ReadLayout,
		Command: func(i interpreters.Interpreter, home string, app configs.App, environ []string) process.Command {
			return python.WorkerCommand(i, home, app.Dir, environ)
		},
		Kinds: python.Kinds,
	},
	configs.Node: {
		Find: func(ctx context.Context, app configs.App, env configs.Env) (interpreters.Interpreter, error) {
			return node.FindInterpreter(ctx, app.Interpreter, env)
		},
		Install: node.InstallWorker,
		Layout:  node.ReadLayout,
		Command: func(i interpreters.Interpreter, home string, app configs.App, environ []string) process.Command {
			return node.WorkerCommand(i, home, app.Dir, environ)
		},
		Kinds: node.Kinds,
	},
	configs.Worker: {
		Find:    findWorker,
		Install: func(string) (string, error) { return "", nil }, // it is the user's
		Layout: func(_ context.Context, i interpreters.Interpreter) (interpreters.Layout, error) {
			return interpreters.Layout{Executable: i.Path, Homes: []string{i.Path}}, nil
		},
		Command: func(i interpreters.Interpreter, _ string, app configs.App, environ []string) process.Command {
			return process.Command{Path: i.Path, Args: app.Command[1:], Dir: app.Dir, Env: environ}
		},
	},
}

// findWorker finds the program of an app's own worker.
func findWorker(_ context.Context, app configs.App, env configs.Env) (interpreters.Interpreter, error) {
	if info, err := os.Stat(app.Dir); err != nil || !info.IsDir() {
		return interpreters.Interpreter{}, fmt.Errorf("its path %s is not a directory; a worker's command runs in it", app.Dir)
	}
	path, _ := env("PATH")
	found, err := interpreters.LookUp(app.Command[0], path)
	if err != nil {
		return interpreters.Interpreter{}, fmt.Errorf("its command %s: %w", app.Command[0], err)
	}
	return interpreters.Interpreter{Path: found, From: "command in the configuration"}, nil
}

// serverRuntime starts the program of a web server. It needs nothing of drover's.
var serverRuntime = Runtime{
	Find:    findProgram,
	Install: func(string) (string, error) { return "", nil },
	Layout: func(_ context.Context, i interpreters.Interpreter) (interpreters.Layout, error) {
		return interpreters.Layout{Executable: i.Path, Homes: []string{i.Path}}, nil
	},
	Command: func(i interpreters.Interpreter, _ string, app configs.App, environ []string) process.Command {
		return process.Command{Path: i.Path, Dir: app.Server.Dir, Env: environ}
	},
}

// findProgram finds the program of a web server: a file relative to the app, or one in PATH.
func findProgram(_ context.Context, app configs.App, env configs.Env) (interpreters.Interpreter, error) {
	own := app.Server
	if info, err := os.Stat(own.Dir); err != nil || !info.IsDir() {
		return interpreters.Interpreter{}, fmt.Errorf("the working directory %s of the custom handler (%s) is not a directory", own.Dir, own.From)
	}
	path, _ := env("PATH")
	program := filepath.FromSlash(own.Program)
	inside := program
	if !filepath.IsAbs(inside) {
		inside = filepath.Join(app.Dir, inside)
	}
	info, err := os.Stat(inside)
	switch {
	case err == nil && info.Mode().IsRegular() && info.Mode()&0o111 == 0:
		return interpreters.Interpreter{}, fmt.Errorf("the custom handler %s (%s) is not executable; run: chmod +x %s", inside, own.From, inside)
	case err == nil && info.Mode().IsRegular():
		return interpreters.Interpreter{Path: inside, From: own.From}, nil
	case strings.ContainsRune(program, filepath.Separator):
		return interpreters.Interpreter{}, fmt.Errorf("there is no custom handler %s (%s); build it, or correct defaultExecutablePath", inside, own.From)
	}
	found, err := interpreters.LookUp(program, path)
	if err != nil {
		return interpreters.Interpreter{}, fmt.Errorf("the custom handler %s (%s) is neither a file in %s nor a program in PATH; build it, or correct defaultExecutablePath", program, own.From, app.Dir)
	}
	return interpreters.Interpreter{Path: found, From: own.From}, nil
}
