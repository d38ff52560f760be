package daemon

import (
	"context"
	"fmt"
	"os"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/handlers/interpreters"
	"github.com/drover-run/drover/handlers/node"
	"github.com/drover-run/drover/handlers/python"
	"github.com/drover-run/drover/handlers/workers/process"
)

// language is how the workers of an app are made. The kinds are here, and there is
// no other registry.
type language struct {
	// find returns what runs them.
	find func(ctx context.Context, app configs.App, env configs.Env) (interpreters.Interpreter, error)
	// install writes drover's own worker below a directory, and returns where it is.
	install func(dir string) (home string, err error)
	// layout says where the parts of what runs them are.
	layout func(ctx context.Context, i interpreters.Interpreter) (interpreters.Layout, error)
	// command is what a worker process runs.
	command func(i interpreters.Interpreter, home string, app configs.App, environ []string) process.Command
	// code reads the state of the code in a directory.
	code func(dir string) *interpreters.Code
}

var languages = map[string]language{
	configs.Python: {
		find: func(ctx context.Context, app configs.App, env configs.Env) (interpreters.Interpreter, error) {
			return python.Find(ctx, app.Dir, app.Interpreter, env)
		},
		install: python.Install,
		layout:  python.Layout,
		command: func(i interpreters.Interpreter, home string, app configs.App, environ []string) process.Command {
			return python.Command(i, home, app.Dir, environ)
		},
		code: python.Code,
	},
	configs.Node: {
		find: func(ctx context.Context, app configs.App, env configs.Env) (interpreters.Interpreter, error) {
			return node.Find(ctx, app.Interpreter, env)
		},
		install: node.Install,
		layout:  node.Layout,
		command: func(i interpreters.Interpreter, home string, app configs.App, environ []string) process.Command {
			return node.Command(i, home, app.Dir, environ)
		},
		code: node.Code,
	},
	configs.Worker: {
		find:    findWorker,
		install: func(string) (string, error) { return "", nil }, // it is the user's
		layout: func(_ context.Context, i interpreters.Interpreter) (interpreters.Layout, error) {
			return interpreters.Layout{Executable: i.Path, Homes: []string{i.Path}}, nil
		},
		command: func(i interpreters.Interpreter, _ string, app configs.App, environ []string) process.Command {
			return process.Command{Path: i.Path, Args: app.Command[1:], Dir: app.Dir, Env: environ}
		},
		code: func(dir string) *interpreters.Code { return interpreters.Read(dir, interpreters.Kinds{}) },
	},
}

// findWorker finds the program of a user's own worker.
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
