package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon/cli/deadletter"
	"github.com/drover-run/drover/daemon/cli/exit"
	"github.com/drover-run/drover/daemon/cli/invoke"
	"github.com/drover-run/drover/daemon/cli/term"
	"github.com/drover-run/drover/daemon/internal/sources"
	"github.com/drover-run/drover/triggers"
)

// deadCommand is `drover dead`: the messages that functions have rejected, or that
// have used up their attempts. It works on the source, whether a daemon runs or not.
type deadCommand struct {
	List   deadListCommand   `cmd:"" help:"List the dead letters of a function."`
	Show   deadShowCommand   `cmd:"" help:"Print one dead letter: its reason, attributes and body."`
	Replay deadReplayCommand `cmd:"" help:"Send dead letters back to their source, starting over at attempt 1."`
	Purge  deadPurgeCommand  `cmd:"" help:"Delete dead letters."`
}

// deadCloseLimit bounds the closing of a source.
const deadCloseLimit = 10 * time.Second

// deadTarget names the dead letters of a function.
type deadTarget struct {
	Function string `arg:"" help:"Select the dead letters of this function."`
	configFlag
}

// openLetters opens the dead letters of the function. done closes them and what they need.
func (t *deadTarget) openLetters(ctx context.Context, std *IO, shared bool) (d triggers.DeadLetters, cfg *configs.Config, done func() error, err error) {
	if cfg, err = std.loadConfig(ctx, t.Config); err != nil {
		return nil, nil, nil, err
	}
	d, done, err = std.openLettersOf(ctx, cfg, t.Function, shared)
	return d, cfg, done, err
}

// openLettersOf opens the dead letters of a function of a configuration.
func (std *IO) openLettersOf(ctx context.Context, cfg *configs.Config, function string, shared bool) (d triggers.DeadLetters, done func() error, err error) {
	d, hangUp, err := openDeadLetters(ctx, cfg, function, shared, std.newLogger(configs.Log{Level: "error", Format: "auto"}))
	if err != nil {
		return nil, nil, err
	}
	return d, func() error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), deadCloseLimit)
		defer cancel()
		return errors.Join(d.Close(ctx), hangUp())
	}, nil
}

// openDeadLetters opens the dead letters of a function of the configuration.
func openDeadLetters(ctx context.Context, cfg *configs.Config, function string, shared bool, log *slog.Logger) (triggers.DeadLetters, func() error, error) {
	if _, found := cfg.Functions[function]; !found {
		return nil, nil, noFunction(cfg, function)
	}
	return sources.OpenDeadLetters(ctx, sources.Config{Settings: cfg, Log: log}, function, shared)
}

func noFunction(cfg *configs.Config, name string) error {
	hint, names := similarNames(name, cfg)
	return fmt.Errorf("there is no function %s in the configuration%s; it has: %s", term.Printable(name), hint, names)
}

type deadListCommand struct {
	deadTarget
	deadletter.Filter
	Limit int  `default:"30" placeholder:"N" help:"List at most N, oldest first (default: 30); 0 is all. Listing more than 32 of a storage queue hides them for a minute."`
	JSON  bool `name:"json" help:"Print one JSON object per line, with attributes and bodies."`
}

func (*deadListCommand) Help() string {
	return `Lists the oldest first and removes none. Works with or without a running daemon. docs/dead-letters.md describes where each source keeps its dead letters.

Examples:

    drover dead list orders
    drover dead list orders --reason "timed out" --after 24h -a customer=42
    drover dead list orders --limit 0 --json > dead.jsonl
`
}

func (c *deadListCommand) Run(ctx context.Context, std *IO) (err error) {
	if c.Limit < 0 {
		return exit.UsageError("--limit must not be negative")
	}
	match, err := c.NewMatch(c.Function, time.Now())
	if err != nil {
		return err
	}
	d, _, done, err := c.openLetters(ctx, std, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	var table []triggers.DeadLetter
	n, others := 0, 0
	for letter, err := range deadletter.BrowseAll(ctx, d, deadletter.PageSize(c.Limit)) {
		switch {
		case err != nil:
			return err
		case !match(&letter):
			if letter.Function != "" && letter.Function != c.Function {
				others++
			}
			continue
		case c.JSON:
			text, err := deadletter.MarshalLine(letter)
			if err != nil {
				return err
			}
			if _, err := std.Out.Write(text); err != nil {
				return fmt.Errorf("writing the list: %w", err)
			}
		default:
			table = append(table, letter)
		}
		if n++; n == c.Limit {
			break
		}
	}
	if c.JSON {
		return nil
	}
	if n > 0 {
		if err := deadletter.WriteTable(std.Out, table); err != nil {
			return fmt.Errorf("writing the list: %w", err)
		}
	}
	_, err = fmt.Fprintln(std.Out, c.SummaryText(n, others, c.Limit))
	return err
}

type deadShowCommand struct {
	deadTarget
	ID   string `arg:"" name:"id" help:"Print the dead letter with this ID, from drover dead list, or with this message ID, from the log."`
	JSON bool   `name:"json" help:"Print JSON."`
	Body bool   `help:"Print only the body, byte for byte; not on a terminal."`
}

func (*deadShowCommand) Help() string {
	return `Examples:

    drover dead show orders 17
    drover dead show orders orders:42          # by the ID of the message, as the log prints it
    drover dead show orders 17 --body > message.bin
`
}

func (c *deadShowCommand) Run(ctx context.Context, std *IO) (err error) {
	if c.Body && c.JSON {
		return exit.UsageError("give --body or --json, not both")
	}
	if c.Body && std.OutIsTerminal {
		return exit.UsageError("--body prints the body unchanged, and it could contain terminal control codes: redirect it to a file")
	}
	d, _, done, err := c.openLetters(ctx, std, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	letter, err := deadletter.FindOne(ctx, d, c.ID)
	if errors.Is(err, deadletter.ErrNotFound) {
		return fmt.Errorf("there is no dead letter %s of function %s; drover dead list %s lists them", term.Printable(c.ID), c.Function, c.Function)
	}
	if err != nil {
		return err
	}
	text := []byte(deadletter.FullText(letter))
	switch {
	case c.Body:
		text = letter.Message.Body
	case c.JSON:
		if text, err = deadletter.MarshalLine(letter); err != nil {
			return err
		}
	}
	_, err = std.Out.Write(text)
	return err
}

type deadReplayCommand struct {
	deadTarget
	deadletter.Choice
	Shared   bool `help:"Replay even if other subscriptions of the topic, or other consumers of the stream, receive the messages again."`
	Doubtful bool `help:"Replay even messages that a killed replay may already have sent; they may run twice."`
}

func (*deadReplayCommand) Help() string {
	return `Each dead letter is sent back to its queue, topic or subject as a new message at attempt 1, and then removed. A replay that is stopped finishes the message that it is sending. Run the same command again to replay the rest; no message is sent twice. docs/dead-letters.md describes what happens if a replay is killed.

Messages that fail again are not replayed again by the same command. Messages of one session, ordering token or, without those, queue are sent back in the order in which they were dead-lettered.

Examples:

    drover dead replay orders 17
    drover dead replay orders --reason "timed out" --after 24h --rate 100/s
    drover dead replay orders --all --dry-run
`
}

func (c *deadReplayCommand) Run(ctx context.Context, std *IO) (err error) {
	selection, err := c.NewSelection(c.Function, "replays")
	if err != nil {
		return err
	}
	d, cfg, done, err := c.openLetters(ctx, std, c.Shared)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	return std.newDeadJob(selection, cfg).ReplaySelected(ctx, d, deadletter.ReplayOptions{OrderKey: sources.ReplayKey(cfg.Functions[c.Function].Trigger), Doubtful: c.Doubtful})
}

// newDeadJob returns the replay or purge of a selection.
func (std *IO) newDeadJob(selection *deadletter.Selection, cfg *configs.Config) *deadletter.Job {
	return &deadletter.Job{Selection: selection, Out: std.Out, Err: std.Err, ErrIsTerminal: std.ErrIsTerminal, Palette: term.NewPalette(std.ErrIsTerminal, std.Env), ForceStop: std.ForceStop, DataDir: cfg.DataDir}
}

// replayCommand is `drover replay`.
type replayCommand struct {
	ID       string `arg:"" name:"id" help:"Use the dead letter with this ID, from drover dead list, or of the message with this ID, from the log."`
	Function string `placeholder:"NAME" help:"Search only the dead letters of this function."`
	configFlag
	Debug  bool `help:"Run the function in this command with the message, in a debugger. The dead letter is kept."`
	Remove bool `help:"With --debug: remove the dead letter if the function completes the message."`
}

func (*replayCommand) Help() string {
	return `Searches the dead letters of all functions. Without --debug, it does what drover dead replay does.

With --debug it works like drover invoke --debug: the function gets the terminal and has no time limit. Python stops in pdb, at the first line of the function and where an exception is raised; Node.js in node inspect.

Examples:

    drover replay 17
    drover replay 17 --debug
`
}

func (c *replayCommand) Run(ctx context.Context, std *IO) error {
	if c.Remove && !c.Debug {
		return exit.UsageError("--remove is for --debug; without it, the dead letter is sent back to its source")
	}
	cfg, err := std.loadConfig(ctx, c.Config)
	if err != nil {
		return err
	}
	names := slices.Sorted(maps.Keys(cfg.Functions))
	if c.Function != "" {
		names = []string{c.Function}
	}
	open := func(name string) (triggers.DeadLetters, func() error, error) {
		return std.openLettersOf(ctx, cfg, name, false)
	}
	function, letter, err := deadletter.FindNamed(ctx, c.ID, names, open)
	if err != nil {
		return err
	}
	if !c.Debug {
		own := deadReplayCommand{deadTarget: deadTarget{function, c.configFlag}, Choice: deadletter.Choice{IDs: []string{letter.ID}}}
		return own.Run(ctx, std)
	}
	m := letter.Message
	m.Attempt = max(m.Attempt, 1)
	if sources.TraitsOf(cfg.Functions[function].Trigger).SessionState {
		m.Session = new(invoke.Session)
	}
	own := std.newInvocation(cfg, function)
	own.Debug = true
	if err = own.Run(ctx, &m); err == nil && c.Remove {
		d, done, err := open(function)
		if err != nil {
			return err
		}
		if err = errors.Join(d.Remove(ctx, letter), done()); err == nil {
			_, err = fmt.Fprintf(std.Err, "dead letter %s of function %s was removed\n", term.OneLine(letter.ID, 80), function)
		}
		return err
	}
	_ = term.Print(std.Err, fmt.Sprintf("dead letter %[1]s of function %[2]s was kept; to replay it: drover dead replay %[2]s %[1]s\n", term.OneLine(letter.ID, 80), function))
	return err
}

type deadPurgeCommand struct {
	deadTarget
	deadletter.Choice
	Yes bool `help:"Confirm: purged messages cannot be recovered."`
}

func (*deadPurgeCommand) Help() string {
	return `Examples:

    drover dead purge orders --before 30d --dry-run
    drover dead purge orders --before 30d --yes
    drover dead purge orders 17 --yes
`
}

func (c *deadPurgeCommand) Run(ctx context.Context, std *IO) (err error) {
	selection, err := c.NewSelection(c.Function, "purges")
	if err != nil {
		return err
	}
	if !c.Yes && !c.DryRun {
		return exit.UsageError("purged messages cannot be recovered; use --dry-run to print them, --yes to purge them")
	}
	d, cfg, done, err := c.openLetters(ctx, std, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	return std.newDeadJob(selection, cfg).PurgeSelected(ctx, d)
}
