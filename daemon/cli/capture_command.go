package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon/cli/exit"
	"github.com/drover-run/drover/daemon/cli/messagefile"
	"github.com/drover-run/drover/daemon/internal/sources"
	"github.com/drover-run/drover/triggers"
)

// captureCommand is `drover capture`.
type captureCommand struct {
	Function string `arg:"" help:"Copy messages of this function."`
	configFlag
	Count  int    `default:"100" placeholder:"N" help:"Copy at most the next N messages (default: 100)."`
	Output string `placeholder:"FILE" help:"Write to this file (default: FUNCTION.jsonl); - is standard output."`
	Force  bool   `help:"Overwrite an existing file."`
}

func (*captureCommand) Help() string {
	return `The messages stay at the source, and no delivery is counted. Some of them may be in flight. The file is for drover tune. It contains the messages' data, so only you can read it. docs/commands.md describes its format.

Examples:

    drover capture orders --count 500
    drover capture orders --count 10 --output - | jq .body
`
}

// captureMode is the mode of a file with the contents of messages.
const captureMode = 0o600

func (c *captureCommand) Run(ctx context.Context, std *IO) (err error) {
	if c.Count < 1 {
		return exit.UsageError("--count must be at least 1")
	}
	cfg, err := std.loadConfig(ctx, c.Config)
	if err != nil {
		return err
	}
	if _, found := cfg.Functions[c.Function]; !found {
		return unknownFunction(c.Function, c.Config, cfg)
	}
	if why := sources.TraitsOf(cfg.Functions[c.Function].Trigger).CannotPeek; why != "" {
		return fmt.Errorf("function %s %s", c.Function, why)
	}
	if c.Output == "" {
		c.Output = c.Function + ".jsonl"
	}
	if c.Output != "-" && !c.Force { // before a message is requested
		if _, err := os.Lstat(c.Output); err == nil {
			return c.existsError()
		}
	}
	p, done, err := sources.OpenPeeker(ctx, sources.Config{Settings: cfg, Log: std.newLogger(configs.Log{Level: "warn", Format: "auto"})}, c.Function)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	first, err := p.Peek(ctx, c.Count)
	if err != nil {
		return err
	}
	if len(first) == 0 {
		return fmt.Errorf("no messages are waiting for function %s; run drover pause %s to let some accumulate", c.Function, c.Function)
	}
	n, err := c.writeMessages(ctx, p, first, std.Out)
	if err != nil {
		return err
	}
	text := fmt.Sprintf("captured %d messages into %s", n, c.Output)
	if c.Output == "-" {
		text = fmt.Sprintf("captured %d messages", n)
	}
	if n < c.Count {
		text += ": no more wait"
		if n == sources.TraitsOf(cfg.Functions[c.Function].Trigger).PeekLimit {
			text = fmt.Sprintf("captured %d messages: a storage queue shows no more than its first %d", n, n)
		}
	}
	_, err = fmt.Fprintln(std.Err, text)
	return err
}

func (c *captureCommand) existsError() error {
	return fmt.Errorf("%s already exists; name another file with --output, or add --force", c.Output)
}

// writeMessages writes the first messages and all that follow, and returns their number. A file
// that could not be written completely is removed.
func (c *captureCommand) writeMessages(ctx context.Context, p triggers.Peeker, first []triggers.Message, out io.Writer) (n int, err error) {
	if c.Output != "-" {
		flags := os.O_WRONLY | os.O_CREATE | os.O_EXCL
		if c.Force {
			if err := os.Remove(c.Output); err != nil && !errors.Is(err, fs.ErrNotExist) { // others may be able to read it
				return 0, fmt.Errorf("writing messages: %w", err)
			}
		}
		file, err := os.OpenFile(filepath.Clean(c.Output), flags, captureMode)
		if errors.Is(err, fs.ErrExist) {
			return 0, c.existsError()
		}
		if err != nil {
			return 0, fmt.Errorf("writing messages: %w", err)
		}
		defer func() {
			if err = errors.Join(err, file.Close()); err != nil {
				_ = os.Remove(c.Output) // an incomplete file is useless
			}
		}()
		out = file
	}
	to := bufio.NewWriter(out)
	for got := first; len(got) > 0; {
		for i := range got {
			text, err := messagefile.MarshalMessage(&got[i])
			if err == nil {
				_, err = to.Write(text)
			}
			if err != nil {
				return n, fmt.Errorf("writing message %s: %w", got[i].ID, err)
			}
			n++
		}
		if n >= c.Count {
			break
		}
		if got, err = p.Peek(ctx, c.Count-n); err != nil {
			return n, fmt.Errorf("after %d messages: %w", n, err)
		}
	}
	if err := to.Flush(); err != nil {
		return n, fmt.Errorf("writing messages: %w", err)
	}
	return n, nil
}
