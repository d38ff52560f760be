package cli

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon"
	"github.com/drover-run/drover/daemon/cli/demo"
	"github.com/drover-run/drover/daemon/cli/emulate"
	"github.com/drover-run/drover/daemon/cli/exit"
	"github.com/drover-run/drover/daemon/cli/functionapps"
	"github.com/drover-run/drover/daemon/cli/live"
	"github.com/drover-run/drover/daemon/cli/scaffold"
	"github.com/drover-run/drover/daemon/cli/term"
)

// The commands of this file need no configuration: a first project, the demo, the emulators.

// initCommand is `drover init`.
type initCommand struct {
	Kind string `arg:"" optional:"" enum:"python,node,go,http,azure,azure-queues" default:"python" help:"Write a project of this kind: python; node; go, a program that contains drover; http, an app that drover calls; azure, an Azure Functions app in Python; or azure-queues, plain Python functions with Azure's queues (default: python)."`
	Dir  string `arg:"" optional:"" default:"." help:"Write into this directory, created if missing (default: the current one)."`

	FromAzure string `placeholder:"DIR" help:"Instead of a project, write a drover.yaml into this directory, which has an Azure Functions app: the settings for which Azure has none, commented out."`
}

func (*initCommand) Help() string {
	return `The project has a commented configuration and function, a sample message, a README, and a JSON Schema with which editors complete and check the configuration. It runs as it is. If one of its files already exists, nothing is written.

--from-azure imports the code of a function app, as drover check does. The drover.yaml changes nothing until you edit it. It begins with what drover check reports.

Examples:

    drover init                      # python, here
    drover init go orders
    drover init azure ~/src/billing
    drover init --from-azure ./my-function-app
`
}

func (c *initCommand) Run(ctx context.Context, std *IO) error {
	if c.FromAzure != "" {
		check := func(cfg *configs.Config) ([]string, error) { return std.checkResources(ctx, c.FromAzure, cfg) }
		return functionapps.Checker{Out: std.Out, Err: std.Err, Env: std.Env, Environ: std.Environ(), CheckConfig: check}.WriteBeside(ctx, c.FromAzure)
	}
	schema, err := configs.Schema()
	if err != nil {
		return err
	}
	return scaffold.WriteProject(c.Kind, c.Dir, schema, std.Out)
}

type demoCommand struct {
	For      *time.Duration `help:"Send messages for this long (default: 20s; with --scale 60s)."`
	Scale    bool           `help:"Show how workers and instances follow a wave of messages."`
	Messages int            `help:"Send this many messages instead, as fast as they are handled."`
	Plain    bool           `help:"Print plain lines, even on a terminal."`
	DataDir  string         `help:"Keep the embedded server's messages in this directory (default: .drover/demo, removed after a clean end). The next demo with the same directory finishes one that was killed."`
}

func (*demoCommand) Help() string {
	return `Examples:

    drover demo
    drover demo --scale              # workers and instances follow a wave
    drover demo --messages 100000 --plain
`
}

func (c *demoCommand) Run(ctx context.Context, std *IO) error {
	if c.For != nil && *c.For <= 0 || c.Messages < 0 {
		return exit.UsageError("--for must be more than 0s, and --messages not negative")
	}
	if c.Scale && c.Messages > 0 {
		return exit.UsageError("--scale cannot be combined with --messages; use --for")
	}
	dir, remove, run := filepath.Join(".drover", "demo"), true, demo.Run
	length := 20 * time.Second
	if c.Scale {
		dir, run, length = dir+"-scale", demo.RunScale, time.Minute
	}
	if c.For == nil {
		c.For = &length
	}
	if c.DataDir != "" {
		dir, remove = c.DataDir, false
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return fmt.Errorf("finding the demo's data directory: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return &daemon.StartError{Err: fmt.Errorf("making the demo's data directory: %w; choose another with --data-dir", err)}
	}
	options := demo.Options{
		Dir: dir, For: *c.For, Messages: c.Messages,
		Out: std.Out, Env: std.Env, Environ: std.Environ, NewLog: std.newLogger, Daemon: std.daemonOptions(),
	}
	if std.OutIsTerminal && !c.Plain {
		frame, leave := live.OpenFrame(std.Out, std.In, std.Resizes)
		defer leave()
		options.Out, options.Frame, options.Palette, options.NewLog = frame, frame, term.NewPalette(true, std.Env), std.inFrame(frame).newLogger
	}
	all, err := run(ctx, options)
	if err == nil && !all {
		return exit.ErrReported
	}
	if err == nil && remove {
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("removing the demo's data: %w", err)
		}
	}
	return err
}

type emulateCommand struct {
	Storage emulateStorageCommand `cmd:"" name:"storagequeue" help:"Run a local emulator of Azure Storage queues until SIGTERM or SIGINT."`

	Bus emulateBusCommand `cmd:"" name:"servicebus" help:"Run a local emulator of Azure Service Bus until SIGTERM or SIGINT."`
}

type emulateBusCommand struct{ emulate.Bus }

func (*emulateBusCommand) Help() string {
	return `The last line printed is the connection string.

Example:

    drover emulate servicebus --queue orders --subscription events/billing
`
}

func (c *emulateBusCommand) Run(ctx context.Context, std *IO) error {
	return c.Bus.Run(ctx, std.Out, std.newLogger(configs.New().Log))
}

type emulateStorageCommand struct{ emulate.Storage }

func (*emulateStorageCommand) Help() string {
	return `The last line printed is the connection string. At the default address, UseDevelopmentStorage=true works, too.

Example:

    drover emulate storagequeue --queue images
`
}

func (c *emulateStorageCommand) Run(ctx context.Context, std *IO) error {
	return c.Storage.Run(ctx, std.Out, std.newLogger(configs.New().Log))
}
