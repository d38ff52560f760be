// Package python has the worker that runs Python functions, which needs only the
// standard library, embedded in this binary, and finds an
// interpreter to run it. The pool in package workers starts the command that WorkerCommand returns.
package python

import (
	"context"
	"embed"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/drover-run/drover/handlers/interpreters"
	"github.com/drover-run/drover/handlers/workers/process"
)

//go:embed all:worker
var worker embed.FS

// oldest is the oldest version that the worker runs on.
const oldest = "3.9"

// InstallWorker writes the worker's files below dir and returns the path to run.
func InstallWorker(dir string) (string, error) {
	files, err := fs.Sub(worker, "worker")
	if err != nil {
		return "", err
	}
	return interpreters.InstallWorker(dir, "python", files, ".py", ".typed")
}

// public lists the files of the package drover that apps and their tests import. They import no other
// files of the package.
var public = []string{
	"__init__.py", "awaitables.py", "batches.py", "decoding.py", "forms.py", "json_values.py", "payloads.py", "py.typed", "results.py", "testing.py",
}

// PublicFile is a file of the package that apps import, with its path, which begins with drover/.
type PublicFile struct {
	Path    string
	Content []byte
}

// PublicFiles returns the package that apps import, without the worker.
func PublicFiles() ([]PublicFile, error) {
	var out []PublicFile
	for _, name := range public {
		text, err := worker.ReadFile("worker/drover/" + name)
		if err != nil {
			return nil, fmt.Errorf("reading the Python package: %w", err)
		}
		out = append(out, PublicFile{"drover/" + name, text})
	}
	return out, nil
}

// WriteTypings writes PublicFiles below dir, for editors, type checkers and tests of apps. It
// replaces existing files.
func WriteTypings(dir string) error {
	files, err := PublicFiles()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(dir, "drover"), 0o755); err != nil { //nolint:gosec // others may read a project
		return fmt.Errorf("making the directory of the Python package: %w", err)
	}
	for _, f := range files {
		if err := os.WriteFile(filepath.Join(dir, filepath.FromSlash(f.Path)), f.Content, 0o644); err != nil { //nolint:gosec // see above
			return fmt.Errorf("writing the Python package: %w", err)
		}
	}
	return nil
}

// Kinds are the kinds of files in an app's code.
var Kinds = interpreters.Kinds{Imported: []string{".py"}}

// FindInterpreter returns the interpreter for an app in dir: the named one, or else the one in
// $VIRTUAL_ENV, in .venv in or next to dir, or python3 in the path. It runs the interpreter, and
// checks that it works and is new enough. env returns environment variables.
func FindInterpreter(ctx context.Context, dir, named string, env func(string) (string, bool)) (interpreters.Interpreter, error) {
	i, err := chooseInterpreter(dir, named, env)
	if err != nil {
		return i, err
	}
	return i, i.CheckVersion(ctx, "Python", oldest, "-c", "import sys; print('%d.%d.%d' % sys.version_info[:3])")
}

func chooseInterpreter(dir, named string, env func(string) (string, bool)) (interpreters.Interpreter, error) {
	path, _ := env("PATH")
	if named != "" {
		return interpreters.FindNamed(named, path)
	}
	if home, found := env("VIRTUAL_ENV"); found && home != "" {
		inside := filepath.Join(home, "bin", "python")
		if _, err := os.Stat(inside); err != nil {
			return interpreters.Interpreter{}, fmt.Errorf("VIRTUAL_ENV is %s, which has no bin/python: %w; unset it, or name an interpreter", home, err)
		}
		return interpreters.Interpreter{Path: inside, From: "$VIRTUAL_ENV"}, nil
	}
	for _, place := range []string{dir, filepath.Dir(dir)} {
		inside := filepath.Join(place, ".venv", "bin", "python")
		if _, err := os.Stat(inside); err == nil {
			return interpreters.Interpreter{Path: inside, From: ".venv beside the app"}, nil
		}
	}
	found, err := interpreters.LookUp("python3", path)
	if err != nil {
		return interpreters.Interpreter{}, fmt.Errorf("there is no python3 on the path; install Python %s or newer (Debian: apt-get install python3), or name an interpreter", oldest)
	}
	return interpreters.Interpreter{Path: found, From: "python3 on the path"}, nil
}

// WorkerCommand returns the command that the pool runs: the worker in home, for the app in dir, with
// the environment env, as NAME=VALUE.
func WorkerCommand(i interpreters.Interpreter, home, dir string, environ []string) process.Command {
	return process.Command{Path: i.Path, Args: []string{"-u", home}, Dir: dir, Env: environ}
}
