package daemon

import (
	"log/slog"
	"time"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon/internal/sources"
	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/scaler/local"
	"github.com/drover-run/drover/triggers"
)

// options are the settings of the program, besides the configuration.
type options struct {
	log         *slog.Logger
	level       *slog.LevelVar // of the log; nil: it cannot change
	env         configs.Env
	environ     func() []string
	funcs       handlers.Funcs
	triggers    map[string]triggers.Trigger
	connections map[string]*sources.Connection
	forceStop   <-chan struct{}
	onReady     func()
	program     *local.Command // runs an instance; nil: instances are not possible
	// parent is the data directory of the daemon that started this instance; empty if it is not
	// one of several.
	parent       string
	started      time.Time // of the daemon, or of its parent
	wholeProcess bool
}

// Option sets an option of New.
type Option func(*options)

// WithFuncs offers Go functions to `handler: {go: NAME}`.
func WithFuncs(funcs handlers.Funcs) Option { return func(o *options) { o.funcs = funcs } }

// WithLogger sets the log; by default there is none.
func WithLogger(log *slog.Logger) Option { return func(o *options) { o.log = log } }

// WithEnv sets the environment: lookup returns single variables, such as VIRTUAL_ENV and
// PATH, and environ what worker processes inherit. By default both are empty.
func WithEnv(lookup configs.Env, environ func() []string) Option {
	return func(o *options) { o.env, o.environ = lookup, environ }
}

// WithTrigger gives a function a trigger of the program in place of the one in its
// configuration. The daemon closes it.
func WithTrigger(function string, t triggers.Trigger) Option {
	return func(o *options) { o.triggers[function] = t }
}

// WithConnection gives a connection of the program in place of the one in the
// configuration. The daemon does not close it.
func WithConnection(name string, c *sources.Connection) Option {
	return func(o *options) { o.connections[name] = c }
}

// WithForceStop gives a channel. If it is closed during a stop, the drain ends at once.
func WithForceStop(force <-chan struct{}) Option { return func(o *options) { o.forceStop = force } }

// WithReady gives a function that is called once, when everything is loaded and connected
// and the daemon starts to receive.
func WithReady(ready func()) Option { return func(o *options) { o.onReady = ready } }

// WithInstances gives the command that runs one instance, for a configuration with several:
// usually a program that calls cli.Main, with the argument instance.
func WithInstances(program local.Command) Option {
	return func(o *options) { o.program = &program }
}

// WithWholeProcess allows the daemon to set the percentage of the garbage collector by the memory
// of messages. It is for a process that runs nothing else.
func WithWholeProcess() Option { return func(o *options) { o.wholeProcess = true } }

// withParent makes the daemon one of several instances, which use the embedded servers of
// their parent, and started with it.
func withParent(dataDir string, started time.Time) Option {
	return func(o *options) { o.parent, o.started = dataDir, started }
}

// WithLogLevel gives the level of the logger, which a reload may change.
func WithLogLevel(level *slog.LevelVar) Option { return func(o *options) { o.level = level } }
