// Package node has the worker that runs Node.js functions, plain JavaScript without
// dependencies, embedded in this binary, and finds a node to run it. The
// pool in package workers starts the command that WorkerCommand returns.
package node

import (
	"context"
	"embed"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/drover-run/drover/handlers/interpreters"
	"github.com/drover-run/drover/handlers/node/library"
	"github.com/drover-run/drover/handlers/workers/process"
)

//go:embed worker library/README.md library/testing.js library/testing.d.ts
var worker embed.FS

// FilesModule is the CommonJS module that finds the files of modules. It requires only modules of Node.js.
//
//go:embed worker/files.js
var FilesModule string

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

// WriteTypings writes the types of the module that apps require to the directory drover below dir,
// for TypeScript and editors. It replaces an existing file.
func WriteTypings(dir string) error {
	to := filepath.Join(dir, "drover")
	if err := os.MkdirAll(to, 0o755); err != nil { //nolint:gosec // others may read a project
		return fmt.Errorf("making the directory of the types: %w", err)
	}
	text, err := worker.ReadFile("worker/modules/drover/index.d.ts")
	if err == nil {
		err = os.WriteFile(filepath.Join(to, "index.d.ts"), text, 0o644) //nolint:gosec // see above
	}
	if err != nil {
		return fmt.Errorf("writing the types: %w", err)
	}
	return nil
}

// WritePackage writes the npm package drover-functions into a directory, and returns its path. The
// package has drover's version. The same version of drover writes the same bytes.
func WritePackage(dir, version string) (string, error) { return library.Write(worker, version, dir) }

// Kinds are the files that an app's behavior depends on. Files of packages are skipped, because they
// change only with the lock file.
var Kinds = interpreters.Kinds{Imported: []string{".js", ".mjs", ".cjs", ".ts", ".mts", ".cts"}, Always: []string{".json", ".node"}}

// FindInterpreter returns the interpreter for an app: the named one, or else node in the path. It
// runs the interpreter, and checks that it works and is new enough. env returns environment
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
