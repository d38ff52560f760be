// Package codecheck finds mistakes in the code of apps by parsing it: modules and functions that do not
// exist, functions that cannot be called, syntax errors, and packages that are not installed. It does not
// import the app. The app's own interpreter parses the code, with a program that is embedded here. The
// command calls it, from one goroutine.
package codecheck

import (
	"bytes"
	"context"
	_ "embed" // the programs that parse code
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/configs/problems"
	"github.com/drover-run/drover/daemon/internal/apps"
	"github.com/drover-run/drover/handlers/node"
)

const (
	// parseLimit bounds the time to parse the code of one app.
	parseLimit = 30 * time.Second
	// maxAnswer bounds the output of the program, in bytes.
	maxAnswer = 4 << 20
	// maxSource bounds the file of a problem, in bytes. Lines of larger files are not shown.
	maxSource = 8 << 20
)

//go:embed inspect.py
var inspectPython string

//go:embed inspect.js
var inspectNode string

// inspectNodeWithFiles is inspect.js after the worker's files.js, so that both find the same files.
var inspectNodeWithFiles = "const workerFiles = (module => {" + node.FilesModule + "return module.exports; })({});\n" + inspectNode

// arguments are the arguments of the interpreters, by language. Python's -I does not import the app's
// modules, and -B does not write to its directory.
var arguments = map[string][]string{
	configs.Python: {"-I", "-B", "-c", inspectPython},
	configs.Node:   {"--expose-internals", "--experimental-vm-modules", "--no-warnings", "-e", inspectNodeWithFiles},
}

// request is the input of a program.
type request struct {
	Dir       string     `json:"dir"`
	Functions []function `json:"functions"`
}

type function struct {
	Name     string `json:"name"` // in the configuration
	Module   string `json:"module"`
	Function string `json:"function"`
	Batch    bool   `json:"batch"` // it takes a list of messages
	Reply    bool   `json:"reply"` // a client waits for its result
}

// problem is an entry of the answer.
type problem struct {
	Function string   `json:"function"`
	Kind     string   `json:"kind"` // module or function: named in the configuration; code: in a file
	Message  string   `json:"message"`
	Names    []string `json:"names"` // of the functions that exist
	File     string   `json:"file"`
	Line     int      `json:"line"`
	Column   int      `json:"column"`
}

// Check parses the code of each app with functions in Python or Node.js. notes lists the apps whose code
// was not parsed. The error is a configs.Errors.
func Check(ctx context.Context, cfg *configs.Config, env configs.Env, environ []string) (notes []string, err error) {
	var all configs.Errors
	for _, name := range slices.Sorted(maps.Keys(cfg.Apps)) {
		app := cfg.Apps[name]
		if arguments[app.Language] == nil {
			continue
		}
		r := request{Dir: app.Dir, Functions: functionsOf(cfg, name)}
		if len(r.Functions) == 0 {
			continue
		}
		found, err := parse(ctx, app, r, env, environ)
		if err != nil {
			notes = append(notes, fmt.Sprintf("app %s: its code was not parsed: %v", name, err))
			continue
		}
		for _, p := range found {
			all = append(all, describe(cfg, p)...)
		}
	}
	if len(all) > 0 {
		return notes, all
	}
	return notes, nil
}

// functionsOf returns the functions of an app. Function apps are checked elsewhere.
func functionsOf(cfg *configs.Config, app string) (out []function) {
	for _, name := range slices.Sorted(maps.Keys(cfg.Functions)) {
		f := cfg.Functions[name]
		code, found := f.Handler.Code()
		if !found || code.App != app || f.Handler.Python != nil && f.Handler.Python.Azure != nil {
			continue
		}
		out = append(out, function{Name: name, Module: code.Module, Function: code.Function, Batch: f.Batch.Size > 0, Reply: f.Trigger.HTTP != nil})
	}
	return out
}

// parse runs the program of the app's language.
func parse(ctx context.Context, app configs.App, r request, env configs.Env, environ []string) ([]problem, error) {
	interpreter, err := apps.RuntimeOf(app.Language).Find(ctx, app, env)
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, parseLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, interpreter.Path, arguments[app.Language]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	cmd.Dir, cmd.Stdin = "/", bytes.NewReader(text)
	// NODE_OPTIONS could make Node.js load other code first.
	cmd.Env = slices.DeleteFunc(slices.Clone(environ), func(v string) bool { return strings.HasPrefix(v, "NODE_OPTIONS=") })
	var out, errs bounded
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		lines := strings.Split(strings.TrimSpace(errs.String()), "\n")
		return nil, fmt.Errorf("%v: %w: %s", interpreter, err, lines[len(lines)-1])
	}
	var answer struct{ Problems []problem }
	if err := json.Unmarshal(out.Bytes(), &answer); err != nil {
		return nil, fmt.Errorf("%v: its answer: %w", interpreter, err)
	}
	return answer.Problems, nil
}

// bounded keeps the first maxAnswer bytes.
type bounded struct{ bytes.Buffer }

func (b *bounded) Write(p []byte) (int, error) {
	_, err := b.Buffer.Write(p[:min(len(p), max(0, maxAnswer-b.Len()))])
	return len(p), err
}

// describe returns a problem with its place: in the configuration, or in the code.
func describe(cfg *configs.Config, p problem) configs.Errors {
	code, _ := cfg.Functions[p.Function].Handler.Code()
	message := fmt.Sprintf("function %s: %s", p.Function, p.Message)
	var s *problems.Source
	if p.Kind == "code" {
		s = problems.New(p.File, readSource(p.File), "", nil)
		s.Report(configs.Position{Line: p.Line, Column: p.Column}, "%s", message)
	} else {
		if near := configs.Nearest(code.Function, p.Names); near != "" {
			message += fmt.Sprintf("; did you mean %s?", near)
		}
		s = cfg.Places()
		s.Report(s.At(fmt.Sprintf("functions.%s.handler.%s.%s", p.Function, code.Language, p.Kind)), "%s", message)
	}
	var out configs.Errors
	errors.As(s.Err(), &out)
	return out
}

// readSource returns the text of a file, so that an error can show its line; nil if it is too large or has
// been removed.
func readSource(file string) []byte {
	if info, err := os.Stat(file); err != nil || !info.Mode().IsRegular() || info.Size() > maxSource {
		return nil
	}
	text, _ := os.ReadFile(file)
	return text
}
