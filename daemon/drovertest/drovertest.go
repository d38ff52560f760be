// Package drovertest runs the functions of a program in its tests: with the same handlers, settings and
// dispatcher as in production, but with queues in memory instead of brokers.
//
//	func TestOrders(t *testing.T) {
//		d := drovertest.Start(t, nil, functions()...) // the options that main passes to the daemon
//		got := d.Handle(t.Context(), "orders", drovertest.JSON(order{ID: 7}))
//		if !got.Done() || string(got.Output) != `{"id":7,"total":0}` {
//			t.Error(got)
//		}
//	}
//
// In the bubble of testing/synctest, time is virtual: the delays of retries take no time.
package drovertest

import (
	"context"
	"encoding/json"

	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon"
	"github.com/drover-run/drover/daemon/internal/dispatch"
	"github.com/drover-run/drover/daemon/internal/program"
	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/memory"
)

// Daemon runs functions until its test ends. Its methods may be called from any goroutine; methods that
// can fail the test only from the test's own.
type Daemon struct {
	t      testing.TB
	queues map[string]*queue // by function
	stop   context.CancelFunc
	ended  chan struct{} // closed when the daemon has ended
	err    error         // its result; read after ended is closed

	mu   sync.Mutex
	sent map[string][]triggers.Message // by function and output
}

// Start runs the functions of a configuration, which may be nil, and of options, until the test ends.
// Each function receives from a queue in memory instead of its trigger; Start closes a trigger from
// daemon.WithTrigger. Messages to outputs are kept. The daemon opens no listeners and no connections,
// and data_dir is a temporary directory. It logs to the test, unless the options have another log. A
// daemon that does not start, or whose stop is cut short, fails the test.
func Start(t testing.TB, cfg *configs.Config, options ...daemon.Option) *Daemon {
	t.Helper()
	own := new(program.Options)
	for _, option := range options {
		option(own)
	}
	cfg = isolated(cfg, t.TempDir())
	d := &Daemon{t: t, queues: make(map[string]*queue), ended: make(chan struct{}), sent: make(map[string][]triggers.Message)}
	names := slices.Collect(maps.Keys(cfg.Functions))
	for _, f := range own.Functions {
		names = append(names, f.Name)
	}
	replaced := make(map[string]triggers.Trigger)
	for _, name := range names {
		if d.queues[name] == nil {
			d.queues[name] = newQueue()
			replaced[name] = d.queues[name].trigger()
		}
	}
	for name, unused := range own.Triggers {
		if err := unused.Close(t.Context()); err != nil {
			t.Errorf("drovertest: closing the trigger of %s: %v", name, err)
		}
	}
	ready := make(chan struct{})
	options = append([]daemon.Option{daemon.WithLogger(slog.New(slog.NewTextHandler(t.Output(), nil)))}, options...)
	options = append(options, func(o *program.Options) {
		o.Triggers, o.OpenOutput = replaced, d.openOutput
		if first := o.OnReady; first != nil {
			o.OnReady = func() { first(); close(ready) }
		} else {
			o.OnReady = func() { close(ready) }
		}
	})
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	d.stop = stop
	go func() {
		defer close(d.ended)
		d.err = daemon.Run(ctx, cfg, options...)
	}()
	select {
	case <-ready:
	case <-d.ended:
		stop()
		t.Fatalf("drovertest: the daemon did not start: %v", d.err)
	}
	t.Cleanup(func() {
		if err := d.Stop(); err != nil {
			t.Errorf("drovertest: the daemon ended with: %v", err)
		}
		for _, q := range d.queues {
			q.messages.Close()
		}
	})
	return d
}

// isolated returns a copy of a configuration without listeners and connections.
func isolated(cfg *configs.Config, dir string) *configs.Config {
	if cfg == nil {
		cfg = configs.New()
	}
	out := *cfg
	out.Functions = maps.Clone(cfg.Functions)
	out.DataDir, out.Admin, out.Probes, out.Traces = dir, configs.Admin{Listen: "off"}, configs.Probes{}, configs.Traces{}
	out.Scale.Instances = configs.Instances{Min: 1, Max: 1}
	return &out
}

// JSON returns a message with a value as its body. It panics if the value cannot be encoded.
func JSON(v any) triggers.Message {
	body, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("drovertest.JSON: %v", err))
	}
	return triggers.Message{Body: body}
}

// Send puts a message into the queue of a function, and returns the message's ID, or a number if it has
// none.
func (d *Daemon) Send(function string, m triggers.Message) (id string) {
	d.t.Helper()
	id, err := d.queueOf(function).send(m)
	if err != nil {
		d.t.Fatalf("drovertest: function %s: %v", function, err)
	}
	return id
}

// Wait waits until the message with an ID is done or dead-lettered. It fails the test if ctx ends
// before, and reports the verdicts so far.
func (d *Daemon) Wait(ctx context.Context, function, id string) Outcome {
	d.t.Helper()
	out, err := d.queueOf(function).wait(ctx, id, d.ended)
	if err != nil {
		d.t.Fatalf("drovertest: function %s: %v", function, err)
	}
	return out
}

// Handle is Send and Wait.
func (d *Daemon) Handle(ctx context.Context, function string, m triggers.Message) Outcome {
	d.t.Helper()
	return d.Wait(ctx, function, d.Send(function, m))
}

// DeadLetters returns the messages of a function that have been dead-lettered, with their reasons.
func (d *Daemon) DeadLetters(function string) []memory.Dead {
	d.t.Helper()
	return d.queueOf(function).messages.Dead()
}

// Sent returns the messages that a function has sent to one of its outputs; the name is empty for outputs
// without a name. Results are also in the outcomes of messages, even without an output.
func (d *Daemon) Sent(function, output string) []triggers.Message {
	d.t.Helper()
	d.queueOf(function)
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.sent[function+"\x00"+output])
}

// Stop stops the daemon like SIGTERM, and returns the result of daemon.Run. Later calls return the same
// result.
func (d *Daemon) Stop() error {
	d.stop()
	<-d.ended
	return d.err
}

func (d *Daemon) queueOf(function string) *queue {
	d.t.Helper()
	q := d.queues[function]
	if q == nil {
		d.t.Fatalf("drovertest: there is no function %q; functions: %s", function, strings.Join(slices.Sorted(maps.Keys(d.queues)), ", "))
	}
	return q
}

// openOutput returns an output that keeps the messages sent to it.
func (d *Daemon) openOutput(function string, settings configs.Output) dispatch.OutputConfig {
	open := func(context.Context) (dispatch.Sender, func() error, error) {
		return &keeper{d, function + "\x00" + settings.Name, 0}, func() error { return nil }, nil
	}
	return dispatch.OutputConfig{Open: open, Lanes: 1}
}

// keeper is a sender that keeps messages.
type keeper struct {
	*Daemon
	key  string
	kept int64
}

// Send implements dispatch.Sender.
func (k *keeper) Send(_ context.Context, m *triggers.Message) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.sent[k.key] = append(k.sent[k.key], *m)
	k.kept++
	return nil
}

// Flush implements dispatch.Sender.
func (k *keeper) Flush(context.Context) error { return nil }

// ConfirmedCount implements dispatch.Sender.
func (k *keeper) ConfirmedCount() int64 { return k.kept }

// Outcome is the outcome of a message.
type Outcome struct {
	// Message is the message in its last attempt.
	Message triggers.Message
	// Verdicts has a verdict for each delivery, in order. The last one is Done or Reject.
	Verdicts []triggers.Verdict
	// Output is the function's result, and Properties its properties; nil if the message was rejected,
	// and for a function in a worker process without an output.
	Output     []byte
	Properties triggers.Properties
}

// Done reports whether the function has handled the message. Otherwise it was dead-lettered.
func (o Outcome) Done() bool { return o.last().Kind == triggers.Done }

// Reason returns why the message was dead-lettered; empty if it was not.
func (o Outcome) Reason() string { return o.last().Reason }

// Attempts returns how many attempts the message has used.
func (o Outcome) Attempts() int {
	n := 0
	for _, v := range o.Verdicts {
		if v.Kind != triggers.Release {
			n++
		}
	}
	return n
}

// String describes the outcome in a line.
func (o Outcome) String() string {
	if o.Done() {
		return fmt.Sprintf("message %s: done after %d attempts, output %q", o.Message.ID, o.Attempts(), o.Output)
	}
	return fmt.Sprintf("message %s: dead-lettered after %d attempts: %s", o.Message.ID, o.Attempts(), o.Reason())
}

func (o Outcome) last() triggers.Verdict {
	if len(o.Verdicts) == 0 {
		return triggers.Verdict{}
	}
	return o.Verdicts[len(o.Verdicts)-1]
}
