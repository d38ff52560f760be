package apps

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/configs/functionapp"
	"github.com/drover-run/drover/handlers/childproc"
	"github.com/drover-run/drover/handlers/python"
	"github.com/drover-run/drover/handlers/workers/process"
)

// This file reads function apps: their files, and by a run of the app's own interpreter the
// functions that its code has.

// besideHost is the configuration of what a function app cannot set.
const besideHost = "drover.yaml"

// LoadFunctionApp reads the function app in a directory, and translates it. It imports the app's
// code, in the sandbox of its workers. The log gets what the code prints. The error is a
// configs.Errors if a file is wrong; problems of functions are in the translation.
func LoadFunctionApp(ctx context.Context, dir string, env configs.Env, environ []string, log *slog.Logger) (*functionapp.Translation, error) {
	a, err := functionapp.Read(dir, env, environ)
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, besideHost)
	text, _, err := configs.Read(ctx, file)
	if _, missing := os.Stat(file); errors.Is(missing, fs.ErrNotExist) {
		text, err = nil, nil
	}
	if err != nil {
		return nil, err
	}
	app, err := a.Worker(file, text)
	if err != nil {
		return nil, err
	}
	index, err := indexApp(ctx, a, app, environ, log)
	if err != nil {
		return nil, fmt.Errorf("indexing the function app %s: %w", dir, err)
	}
	t := a.Translate(index)
	return t, t.Complete(file, text)
}

// indexApp runs the interpreter of an app, to find its functions.
func indexApp(ctx context.Context, a *functionapp.App, app configs.App, environ []string, log *slog.Logger) (index functionapp.Index, err error) {
	request, needed := a.Request()
	if !needed {
		return index, nil
	}
	interpreter, err := RuntimeOf(configs.Python).Find(ctx, app, a.Settings.Env)
	if err != nil {
		return index, err
	}
	request.Patience = 0.5 * app.StartTimeout.D().Seconds()
	text, err := json.Marshal(request)
	if err != nil {
		return index, err
	}
	home, err := os.MkdirTemp("", "drover-index-")
	if err != nil {
		return index, fmt.Errorf("making a directory for the worker: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(home)) }()
	app.Limits.Memory, app.Limits.CPU, app.Limits.Processes = 0, 0, 0 // a running daemon may use the cgroup
	confinement, command, err := confineWorkers(ctx, app, home, interpreter, environ, log)
	if err != nil {
		return index, err
	}
	defer func() { err = errors.Join(err, confinement.Close()) }()
	reaper := childproc.New(log)
	defer reaper.Close()
	ctx, cancel := context.WithTimeout(ctx, app.StartTimeout.D())
	defer cancel()
	answer, err := python.RunIndex(ctx, &process.Starter{Command: command, Reaper: reaper, Confine: confinement, Log: log}, text)
	if err != nil {
		return index, fmt.Errorf("%v, which imports its code: %w", interpreter, err)
	}
	if err := json.Unmarshal(answer, &index); err != nil {
		return index, fmt.Errorf("reading the answer of %v: %w", interpreter, err)
	}
	return index, nil
}
