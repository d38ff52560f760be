package cli

import (
	"context"
	"errors"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon/cli/deadletter"
	"github.com/drover-run/drover/daemon/cli/exit"
	"github.com/drover-run/drover/daemon/internal/sources"
)

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
    drover dead replay orders --reason timeout --after 24h --rate 100/s
    drover dead replay orders --all --dry-run
`
}

func (c *deadReplayCommand) Run(ctx context.Context, std *IO) (err error) {
	selection, err := c.Check(c.Function, "replays")
	if err != nil {
		return err
	}
	d, cfg, done, err := c.open(ctx, std, c.Shared)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	return std.deadJob(selection, cfg).Replay(ctx, d, deadletter.ReplayOptions{OrderKey: sources.ReplayKey(cfg.Functions[c.Function].Trigger), Doubtful: c.Doubtful})
}

// deadJob returns the replay or purge of a selection.
func (std *IO) deadJob(selection *deadletter.Selection, cfg *configs.Config) *deadletter.Job {
	return &deadletter.Job{Selection: selection, Out: std.Out, Err: std.Err, ErrIsTerminal: std.ErrIsTerminal, ForceStop: std.Hurry, DataDir: cfg.DataDir}
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
	selection, err := c.Check(c.Function, "purges")
	if err != nil {
		return err
	}
	if !c.Yes && !c.DryRun {
		return exit.UsageError("purged messages cannot be recovered; use --dry-run to print them, --yes to purge them")
	}
	d, cfg, done, err := c.open(ctx, std, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	return std.deadJob(selection, cfg).Purge(ctx, d)
}
