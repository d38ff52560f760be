package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon/cli/deadletter"
	"github.com/drover-run/drover/daemon/cli/messagefile"
	"github.com/drover-run/drover/daemon/cli/simulate"
	"github.com/drover-run/drover/daemon/cli/statustext"
	"github.com/drover-run/drover/daemon/cli/term"
	"github.com/drover-run/drover/daemon/internal/admin"
	"github.com/drover-run/drover/daemon/internal/api"
	"github.com/drover-run/drover/daemon/internal/autoscale"
	"github.com/drover-run/drover/daemon/internal/sources"
	"github.com/drover-run/drover/daemon/internal/status"
	"github.com/drover-run/drover/triggers"
)

// explainCommand is `drover explain`.
type explainCommand struct {
	About string `arg:"" help:"Explain this function, or the message with this ID."`
	clientFlags
	Message bool `help:"Treat the argument as a message ID, even if a function has the same name."`
	Verbose bool `short:"v" help:"Print the numbers as well: slots, workers, and the scaler's formula."`
	JSON    bool `name:"json" help:"Print JSON."`
}

func (*explainCommand) Help() string {
	return `For a function, prints its limit, the number of messages waiting, the message that has been in flight longest, and the scaler's decision.
For a message, prints its state: in flight, waiting for a retry, ready at the source, or dead-lettered with the reason.

Examples:

    drover explain thumbnails
    drover explain thumbnails --verbose
    drover explain thumbnails:17        # a NATS message: stream and sequence number
    drover explain --message thumbnails
`
}

func (c *explainCommand) Run(ctx context.Context, std *IO) error {
	client, err := c.newClient(ctx, std)
	if err != nil {
		return err
	}
	as := ""
	if c.Message {
		as = "message"
	}
	var answer api.Explanations
	err = client.GetJSON(ctx, api.ExplainPath(c.About, as), &answer)
	if errors.Is(err, admin.ErrNoDaemon) {
		answer.Explanations, err = c.explainOffline(ctx, std, err)
	}
	if err != nil {
		return err
	}
	if len(answer.Explanations) == 1 && answer.Explanations[0].State == api.StateUnknown {
		answer.Explanations = c.searchDeadLetters(ctx, answer.Explanations, std)
	}
	if c.JSON {
		text, err := json.MarshalIndent(answer, "", "  ")
		if err != nil {
			return fmt.Errorf("writing the explanation: %w", err)
		}
		_, err = std.Out.Write(append(messagefile.EscapeControls(text), '\n'))
		return err
	}
	for _, e := range answer.Explanations {
		_ = term.Print(std.Out, statustext.ExplanationText(e, c.Verbose))
	}
	return nil
}

// explainOffline requests explanations from the sources, with the secrets of the configuration.
func (c *explainCommand) explainOffline(ctx context.Context, std *IO, noDaemon error) (out []api.Explanation, err error) {
	if c.DataDir != "" {
		return nil, noDaemon
	}
	cfg, err := std.loadConfig(ctx, c.Config)
	if err != nil {
		return nil, fmt.Errorf("%w, and the sources cannot be queried: %w", noDaemon, err)
	}
	_, _ = fmt.Fprintf(std.Err, "drover: %v; querying the sources instead\n", noDaemon)
	opened, done, err := sources.OpenTriggers(ctx, sources.Config{Settings: cfg, Log: std.newLogger(configs.Log{Level: "error", Format: "auto"})})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, done()) }()
	if source := opened[c.About]; source != nil && !c.Message {
		e := api.Explanation{Function: c.About, State: "stopped", Text: "no daemon runs it here"}
		b, err := source.Backlog(ctx)
		if err != nil {
			e.Notes = []string{"its source does not report its backlog: " + err.Error()}
		} else {
			e.Notes = []string{status.BacklogNote(autoscale.BacklogReading{Ready: b.Ready, Oldest: b.Oldest, More: b.More})}
		}
		return []api.Explanation{e}, nil
	}
	source := func(name string) triggers.Trigger { return opened[name] }
	return status.ExplainAtSources(ctx, slices.Sorted(maps.Keys(cfg.Functions)), source, c.About, "no source lists it. It was completed or dead-lettered, it was never sent, or another consumer holds it"), nil
}

// maxDeadSearched is how many dead letters of a function are searched for a message.
const maxDeadSearched = 1000

// searchDeadLetters searches the dead letters for a message, if they can be read.
func (c *explainCommand) searchDeadLetters(ctx context.Context, unknown []api.Explanation, std *IO) []api.Explanation {
	if c.DataDir != "" {
		unknown[0].Notes = append(unknown[0].Notes, "dead letters were not searched: that needs the configuration; give --config instead of --data-dir")
		return unknown
	}
	cfg, err := std.loadConfig(ctx, c.Config)
	if err != nil {
		unknown[0].Notes = append(unknown[0].Notes, fmt.Sprintf("dead letters were not searched: %v", err))
		return unknown
	}
	log := std.newLogger(configs.Log{Level: "error", Format: "auto"})
	for _, name := range slices.Sorted(maps.Keys(cfg.Functions)) {
		dead, done, err := openDeadLetters(ctx, cfg, name, true, log)
		if err != nil {
			unknown[0].Notes = append(unknown[0].Notes, fmt.Sprintf("the dead letters of %s cannot be read: %v", name, err))
			continue
		}
		most := maxDeadSearched
		if sources.TraitsOf(cfg.Functions[name].Trigger).BrowseHides {
			most = deadletter.PeekPage // reading more would hide them from other readers
		}
		e, found := c.findDeadLetter(ctx, name, dead, most)
		if err := errors.Join(dead.Close(ctx), done()); err != nil {
			unknown[0].Notes = append(unknown[0].Notes, err.Error())
		}
		if found {
			return []api.Explanation{e}
		}
	}
	return unknown
}

func (c *explainCommand) findDeadLetter(ctx context.Context, function string, from triggers.DeadLetters, most int) (e api.Explanation, found bool) {
	seen := 0
	for letter, err := range deadletter.BrowseAll(ctx, from, deadletter.PageSize(most)) {
		if err != nil {
			return e, false
		}
		if seen++; letter.Message.ID != c.About {
			if seen >= most {
				return e, false
			}
			continue
		}
		e = api.Explanation{Function: function, Message: c.About, State: "dead", Text: fmt.Sprintf("it is a dead letter, since %s", term.LocalTime(letter.Died))}
		e.Notes = []string{"the reason: " + letter.Reason, fmt.Sprintf("attempts: %d", letter.Message.Attempt), fmt.Sprintf("drover dead show %s %s has the rest", function, letter.ID)}
		return e, true
	}
	return e, false
}

type scaleCommand struct {
	Explain  scaleExplainCommand `cmd:"" help:"Explain the latest scaling decisions of a running daemon."`
	Simulate simulateCommand     `cmd:"" group:"configure" help:"Simulate the scaling policy, and those of other systems, on a trace of arrivals."`
}

// simulateCommand is `drover scale simulate`.
type simulateCommand struct{ simulate.Options }

func (*simulateCommand) Help() string {
	return `Examples:

    drover scale simulate
    drover scale simulate --trace bursts --plot plots
    drover scale simulate --trace monday.csv --policy policy.yaml
`
}

func (c *simulateCommand) Run(std *IO) error { return c.Options.Run(std.Out, std.Env) }

// scaleExplainCommand is `drover scale explain`.
type scaleExplainCommand struct {
	clientFlags
	Verbose bool `short:"v" help:"Print the inputs and the formula as well."`
}

func (*scaleExplainCommand) Help() string {
	return `Examples:

    drover scale explain
    drover scale explain --verbose
`
}

func (c *scaleExplainCommand) Run(ctx context.Context, std *IO) error {
	cfg, err := c.loadClient(ctx, std)
	if err != nil {
		return err
	}
	client, err := admin.NewClient(cfg)
	if err != nil {
		return err
	}
	found, err := c.printDecisions(ctx, std, client, "")
	if err != nil {
		return err
	}
	dirs, err := filepath.Glob(filepath.Join(cfg.DataDir, "instances", "*"))
	if err != nil {
		return fmt.Errorf("looking for instances: %w", err)
	}
	for _, dir := range dirs {
		more, err := c.printDecisions(ctx, std, admin.NewSocketClient(dir), " in instance "+filepath.Base(dir))
		if err != nil && !errors.Is(err, admin.ErrNoDaemon) { // an instance that has ended has no decisions
			return err
		}
		found = found || more
	}
	if !found {
		return errors.New("no decisions: the daemon scales nothing (see scale.instances, and apps without processes)")
	}
	return nil
}

// printDecisions prints one daemon's latest decisions, and reports whether it has any.
func (c *scaleExplainCommand) printDecisions(ctx context.Context, std *IO, client *admin.Client, where string) (found bool, err error) {
	var latest map[string]api.Decided
	if err := client.GetJSON(ctx, api.ScalePath, &latest); err != nil {
		return false, err
	}
	for _, about := range slices.Sorted(maps.Keys(latest)) {
		d := latest[about]
		_, _ = fmt.Fprintf(std.Out, "%s%s, decided at %s, %v ago\n", about, where, d.At.Format(time.TimeOnly), time.Since(d.At).Round(time.Second))
		_ = term.Print(std.Out, "  "+term.Printable(d.Sentence)+"\n")
		if !c.Verbose {
			continue
		}
		for line := range strings.Lines(d.Text) {
			_ = term.Print(std.Out, "  "+line)
		}
	}
	return len(latest) > 0, nil
}
