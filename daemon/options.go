package daemon

import (
	"log/slog"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon/internal/program"
	"github.com/drover-run/drover/daemon/internal/sources"
	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/scaler/local"
	"github.com/drover-run/drover/triggers"
)

// Option is an option of a daemon: see the functions that begin with With.
type Option func(*program.Options)

// WithFunction adds a function that is defined in Go. settings has the same defaults and checks as a
// function in a file: zero means the default. settings.Trigger is the source of the messages; leave it
// empty if WithTrigger sets a trigger. The handler runs the function: a handlers.Func, a
// handlers.BatchFunc, handlers.JSON, or your own. If it is nil, settings.Handler is used, for example for
// Python code. The daemon closes the handler.
func WithFunction(name string, settings configs.Function, handler handlers.Handler) Option {
	return func(o *program.Options) {
		o.Functions = append(o.Functions, program.Function{Name: name, Settings: settings, Handler: handler})
	}
}

// WithTrigger sets a trigger of the program for a function: a source that drover does not have, or a
// memory.Queue in a test. It replaces the trigger in the function's settings. The daemon closes it.
func WithTrigger(function string, t triggers.Trigger) Option {
	return func(o *program.Options) {
		if o.Triggers == nil {
			o.Triggers = make(map[string]triggers.Trigger)
		}
		o.Triggers[function] = t
	}
}

// WithFuncs provides the Go functions that a configuration file names with `handler: {go: NAME}`.
func WithFuncs(funcs handlers.Funcs) Option { return func(o *program.Options) { o.Funcs = funcs } }

// WithBatchFuncs provides the Go functions for batches that a configuration file names with `batch` and
// `handler: {go: NAME}`.
func WithBatchFuncs(funcs handlers.BatchFuncs) Option {
	return func(o *program.Options) { o.BatchFuncs = funcs }
}

// WithLogger sets the log; by default it is slog.Default. The level in the configuration cannot add lines
// that the logger's own handler drops.
func WithLogger(log *slog.Logger) Option { return func(o *program.Options) { o.Log = log } }

// WithLogLevel passes the level of the logger. The daemon sets it to the configured level, also at a
// reload.
func WithLogLevel(level *slog.LevelVar) Option {
	return func(o *program.Options) { o.Level = level }
}

// WithEnv sets the environment: lookup returns single variables, such as VIRTUAL_ENV and PATH, and
// environ the variables that worker processes inherit. By default both are empty. Programs that run
// Python, Node.js or commands pass os.LookupEnv and os.Environ.
func WithEnv(lookup configs.Env, environ func() []string) Option {
	return func(o *program.Options) { o.Env, o.Environ = lookup, environ }
}

// WithReady sets a function that is called once, when everything is loaded and connected and the daemon
// starts to receive.
func WithReady(ready func()) Option { return func(o *program.Options) { o.OnReady = ready } }

// WithForceStop gives a channel. If it is closed during a stop, the drain ends at once.
func WithForceStop(force <-chan struct{}) Option {
	return func(o *program.Options) { o.ForceStop = force }
}

// WithInstances sets the command that runs one instance, for a configuration with several: usually a
// program that calls cli.Main, with the argument instance.
func WithInstances(command local.Command) Option {
	return func(o *program.Options) { o.Instance = &command }
}

// WithWholeProcess allows the daemon to adjust the garbage collector's percentage to the memory of
// messages. It is for a process that runs only the daemon.
func WithWholeProcess() Option { return func(o *program.Options) { o.WholeProcess = true } }

// WithTerminalLog is for a daemon that logs to a terminal. Unless the configuration has log.done, it logs
// each completed message while fewer than 20 a second complete.
func WithTerminalLog() Option { return func(o *program.Options) { o.TerminalLog = true } }

// WithConnection replaces a connection of the configuration. It is for drover's own commands and
// benchmarks. The daemon does not close the connection.
func WithConnection(name string, c *sources.Connection) Option {
	return func(o *program.Options) {
		if o.Connections == nil {
			o.Connections = make(map[string]*sources.Connection)
		}
		o.Connections[name] = c
	}
}
