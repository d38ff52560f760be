package cli

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon/cli/exit"
	"github.com/drover-run/drover/daemon/cli/functionapps"
	"github.com/drover-run/drover/daemon/cli/invoke"
	"github.com/drover-run/drover/daemon/cli/send"
	"github.com/drover-run/drover/daemon/internal/apps"
	"github.com/drover-run/drover/daemon/internal/sources"
	"github.com/drover-run/drover/handlers/workers/protocol"
	"github.com/drover-run/drover/triggers"
)

// invokeCommand is `drover invoke`.
type invokeCommand struct {
	Function string `arg:"" help:"Run this function."`
	configFlag
	File     string            `name:"file" placeholder:"FILE" help:"Use this whole file as the body; - is standard input."`
	Body     *string           `placeholder:"TEXT" help:"Use this text as the body."`
	Header   map[string]string `short:"H" help:"Set a header, as NAME=VALUE. May be repeated." mapsep:"none"`
	Property map[string]string `short:"P" help:"Set a property, such as content_type=application/json. May be repeated." mapsep:"none"`
	Attempt  int               `default:"1" help:"Run as this attempt. If the last allowed attempt fails, the verdict is a rejection."`
	Subject  string            `help:"Set the subject or queue that the message was sent to (default: the trigger's, if it has exactly one)."`
	Session  string            `help:"Set the session or the ordering key."`
	JSON     bool              `name:"json" help:"Print the result, the log and the verdict as JSON on standard output."`
}

func (*invokeCommand) Help() string {
	return `Runs the function's real handler with its timeout and max_body. No queue is opened and no result is sent. A daemon may run at the same time.

A function with a timer needs no body: it gets one as its timer sends it.

Prints the function's result on standard output, and its log and the verdict on standard error. The exit status is 0 if the verdict is done, else 1.

Examples:

    drover invoke thumbnails --body cat.jpg -H album=pets
    drover invoke orders --file order.json --attempt 5
    curl -s https://example.com/order.json | drover invoke orders --file -
    drover invoke orders --file order.json --json | jq .verdict
    drover invoke cleanup                      # a timer
`
}

func (c *invokeCommand) Run(ctx context.Context, std *IO) error {
	if c.Body != nil && c.File != "" {
		return exit.UsageError("give --body or --file, one of them; --file - is standard input")
	}
	if c.Attempt < 1 {
		return exit.UsageError("--attempt counts from 1")
	}
	cfg, err := functionapps.LoadToRun(ctx, c.Config, std.Env)
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
	m, err := c.newMessage(settings, std.In)
	if err != nil {
		return err
	}
	lines := &invoke.Log{}
	if !c.JSON {
		lines.Print = func(l invoke.Line) { fmt.Fprintln(std.Err, l) }
	}
	_ = lines.Level.UnmarshalText([]byte(cfg.Log.Level)) // checked before; the zero level is info
	for _, w := range cfg.Warnings {
		slog.New(lines).Warn(w)
	}
	results := protocol.Shown
	if len(settings.Output) > 0 {
		results = "" // the same as the destination
	}
	out, err := invoke.Run(ctx, c.Function, m, apps.Options{
		Config: apps.StandaloneConfig(cfg, c.Function), Funcs: std.Funcs, Env: std.Env, Environ: std.Environ, Results: &results, Log: slog.New(lines),
	})
	if err != nil {
		return err
	}
	out.Function, out.Handler, out.MaxAttempts = c.Function, settings.Handler.String(), settings.Retry.MaxAttempts
	out.OutputTo = settings.Output.String()
	out.Log = lines.AllLines()
	if c.JSON {
		err = out.WriteJSON(std.Out)
	} else {
		err = out.PrintText(std.Out, std.Err, std.OutIsTerminal)
	}
	if err == nil && !out.IsDone() {
		err = exit.ErrReported
	}
	return err
}

func unknownFunction(name, file string, cfg *configs.Config) error {
	names := slices.Sorted(maps.Keys(cfg.Functions))
	hint := ""
	if near := configs.Nearest(name, names); near != "" {
		hint = fmt.Sprintf(" (did you mean %s?)", near)
	}
	return fmt.Errorf("%s is not a function of %s%s; functions: %s", name, file, hint, strings.Join(names, ", "))
}

// newMessage returns the message for the function.
func (c *invokeCommand) newMessage(settings configs.Function, in io.Reader) (*triggers.Message, error) {
	m := &triggers.Message{
		ID: "invoke-" + rand.Text()[:10], Attributes: c.Header, Attempt: c.Attempt,
		Enqueued: time.Now(), OrderingKey: c.Session, Subject: c.Subject,
	}
	if len(c.Property) > 0 {
		m.Origin = triggers.Known(c.Property)
	}
	traits := sources.TraitsOf(settings.Trigger)
	if m.Subject == "" {
		m.Subject = traits.Target.Address
	}
	if traits.SessionState {
		m.Session = new(invoke.Session)
	}
	switch {
	case c.Body != nil:
		m.Body = []byte(*c.Body)
		return m, nil
	case c.File == "" && traits.SampleBody != nil:
		m.Body = traits.SampleBody
		return m, nil
	case c.File == "":
		return nil, exit.UsageError("give --body or --file; --file - is standard input")
	}
	var err error
	m.Body, err = send.ReadBody(c.File, in, max(int64(settings.MaxBody), send.MaxBody))
	return m, err
}
