package daemon

import (
	"context"
	"errors"
	"log"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/scaler/local"
	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/memory"
)

// ownHandler is a handler of a program that counts calls of Handle and Close.
type ownHandler struct {
	calls, closed atomic.Int64
	done          chan struct{}
}

func (h *ownHandler) Handle(context.Context, *triggers.Message) ([]byte, error) {
	h.calls.Add(1)
	h.done <- struct{}{}
	return nil, nil
}

func (h *ownHandler) Close(context.Context) error {
	h.closed.Add(1)
	return nil
}

func noop(context.Context, *triggers.Message) ([]byte, error) { return nil, nil }

var natsTrigger = configs.Trigger{NATS: &configs.NATSTrigger{}}

// TestWithFunctionIsChecked passes wrong arguments to WithFunction and WithTrigger.
func TestWithFunctionIsChecked(t *testing.T) {
	t.Parallel()
	queue := memory.New(0)
	defer queue.Close()
	batch := handlers.BatchFunc(func(context.Context, []*triggers.Message) ([]handlers.Result, error) { return nil, nil })
	for _, test := range []struct {
		want    string
		options []Option
	}{
		{"functions: it is empty; add at least one function", nil},
		{"functions.f.trigger: it needs exactly one kind: nats, servicebus", []Option{WithFunction("f", configs.Function{}, handlers.Func(noop))}},
		{"functions.f.handler: it needs exactly one kind: go, python", []Option{WithFunction("f", configs.Function{Trigger: natsTrigger}, nil)}},
		{"functions.f.retry: initial (1h) is more than max (5m)", []Option{WithFunction("f", configs.Function{Trigger: natsTrigger, Retry: configs.Retry{Initial: configs.Duration(time.Hour)}}, handlers.Func(noop))}},
		{"functions.f.trigger.nats.stream: \"a b\" cannot be the name", []Option{WithFunction("f", configs.Function{Trigger: configs.Trigger{NATS: &configs.NATSTrigger{Stream: "a b"}}}, handlers.Func(noop))}},
		{"function f is defined twice", []Option{WithFunction("f", configs.Function{Trigger: natsTrigger}, handlers.Func(noop)), WithFunction("f", configs.Function{Trigger: natsTrigger}, handlers.Func(noop))}},
		{"function f has a handler and Settings.Handler", []Option{WithFunction("f", configs.Function{Trigger: natsTrigger, Handler: configs.Handler{Go: "g"}}, handlers.Func(noop))}},
		{"daemon.WithTrigger: there is no function g; functions: [f]", []Option{WithFunction("f", configs.Function{Trigger: natsTrigger}, handlers.Func(noop)), WithTrigger("g", queue.Trigger())}},
		{"function f: its handler takes one message; remove Batch", []Option{WithFunction("f", configs.Function{Trigger: natsTrigger, Batch: configs.Batch{Size: 5}}, handlers.Func(noop))}},
		{"function f: its handler takes batches; set Batch", []Option{WithFunction("f", configs.Function{Trigger: natsTrigger}, batch)}},
		{`functions: the name "a b" has U+0020`, []Option{WithFunction("a b", configs.Function{Trigger: natsTrigger}, handlers.Func(noop))}},
		{"there is no connection \"main\"", []Option{WithFunction("f", configs.Function{Trigger: configs.Trigger{NATS: &configs.NATSTrigger{Connection: "main"}}}, handlers.Func(noop))}},
		{"function a reads the same consumer", []Option{
			WithFunction("a", configs.Function{Trigger: configs.Trigger{NATS: &configs.NATSTrigger{Stream: "S", Consumer: "C"}}}, handlers.Func(noop)),
			WithFunction("b", configs.Function{Trigger: configs.Trigger{NATS: &configs.NATSTrigger{Stream: "S", Consumer: "C"}}}, handlers.Func(noop)),
		}},
	} {
		_, err := Check(t.Context(), nil, test.options...)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("Check: %v; want %s", err, test.want)
		}
		cfg := configs.New()
		cfg.DataDir, cfg.Admin.Listen = t.TempDir(), "off"
		var start *StartError
		if err := Run(t.Context(), cfg, test.options...); !errors.As(err, &start) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("Run: %v; want %s", err, test.want)
		}
	}
}

// TestFunctionsBesideAFile runs a function of the program together with functions of a file, and reloads
// the file.
func TestFunctionsBesideAFile(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "drover.yaml")
	rewrite := func(functions string) {
		t.Helper()
		if err := os.WriteFile(file, []byte("version: 1\nadmin: {listen: \"off\"}\nconnections: {main: {nats: embedded, listen: \"off\"}}\nfunctions: "+functions+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	load := func() *configs.Config {
		t.Helper()
		cfg, err := configs.Load(file, os.LookupEnv)
		if err != nil {
			t.Fatal(err)
		}
		return cfg
	}
	queue := memory.New(0)
	defer queue.Close()
	own := &ownHandler{done: make(chan struct{}, 10)}
	options := []Option{
		WithFunction("own", configs.Function{Concurrency: 2}, own), WithTrigger("own", queue.Trigger()),
		WithFuncs(handlers.Funcs{"g": noop}),
	}
	rewrite("{own: {trigger: {nats: {}}, handler: {go: g}}}")
	if _, err := Check(t.Context(), load(), options...); err == nil || !strings.Contains(err.Error(), "the program and the configuration both define function own") {
		t.Errorf("a function that both define: %v", err)
	}
	rewrite("{z: {trigger: {nats: {stream: other, consumer: other}}, handler: {go: g}}}")
	same := WithFunction("b", configs.Function{Trigger: configs.Trigger{NATS: &configs.NATSTrigger{Stream: "other", Consumer: "other"}}}, handlers.Func(noop))
	if _, err := Check(t.Context(), load(), append(options, same)...); err == nil || !strings.Contains(err.Error(), "function b reads the same consumer") {
		t.Errorf("a consumer that both use: %v", err)
	}

	rewrite("{}")
	cfg := load()
	cfg.Drain = configs.Duration(time.Minute) // kept, because the file does not set it
	if notes, err := Check(t.Context(), cfg, options...); err != nil || len(notes) > 0 {
		t.Errorf("Check: %v, %v", notes, err)
	}
	ready := make(chan struct{})
	d := New(cfg, append(options, WithReady(func() { close(ready) }))...)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	select {
	case <-ready:
	case err := <-ended:
		t.Fatal(err)
	}
	queue.Send(triggers.Message{})
	<-own.done
	rewrite("{g: {trigger: {nats: {}}, handler: {go: g}}}")
	changes, err := d.ReloadFile(t.Context())
	if err != nil || strings.Join(changes.Added, " ") != "g" || strings.Join(changes.Kept, " ") != "own" {
		t.Errorf("reload: %+v, %v", changes, err)
	}
	queue.Send(triggers.Message{})
	<-own.done
	rewrite("{own: {trigger: {nats: {}}, handler: {go: g}}}")
	if _, err := d.ReloadFile(t.Context()); err == nil || !strings.Contains(err.Error(), "both define function own") {
		t.Errorf("a reload with a function that both define: %v", err)
	}
	if own.closed.Load() != 0 {
		t.Error("a reload has closed the program's handler")
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if own.calls.Load() != 2 || own.closed.Load() != 1 || d.cfg.Drain != configs.Duration(time.Minute) {
		t.Errorf("%d calls, closed %d times, drain %v", own.calls.Load(), own.closed.Load(), d.cfg.Drain)
	}
}

// TestOwnTriggersAndInstances runs several instances, which cannot share a trigger of the program.
func TestOwnTriggersAndInstances(t *testing.T) {
	t.Parallel()
	cfg, err := configs.Parse("drover.yaml", []byte("version: 1\nadmin: {listen: \"off\"}\nscale: {instances: {min: 2, max: 2}}\nfunctions: {}\n"), t.TempDir(), os.LookupEnv)
	if err != nil {
		t.Fatal(err)
	}
	queue := memory.New(0)
	defer queue.Close()
	err = Run(t.Context(), cfg, WithFunction("f", configs.Function{}, handlers.Func(noop)), WithTrigger("f", queue.Trigger()), WithInstances(local.Command{Path: "/nowhere/drover"}))
	if err == nil || !strings.Contains(err.Error(), "function f: its trigger is in the program (daemon.WithTrigger), and nothing else can receive from it: several instances cannot share it") {
		t.Error(err)
	}
}

// recorder is a slog.Handler that keeps messages.
type recorder struct {
	slog.Handler
	messages chan string
}

func (r recorder) Handle(_ context.Context, record slog.Record) error {
	select {
	case r.messages <- record.Message:
	default:
	}
	return nil
}

func (r recorder) WithAttrs([]slog.Attr) slog.Handler { return r }

// TestDefaultLogger replaces slog.Default, so it does not run in parallel.
func TestDefaultLogger(t *testing.T) {
	before, writer, flags := slog.Default(), log.Writer(), log.Flags()
	defer func() {
		slog.SetDefault(before)
		log.SetOutput(writer) // SetDefault changes package log, too
		log.SetFlags(flags)
	}()
	lines := recorder{before.Handler(), make(chan string, 100)}
	slog.SetDefault(slog.New(lines))
	queue := memory.New(0)
	defer queue.Close()
	cfg := configs.New()
	cfg.DataDir, cfg.Admin.Listen = t.TempDir(), "off"
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	if err := Run(ctx, cfg, WithFunction("f", configs.Function{}, handlers.Func(noop)), WithTrigger("f", queue.Trigger()), WithReady(stop)); err != nil {
		t.Fatal(err)
	}
	for len(lines.messages) > 0 {
		if <-lines.messages == "running" {
			return
		}
	}
	t.Error("slog.Default has no line of the daemon")
}
