// Package interpreters finds the interpreter of an app's language, checks that it runs and is
// new enough, installs the worker's own files, and detects changes of an app's code. The
// packages of the languages call it.
package interpreters

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Interpreter is a program that runs an app's workers.
type Interpreter struct {
	Path string
	// Language and Version are descriptions; empty if CheckVersion was not called.
	Language, Version string
	// From is the place that names this interpreter, as text.
	From string
}

func (i Interpreter) String() string {
	if i.Language == "" {
		return fmt.Sprintf("%s (%s)", i.Path, i.From)
	}
	return fmt.Sprintf("%s (%s %s, %s)", i.Path, i.Language, i.Version, i.From)
}

// FindNamed returns the interpreter that a configuration names. path is searched for it, as $PATH
// is by a shell.
func FindNamed(name, path string) (Interpreter, error) {
	found, err := LookUp(name, path)
	if err != nil {
		return Interpreter{}, fmt.Errorf("the interpreter %s (interpreter in the configuration): %w", name, err)
	}
	return Interpreter{Path: found, From: "interpreter in the configuration"}, nil
}

// probeLimit bounds the first run of an interpreter.
const probeLimit = 30 * time.Second

// CheckVersion runs an interpreter and checks that it works and is new enough. With these
// arguments it prints its version.
func (i *Interpreter) CheckVersion(ctx context.Context, language, oldest string, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, probeLimit)
	defer cancel()
	out, err := commandOutput(ctx, i.Path, args...)
	said := strings.TrimSpace(string(out))
	if err != nil {
		return fmt.Errorf("the interpreter %s (%s) does not run: %w: %s", i.Path, i.From, err, said)
	}
	i.Language, i.Version = language, strings.TrimPrefix(said, "v")
	if !atLeast(i.Version, oldest) {
		return fmt.Errorf("the interpreter %s (%s) is %s %s; drover needs %s or newer: install one, and name it with interpreter",
			i.Path, i.From, language, i.Version, oldest)
	}
	return nil
}

// atLeast reports whether a version is at least another one. A text that is not a version counts as
// the oldest.
func atLeast(version, oldest string) bool {
	have := strings.Split(version, ".")
	if len(have) < 3 {
		return false
	}
	for i, text := range strings.Split(oldest, ".") {
		is, err := strconv.Atoi(have[i])
		least, _ := strconv.Atoi(text) // drover's own, and valid
		switch {
		case err != nil || is < least:
			return false
		case is > least:
			return true
		}
	}
	return true
}

// LookUp finds a program as a shell would, on the path given.
func LookUp(name, path string) (string, error) {
	if strings.ContainsRune(name, filepath.Separator) {
		return name, checkExecutable(name)
	}
	for _, dir := range filepath.SplitList(path) {
		if full := filepath.Join(dir, name); checkExecutable(full) == nil {
			return full, nil
		}
	}
	return "", exec.ErrNotFound
}

func checkExecutable(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if info.IsDir() || info.Mode()&0o111 == 0 {
		return fmt.Errorf("%s is not executable", path)
	}
	return nil
}
