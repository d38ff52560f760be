// Package faults has the commands that kill, stop or reload a daemon under load, and count the messages
// that are lost, repeated or charged an attempt.
package faults

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/drover-run/drover/daemon"
	"github.com/drover-run/drover/daemon/cli"
	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/natsjs/client"
	"github.com/drover-run/drover/triggers/natsjs/embedded"
	"github.com/drover-run/drover/triggers/servicebus"
	"github.com/drover-run/drover/triggers/servicebus/emulator"

	"github.com/drover-run/drover/bench/azure"
	"github.com/drover-run/drover/bench/rig"
)

type StopCommand struct {
	Rounds   int    `default:"5" help:"Rounds, each a stop under load and a start."`
	Messages int    `default:"50000" help:"Messages of a round."`
	Only     string `enum:"all,go,python,http,servicebus" default:"all" help:"all, or one part: go, python, http, servicebus."`
	Daemon   string `hidden:"" help:"Be the daemon of this configuration, with a Go function."`
}

const (
	// Each handled message is a line of the file that stopRuns names: its number.
	stopRuns   = "BENCH_RUNS"
	stopLine   = "%07d\n"
	stopRecord = 8
	// A stop and the rest of a round may take so long.
	stopPatience = 3 * time.Minute
)

const stopApp = `import os
runs = os.open(os.environ["BENCH_RUNS"], os.O_WRONLY | os.O_APPEND)
def bench(body):
    os.write(runs, body + b"\n")
`

// stopped is what became of one kind's messages, in all rounds. Those handled before and
// after the stop are twice, those delivered more than once, handled or not, again.
type stopped struct{ messages, inFlight, twice, again, lost int }

// Run stops a daemon under load by SIGTERM and starts it again, and counts the messages
// that were handled twice, delivered again, or lost.
func (c *StopCommand) Run(ctx context.Context) error {
	if c.Daemon != "" {
		return stopDaemon(c.Daemon)
	}
	if c.Rounds < 1 || c.Messages < 100 || c.Messages > 9_999_999 {
		return errors.New("--rounds must be at least 1, --messages 100 to 9999999")
	}
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "stopped under load\tmessages\tin flight at the stops\thandled twice\tdelivered again\tlost\t")
	measure := func(kind string) rig.Part {
		return rig.Part{Name: kind, Run: func(ctx context.Context) error {
			sum := stopped{}
			for round := range c.Rounds {
				s, err := c.round(ctx, kind)
				if err != nil {
					return fmt.Errorf("%s, round %d: %w", kind, round+1, err)
				}
				sum = stopped{sum.messages + s.messages, sum.inFlight + s.inFlight, sum.twice + s.twice, sum.again + s.again, sum.lost + s.lost}
			}
			fmt.Fprintf(table, "%s\t%d\t%d\t%d\t%d\t%d\t\n", kind, sum.messages, sum.inFlight, sum.twice, sum.again, sum.lost)
			return nil
		}}
	}
	err := rig.RunParts(ctx, c.Only, measure("go"), measure("python"), measure("http"), measure("servicebus"))
	return errors.Join(err, table.Flush())
}

// round fills a source, stops the daemon when a quarter is handled, and has another one do
// the rest.
func (c *StopCommand) round(ctx context.Context, kind string) (s stopped, err error) {
	ctx, cancel := context.WithTimeout(ctx, stopPatience)
	defer cancel()
	dir, binary, err := rig.BuildDrover(ctx)
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	runs, err := os.OpenFile(filepath.Join(dir, "runs"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, runs.Close()) }()
	handler, trigger, connections := "python: {path: ., processes: 1}", "nats: {}", "{local: {nats: embedded}}"
	run := []string{binary, "run", "drover.yaml"}
	switch kind {
	case "go", "servicebus":
		self, err := os.Executable()
		if err != nil {
			return s, err
		}
		handler, run = "go: bench", []string{self, "stop", "--daemon", "drover.yaml"}
	case "http":
		url, stop, err := stopHTTP(runs)
		if err != nil {
			return s, err
		}
		defer stop()
		handler = fmt.Sprintf("http: {url: %q}", url)
	}
	var lines bytes.Buffer
	for i := range c.Messages {
		fmt.Fprintf(&lines, stopLine, i)
	}
	source := stopSource(&natsStore{dir: filepath.Join(dir, "data", "nats-local"), send: []string{binary, "send", "bench", "--lines", "lines", "-c", "drover.yaml"}, in: dir})
	if kind == "servicebus" {
		e, connection, err := azure.BusServer(emulator.QueueOptions{})
		if err != nil {
			return s, err
		}
		defer func() { err = errors.Join(err, e.Close()) }()
		trigger, connections = "servicebus: {queue: bench}", fmt.Sprintf("{bus: {connection_string: %q}}", connection)
		source = &busStore{e, connection, lines.String()}
	}
	for name, text := range map[string]string{
		"drover.yaml":     fmt.Sprintf("data_dir: data\nconnections: %s\nfunctions: {bench: {trigger: {%s}, handler: {%s}}}\n", connections, trigger, handler),
		"function_app.py": stopApp, "lines": lines.String(),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return s, err
		}
	}
	if err := source.fill(ctx); err != nil {
		return s, err
	}
	first := func() int {
		info, err := runs.Stat()
		if err != nil {
			return 0
		}
		return int(info.Size() / stopRecord)
	}
	if s.inFlight, err = stopAt(ctx, dir, run, func() bool { return first() >= c.Messages/4 }); err != nil {
		return s, err
	}
	before := first()
	if before >= c.Messages {
		return s, fmt.Errorf("all %d messages were handled before the stop: give it more", before)
	}
	// From here on a message is handled or lost. Some are redelivered only when their lease expires.
	times := make(map[string]int)
	var all error
	looked := 0
	_, err = stopAt(ctx, dir, run, func() bool {
		n := first()
		if n < c.Messages || n == looked {
			return false
		}
		looked = n
		var text []byte
		text, all = os.ReadFile(filepath.Join(dir, "runs"))
		clear(times)
		for line := range strings.Lines(string(text)) {
			times[line]++
		}
		return all != nil || len(times) == c.Messages
	})
	if err = errors.Join(err, all); err != nil {
		return s, fmt.Errorf("%d of %d were handled: %w", len(times), c.Messages, err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "runs"))
	if err != nil {
		return s, err
	}
	earlier := make(map[string]bool)
	for line := range strings.Lines(string(text[:before*stopRecord])) {
		earlier[line] = true
	}
	for line := range strings.Lines(string(text[before*stopRecord:])) {
		if earlier[line] {
			s.twice++
		}
	}
	if within := len(text)/stopRecord - c.Messages - s.twice; within > 0 {
		fmt.Fprintf(os.Stderr, "%s: %d were handled twice by one daemon\n", kind, within)
	}
	delivered, err := source.delivered(ctx)
	s.messages, s.lost, s.again = c.Messages, c.Messages-len(times), delivered-c.Messages
	return s, err
}

var inFlight = regexp.MustCompile(`"in_flight":(\d+)`)

// stopAt runs the daemon until a condition holds, and then stops it. It returns the number of
// messages in flight at that moment.
func stopAt(ctx context.Context, dir string, run []string, so func() bool) (n int, err error) {
	cmd := exec.CommandContext(ctx, run[0], run[1:]...)
	var log bytes.Buffer
	cmd.Dir, cmd.Stderr, cmd.Env = dir, &log, append(os.Environ(), stopRuns+"="+filepath.Join(dir, "runs"))
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	waiting := rig.Until(ctx, so)
	err = errors.Join(waiting, cmd.Process.Signal(syscall.SIGTERM), cmd.Wait())
	if err != nil {
		return 0, fmt.Errorf("%w\n%s", err, log.Bytes())
	}
	if m := inFlight.FindSubmatch(log.Bytes()); m != nil {
		n, _ = strconv.Atoi(string(m[1])) // digits
	}
	return n, nil
}

// stopDaemon is the daemon with a function in Go, as a program of a user's would be.
func stopDaemon(file string) error {
	runs, err := os.OpenFile(os.Getenv(stopRuns), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	os.Args = []string{"drover", "run", file}
	cli.Main(daemon.WithFuncs(handlers.Funcs{"bench": func(_ context.Context, m *triggers.Message) ([]byte, error) {
		_, err := runs.Write(append(bytes.Clone(m.Body), '\n'))
		return nil, err
	}}))
	return nil
}

// stopHTTP starts an app that records the messages posted to it.
func stopHTTP(runs io.Writer) (url string, stop func(), err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	s := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err == nil {
			_, err = runs.Write(append(body, '\n'))
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})}
	var serving sync.WaitGroup
	serving.Go(func() { _ = s.Serve(l) }) // until it is closed
	return "http://" + l.Addr().String(), func() { _ = s.Close(); serving.Wait() }, nil
}

// stopSource is what the messages are read from. It outlives the daemon.
type stopSource interface {
	fill(ctx context.Context) error
	// delivered counts each delivery.
	delivered(ctx context.Context) (int, error)
}

// natsStore is the embedded server's, in the data directory.
type natsStore struct {
	dir  string
	send []string
	in   string
}

func (n *natsStore) fill(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, n.send[0], n.send[1:]...)
	cmd.Dir = n.in
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return nil
}

func (n *natsStore) delivered(ctx context.Context) (count int, err error) {
	server, err := embedded.Start(ctx, embedded.Config{Dir: n.dir, Listen: "off", Sync: time.Minute, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, server.Close(context.WithoutCancel(ctx))) }()
	conn, err := client.ConnectInProcess(ctx, server, slog.New(slog.DiscardHandler))
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	js, err := jetstream.New(conn.Conn())
	if err != nil {
		return 0, err
	}
	consumer, err := js.Consumer(ctx, "bench", "bench")
	if err != nil {
		return 0, err
	}
	return int(consumer.CachedInfo().Delivered.Consumer), nil
}

// busStore is a queue of the emulator's.
type busStore struct {
	emulator   *emulator.Emulator
	connection string
	lines      string
}

func (b *busStore) fill(ctx context.Context) (err error) {
	s, err := servicebus.NewSender(azure.BusAccess(b.connection), "bench")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close(context.WithoutCancel(ctx))) }()
	for line := range strings.Lines(b.lines) {
		if err := s.Send(ctx, &triggers.Message{Body: []byte(strings.TrimSpace(line))}); err != nil {
			return err
		}
	}
	return s.Flush(ctx)
}

func (b *busStore) delivered(context.Context) (int, error) {
	u, err := b.emulator.Usage("bench")
	return u.Leased, err
}
