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
	"slices"
	"strings"
	"time"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/configs/functionapp"
	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/handlers/childproc"
	"github.com/drover-run/drover/handlers/python"
	"github.com/drover-run/drover/handlers/workers/process"
)

// This file reads function apps: their files, and by a run of the app's own interpreter the
// functions that its code has.

// besideHost is the configuration of settings that a function app does not have.
const besideHost = "drover.yaml"

// FunctionAppOptions is what LoadFunctionApp needs. All fields are required.
type FunctionAppOptions struct {
	Dir     string
	Env     configs.Env
	Environ []string // of the process that imports the code
	// NewLog returns the log of the app's settings, for the output of the code.
	NewLog func(configs.Log) *slog.Logger
}

// LoadFunctionApp reads the function app in a directory, and translates it. It imports the app's
// code, in the sandbox of its workers. The error is a configs.Errors if a file is wrong, and an
// *IndexError if the code was not imported; problems of functions are in the translation.
func LoadFunctionApp(ctx context.Context, o FunctionAppOptions) (*functionapp.Translation, error) {
	a, err := functionapp.Read(o.Dir, o.Env, o.Environ)
	if err != nil {
		return nil, err
	}
	file := filepath.Join(o.Dir, besideHost)
	text, _, err := configs.Read(ctx, file)
	if _, missing := os.Stat(file); errors.Is(missing, fs.ErrNotExist) {
		text, err = nil, nil
	}
	if err != nil {
		return nil, err
	}
	general, err := a.General(file, text)
	if err != nil {
		return nil, err
	}
	index, err := indexApp(ctx, a, general.Apps[functionapp.AppName], o.Environ, o.NewLog(general.Log))
	if err != nil {
		return nil, &IndexError{o.Dir, err}
	}
	t := a.Translate(index)
	return t, t.Complete(file, text)
}

// IndexError reports that the functions of a function app were not found out.
type IndexError struct {
	Dir string
	Err error
}

func (e *IndexError) Error() string {
	return fmt.Sprintf("indexing the function app %s: %v", e.Dir, e.Err)
}

// Unwrap returns the cause.
func (e *IndexError) Unwrap() error { return e.Err }

// RunFunctionApp is LoadFunctionApp for what runs the functions. The configuration has one function
// at least; its NotRun are the others. The error is also a *handlers.LoadError if the code does not
// load.
func RunFunctionApp(ctx context.Context, o FunctionAppOptions) (*configs.Config, error) {
	t, err := LoadFunctionApp(ctx, o)
	var wrong configs.Errors
	switch {
	case errors.As(err, &wrong) && t != nil:
		return nil, append(wrong, t.Errors...)
	case err != nil:
		return nil, err
	case t.Unloadable:
		return nil, newLoadError(t.Errors)
	case len(t.Config.Functions) == 0 && len(t.Errors) > 0:
		return nil, t.Errors
	case len(t.Config.Functions) == 0:
		why := fmt.Sprintf("%s has no function that runs", o.Dir)
		for _, f := range t.Config.NotRun {
			why += fmt.Sprintf("\n  function %s: %s", f.Function, f.Reason)
		}
		return nil, errors.New(why)
	}
	t.Config.Warnings = append(append(t.Config.Warnings, t.Warnings...), t.DescribeIgnored()...)
	return t.Config, nil
}

// newLoadError returns the error of an app with problems. Their excerpts, with tracebacks, are its
// detail.
func newLoadError(errs configs.Errors) *handlers.LoadError {
	var summaries, details []string
	for _, p := range errs {
		details = append(details, strings.Trim(p.Excerpt, "\n"))
		p.Excerpt = ""
		summaries = append(summaries, p.String())
	}
	return &handlers.LoadError{Summary: strings.Join(summaries, "\n"), Detail: strings.Join(details, "\n")}
}

// slowImport is the time after which indexApp reports that the code is still being imported.
const slowImport = 5 * time.Second

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
	command.Env = append(slices.Clone(command.Env), "PYTHONBREAKPOINT=0") // this process has no terminal
	reaper := childproc.New(log)
	defer reaper.Close()
	ctx, cancel := context.WithTimeout(ctx, app.StartTimeout.D())
	defer cancel()
	defer time.AfterFunc(slowImport, func() {
		log.Warn("the code of the function app is still being imported", "app", a.Name, "for", slowImport, "at_most", app.StartTimeout.D())
	}).Stop()
	answer, err := python.RunIndex(ctx, &process.Starter{Command: command, Reaper: reaper, Confine: confinement, Log: log}, text)
	if err != nil {
		return index, &handlers.LoadError{Summary: fmt.Sprintf("importing the code with %v: %v", interpreter, err)}
	}
	if err := json.Unmarshal(answer, &index); err != nil {
		return index, fmt.Errorf("reading the answer of %v: %w", interpreter, err)
	}
	return index, nil
}

// azureDescriptor describes a function of a function app to a worker. docs/worker-protocol.md
// defines it.
type azureDescriptor struct {
	Name        string            `json:"name"`
	Entry       string            `json:"entry"`
	File        string            `json:"file"`
	Script      string            `json:"script,omitempty"`
	HTTPType    string            `json:"http_type"`
	Bindings    []json.RawMessage `json:"bindings"`
	Retry       json.RawMessage   `json:"retry"`
	MaxAttempts int               `json:"max_attempts"`
	Directory   string            `json:"directory"`
	LogLevel    string            `json:"log_level"`
}

// describeAzure returns the descriptor of a function as JSON; nil for a function of another app.
func describeAzure(name string, f configs.Function, cfg *configs.Config) json.RawMessage {
	h := f.Handler.Python
	if h == nil || h.Azure == nil {
		return nil
	}
	// A change of other levels does not restart the workers.
	level := "info"
	if f.LogLevel == "debug" || f.LogLevel == "auto" && cfg.Log.Level == "debug" {
		level = "debug"
	}
	text, err := json.Marshal(azureDescriptor{
		Name: name, Entry: h.Azure.Entry, File: h.Azure.File, Script: h.Azure.Script, HTTPType: h.Azure.HTTPType, Bindings: h.Azure.Bindings, Retry: h.Azure.Retry,
		MaxAttempts: f.Retry.MaxAttempts, Directory: cfg.Apps[h.App].Dir, LogLevel: level,
	})
	if err != nil {
		panic(err) // the raw parts were decoded from JSON
	}
	return text
}
