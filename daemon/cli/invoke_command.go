package cli

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon/cli/invoke"
)

// invokeCommand is `drover invoke`.
type invokeCommand struct {
	Function string `arg:"" help:"Run this function."`
	configFlag
	invoke.MessageFlags
	JSON  bool `name:"json" help:"Print the result, the log and the verdict as JSON on standard output."`
	Debug bool `help:"Give the function the terminal, and no time limit: Python stops in pdb, Node.js in node inspect."`
}

func (*invokeCommand) Help() string {
	return `Runs the function's real handler with its timeout and max_body. No queue is opened and no result is sent. A daemon may run at the same time.

A function with a timer needs no body: it gets one as its timer sends it. One with an http trigger runs as for a request; set -P http_method=GET, http_query or http_params for another one.

Prints the function's result on standard output, and its log, the messages for named outputs and the verdict on standard error. The exit status is 0 if the verdict is done, 5 if the code does not load, else 1.

Examples:

    drover invoke thumbnails --body cat.jpg -H album=pets
    drover invoke orders --file order.json --attempt 5
    curl -s https://example.com/order.json | drover invoke orders --file -
    drover invoke orders --file order.json --json | jq .verdict
    drover invoke cleanup                      # a timer
    drover invoke orders --file order.json --debug
`
}

func (c *invokeCommand) Run(ctx context.Context, std *IO) error {
	if err := c.Check(); err != nil {
		return err
	}
	cfg, err := std.loadConfig(ctx, c.Config)
	if err == nil {
		err = cfg.CheckPaths()
	}
	if err != nil {
		return err
	}
	settings, found := cfg.Functions[c.Function]
	if !found {
		return unknownFunction(c.Function, c.Config, cfg)
	}
	m, err := c.NewMessage(settings, std.In)
	if err != nil {
		return err
	}
	own := std.newInvocation(cfg, c.Function)
	own.JSON, own.Debug = c.JSON, c.Debug
	return own.Run(ctx, m)
}

// newInvocation returns an invocation of a function, which prints to the streams of the command.
func (std *IO) newInvocation(cfg *configs.Config, function string) *invoke.Invocation {
	return &invoke.Invocation{
		Config: cfg, Function: function, Out: std.Out, Err: std.Err, OutIsTerminal: std.OutIsTerminal, Interrupts: std.Interrupts,
		Program: std.appOptions(cfg, nil),
	}
}

func unknownFunction(name, file string, cfg *configs.Config) error {
	for _, f := range cfg.NotRun {
		if f.Function == name {
			return fmt.Errorf("function %s of %s does not run: %s", name, file, f.Reason)
		}
	}
	hint, names := similarNames(name, cfg)
	return fmt.Errorf("%s is not a function of %s%s; functions: %s", name, file, hint, names)
}

// similarNames returns a hint with the function most similar to a wrong name, and all names.
func similarNames(name string, cfg *configs.Config) (hint, all string) {
	names := slices.Sorted(maps.Keys(cfg.Functions))
	if near := configs.Nearest(name, names); near != "" {
		hint = fmt.Sprintf(" (did you mean %s?)", near)
	}
	return hint, strings.Join(names, ", ")
}
