package load

import (
	"cmp"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/drover-run/drover/bench/work"
	"github.com/drover-run/drover/daemon"
	"github.com/drover-run/drover/daemon/cli"
	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/natsjs/embedded"

	"github.com/drover-run/drover/bench/rig"
)

//go:embed function_app.py
var functionApp []byte

// Drover is drover with one function.
type Drover struct {
	Language string // go, python or node
	// Sized gives the function fixed numbers that fit the cell, instead of those that drover finds: one
	// thread in each of two processes, or the threads or coroutines for InFlight messages.
	Sized bool
	// InFlight is how many messages of a function that waits are in flight at most, where that is fixed:
	// with Sized, and in Go. Threads are at most the constant InFlight. 0 is that constant.
	InFlight int
	// Inline is one thread in one process.
	Inline bool
	// External is a NATS server in a separate process, instead of the embedded one.
	External bool
	// Limits is a stream of retention limits, instead of a work queue.
	Limits bool
}

// Contender returns drover as a contender.
func (d Drover) Contender(name string) Contender {
	d.InFlight = cmp.Or(d.InFlight, InFlight)
	return Contender{Name: name, Fastest: 180_000, InFlight: d.InFlight, Open: func(ctx context.Context, run Run) (System, error) {
		s := &droverSystem{Drover: d, run: run}
		if !d.External {
			return s, nil
		}
		var err error
		if s.server, err = StartServer(ctx, run.Dir); err != nil {
			return nil, err
		}
		return s, MakeStream(ctx, s.server.JS, d.Limits)
	}}
}

// DaemonCommand is the hidden command that runs drover with the Go function.
type DaemonCommand struct {
	File string `arg:""`
}

// Run runs drover until a signal ends it.
func (c *DaemonCommand) Run() error {
	job, err := work.FromEnv()
	if err != nil {
		return err
	}
	config, err := os.ReadFile(c.File)
	if err != nil {
		return err
	}
	os.Args = []string{"drover", "run", c.File}
	if !strings.Contains(string(config), "go: job") {
		cli.Main() // the command drover as users have it; with functions of Go it does not limit its cores
	}
	cli.Main(daemon.WithFuncs(handlers.Funcs{"job": func(ctx context.Context, m *triggers.Message) ([]byte, error) { return nil, job.Do(ctx, m.Body) }}))
	return nil
}

type droverSystem struct {
	Drover
	run    Run
	server *Server // or nil
	daemon *Process
	conn   *nats.Conn // to the embedded server, once something is sent
}

// config is the configuration for the cell.
func (d *droverSystem) config() string {
	connection := "{nats: embedded}"
	if d.External {
		connection = "{nats: \"" + d.server.URL + "\"}"
	}
	cell := d.run.Cell
	handler, more := "{go: job}", ""
	if d.Language == "go" && cell.Waits() {
		more = fmt.Sprintf("    concurrency: %d\n", d.InFlight)
	}
	if d.Language == "python" {
		function, numbers := "job", ""
		if cell.Work == Awaits {
			function = "async_job"
		}
		switch {
		case d.Inline:
			numbers = ", processes: 1, threads: 1"
		case d.Sized && cell.Work == Awaits:
			numbers = fmt.Sprintf(", processes: 1, coroutines: %d", d.InFlight)
		case d.Sized && cell.Waits():
			numbers = fmt.Sprintf(", processes: 2, threads: %d", InFlight/2)
		case d.Sized:
			numbers = ", processes: 2, threads: 1"
		}
		handler = fmt.Sprintf("{python: {path: ., function: %s%s}}", function, numbers)
	}
	if d.Language == "node" {
		function, numbers := "job", ""
		if cell.Work == Awaits {
			function = "async_job"
		}
		if d.Inline {
			numbers = ", processes: 1"
		}
		handler = fmt.Sprintf("{node: {path: ., module: work, function: %s%s}}", function, numbers)
	}
	return fmt.Sprintf(`version: 1
data_dir: data
drain: 1s
log: {level: warn}
connections: {here: %s}
functions:
  job:
    trigger: {nats: {connection: here, stream: %s, subject: %s, consumer: %s, create: true}}
    handler: %s
%s`, connection, Stream, Subject, Subject, handler, more)
}

func (d *droverSystem) serverDir() string { return filepath.Join(d.run.Dir, "data", "nats-here") }

// Fill implements System.
func (d *droverSystem) Fill(ctx context.Context, messages int) error {
	next := BodyMessages(d.run.Cell.Size)
	if d.External {
		return Publish(ctx, d.server.JS, messages, 0, next)
	}
	return fillEmbedded(ctx, d.serverDir(), d.Limits, messages, next)
}

// Start implements System.
func (d *droverSystem) Start(ctx context.Context) error {
	for name, text := range map[string]string{"drover.yaml": d.config(), "function_app.py": string(functionApp), "work.py": string(work.Python), "work.js": string(work.JavaScript)} {
		if err := os.WriteFile(filepath.Join(d.run.Dir, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	program, err := d.run.program()
	if err != nil {
		return err
	}
	d.daemon, err = StartProcess(ctx, d.run.Dir, d.run.Env(), program, "daemon", "drover.yaml")
	return err
}

// Send implements System.
func (d *droverSystem) Send(ctx context.Context, messages, rate int) error {
	js, err := d.jetStream(ctx)
	if err != nil {
		return err
	}
	return Publish(ctx, js, messages, rate, BodyMessages(d.run.Cell.Size))
}

func (d *droverSystem) jetStream(ctx context.Context) (jetstream.JetStream, error) {
	if d.External {
		return d.server.JS, nil
	}
	for d.conn == nil {
		url, token, err := embedded.ReadClient(d.serverDir())
		if err == nil {
			d.conn, err = nats.Connect(url, nats.Token(token))
		}
		if err == nil {
			break
		}
		if _, ended := d.daemon.Tree(); ended != nil {
			return nil, errors.Join(err, ended)
		}
		if err := rig.Pause(ctx, startPause); err != nil {
			return nil, err
		}
	}
	js, err := jetstream.New(d.conn)
	if err != nil {
		return nil, err
	}
	for {
		if _, err = js.Stream(ctx, Stream); err == nil || !errors.Is(err, jetstream.ErrStreamNotFound) && !strings.Contains(err.Error(), "no responders") {
			return js, err
		}
		if err := rig.Pause(ctx, startPause); err != nil {
			return nil, err
		}
	}
}

// Processes implements System.
func (d *droverSystem) Processes() (p Processes, err error) {
	tree, err := d.daemon.Tree()
	if err != nil {
		return p, err
	}
	p.Daemon, p.Workers = tree[:1], tree[1:]
	if d.server != nil {
		p.Broker = []int{d.server.PID()}
	}
	return p, nil
}

// Close implements System.
func (d *droverSystem) Close() error {
	if d.conn != nil {
		d.conn.Close()
	}
	var err error
	if d.daemon != nil {
		err = d.daemon.Close()
	}
	if d.server != nil {
		err = errors.Join(err, d.server.Close())
	}
	return err
}
