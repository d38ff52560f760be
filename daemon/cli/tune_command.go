package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/drover-run/drover/daemon"

	"github.com/alecthomas/kong"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/configs/edit"
	"github.com/drover-run/drover/daemon/cli/exit"
	"github.com/drover-run/drover/daemon/cli/functionapps"
	"github.com/drover-run/drover/daemon/cli/invoke"
	"github.com/drover-run/drover/daemon/cli/messagefile"
	"github.com/drover-run/drover/daemon/cli/term"
	"github.com/drover-run/drover/daemon/cli/tune"
	"github.com/drover-run/drover/daemon/cli/tune/measure"
	"github.com/drover-run/drover/daemon/internal/sources"
)

// tuneCommand is `drover tune`.
type tuneCommand struct {
	Function string `arg:"" help:"Tune this function."`
	configFlag
	Messages string        `required:"" placeholder:"FILE" help:"Run these messages repeatedly: a file that drover capture wrote, or a directory with one body per file."`
	For      time.Duration `default:"2m" help:"Limit the time of the whole run (default: 2m)."`
	Yes      bool          `short:"y" help:"Run without asking for confirmation. The function's effects are real."`
	Write    writeFlag     `help:"Write the cheapest settings within 5 % of the best into the configuration; --write=best writes the best."`
	Force    bool          `help:"With --write: write them even if other programs used more than a fifth of the machine."`
	HTML     string        `name:"html" placeholder:"FILE" help:"Write the report as an HTML page with plots, too."`
	JSON     bool          `name:"json" help:"Print the report as JSON."`

	Processes  []int `placeholder:"N,..." help:"Try these numbers of processes (default: by the cores)."`
	Threads    []int `placeholder:"N,..." help:"Try these numbers of threads (default: by what the function does)."`
	Coroutines []int `placeholder:"N,..." help:"Try these numbers of async calls in flight in a process (default: by what the function does)."`
}

func (*tuneCommand) Help() string {
	return `Runs a grid of processes, threads and coroutines under load in the app's real workers, with all slots filled. No queue is opened, no message is settled, and no result is sent. But the function itself has its real effects, thousands of times: --yes confirms that.

A run that is stopped early prints its results so far, and does not change the configuration.

Examples:

    drover capture orders --count 500
    drover tune orders --messages orders.jsonl --html orders.html
    drover tune orders --messages orders.jsonl --for 30s --processes 1,2 --threads 1,8,32 --yes --write
`
}

// writeFlag is which settings are written: --write, or --write=best.
type writeFlag string

const (
	writeCheapest writeFlag = "cheapest"
	writeBest     writeFlag = "best"
)

// IsBool makes --write take no following word as its value.
func (*writeFlag) IsBool() bool { return true }

// Decode implements kong.MapperValue.
func (w *writeFlag) Decode(ctx *kong.DecodeContext) error {
	*w = writeCheapest
	if ctx.Scan.Peek().Type == kong.FlagValueToken {
		given := fmt.Sprint(ctx.Scan.Pop().Value)
		if *w = writeFlag(given); *w != writeCheapest && *w != writeBest {
			return fmt.Errorf("it is %s; use cheapest, the default of --write, or best", given)
		}
	}
	return nil
}

func (c *tuneCommand) Run(ctx context.Context, std *IO) error {
	if err := c.checkFlags(); err != nil {
		return err
	}
	cfg, err := std.loadConfig(ctx, c.Config)
	if err != nil {
		return err
	}
	settings, found := cfg.Functions[c.Function]
	if !found {
		return unknownFunction(c.Function, c.Config, cfg)
	}
	code, found := settings.Handler.Code()
	if !found {
		return fmt.Errorf("function %s runs in %v, but tune is only for functions in worker processes (python, node, worker); for others set concurrency in %s", c.Function, settings.Handler, c.Config)
	}
	if code.Language == configs.Node && len(c.Threads) > 0 {
		return exit.UsageError("--threads is not for Node.js, which runs functions in one thread")
	}
	messages, err := messagefile.ReadPath(c.Messages)
	if err != nil {
		return err
	}
	if err := c.confirmRun(ctx, std, len(messages.All)); err != nil {
		return err
	}
	if sources.TraitsOf(settings.Trigger).SessionState {
		for _, m := range messages.All {
			m.Session = new(invoke.Session)
		}
	}
	r := &tune.Report{
		Function: c.Function, Handler: settings.Handler.String(), File: c.Config, Began: time.Now(),
		Messages: fmt.Sprintf("%s of %s", messagesText(len(messages.All)), c.Messages),
	}
	if messages.Truncated != "" {
		r.Notes = append(r.Notes, messages.Truncated)
	}
	progress := &tune.Progress{Report: r, Out: std.Err, IsTerminal: std.ErrIsTerminal, Palette: term.NewPalette(std.ErrIsTerminal, std.Env)}
	remove := progress.Open(std.Resizes)
	err = measure.Run(ctx, measure.Options{
		Apps: std.appOptions(cfg, slog.New(slog.DiscardHandler)), Function: c.Function, Messages: messages.All, Report: r,
		Requested: tune.Requested{Processes: c.Processes, Threads: c.Threads, Coroutines: c.Coroutines},
		Print:     progress.Printf, Begin: progress.BeginCell, Measured: progress.EndCell,
	}, c.For)
	remove()
	var start *measure.StartError
	if errors.As(err, &start) {
		err = &daemon.StartError{Err: start.Err}
	}
	if err != nil {
		return err
	}
	return c.writeReport(std, r, code.App)
}

// checkFlags returns an error if flags are invalid.
func (c *tuneCommand) checkFlags() error {
	if c.Force && c.Write == "" {
		return exit.UsageError("--force is for --write: it writes numbers that were measured on a busy machine")
	}
	if c.For < time.Second {
		return exit.UsageError("--for must be at least 1s")
	}
	for flag, bound := range map[string]struct {
		numbers []int
		most    int
	}{"--processes": {c.Processes, 1024}, "--threads": {c.Threads, 4096}, "--coroutines": {c.Coroutines, 1_000_000}} {
		for _, n := range bound.numbers {
			if n < 1 || n > bound.most {
				return exit.UsageError(fmt.Sprintf("%s has %d; each is from 1 to %d", flag, n, bound.most))
			}
		}
	}
	if c.HTML != "" { // checked now, before minutes of measuring
		if info, err := os.Stat(filepath.Dir(c.HTML)); err != nil || !info.IsDir() {
			return exit.UsageError(fmt.Sprintf("--html %s: there is no directory %s", c.HTML, filepath.Dir(c.HTML)))
		}
	}
	return nil
}

func messagesText(n int) string {
	if n == 1 {
		return "1 message"
	}
	return fmt.Sprintf("%d messages", n)
}

// confirmRun asks the user whether the function may run.
func (c *tuneCommand) confirmRun(ctx context.Context, std *IO, messages int) error {
	if c.Yes {
		return nil
	}
	warning := fmt.Sprintf("This runs function %s on %s, repeatedly and concurrently, for %v. No queue is opened and outputs are off, but the effects of its code are real: database writes, requests and payments happen thousands of times.", c.Function, messagesText(messages), c.For)
	if !std.ErrIsTerminal || !std.OutIsTerminal {
		return exit.UsageError(warning + "\nTo continue, add --yes.")
	}
	fmt.Fprintf(std.Err, "%s\nRun it? [y/N] ", warning)
	answer := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(std.In).ReadString('\n') // an error counts as no
		answer <- line
	}()
	select {
	case line := <-answer:
		if word := strings.ToLower(strings.TrimSpace(line)); word == "y" || word == "yes" {
			return nil
		}
	case <-ctx.Done():
	}
	return errors.New("nothing was run")
}

// writeReport prints the report, and writes the files that the flags name.
func (c *tuneCommand) writeReport(std *IO, r *tune.Report, app string) error {
	out := std.Out
	if c.JSON {
		text, err := json.MarshalIndent(r, "", "  ")
		if err != nil {
			return fmt.Errorf("writing the report: %w", err)
		}
		if _, err := out.Write(append(messagefile.EscapeControls(text), '\n')); err != nil {
			return fmt.Errorf("writing the report: %w", err)
		}
		out = std.Err
	} else if err := r.WriteText(term.NewWriter(out), term.Width(out)); err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	errs := []error{c.writeHTML(std, r), c.saveSettings(std, out, r, app)}
	if r.Best == nil {
		errs = append(errs, exit.ErrReported)
	}
	return errors.Join(errs...)
}

// writeHTML writes the report as HTML.
func (c *tuneCommand) writeHTML(std *IO, r *tune.Report) error {
	if c.HTML == "" {
		return nil
	}
	file, err := os.Create(c.HTML)
	if err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	if err := errors.Join(r.WriteHTML(file), file.Close()); err != nil {
		return err
	}
	_, err = fmt.Fprintf(std.Err, "the report with its plots is in %s\n", c.HTML)
	return err
}

// saveSettings writes the settings into the configuration, or prints how to set them.
func (c *tuneCommand) saveSettings(std *IO, out io.Writer, r *tune.Report, app string) error {
	if r.Best == nil {
		return nil
	}
	chosen := r.Cheapest
	if c.Write == writeBest {
		chosen = r.Best
	}
	var numbers []edit.Number
	var words []string
	for _, n := range []edit.Number{{Key: "processes", Value: chosen.Processes}, {Key: "threads", Value: chosen.Threads}, {Key: "coroutines", Value: chosen.Coroutines}} {
		if n.Value > 0 {
			numbers = append(numbers, n)
			words = append(words, fmt.Sprintf("%s: %d", n.Key, n.Value))
		}
	}
	file := functionapps.NumbersFile(c.Config)
	byHand := fmt.Sprintf("set %s for app %s in %s", strings.Join(words, ", "), app, file)
	why := r.WhyNotKept()
	keep := map[bool]string{true: "To keep them anyway, add --write --force, or ", false: "To keep them, add --write, or "}
	switch {
	case c.Write == "":
		_, err := fmt.Fprintln(out, term.Printable(keep[why != ""]+byHand+"."))
		return err
	case r.Stopped:
		return fmt.Errorf("%s is unchanged, because the run was stopped; to use its results, %s", file, byHand)
	case why != "" && !c.Force:
		return fmt.Errorf("%s is unchanged, because %s; run it again when the machine is quiet, or add --force; to use its results, %s", file, why, byHand)
	}
	diff, err := functionapps.WriteNumbers(c.Config, std.Env, app, numbers)
	if err != nil {
		return fmt.Errorf("%w\nTo use the numbers, %s", err, byHand)
	}
	if diff == "" {
		_, err = fmt.Fprintf(out, "%s has these numbers already.\n", file)
		return err
	}
	_, err = fmt.Fprintf(out, "\n%sdrover reload applies them to a running daemon.\n", term.Printable(diff))
	return err
}
