package cli

import (
	"context"
	"fmt"

	"github.com/drover-run/drover/daemon"

	"github.com/drover-run/drover/daemon/cli/console"
	"github.com/drover-run/drover/daemon/cli/exit"
	"github.com/drover-run/drover/daemon/cli/profile"
	"github.com/drover-run/drover/daemon/internal/api"
)

// tailCommand is `drover tail`.
type tailCommand struct {
	Function string `arg:"" help:"Follow this function."`
	clientFlags
	Level string `default:"info" enum:"debug,info,warn,error" help:"Print messages of at least this level. debug includes each completed message, whatever log.level is."`
	Last  int    `default:"10" help:"Start with this many earlier lines; the daemon keeps up to 200 per function."`
	Once  bool   `help:"Print the earlier lines and exit."`
	JSON  bool   `name:"json" help:"Print each line as a JSON object."`
}

func (*tailCommand) Help() string {
	return `Prints the output and log of a function, with failed attempts and rejections, from all instances.

Examples:

    drover tail thumbnails
    drover tail thumbnails --level debug
    drover tail thumbnails --last 200 --once --json
`
}

func (c *tailCommand) Run(ctx context.Context, std *IO) error {
	if c.Last < 0 {
		return exit.UsageError("--last must not be negative")
	}
	client, err := c.newClient(ctx, std)
	if err != nil {
		return err
	}
	asked := api.LogRequest{Function: c.Function, Last: c.Last, Follow: !c.Once}
	if err := asked.Level.UnmarshalText([]byte(c.Level)); err != nil {
		return exit.UsageError(err.Error())
	}
	err = client.StreamLog(ctx, asked.RequestPath(), func(line daemon.LogLine) {
		console.PrintLine(std.Out, console.StyleOf(std.OutIsTerminal, std.Env), c.Function, line, c.JSON)
	})
	if err != nil || c.Once || ctx.Err() != nil {
		return err
	}
	_, err = fmt.Fprintln(std.Err, "drover: the daemon has ended")
	return err
}

// profileCommand is `drover profile`.
type profileCommand struct {
	profile.Options
	clientFlags
}

func (c *profileCommand) Run(ctx context.Context, std *IO) error {
	client, err := c.newClient(ctx, std)
	if err != nil {
		return err
	}
	return c.Options.Run(ctx, client.WithoutTimeout(), std.Out, std.Err)
}
