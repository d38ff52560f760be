// Package sdktest runs tests that are written in Python and JavaScript: with the
// SDKs that users of those languages have, against drover's emulators and its
// embedded server, for which there is natscli too. It runs mypy and tsc for tests of types. The
// SDKs, mypy and TypeScript are pinned in testdata/requirements.txt and testdata/package.json;
// `make sdks` installs them.
package sdktest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// limit bounds a script: a hung one fails, and does not take the suite along.
const limit = 4 * time.Minute

// Run runs a script with the interpreter that its name asks for, .py or .js. Each
// of its checks becomes a subtest. Where the SDK is not installed the test is
// skipped; under CI it fails.
func Run(t *testing.T, script string, args ...string) {
	t.Helper()
	out, err := output(t, script, args...)
	checks, done := report(t, out)
	if err != nil || !done {
		t.Errorf("%s: %v, after %d checks", script, err, checks)
	}
}

// RunExample runs the example in a language, python or js, that has some text on a
// page of the documentation. It replaces the text, and returns the example's output.
func RunExample(t *testing.T, page, language, old, replacement string) string {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	example := ""
	for _, block := range strings.Split(string(text), "```"+language+"\n")[1:] {
		if code, _, _ := strings.Cut(block, "```"); strings.Contains(code, old) {
			example = code
		}
	}
	if example == "" {
		t.Fatalf("%s: no example in %s has %q", page, language, old)
	}
	return RunText(t, language, strings.ReplaceAll(example, old, replacement))
}

// RunText runs a program in a language, python or js, and returns its output.
func RunText(t *testing.T, language, program string) string {
	t.Helper()
	script := filepath.Join(t.TempDir(), "example."+map[string]string{"python": "py", "js": "js"}[language])
	if err := os.WriteFile(script, []byte(program), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := output(t, script)
	if err != nil {
		t.Fatalf("the example in %s: %v\n%s\n%s", language, err, out, program)
	}
	return out
}

// output runs a script to its end.
func output(t *testing.T, script string, args ...string) (string, error) {
	t.Helper()
	command, err := interpreter(script)
	if err != nil {
		missing(t, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, command, append([]string{script}, args...)...)
	cmd.WaitDelay = 10 * time.Second
	cmd.Env = append(os.Environ(), "PYTHONPATH="+testdata(), "NODE_PATH="+testdata()+":"+filepath.Join(testdata(), "node_modules"), "PYTHONDONTWRITEBYTECODE=1")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err = cmd.Run()
	return out.String(), err
}

// missing skips the test; under CI it fails.
func missing(t *testing.T, err error) {
	t.Helper()
	if os.Getenv("CI") == "" {
		t.Skip(err)
	}
	t.Fatal(err)
}

// Mypy runs mypy, with the given environment variables in addition to those of the test, and
// returns its output.
func Mypy(t *testing.T, environ []string, args ...string) (string, error) {
	t.Helper()
	python := filepath.Join(testdata(), "venv", "bin", "python")
	if err := exec.CommandContext(t.Context(), python, "-c", "import mypy").Run(); err != nil {
		missing(t, errors.New("no mypy; install it with: make sdks"))
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, python, append([]string{"-m", "mypy", "--cache-dir", t.TempDir()}, args...)...)
	cmd.Env = append(os.Environ(), environ...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// TSC checks the types of TypeScript files in a directory, which also has their packages, and returns
// the output of tsc.
func TSC(t *testing.T, dir string, args ...string) (string, error) {
	t.Helper()
	command := filepath.Join(testdata(), "node_modules", ".bin", "tsc")
	if _, err := os.Stat(command); err != nil {
		missing(t, errors.New("no TypeScript; install it with: make sdks"))
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, command, append([]string{"--noEmit", "--strict", "--target", "es2022", "--types", "node", "--typeRoots", filepath.Join(testdata(), "node_modules", "@types")}, args...)...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// Natscli returns the path of the command nats.
func Natscli(t *testing.T) string {
	t.Helper()
	path := filepath.Join(testdata(), "bin", "nats")
	if _, err := os.Stat(path); err != nil {
		missing(t, errors.New("no natscli; install it with: make sdks"))
	}
	return path
}

// report makes subtests of a script's output.
func report(t *testing.T, out string) (checks int, done bool) {
	for line := range strings.Lines(out) {
		line = strings.TrimSpace(line)
		text, found := strings.CutPrefix(line, "CHECK ")
		if !found {
			if line == fmt.Sprint("DONE ", checks) && checks > 0 {
				done = true
			} else {
				t.Log(line)
			}
			continue
		}
		var check struct {
			Name, Failure string
			Seconds       float64
		}
		if err := json.Unmarshal([]byte(text), &check); err != nil {
			t.Errorf("%q: %v", line, err)
			continue
		}
		checks++
		t.Run(check.Name, func(t *testing.T) {
			t.Logf("took %.1f s", check.Seconds)
			if check.Failure != "" {
				t.Error(check.Failure)
			}
		})
	}
	return checks, done
}

func testdata() string {
	_, here, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(here), "testdata")
}

// interpreter returns what runs a script, with the SDKs at hand.
func interpreter(script string) (string, error) {
	if filepath.Ext(script) == ".py" {
		python := filepath.Join(testdata(), "venv", "bin", "python")
		if _, err := os.Stat(python); err != nil {
			return "", errors.New("no SDKs for Python; install them with: make sdks")
		}
		return python, nil
	}
	node, err := exec.LookPath("node")
	if err != nil {
		return "", errors.New("no Node.js; install it, and the SDKs for JavaScript with: make sdks")
	}
	if _, err := os.Stat(filepath.Join(testdata(), "node_modules", "@nats-io", "jetstream")); err != nil {
		return "", errors.New("no SDKs for JavaScript; install them with: make sdks")
	}
	return node, nil
}
