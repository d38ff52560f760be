package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon/cli/exit"
	"github.com/drover-run/drover/daemon/cli/term"
	"github.com/drover-run/drover/daemon/cli/typings"
	"github.com/drover-run/drover/daemon/internal/apps"
	"github.com/drover-run/drover/handlers/workers/conformance"
)

type workerCommand struct {
	Test    workerTestCommand  `cmd:"" help:"Test a worker against the whole protocol, and print each violation."`
	Wheel   typings.Wheel      `cmd:"" help:"Write the Python package drover as a wheel, for pip: for tests, editors and type checkers of apps."`
	Package typings.NPMPackage `cmd:"" name:"npm-package" help:"Write the Node.js module drover as an npm package: for tests, TypeScript and editors of apps."`
	Typings typings.Command    `cmd:"" help:"Write the package drover, or its types, for editors, type checkers and tests of apps."`
}

// workerTestCommand is `drover worker test`.
type workerTestCommand struct {
	Command []string      `arg:"" help:"Test the built-in worker python or node, or, after --, a command with its arguments."`
	App     string        `help:"Use the test app in this directory, and run the command as your own worker. docs/worker-protocol.md describes the app."`
	Module  string        `default:"conformance" help:"Load this module of the test app (default: conformance)."`
	Modes   []string      `enum:"one,threads,async" default:"one,threads,async" help:"Test these modes of running functions: one at a time, in threads, asynchronously (default: one,threads,async)."`
	Only    string        `name:"run" placeholder:"REGEXP" help:"Run only the checks whose names match."`
	Limit   time.Duration `default:"30s" help:"Limit the time of each check (default: 30s)."`
	JSON    bool          `help:"Print one JSON object per check, one per line."`
}

func (*workerTestCommand) Help() string {
	return `Starts the command many times, as a daemon would. The exit status is 1 if a check fails.

Examples:

    drover worker test python
    drover worker test node
    drover worker test --app ./conformance -- ./my-worker --quiet
    drover worker test python --run '^cancel/' --json
`
}

func (c *workerTestCommand) Run(ctx context.Context, std *IO) (err error) {
	options := conformance.Options{Limit: c.Limit}
	if c.Limit <= 0 {
		return exit.UsageError("--limit must be more than 0")
	}
	if c.Only != "" {
		if options.Only, err = regexp.Compile(c.Only); err != nil {
			return exit.UsageError("--run takes a regular expression: " + err.Error())
		}
	}
	dir, err := os.MkdirTemp("", "drover-worker-test-")
	if err != nil {
		return fmt.Errorf("creating a directory for the test app: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	target, err := c.testTarget(ctx, dir, std)
	if err != nil {
		return err
	}
	count := make(map[conformance.Verdict]int)
	began := time.Now()
	err = conformance.Run(ctx, target, options, func(r conformance.Result) {
		count[r.Verdict]++
		c.printResult(std, r)
	})
	if err != nil {
		return fmt.Errorf("the test was stopped: %w", err)
	}
	passed, failed, skipped := count[conformance.Passed], count[conformance.Failed], count[conformance.Skipped]
	if passed+failed+skipped == 0 {
		return fmt.Errorf("no check matches %s; use one of %s", c.Only, strings.Join(conformance.CheckNames(target), ", "))
	}
	if !c.JSON {
		fmt.Fprintf(std.Out, "\n%d passed, %d failed, %d skipped, in %v\n", passed, failed, skipped, time.Since(began).Round(100*time.Millisecond))
	}
	if failed > 0 {
		return exit.ErrReported
	}
	return nil
}

// printResult prints a result, and all details of a failure.
func (c *workerTestCommand) printResult(std *IO, r conformance.Result) {
	if c.JSON {
		_ = json.NewEncoder(std.Out).Encode(r) // errors of writing to stdout are ignored, as elsewhere
	} else {
		fmt.Fprintln(std.Out, term.Printable(r.String()))
	}
}

// testTarget returns what to test. dir is an empty directory, for the test app.
func (c *workerTestCommand) testTarget(ctx context.Context, dir string, std *IO) (out conformance.Target, err error) {
	out = conformance.Target{Command: c.Command, Env: std.Environ(), App: c.App, Module: c.Module, Modes: c.Modes}
	if c.App != "" {
		if out.App, err = filepath.Abs(c.App); err != nil {
			return out, fmt.Errorf("the test app: %w", err)
		}
		if info, err := os.Stat(out.App); err != nil || !info.IsDir() {
			return out, exit.UsageError("--app takes a directory, and " + c.App + " is none")
		}
		return out, nil
	}
	if len(c.Command) > 1 || !slices.Contains(conformance.Languages(), c.Command[0]) {
		return out, exit.UsageError("name the directory of the test app with --app (docs/worker-protocol.md describes it), or test a built-in worker: " + strings.Join(conformance.Languages(), ", "))
	}
	if err := conformance.WriteApp(dir, c.Command[0]); err != nil {
		return out, fmt.Errorf("writing the test app: %w", err)
	}
	runtime := apps.RuntimeOf(c.Command[0])
	interpreter, err := runtime.Find(ctx, configs.App{ResolvedApp: configs.ResolvedApp{Dir: "."}}, std.Env)
	if err != nil {
		return out, err
	}
	home, err := runtime.Install(dir)
	if err != nil {
		return out, err
	}
	command := runtime.Command(interpreter, home, configs.App{ResolvedApp: configs.ResolvedApp{Dir: dir}}, out.Env)
	out.Command, out.Dir = append([]string{command.Path}, command.Args...), command.Dir
	out.App, out.Module = dir, conformance.Module
	return out, nil
}
