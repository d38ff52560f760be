package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"

	"github.com/drover-run/drover/daemon"

	"github.com/drover-run/drover/daemon/cli/console"
	"github.com/drover-run/drover/daemon/cli/exit"
	"github.com/drover-run/drover/daemon/cli/messagefile"
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
	style := console.StyleOf(std.OutIsTerminal, std.Env)
	err = client.StreamLog(ctx, asked.RequestPath(), func(line daemon.LogLine) { c.printLine(std.Out, style, line) })
	if err != nil || c.Once || ctx.Err() != nil {
		return err
	}
	_, err = fmt.Fprintln(std.Err, "drover: the daemon has ended")
	return err
}

func (c *tailCommand) printLine(out io.Writer, style console.Style, line daemon.LogLine) {
	if c.JSON {
		if text, err := json.Marshal(line); err == nil { // it was decoded from JSON
			_, _ = fmt.Fprintln(out, string(messagefile.EscapeControls(text)))
		}
		return
	}
	if line.Dropped > 0 {
		_, _ = fmt.Fprintf(out, "... %d lines were dropped: the reader is too slow\n", line.Dropped)
	}
	_, _ = io.WriteString(out, style.For(out).Format(console.LineOf(c.Function, line)))
}
