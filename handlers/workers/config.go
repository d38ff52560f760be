package workers

import (
	"context"
	"log/slog"
	"os"
	"time"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/handlers/childproc"
	"github.com/drover-run/drover/handlers/sandbox"
	"github.com/drover-run/drover/handlers/workers/process"
	"github.com/drover-run/drover/handlers/workers/protocol"
	"github.com/drover-run/drover/handlers/workers/worker"
)

// Config configures a pool. A zero value selects the default given here.
type Config struct {
	App     string // the directory of the code
	Command process.Command
	// Settings are the initial settings: 1 process, 1 thread, 512 coroutines, no share of the cores.
	Settings  Settings
	Functions []Function
	// Unmeasured disables the measurement of calls in workers.
	Unmeasured bool
	// StartTimeout bounds the loading of the code; the default is two minutes.
	StartTimeout time.Duration
	// KillGrace is how long a worker may ignore a cancellation before it is killed; the
	// default is five seconds.
	KillGrace time.Duration
	Recycle   Recycle
	// Template forks workers from a process that has loaded the code, if the worker and the
	// code support it.
	Template bool
	// Spare keeps one more worker that has loaded the code, and is idle, for the messages of a worker
	// that dies. With a template there is none: a fork takes milliseconds.
	Spare Spare
	// MaxFrame bounds frames in both directions, in bytes; the default is protocol.DefaultMax.
	MaxFrame int
	// OnBlocked is the reaction to functions that block the event loop.
	OnBlocked OnBlocked
	Observers
	// Reaper starts the processes; nil: the pool creates its own.
	Reaper *childproc.Reaper
	// Confine confines the processes; nil: no confinement.
	Confine *sandbox.Confinement
	// Terminal is the standard input, output and error of the workers, for a debugger; nil: none.
	// Such a worker sends neither log lines nor heartbeats.
	Terminal *os.File
	Log      *slog.Logger
}

// Spare configures the spare worker.
type Spare struct {
	Keep bool
	// Fits reports whether memory allows one, given the memory of a worker in bytes; nil: always.
	Fits func(memory uint64) bool
	// After is how long the pool must have had all of its workers before the spare one starts; the
	// default is ten seconds.
	After time.Duration
}

// Function is one function of the app. Name is drover's, and unique in the pool.
type Function = worker.Function

// Observers receive events of a pool, from many goroutines. They must not block. Events without an
// observer are dropped.
type Observers struct {
	// Lagged receives how long a callback waited for a worker's event loop, ten times a second
	// while the loop is busy.
	Lagged func(wait time.Duration)
	// Blocking receives each block of an event loop, when it is detected and when it ends.
	Blocking func(worker.Block)
	// Moved is called when a quarantined function has other slots from now on. The caller then
	// moves the function's share to them.
	Moved func(function string, to *handlers.Slots)
	// Died receives each call that was in flight in a worker together with others when it
	// died, before the call runs again: its context, and how the worker died.
	Died func(ctx context.Context, how error)
	// Imported receives the files that workers have loaded, as in protocol.ImportedFrame. If it is
	// nil, workers do not report them.
	Imported func(paths []string)
}

// Settings bound the concurrency.
type Settings struct {
	Processes  int `json:"processes"`
	Threads    int `json:"threads"`    // of each process: sync calls at once
	Coroutines int `json:"coroutines"` // of each process: async calls at once
	CoreShare  int `json:"core_share"` // of each process: cores for its libraries, as in coreshare; 0: no limit
}

// OnBlocked is the reaction to functions that block the event loop.
type OnBlocked string

// The reactions. The empty one is BlockedWarn.
const (
	BlockedWarn    OnBlocked = "warn"    // it is logged once per place, and counted
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
