package daemon

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon/cli/exit"
	"github.com/drover-run/drover/daemon/cli/term"
	"github.com/drover-run/drover/daemon/internal/apps"
	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/handlers/workers/protocol"
	"github.com/drover-run/drover/triggers"
)

// roomLimit bounds the wait for an app that takes no messages yet.
const roomLimit = 10 * time.Second

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

Prints the function's result on standard output, and its log and the verdict on standard error. The exit status is 0 if the verdict is done, else 1.

Examples:

    drover invoke thumbnails --body cat.jpg -H album=pets
    drover invoke orders --file order.json --attempt 5
    curl -s https://example.com/order.json | drover invoke orders --file -
    drover invoke orders --file order.json --json | jq .verdict
`
}

func (c *invokeCommand) Run(ctx context.Context, std *IO) error {
	if (c.Body == nil) == (c.File == "") {
		return exit.UsageError("give --body or --file, one of them; --file - is standard input")
	}
	if c.Attempt < 1 {
		return exit.UsageError("--attempt counts from 1")
	}
	cfg, err := configs.LoadContext(ctx, c.Config, std.Env)
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
	m, err := c.message(settings, std.In)
	if err != nil {
		return err
	}
	lines := &invokeLog{}
	if !c.JSON {
		lines.print = func(l invokeLine) { fmt.Fprintln(std.Err, l) }
	}
	_ = lines.level.UnmarshalText([]byte(cfg.Log.Level)) // it was checked; the zero level is info
	for _, w := range cfg.Warnings {
		slog.New(lines).Warn(w)
	}
	results := protocol.Shown
	if len(settings.Output) > 0 {
		results = "" // as where they are sent
	}
	out, err := invoke(ctx, c.Function, m, apps.Options{
		Config: apps.ConfigAlone(cfg, c.Function), Funcs: std.Funcs, Env: std.Env, Environ: std.Environ, Results: &results, Log: slog.New(lines),
	})
	if err != nil {
		return err
	}
	out.Function, out.Handler, out.MaxAttempts = c.Function, settings.Handler.String(), settings.Retry.MaxAttempts
	out.OutputTo = settings.Output.String()
	out.Log = lines.all()
	if c.JSON {
		err = out.json(std.Out)
	} else {
		err = out.print(std)
	}
	if err == nil && out.verdict.Kind != triggers.Done {
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

// message makes the message that the function is to get.
func (c *invokeCommand) message(settings configs.Function, in io.Reader) (*triggers.Message, error) {
	m := &triggers.Message{
		ID: "invoke-" + rand.Text()[:10], Attributes: c.Header, Attempt: c.Attempt,
		Enqueued: time.Now(), OrderingKey: c.Session, Subject: c.Subject,
	}
	if len(c.Property) > 0 {
		m.Origin = triggers.Known(c.Property)
	}
	if m.Subject == "" {
		m.Subject = sentTo(settings.Trigger)
	}
	if bus := settings.Trigger.ServiceBus; bus != nil && bus.SessionState {
		m.Session = new(invokeSession)
	}
	if c.Body != nil {
		m.Body = []byte(*c.Body)
		return m, nil
	}
	var err error
	m.Body, err = readBody(c.File, in, max(int64(settings.MaxBody), maxLine))
	return m, err
}

// sentTo is the name that a trigger's messages were sent to; empty where there may
// be several.
func sentTo(t configs.Trigger) string {
	switch {
	case t.ServiceBus != nil:
		return t.ServiceBus.Queue + t.ServiceBus.Topic // one of them is empty
	case t.StorageQueue != nil:
		return t.StorageQueue.Queue
	case t.NATS != nil && !strings.ContainsAny(t.NATS.Subject, "*>"):
		return t.NATS.Subject
	}
	return ""
}

// invocation is what became of a message, and what is told of it.
type invocation struct {
	Function         string              `json:"function"`
	Handler          string              `json:"handler"`
	Message          string              `json:"message"`
	Attempt          int                 `json:"attempt"`
	MaxAttempts      int                 `json:"max_attempts"`
	Verdict          string              `json:"verdict"` // done, retry, reject or release
	Delay            float64             `json:"retry_after_seconds,omitempty"`
	Reason           string              `json:"reason,omitempty"`
	Error            string              `json:"error,omitempty"`
	Detail           string              `json:"detail,omitempty"` // the traceback
	Output           *string             `json:"output,omitempty"`
	OutputBytes      string              `json:"output_base64,omitempty"` // one that is no text
	OutputProperties triggers.Properties `json:"output_properties,omitempty"`
	OutputTo         string              `json:"output_to,omitempty"` // where a daemon would send it
	Log              []invokeLine        `json:"log"`
	Took             float64             `json:"took_seconds"`
	verdict          triggers.Verdict
	output           []byte
	took             time.Duration
}

// invoke takes one message through a function.
func invoke(ctx context.Context, function string, m *triggers.Message, options apps.Options) (out *invocation, err error) {
	out = &invocation{Message: m.ID, Attempt: m.Attempt}
	f, err := apps.OpenAlone(ctx, options, function)
	if err != nil {
		var loadError *handlers.LoadError
		if ctx.Err() != nil {
			return nil, errors.New("stopped before the function was loaded")
		}
		if !errors.As(err, &loadError) {
			return nil, err
		}
		out.ended(triggers.Verdict{Kind: triggers.Release}, nil, err, 0)
		return out, nil
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	lease := new(invokeLease)
	f.Trigger = lease
	f.Log = slog.New(slog.DiscardHandler) // what the dispatcher says of a verdict is in the report
	waiting, cancel := context.WithTimeout(ctx, roomLimit)
	defer cancel()
	if f.Share.Claim(waiting) != nil {
		out.ended(triggers.Verdict{Kind: triggers.Release}, nil, fmt.Errorf("the app accepts no messages: %w", handlers.ErrNotTried), 0)
		return out, nil
	}
	r := f.RunOne(ctx, triggers.NewDelivery(m, lease))
	out.OutputProperties = r.Properties
	out.ended(lease.verdict, r.Output, r.Err, lease.settled.Sub(r.Start))
	return out, nil
}

func (i *invocation) ended(v triggers.Verdict, output []byte, err error, took time.Duration) {
	i.verdict, i.output, i.took = v, output, took
	i.Verdict, i.Delay, i.Reason, i.Took = v.Kind.String(), v.Delay.Seconds(), v.Reason, took.Seconds()
	if err != nil {
		i.Error, i.Detail = err.Error(), detailOf(err)
		var failure *handlers.Failure
		if errors.As(err, &failure) {
			i.Detail = failure.Detail
		}
	}
	switch {
	case output == nil:
	case utf8.Valid(output):
		text := string(output)
		i.Output = &text
	default:
		i.OutputBytes = base64.StdEncoding.EncodeToString(output)
	}
}

func (i *invocation) json(w io.Writer) error {
	text, err := json.MarshalIndent(i, "", "  ")
	if err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	_, err = w.Write(append(text, '\n'))
	return err
}

// print writes the output as it is, and the rest beside it. What is for eyes does
// not move the terminal.
func (i *invocation) print(std *IO) error {
	say := func(format string, args ...any) { fmt.Fprintln(std.Err, term.Printable(fmt.Sprintf(format, args...))) }
	if i.Detail != "" {
		say("%s", strings.TrimRight(i.Detail, "\n"))
	}
	if i.Error != "" && i.verdict.Kind != triggers.Reject { // else it is the reason
		say("error: %s", i.Error)
	}
	text := i.Verdict
	switch i.verdict.Kind {
	case triggers.Retry:
		text = fmt.Sprintf("retry, after %v", i.verdict.Delay.Round(time.Millisecond))
	case triggers.Reject:
		text = "reject, to the dead letters: " + i.Reason
	case triggers.Release:
		text = "release: it would be released without using an attempt"
	}
	say("verdict: %s (attempt %d of %d, took %v)", text, i.Attempt, i.MaxAttempts, i.took.Round(10*time.Microsecond))
	switch {
	case i.verdict.Kind != triggers.Done:
	case i.output == nil:
		say("output: none")
	case i.OutputTo == "":
		say("output: %d bytes, which go nowhere: the function has no output in the configuration", len(i.output))
	default:
		say("output: %d bytes, which would go to %s", len(i.output), i.OutputTo)
	}
	if len(i.output) == 0 {
		return nil
	}
	if std.OutIsTerminal {
		_, err := fmt.Fprintln(std.Out, strings.TrimSuffix(term.Printable(string(i.output)), "\n"))
		return err
	}
	_, err := std.Out.Write(i.output)
	return err
}

// invokeLease is the trigger of a message that comes from no queue: it keeps the
// verdict.
type invokeLease struct {
	verdict triggers.Verdict
	settled time.Time
}

func (l *invokeLease) Settle(_ context.Context, _ *triggers.Message, v triggers.Verdict) error {
	l.verdict, l.settled = v, time.Now()
	return nil
}

func (l *invokeLease) Receive(ctx context.Context, _ int) ([]*triggers.Delivery, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func (l *invokeLease) Backlog(context.Context) (triggers.Backlog, error) {
	return triggers.Backlog{}, triggers.ErrUnknown
}

func (l *invokeLease) Close(context.Context) error { return nil }

// invokeSession is a session that nobody shares: its state begins empty.
type invokeSession struct {
	mu    sync.Mutex
	state []byte
}

func (s *invokeSession) State(context.Context) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state, nil
}

func (s *invokeSession) SetState(_ context.Context, state []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state = state
	return nil
}
