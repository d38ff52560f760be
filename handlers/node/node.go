// Package node has the worker that runs Node.js functions, plain JavaScript without
// dependencies, embedded in this binary, and finds a node to run it. The
// pool in package workers starts the command that WorkerCommand returns.
package node

import (
	"context"
	"embed"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/drover-run/drover/handlers/interpreters"
	"github.com/drover-run/drover/handlers/workers/process"
)

//go:embed worker
var worker embed.FS

// oldest is the oldest version that the worker runs on.
const oldest = "20"

// InstallWorker writes the worker's files below dir and returns the directory that they
// are in.
func InstallWorker(dir string) (string, error) {
	files, err := fs.Sub(worker, "worker")
	if err != nil {
		return "", err
	}
	return interpreters.InstallWorker(dir, "node", files, ".js", ".mjs", ".json")
}

// kinds are the files that an app's behavior depends on. The files of packages are skipped: they
// change with the lock file.
var kinds = interpreters.Kinds{Imported: []string{".js", ".mjs", ".cjs", ".ts", ".mts", ".cts"}, Always: []string{".json", ".node"}}

// ReadCode reads the state of an app's code.
func ReadCode(dir string) *interpreters.Code { return interpreters.ReadCode(dir, kinds) }

// FindInterpreter returns the interpreter for an app: the named one, or else node on the
// path. It runs it, and checks that it works and is new enough. env returns environment
// variables.
func FindInterpreter(ctx context.Context, named string, env func(string) (string, bool)) (interpreters.Interpreter, error) {
	i, err := chooseInterpreter(named, env)
	if err != nil {
		return i, err
	}
	return i, i.CheckVersion(ctx, "Node.js", oldest, "--version")
}

func chooseInterpreter(named string, env func(string) (string, bool)) (interpreters.Interpreter, error) {
	path, _ := env("PATH")
	if named != "" {
		return interpreters.FindNamed(named, path)
	}
	found, err := interpreters.LookUp("node", path)
	if err != nil {
		return interpreters.Interpreter{}, fmt.Errorf("there is no node on the path; install Node.js %s or newer (https://nodejs.org; Debian 13: apt-get install nodejs), or name an interpreter", oldest)
	}
	return interpreters.Interpreter{Path: found, From: "node on the path"}, nil
}

// WorkerCommand returns the command that the pool runs: the worker in home, for the app in dir, with
// the environment env, as NAME=VALUE.
func WorkerCommand(i interpreters.Interpreter, home, dir string, environ []string) process.Command {
	return process.Command{Path: i.Path, Args: []string{filepath.Join(home, "main.js")}, Dir: dir, Env: environ}
}
