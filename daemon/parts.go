package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/handlers/exec"
	"github.com/drover-run/drover/handlers/python"
	"github.com/drover-run/drover/handlers/workers"
	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/natsjs"
	"github.com/drover-run/drover/triggers/storagequeue"
)

// This file makes what a configuration names: connections, pools, triggers and
// handlers. There is one explicit list of kinds each, and no other registry.

const (
	// defaultGoConcurrency is what a Go function has in flight: goroutines are
	// cheap, what they call usually is not.
	defaultGoConcurrency = 256
	// coroutines is what an async function has in flight in each process.
	coroutines = 512
	// startLimit bounds the import of an app.
	startLimit = 2 * time.Minute
	// killGrace is how long a worker has to obey a cancellation.
	killGrace = 5 * time.Second
	// storageLanes is how many results are on their way to a storage queue at once:
	// it takes them one by one.
	storageLanes = 32
	// dataDirMode is for data_dir, where it is made.
	dataDirMode = 0o700
	// lockPatience is how long a start waits for a store that another process has.
	lockPatience = 5 * time.Second
	// closeLimit bounds the closing of a trigger.
	closeLimit = 10 * time.Second
)

// parts is what a daemon has open of one configuration, by name. A reload makes the
// parts of the new configuration, which keep what did not change of the old ones.
type parts struct {
	daemon *Daemon
	cfg    *configs.Config
	old    *parts // what may be kept; nil at the start

	functions   map[string]*function
	sources     map[string]triggers.Trigger // by function, where instances do the work
	pools       map[string]*pool            // by app
	connections map[string]*connection      // to NATS: those that are ours to close
	accounts    map[string]*storagequeue.Account
	ledger      *storagequeue.Ledger // nil where no function needs it
}

func newParts(d *Daemon, cfg *configs.Config, old *parts) *parts {
	p := &parts{
		daemon: d, cfg: cfg, old: old,
		functions: make(map[string]*function), sources: make(map[string]triggers.Trigger), pools: make(map[string]*pool),
		connections: make(map[string]*connection), accounts: make(map[string]*storagequeue.Account),
	}
	if old != nil {
		p.ledger = old.ledger
	}
	return p
}

// pool is the worker processes of one app.
type pool struct {
	*workers.Pool
	interpreter python.Interpreter
	waits       histogram // for the event loops of its workers
	usage       usage
	code        string // the state of the app's files when it was started
	life        context.Context
	stop        context.CancelFunc
	running     sync.WaitGroup
	scaled      bool // whether its number of workers follows the load
}

// close stops the processes, and waits until they have ended.
func (own *pool) close() {
	own.stop()
	own.running.Wait()
}

// connection is one to NATS, and the embedded server behind it, if it has one.
type connection struct {
	*natsjs.Connection
	server *natsjs.Embedded
}

func (c *connection) close() error {
	err := c.Close()
	if c.server != nil {
		err = errors.Join(err, c.server.Close(context.Background()))
	}
	return err
}

// open makes everything, in the order in which it is needed: what takes long and
// fails often comes first.
func (p *parts) open(ctx context.Context) error {
	if err := p.connect(ctx); err != nil {
		return err
	}
	if err := p.startPools(ctx); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(p.cfg.Functions)) {
		if p.keepsFunction(name) {
			p.functions[name] = p.old.functions[name]
			continue
		}
		if err := p.openFunction(ctx, name, p.cfg.Functions[name]); err != nil {
			return fmt.Errorf("function %s: %w", name, err)
		}
	}
	return nil
}

// inOrder are the functions by their names.
func (p *parts) inOrder() []*function {
	out := make([]*function, 0, len(p.functions))
	for _, name := range slices.Sorted(maps.Keys(p.functions)) {
		out = append(out, p.functions[name])
	}
	return out
}

// openSources opens the triggers alone, to be asked for their backlogs.
func (p *parts) openSources(ctx context.Context) error {
	if err := p.connect(ctx); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(p.cfg.Functions)) {
		if p.keepsSource(name) {
			p.sources[name] = p.old.sources[name]
			continue
		}
		source, err := p.openTrigger(ctx, p.cfg.Functions[name], p.daemon.log.With("function", name))
		if err != nil {
			return fmt.Errorf("function %s: %w", name, err)
		}
		p.sources[name] = source
	}
	return nil
}

// close undoes open, in the reverse order, but for what others keep; nil keeps
// nothing. Settlements travel on the triggers, so they close when all work is
// settled.
func (p *parts) close(keep *parts) error {
	if keep == nil {
		keep = &parts{}
	}
	var pools sync.WaitGroup
	for app, own := range p.pools {
		if keep.pools[app] != own {
			pools.Go(func() {
				own.close()
				p.daemon.poolEnded(own)
			})
		}
	}
	pools.Wait()
	var errs []error
	for name, f := range p.functions {
		if keep.functions[name] != f {
			errs = append(errs, f.close())
		}
	}
	for name, source := range p.sources {
		if keep.sources[name] != source {
			ctx, cancel := context.WithTimeout(context.Background(), closeLimit)
			errs = append(errs, source.Close(ctx))
			cancel()
		}
	}
	for name, a := range p.accounts {
		if keep.accounts[name] != a {
			a.Close()
		}
	}
	if p.ledger != nil && keep.ledger != p.ledger {
		errs = append(errs, p.ledger.Close())
	}
	for name, c := range p.connections {
		if keep.connections[name] != c {
			errs = append(errs, c.close())
		}
	}
	return errors.Join(errs...)
}

// connect opens the connections that functions use and that the program has not
// given.
func (p *parts) connect(ctx context.Context) error {
	for _, name := range slices.Sorted(maps.Keys(p.cfg.Functions)) {
		for _, connection := range p.cfg.Functions[name].Connections() {
			if p.daemon.triggers[name] != nil && connection == p.cfg.Functions[name].Trigger.Connection() {
				continue // the program's own
			}
			if err := p.connectTo(ctx, connection); err != nil {
				return err
			}
		}
	}
	return nil
}

// connectTo opens a connection to NATS, once.
func (p *parts) connectTo(ctx context.Context, name string) error {
	d := p.daemon
	settings := p.cfg.Connections[name]
	if len(settings.NATS) == 0 { // the others are reached by their triggers and outputs
		return nil
	}
	if d.connections[name] != nil || p.connections[name] != nil {
		return nil
	}
	if p.keepsConnection(name) && p.old.connections[name] != nil {
		p.connections[name] = p.old.connections[name]
		return nil
	}
	if reach, ours, err := d.reach(name, settings); err != nil {
		return err
	} else if !ours {
		c, err := natsjs.Connect(ctx, reach)
		if err != nil {
			return err
		}
		p.connections[name] = &connection{Connection: c}
		return nil
	}
	server, c, err := startEmbedded(ctx, p.cfg, name, d.log)
	// A command, such as drover send, may have the store for a moment.
	for deadline := time.Now().Add(lockPatience); errors.Is(err, natsjs.ErrLocked) && time.Now().Before(deadline) && ctx.Err() == nil; {
		wait(ctx, lockPatience/100)
		server, c, err = startEmbedded(ctx, p.cfg, name, d.log)
	}
	if err != nil {
		return err
	}
	p.connections[name] = &connection{Connection: c, server: server}
	if url := server.ClientURL(); url != "" {
		d.log.Info("the embedded NATS server listens", "connection", name, "url", url,
			"token_in", filepath.Join(embeddedDir(p.cfg, name), "token"))
	}
	return nil
}

// reach says how a connection is reached, or that its server is ours to start.
func (d *Daemon) reach(name string, settings configs.Connection) (cfg natsjs.ConnectionConfig, ours bool, err error) {
	if !settings.Embedded() {
		return connectionConfig(name, settings, d.log), false, nil
	}
	if d.parent == "" {
		return cfg, true, nil
	}
	url, token, err := natsjs.ReadClient(embeddedIn(d.parent, name))
	return natsjs.ConnectionConfig{Name: name, URLs: []string{url}, Token: token, Log: d.log}, false, err
}

func (p *parts) connection(name string) *natsjs.Connection {
	if c := p.daemon.connections[name]; c != nil {
		return c
	}
	return p.connections[name].Connection
}

// startPools starts one pool for each app that a function uses, and waits until
// each has loaded its code.
func (p *parts) startPools(ctx context.Context) error {
	functions := appFunctions(p.cfg)
	if len(functions) == 0 {
		return nil
	}
	home, err := python.Install(p.cfg.DataDir)
	if err != nil {
		return err
	}
	for _, app := range slices.Sorted(maps.Keys(functions)) {
		code := python.Fingerprint(p.cfg.Apps[app].Dir)
		if p.keepsPool(app, code) {
			p.pools[app] = p.old.pools[app]
			continue
		}
		if p.pools[app], err = p.startPool(ctx, app, home, functions[app]); err != nil {
			return fmt.Errorf("app %s: %w", app, err)
		}
		p.pools[app].code = code
	}
	for app, own := range p.pools {
		if err := own.Ready(ctx); err != nil {
			return fmt.Errorf("app %s, with %v: %w", app, own.interpreter, err)
		}
	}
	return nil
}

// appFunctions are the functions that workers are told of, by app.
func appFunctions(cfg *configs.Config) map[string][]workers.Function {
	out := make(map[string][]workers.Function)
	for _, name := range slices.Sorted(maps.Keys(cfg.Functions)) {
		if h := cfg.Functions[name].Handler.Python; h != nil {
			bus := cfg.Functions[name].Trigger.ServiceBus
			out[h.App] = append(out[h.App], workers.Function{Name: name, Module: h.Module, Function: h.Function, SessionState: bus != nil && bus.SessionState})
		}
	}
	return out
}

func (p *parts) startPool(ctx context.Context, app, home string, functions []workers.Function) (*pool, error) {
	d, settings := p.daemon, p.cfg.Apps[app]
	interpreter, err := python.Find(ctx, settings.Dir, settings.Interpreter, d.env)
	if err != nil {
		return nil, err
	}
	own := &pool{interpreter: interpreter}
	own.Pool = workers.New(workers.Config{
		App:        settings.Dir,
		Command:    python.Command(interpreter, home, settings.Dir, d.environ()),
		Processes:  first(settings, p.cfg.Scale.Workers),
		Threads:    settings.Threads,
		Coroutines: coroutines,
		Functions:  functions,

		StartTimeout: startLimit,
		KillGrace:    killGrace,
		Lagged:       own.waits.add,
		Log:          d.log,
	})
	own.life, own.stop = context.WithCancel(context.WithoutCancel(ctx))
	own.running.Go(func() {
		if err := own.Run(own.life); err != nil {
			d.log.Error("a pool of workers ended", "app", app, "error", err)
		}
	})
	return own, nil
}

// first is how many workers an app begins with: one finds out whether its code
// loads.
func first(app configs.App, bounds configs.Workers) int {
	if app.Scaled {
		return min(max(bounds.Min, 1), app.Processes)
	}
	return app.Processes
}

// openFunction joins a trigger and a handler. What was opened of a function that
// does not open after all is closed with the parts.
func (p *parts) openFunction(ctx context.Context, name string, settings configs.Function) error {
	d := p.daemon
	f := newFunction(name, settings, d.log.With("function", name))
	p.functions[name] = f
	f.spans = d.traces.of(name, settings)
	if err := p.openHandler(f, settings); err != nil {
		return err
	}
	for _, o := range settings.Output {
		if err := p.openOutput(ctx, f, o); err != nil {
			return err
		}
	}
	if given := d.triggers[name]; given != nil {
		f.trigger = given
		return nil
	}
	source, err := p.openTrigger(ctx, settings, f.log)
	if err == nil {
		f.trigger = source
	}
	return err
}

// openHandler makes what runs the function. The kinds of handlers are here.
func (p *parts) openHandler(f *function, settings configs.Function) error {
	switch h := settings.Handler; {
	case h.Go != "":
		run, found := p.daemon.funcs[h.Go]
		if !found {
			return unknownFunc(h.Go, p.daemon.funcs)
		}
		concurrency := settings.Concurrency
		if concurrency == 0 {
			concurrency = defaultGoConcurrency
		}
		f.handler = run
		f.share = handlers.NewSlots(concurrency).Share(0)
	case h.Exec != nil:
		own, err := exec.New(exec.Config{Function: f.name, Command: h.Exec.Command, Dir: h.Exec.Dir, Env: p.daemon.environ(), MaxOutput: int64(h.Exec.MaxOutput), Log: f.log})
		if err != nil {
			return err
		}
		concurrency := settings.Concurrency
		if concurrency == 0 {
			concurrency = runtime.GOMAXPROCS(0)
		}
		f.handler, f.share = own, handlers.NewSlots(concurrency).Share(0)
	case h.HTTP != nil:
		own, err := newHTTPHandler(f, settings)
		if err != nil {
			return err
		}
		f.handler, f.share = own, own.Slots().Share(0)
		looking, stop := context.WithCancel(context.Background())
		f.stopBeside = stop
		f.beside.Go(func() { own.Run(looking) })
	case h.Python != nil:
		f.app, f.pool = h.Python.App, p.pools[h.Python.App]
		own, err := f.pool.Handler(f.name)
		if err != nil {
			return err
		}
		f.handler = own
		f.share = own.Slots().Share(settings.Concurrency)
	}
	return nil
}

func unknownFunc(name string, funcs handlers.Funcs) error {
	known := slices.Sorted(maps.Keys(funcs))
	if len(known) == 0 {
		return fmt.Errorf("this program has no Go function %q, nor any other: build a main of your own that calls daemon.Main with daemon.WithFuncs", name)
	}
	return fmt.Errorf("this program has no Go function %q; it has: %v", name, known)
}

// openTrigger makes the source of a function's messages. The kinds of triggers
// are here.
func (p *parts) openTrigger(ctx context.Context, settings configs.Function, log *slog.Logger) (triggers.Trigger, error) {
	if settings.Trigger.StorageQueue != nil {
		return p.openStorageQueue(ctx, settings, log)
	}
	if settings.Trigger.ServiceBus != nil {
		return p.openServiceBus(ctx, settings, log)
	}
	return openNATS(ctx, p.connection(settings.Trigger.Connection()), settings, log)
}

// openOutput makes what takes a function's results, or one of several, and has it
// run. The kinds of outputs are here.
func (p *parts) openOutput(ctx context.Context, f *function, settings configs.Output) error {
	var open openSender
	lanes := 1
	switch {
	case settings.NATS != nil:
		c := p.connection(settings.NATS.Connection)
		open = func(context.Context) (sender, func() error, error) {
			return c.NewSender(), func() error { return nil }, nil
		}
	case settings.ServiceBus != nil:
		access, err := busAccess(settings.ServiceBus.Connection, p.cfg.Connections[settings.ServiceBus.Connection])
		if err != nil {
			return err
		}
		open = busSender(access, settings.ServiceBus.Queue+settings.ServiceBus.Topic) // one of them is empty
	case settings.StorageQueue != nil:
		q := settings.StorageQueue
		account, err := p.account(q.Connection)
		if err != nil {
			return err
		}
		open, lanes = storageSender(account, q.Queue, q.Encoding, q.Delay.D(), q.TimeToLive.D()), storageLanes
	}
	own := newOutput(open, settings, lanes, f.log)
	f.outputs = append(f.outputs, own)
	sending := context.WithoutCancel(ctx)
	for range lanes {
		f.beside.Go(func() { (&lane{output: own}).run(sending) })
	}
	return nil
}

func openNATS(ctx context.Context, c *natsjs.Connection, settings configs.Function, log *slog.Logger) (triggers.Trigger, error) {
	n := settings.Trigger.NATS
	return natsjs.Open(ctx, c, natsjs.Config{
		Stream:        n.Stream,
		Subject:       n.Subject,
		Consumer:      n.Consumer,
		Create:        *n.Create,
		AckWait:       n.AckWait.D(),
		OrderingToken: n.OrderingToken,
		DeadLetters:   n.DeadLetters,
		MaxAttempts:   settings.Retry.MaxAttempts,
		Prefetch:      int(settings.Prefetch),
		Log:           log,
	})
}

// embeddedDir is where the embedded server of a connection keeps its data.
func embeddedDir(cfg *configs.Config, connection string) string {
	return embeddedIn(cfg.DataDir, connection)
}

func embeddedIn(dataDir, connection string) string { return filepath.Join(dataDir, "nats-"+connection) }

func startEmbedded(ctx context.Context, cfg *configs.Config, connection string, log *slog.Logger) (*natsjs.Embedded, *natsjs.Connection, error) {
	settings := cfg.Connections[connection]
	server, err := natsjs.StartEmbedded(ctx, natsjs.EmbeddedConfig{
		Dir:      embeddedDir(cfg, connection),
		Listen:   settings.Listen,
		Sync:     settings.Sync.D(),
		MaxStore: int64(settings.MaxStore),
		Log:      log,
	})
	if err != nil {
		return nil, nil, fmt.Errorf("connection %s: %w", connection, err)
	}
	c, err := server.Connect(ctx)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("connection %s: %w", connection, err), server.Close(ctx))
	}
	return server, c, nil
}

func closeEmbedded(server *natsjs.Embedded, c *natsjs.Connection) error {
	return errors.Join(c.Close(), server.Close(context.Background()))
}

func connectionConfig(name string, c configs.Connection, log *slog.Logger) natsjs.ConnectionConfig {
	out := natsjs.ConnectionConfig{
		Name: name, URLs: c.NATS, Log: log,
		Credentials: string(c.Credentials), NKey: string(c.NKey), Token: string(c.Token),
		User: c.User, Password: string(c.Password),
	}
	if c.TLS != nil {
		out.CA, out.Cert, out.Key, out.ServerName = c.TLS.CA, c.TLS.Cert, string(c.TLS.Key), c.TLS.ServerName
	}
	return out
}

// checkParts looks for what is wrong with a configuration on this machine and in
// this program, without starting anything of the user's.
func checkParts(ctx context.Context, cfg *configs.Config, funcs handlers.Funcs, env configs.Env) (notes []string, err error) {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(cfg.Functions)) {
		if h := cfg.Functions[name].Handler; h.Go != "" {
			if _, found := funcs[h.Go]; !found {
				errs = append(errs, fmt.Errorf("function %s: %w", name, unknownFunc(h.Go, funcs)))
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(cfg.Apps)) {
		app := cfg.Apps[name]
		interpreter, err := python.Find(ctx, app.Dir, app.Interpreter, env)
		if err != nil {
			errs = append(errs, fmt.Errorf("app %s: %w", name, err))
			continue
		}
		notes = append(notes, fmt.Sprintf("app %s runs with %v", name, interpreter))
	}
	return notes, errors.Join(errs...)
}
