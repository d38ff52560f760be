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

// WriteTypings writes the package that apps import, without the worker, to the directory
// drover below dir, for editors, type checkers and tests of apps. It replaces existing files.
func WriteTypings(dir string) error {
	to := filepath.Join(dir, "drover")
	if err := os.MkdirAll(to, 0o755); err != nil { //nolint:gosec // others may read a project
		return fmt.Errorf("making the directory of the Python package: %w", err)
	}
	for _, name := range []string{"__init__.py", "py.typed"} {
		text, err := worker.ReadFile("worker/drover/" + name)
		if err == nil {
			err = os.WriteFile(filepath.Join(to, name), text, 0o644) //nolint:gosec // see above
		}
		if err != nil {
			return fmt.Errorf("writing the Python package: %w", err)
		}
	}
	return nil
}

// ReadCode reads the state of an app's code.
func ReadCode(dir string) *interpreters.Code {
	return interpreters.ReadCode(dir, interpreters.Kinds{Imported: []string{".py"}})
}

// FindInterpreter returns the interpreter for an app in dir: the named one, or else
// that of $VIRTUAL_ENV, of .venv in or beside dir, or python3 on the path.
// It runs it, and checks that it works and is new enough. env returns environment
// variables.
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
