// Package functionapps reads Azure Functions apps for the command line: it prints what `drover check`
// reports of one, and returns the configuration of one for commands that use its queues.
package functionapps

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/configs/edit"
	"github.com/drover-run/drover/configs/functionapp"
	"github.com/drover-run/drover/daemon/cli/exit"
	"github.com/drover-run/drover/daemon/cli/invoke"
	"github.com/drover-run/drover/daemon/cli/term"
	"github.com/drover-run/drover/daemon/internal/apps"
	"github.com/drover-run/drover/daemon/internal/program"
)

// Checker checks function apps.
type Checker struct {
	Out, Err io.Writer
	Env      configs.Env
	Environ  []string // of the process that imports the code
	// CheckConfig checks a configuration on this machine, and returns remarks.
	CheckConfig func(*configs.Config) (notes []string, err error)
	// Strict makes functions that drover does not run an error.
	Strict bool
}

// PrintCheck prints what drover check found: a description, and a line for each note.
func PrintCheck(out io.Writer, describe func(io.Writer) error, notes []string) error {
	var text strings.Builder
	if err := describe(&text); err != nil {
		return err
	}
	for _, note := range notes {
		fmt.Fprintln(&text, term.Printable(note))
	}
	return term.Print(out, text.String())
}

// Check imports the code of the function app in a directory. It prints the functions and the
// settings to Out, and to Err the errors and what the code prints. After errors that it has printed
// it returns exit.ErrCodeReported if the code does not load, and exit.ErrReported otherwise.
func (c Checker) Check(ctx context.Context, dir string) error {
	_, err := c.checkApp(ctx, dir)
	return err
}

// checkApp is Check. It returns the app, unless its files or its code could not be read.
func (c Checker) checkApp(ctx context.Context, dir string) (*functionapp.Translation, error) {
	output := &invoke.Log{Print: func(l invoke.Line) { fmt.Fprintln(c.Err, l) }}
	t, err := apps.LoadFunctionApp(ctx, apps.FunctionAppOptions{
		Dir: dir, Env: c.Env, Environ: c.Environ, NewLog: func(configs.Log) *slog.Logger { return slog.New(output) },
	})
	if ctx.Err() != nil {
		return nil, fmt.Errorf("checking %s: stopped by a signal", dir)
	}
	if t != nil && len(t.Errors) > 0 {
		defer func() { _ = term.Print(c.Err, term.Printable(t.Errors.Error())+"\n") }()
	}
	if err != nil {
		return nil, err
	}
	var notes []string
	if len(t.Config.Functions) > 0 {
		if notes, err = c.CheckConfig(t.Config); err != nil {
			return nil, err
		}
	}
	notes = append(notes, t.Config.Warnings...)
	for _, warning := range append(t.DescribeUnsupported(), t.Warnings...) {
		notes = append(notes, "warning: "+warning)
	}
	if err := PrintCheck(c.Out, t.Describe, notes); err != nil {
		return nil, err
	}
	switch left := t.CountUnsupported(); {
	case t.Unloadable:
		return t, exit.ErrCodeReported
	case len(t.Errors) > 0:
		return t, exit.ErrReported
	case c.Strict && left > 0:
		return t, fmt.Errorf("--strict: drover does not run %d of %d functions", left, len(t.Functions))
	}
	return t, nil
}

// LoadToRun returns the configuration at a path: of a file, of the drover.yaml in a directory, or of
// a function app. It imports the code of a function app; newLog returns the log for what that prints.
// The error is an IndexError or a *handlers.LoadError if the code was not imported.
func LoadToRun(ctx context.Context, path string, env configs.Env, environ func() []string, newLog func(configs.Log) *slog.Logger) (*configs.Config, error) {
	if dir, found := functionapp.Find(path); found {
		return apps.RunFunctionApp(ctx, apps.FunctionAppOptions{Dir: dir, Env: env, Environ: environ(), NewLog: newLog})
	}
	file, err := inDirectory(path)
	if err != nil {
		return nil, err
	}
	return configs.LoadContext(ctx, file, env)
}

// LoadProgram returns the configuration at a path of LoadToRun, with the functions of a program.
func LoadProgram(ctx context.Context, path string, own *program.Options, newLog func(configs.Log) *slog.Logger) (*configs.Config, error) {
	cfg, err := configs.New(), error(nil)
	if !NeedsNoFile(path, own) {
		cfg, err = LoadToRun(ctx, path, own.Env, own.Environ, newLog)
	}
	if err == nil {
		err = own.CompleteConfig(cfg)
	}
	if err != nil {
		return nil, err
	}
	return cfg, nil
}

// NeedsNoFile reports whether the path is the default configuration and does not exist, and the program
// defines its functions.
func NeedsNoFile(path string, own *program.Options) bool {
	if path != yamlFile || len(own.Functions) == 0 {
		return false
	}
	_, err := os.Stat(path)
	return errors.Is(err, fs.ErrNotExist)
}

// LoadClient is configs.LoadClient for a path of LoadToRun. It reads no code.
func LoadClient(ctx context.Context, path string, env configs.Env) (*configs.Config, error) {
	dir, found := functionapp.Find(path)
	if !found {
		file, err := inDirectory(path)
		if err != nil {
			return nil, err
		}
		return configs.LoadClient(ctx, file, env)
	}
	file := filepath.Join(dir, yamlFile)
	if _, err := os.Stat(file); err == nil {
		return configs.LoadClient(ctx, file, functionapp.SettingsOf(dir, env))
	}
	cfg := configs.New()
	var err error
	if cfg.DataDir, err = filepath.Abs(filepath.Join(dir, cfg.DataDir)); err != nil {
		return nil, fmt.Errorf("finding %s: %w", dir, err)
	}
	return cfg, nil
}

const yamlFile = "drover.yaml"

// inDirectory returns the configuration in a directory, or the path of a file.
func inDirectory(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil || !info.IsDir() {
		return path, nil
	}
	file := filepath.Join(path, yamlFile)
	if _, err := os.Stat(file); err != nil {
		return "", fmt.Errorf("%s has neither a drover.yaml nor a host.json, which an Azure Functions app has", path)
	}
	return file, nil
}

// NumbersFile returns the file that sets the numbers of an app for a path of LoadToRun: of a function
// app, the drover.yaml beside host.json.
func NumbersFile(path string) string {
	if dir, found := functionapp.Find(path); found {
		return filepath.Join(dir, yamlFile)
	}
	return path
}

// WriteNumbers writes numbers of an app into NumbersFile, and returns the changed lines as a diff. It
// creates that of a function app.
func WriteNumbers(path string, env configs.Env, app string, numbers []edit.Number) (diff string, err error) {
	file := NumbersFile(path)
	if _, found := functionapp.Find(path); found {
		return createNumbers(file, numbers)
	}
	change, err := edit.SetNumbers(file, env, app, numbers)
	if err == nil {
		err = change.Write()
	}
	if err != nil {
		return "", err
	}
	return change.Diff, nil
}

// createNumbers creates the drover.yaml of a function app.
func createNumbers(file string, numbers []edit.Number) (diff string, err error) {
	var pairs []string
	for _, n := range numbers {
		pairs = append(pairs, fmt.Sprintf("%s: %d", n.Key, n.Value))
	}
	lines := []string{"apps:", "  " + functionapp.AppName + ": {" + strings.Join(pairs, ", ") + "}"}
	out, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644) //nolint:gosec // others may read a configuration
	if err != nil {
		return "", fmt.Errorf("%s exists, and is unchanged", file)
	}
	_, err = out.WriteString(strings.Join(lines, "\n") + "\n")
	return "+" + strings.Join(lines, "\n+") + "\n", errors.Join(err, out.Close())
}
