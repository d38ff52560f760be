package daemon

import (
	"context"
	"fmt"
	"os"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/handlers/node"
	"github.com/drover-run/drover/handlers/python"
	"github.com/drover-run/drover/handlers/runtimes"
	"github.com/drover-run/drover/handlers/workers"
)

// language is how the workers of an app are made. The kinds are here, and there is
// no other registry.
type language struct {
	// find returns what runs them.
	find func(ctx context.Context, app configs.App, env configs.Env) (runtimes.Interpreter, error)
	// install writes drover's own worker below a directory, and returns where it is.
	install func(dir string) (home string, err error)
	// layout says where the parts of what runs them are.
	layout func(ctx context.Context, i runtimes.Interpreter) (runtimes.Layout, error)
	// command is what a worker process runs.
	command func(i runtimes.Interpreter, home string, app configs.App, environ []string) workers.Command
	// code reads the state of the code in a directory.
	code func(dir string) *runtimes.Code
}

var languages = map[string]language{
	configs.Python: {
		find: func(ctx context.Context, app configs.App, env configs.Env) (runtimes.Interpreter, error) {
			return python.Find(ctx, app.Dir, app.Interpreter, env)
		},
		install: python.Install,
		layout:  python.Layout,
		command: func(i runtimes.Interpreter, home string, app configs.App, environ []string) workers.Command {
			return python.Command(i, home, app.Dir, environ)
		},
		code: python.Code,
	},
	configs.Node: {
		find: func(ctx context.Context, app configs.App, env configs.Env) (runtimes.Interpreter, error) {
			return node.Find(ctx, app.Interpreter, env)
		},
		install: node.Install,
		layout:  node.Layout,
		command: func(i runtimes.Interpreter, home string, app configs.App, environ []string) workers.Command {
			return node.Command(i, home, app.Dir, environ)
		},
		code: node.Code,
	},
	configs.Worker: {
		find:    findWorker,
		install: func(string) (string, error) { return "", nil }, // it is the user's
		layout: func(_ context.Context, i runtimes.Interpreter) (runtimes.Layout, error) {
			return runtimes.Layout{Executable: i.Path, Homes: []string{i.Path}}, nil
		},
		command: func(i runtimes.Interpreter, _ string, app configs.App, environ []string) workers.Command {
			return workers.Command{Path: i.Path, Args: app.Command[1:], Dir: app.Dir, Env: environ}
		},
		code: func(dir string) *runtimes.Code { return runtimes.Read(dir, runtimes.Kinds{}) },
	},
}

// findWorker finds the program of a user's own worker.
func findWorker(_ context.Context, app configs.App, env configs.Env) (runtimes.Interpreter, error) {
	if info, err := os.Stat(app.Dir); err != nil || !info.IsDir() {
		return runtimes.Interpreter{}, fmt.Errorf("its path %s is no directory; a worker's command runs in it", app.Dir)
	}
	path, _ := env("PATH")
	found, err := runtimes.LookUp(app.Command[0], path)
	if err != nil {
		return runtimes.Interpreter{}, fmt.Errorf("its command %s: %w", app.Command[0], err)
	}
	return runtimes.Interpreter{Path: found, From: "command in the configuration"}, nil
}
