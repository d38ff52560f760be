// Package python is the worker that runs Python functions: a package of the
// standard library only, embedded in this binary, and the search for an
// interpreter to run it. The pool in package workers starts what Command returns.
package python

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/drover-run/drover/handlers/workers"
)

//go:embed all:worker
var worker embed.FS

// The oldest version that the worker runs on.
const oldestMajor, oldestMinor = 3, 9

// probeLimit bounds the first run of an interpreter.
const probeLimit = 30 * time.Second

// Install writes the worker's files below dir and returns the path to run. The
// directory's name holds their hash, so that daemons of different versions do
// not share one.
func Install(dir string) (string, error) {
	hash := sha256.New()
	files := make(map[string][]byte)
	err := fs.WalkDir(worker, "worker", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, ".py") {
			return err
		}
		text, err := worker.ReadFile(path)
		files[strings.TrimPrefix(path, "worker/")] = text
		_, _ = fmt.Fprintf(hash, "%s %d\n%s", path, len(text), text) // a hash takes everything
		return err
	})
	if err != nil {
		return "", fmt.Errorf("reading the embedded Python worker: %w", err)
	}
	home := filepath.Join(dir, "python-"+hex.EncodeToString(hash.Sum(nil))[:16])
	if _, err := os.Stat(home); err == nil {
		return home, nil
	}
	if err := writeAll(dir, home, files); err != nil {
		return "", fmt.Errorf("installing the Python worker: %w", err)
	}
	return home, nil
}

// writeAll writes the files beside home and renames them there: home is whole, or
// it is not there.
func writeAll(dir, home string, files map[string][]byte) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	fresh, err := os.MkdirTemp(dir, "python-new-")
	if err != nil {
		return err
	}
	for name, text := range files {
		path := filepath.Join(fresh, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(path, text, 0o600); err != nil {
			return err
		}
	}
	err = os.Rename(fresh, home)
	if errors.Is(err, fs.ErrExist) { // another daemon was first
		return os.RemoveAll(fresh)
	}
	return err
}

// Interpreter is a Python that is new enough.
type Interpreter struct {
	Path    string
	Version string
	// From says why it is this one.
	From string
}

func (i Interpreter) String() string {
	return fmt.Sprintf("%s (Python %s, %s)", i.Path, i.Version, i.From)
}

// Find returns the interpreter for an app in dir: the one that is named, else
// that of $VIRTUAL_ENV, else of .venv in or beside dir, else python3 on the path.
// It runs it, to see that it works and is new enough. env looks up environment
// variables.
func Find(ctx context.Context, dir, named string, env func(string) (string, bool)) (Interpreter, error) {
	i, err := choose(dir, named, env)
	if err != nil {
		return Interpreter{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, probeLimit)
	defer cancel()
	probe := exec.CommandContext(ctx, i.Path, "-c", "import sys; print('%d.%d.%d' % sys.version_info[:3])")
	out, err := probe.CombinedOutput()
	if err != nil {
		return Interpreter{}, fmt.Errorf("the interpreter %s (%s) does not run: %w: %s", i.Path, i.From, err, strings.TrimSpace(string(out)))
	}
	i.Version = strings.TrimSpace(string(out))
	var major, minor int
	parts := strings.Split(i.Version, ".")
	if len(parts) == 3 {
		major, _ = strconv.Atoi(parts[0]) // 0 is refused below
		minor, _ = strconv.Atoi(parts[1])
	}
	if major < oldestMajor || major == oldestMajor && minor < oldestMinor {
		return Interpreter{}, fmt.Errorf("the interpreter %s (%s) is Python %s; drover needs %d.%d or newer: install one, and name it with interpreter",
			i.Path, i.From, i.Version, oldestMajor, oldestMinor)
	}
	return i, nil
}

func choose(dir, named string, env func(string) (string, bool)) (Interpreter, error) {
	path, _ := env("PATH")
	if named != "" {
		found, err := lookUp(named, path)
		if err != nil {
			return Interpreter{}, fmt.Errorf("the interpreter %s (interpreter in the configuration): %w", named, err)
		}
		return Interpreter{Path: found, From: "interpreter in the configuration"}, nil
	}
	if home, found := env("VIRTUAL_ENV"); found && home != "" {
		inside := filepath.Join(home, "bin", "python")
		if _, err := os.Stat(inside); err != nil {
			return Interpreter{}, fmt.Errorf("VIRTUAL_ENV is %s, which has no bin/python: %w; unset it, or name an interpreter", home, err)
		}
		return Interpreter{Path: inside, From: "$VIRTUAL_ENV"}, nil
	}
	for _, place := range []string{dir, filepath.Dir(dir)} {
		inside := filepath.Join(place, ".venv", "bin", "python")
		if _, err := os.Stat(inside); err == nil {
			return Interpreter{Path: inside, From: ".venv beside the app"}, nil
		}
	}
	found, err := lookUp("python3", path)
	if err != nil {
		return Interpreter{}, fmt.Errorf("there is no python3 on the path; install Python %d.%d or newer (Debian: apt-get install python3), or name an interpreter", oldestMajor, oldestMinor)
	}
	return Interpreter{Path: found, From: "python3 on the path"}, nil
}

// lookUp finds a program as a shell would, on the path given.
func lookUp(name, path string) (string, error) {
	if strings.ContainsRune(name, filepath.Separator) {
		return name, executable(name)
	}
	for _, dir := range filepath.SplitList(path) {
		if full := filepath.Join(dir, name); executable(full) == nil {
			return full, nil
		}
	}
	return "", exec.ErrNotFound
}

func executable(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if info.IsDir() || info.Mode()&0o111 == 0 {
		return fmt.Errorf("%s is not executable", path)
	}
	return nil
}

// Command is what the pool runs: the worker in home, for the app in dir, with
// the environment given, as NAME=VALUE.
func Command(i Interpreter, home, dir string, environ []string) workers.Command {
	return workers.Command{Path: i.Path, Args: []string{"-u", home}, Dir: dir, Env: environ}
}
