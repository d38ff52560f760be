package workers

import (
	"context"
	"log/slog"
	"time"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/handlers/childproc"
	"github.com/drover-run/drover/handlers/sandbox"
	"github.com/drover-run/drover/handlers/workers/process"
	"github.com/drover-run/drover/handlers/workers/protocol"
	"github.com/drover-run/drover/handlers/workers/worker"
)

// Config is a pool. Zero values are the defaults given here.
type Config struct {
	App     string // the directory of the code
	Command process.Command
	// Settings are those to begin with: 1 process, 1 thread, 512 coroutines.
	Settings  Settings
	Functions []Function
	// Unmeasured has workers not measure what calls use.
	Unmeasured bool
	// StartTimeout bounds the loading of the code; two minutes.
	StartTimeout time.Duration
	// KillGrace is how long a worker has to obey a cancellation before it is
	// killed; five seconds.
	KillGrace time.Duration
	Recycle   Recycle
	// Template has workers forked from a process that has loaded the code, where
	// the worker and the code allow it.
	Template bool
	// MaxFrame is the largest frame in bytes, either way; protocol.DefaultMax.
	MaxFrame int
	// OnBlocked is what is done about functions that block the event loop.
	OnBlocked OnBlocked
	Observers
	// Reaper starts the processes; nil: the pool has one of its own.
	Reaper *childproc.Reaper
	// Confine is what the processes are held to; nil is nothing.
	Confine *sandbox.Confinement
	Log     *slog.Logger
}

// Function is one function of the app. Name is drover's, and unique in the pool.
type Function = worker.Function

// Observers receive what happens in a pool, from many goroutines. They do not block. A nil
// one drops it.
type Observers struct {
	// Lagged receives how long a callback had to wait for a worker's event loop, ten
	// times a second while it has something to do.
	Lagged func(wait time.Duration)
	// Blocking receives each block of an event loop, when it is noticed and when it is over.
	Blocking func(worker.Block)
	// Moved is called when the room of a function is elsewhere from now on, since the
	// function was quarantined: its share is to be moved there.
	Moved func(function string, to *handlers.Slots)
	// Died receives each call that was in flight in a worker that died, with others, before
	// it runs again: with its context, and how the worker died.
	Died func(ctx context.Context, how error)
	// Imported receives the files that workers have loaded, as protocol.ImportedFrame has
	// them. nil: workers do not name them.
	Imported func(paths []string)
}

// Settings are how much runs at once.
type Settings struct {
	Processes  int `json:"processes"`
	Threads    int `json:"threads"`    // of each process: for functions that are not async, and for the executor of those that are
	Coroutines int `json:"coroutines"` // of each process: async calls at once
}

// OnBlocked is what is done about functions that block the event loop.
type OnBlocked string

// The ways, of which the empty one is BlockedWarn.
const (
	BlockedWarn    OnBlocked = "warn"    // it is logged, once for each place, and counted
	BlockedIsolate OnBlocked = "isolate" // the function is also quarantined
	BlockedOff     OnBlocked = "off"     // workers do not report it
)

func (c Config) withDefaults() Config {
	def := func(v *int, value int) {
		if *v <= 0 {
			*v = value
		}
	}
	def(&c.Settings.Processes, 1)
	def(&c.Settings.Threads, 1)
	def(&c.Settings.Coroutines, 512)
	def(&c.MaxFrame, protocol.DefaultMax)
	if c.StartTimeout <= 0 {
		c.StartTimeout = 2 * time.Minute
	}
	if c.KillGrace <= 0 {
		c.KillGrace = 5 * time.Second
	}
	return c
}
