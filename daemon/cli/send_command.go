package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon/cli/exit"
	"github.com/drover-run/drover/daemon/cli/pairs"
	"github.com/drover-run/drover/daemon/cli/send"
	"github.com/drover-run/drover/daemon/cli/term"
	"github.com/drover-run/drover/daemon/internal/sources"
	"github.com/drover-run/drover/triggers"
)

type sendCommand struct {
	Target string `arg:"" help:"Send to this function of the configuration, or to this subject or queue."`
	configFlag
	Via      string      `help:"Use this connection for a subject or queue; required if the configuration has several."`
	Count    *int        `help:"Send this many messages: --body or --file repeatedly, the lines of --lines repeatedly, or the numbers from 1."`
	Body     *string     `help:"Use this text as the body of each message."`
	File     string      `placeholder:"FILE" help:"Use this whole file as the body of each message; - is standard input."`
	Lines    string      `placeholder:"FILE" help:"Send one message per line of this file; - is standard input, the default without --body, --file and --count."`
	Header   pairs.Pairs `short:"H" placeholder:"NAME=VALUE" help:"Set a header of each message, as NAME=VALUE or NAME:VALUE. May be repeated."`
	Property pairs.Pairs `short:"P" placeholder:"NAME=VALUE" help:"Set a property of each message, such as content_type or correlation_id; docs/messages.md lists them. May be repeated."`
	Session  string      `help:"Set the session of each message, for Service Bus queues and subscriptions with sessions."`

	At       string         `placeholder:"TIME" help:"Schedule each message for this time, such as 2026-01-31T08:00:00Z. It cannot be received before."`
	Delay    time.Duration  `help:"Delay each message by this duration, such as 30s. It cannot be received before."`
	TTL      *time.Duration `name:"ttl" help:"Let the service delete messages that were not received after this time, for storage queues (default: 168h); 0s is never."`
	Encoding string         `help:"Encode bodies as base64 or text, for storage queues (default: as the function reads them, else base64)."`
}

func (*sendCommand) Help() string {
	return `If no daemon runs, messages for an embedded server wait in its store.

Examples:

    drover send thumbnails --body cat.jpg -H album=pets
    drover send orders --file order.json           # the whole file is one message
    drover send thumbnails --lines names.txt      # one message per line
    ls | drover send thumbnails
    drover send thumbnails --count 1000
    drover send thumbnails --body cat.jpg --delay 2h
    drover send thumbnails --body cat.jpg --at "$(date -d 'tomorrow 08:00' -Iseconds)"
    drover send orders.new --via cluster --body '{"id": 7}'
`
}

func (c *sendCommand) Run(ctx context.Context, std *IO) (err error) {
	if c.Count != nil && *c.Count < 0 {
		return exit.UsageError("--count must not be negative")
	}
	if c.Body != nil && c.File != "" || c.Lines != "" && (c.Body != nil || c.File != "") {
		return exit.UsageError("give one of --body, --file and --lines")
	}
	due, err := send.ParseDue(c.At, c.Delay)
	if err != nil {
		return exit.UsageError(err.Error())
	}
	cfg, err := std.loadConfig(ctx, c.Config)
	if err != nil {
		return err
	}
	to, err := c.resolveTarget(cfg)
	if err != nil {
		return err
	}
	from := sources.Config{Settings: cfg, Log: std.newLogger(configs.Log{Level: "error", Format: "auto"})}
	if err := c.checkFlags(due, sources.AcceptedBy(from, to.Connection)); err != nil {
		return err
	}
	out, done, err := sources.OpenSender(ctx, from, to, sources.SendOptions{TTL: c.TTL, Encoding: c.Encoding})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()

	batch := send.Batch{Body: c.Body, File: c.File, Lines: c.Lines, Count: c.Count, In: std.In}
	if std.ErrIsTerminal {
		batch.Progress, batch.Palette = std.Err, term.NewPalette(true, std.Env)
	}
	parts := send.Parts{Subject: to.Address, Headers: c.Header, Properties: c.Property, Session: c.Session, Due: due}
	n, err := batch.SendTo(ctx, out, parts.NewMessage)
	if errors.Is(err, sources.ErrNoStream) {
		return c.unknownTarget(cfg, to)
	}
	if err != nil {
		return fmt.Errorf("sending to %s, after %d messages were accepted: %w", to.Address, n, err)
	}
	_, err = fmt.Fprintf(std.Out, "sent %d to %s%s\n", n, to.Address, due)
	return err
}

// checkFlags refuses flags that are for another kind of source.
func (c *sendCommand) checkFlags(due send.Due, accepts sources.Accepts) error {
	if c.Encoding != "" && c.Encoding != "base64" && c.Encoding != "text" {
		return exit.UsageError("--encoding is base64 or text")
	}
	if c.TTL != nil && *c.TTL < 0 {
		return exit.UsageError("--ttl must not be negative")
	}
	if _, given := c.Property[triggers.ScheduledAt]; given && !due.IsNow() {
		return exit.UsageError("give only one of --at, --delay and --property scheduled_at")
	}
	for name := range c.Property {
		switch {
		case !slices.Contains(triggers.Settable, name):
			return exit.UsageError(fmt.Sprintf("--property %s: there is no such property; there are %s", name, strings.Join(triggers.Settable, ", ")))
		case !accepts.Property(name):
			return exit.UsageError(fmt.Sprintf("--property %s: NATS has no header of that meaning; give one with --header", name))
		}
	}
	switch {
	case !accepts.Sessions && c.Session != "":
		return exit.UsageError("--session is for Service Bus; storage queues have no sessions")
	case !accepts.Headers && len(c.Header)+len(c.Property) > 0:
		return exit.UsageError("--header and --property are not for storage queues: a message there has only a body")
	case !accepts.TTL && (c.TTL != nil || c.Encoding != ""):
		return exit.UsageError("--ttl and --encoding are for storage queues")
	}
	if err := due.Check(accepts, c.TTL); err != nil {
		return exit.UsageError(err.Error())
	}
	return nil
}

// resolveTarget returns the destination of the messages.
func (c *sendCommand) resolveTarget(cfg *configs.Config) (to sources.Target, err error) {
	if f, ok := cfg.Functions[c.Target]; ok {
		of := sources.TraitsOf(f.Trigger)
		if of.Target.Address == "" {
			return to, fmt.Errorf("function %s %s", c.Target, of.CannotSend)
		}
		of.Target.Function = c.Target
		return of.Target, nil
	}
	via := c.Via
	if via == "" {
		names := slices.Sorted(maps.Keys(cfg.Connections))
		if len(names) != 1 {
			return to, fmt.Errorf("%s is not a function of %s; to send to it as a subject, choose the connection with --via: %s",
				c.Target, c.Config, strings.Join(names, ", "))
		}
		via = names[0]
	} else if _, ok := cfg.Connections[via]; !ok {
		return to, fmt.Errorf("--via %s: no such connection in %s; use one of: %s",
			via, c.Config, strings.Join(slices.Sorted(maps.Keys(cfg.Connections)), ", "))
	}
	return sources.Target{Connection: via, Address: c.Target}, nil
}

func (c *sendCommand) unknownTarget(cfg *configs.Config, to sources.Target) error {
	names := slices.Sorted(maps.Keys(cfg.Functions))
	hint := ""
	if near := configs.Nearest(c.Target, names); near != "" {
		hint = fmt.Sprintf(" (did you mean %s?)", near)
	}
	if to.Function != "" {
		return fmt.Errorf("no stream on connection %s has the subject %s of function %s; create one, or set create: true and start the daemon",
			to.Connection, to.Address, to.Function)
	}
	return fmt.Errorf("%s is not a function of %s%s, and no stream on connection %s has it as a subject; functions: %s",
		c.Target, c.Config, hint, to.Connection, strings.Join(names, ", "))
}
