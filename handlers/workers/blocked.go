package workers

import (
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/drover-run/drover/handlers/workers/protocol"
)

// This file takes what workers say of their event loops that do not turn.

// OnBlocked is what is done about functions that block the event loop.
type OnBlocked string

// The ways, of which the empty one is BlockedWarn.
const (
	BlockedWarn    OnBlocked = "warn"    // it is logged, once for each place, and counted
	BlockedIsolate OnBlocked = "isolate" // the function is also kept apart from others
	BlockedOff     OnBlocked = "off"     // workers do not look
)

const (
	// leastBlock is what is counted and logged: what is shorter is noticed, and
	// dropped when it is over.
	leastBlock = 50 * time.Millisecond
	// longBlock is logged before it is over: it may never be.
	longBlock = time.Second
	// maxPlaces bounds the places of a pool that are logged, and maxText what is kept
	// of a text that a worker sent, in bytes.
	maxPlaces = 1000
	maxText   = 20 << 10
)

// garbage is the place of a block that is of no function: the worker's language looks
// for objects that nobody can reach any more.
const garbage = "the garbage collector"

// nodejs is the language of workers whose functions block in ways of their own.
const nodejs = "Node.js"

// hasLoop reports whether calls share the worker's event loop. Where they come one after
// the other, one that keeps it is no news.
func (w *worker) hasLoop() bool {
	for _, f := range w.ready.Functions {
		if f.Kind == "async" {
			return true
		}
	}
	return false
}

// language is the worker's, where it is not Python.
func (w *worker) language() string {
	if w.welcome.Language == nodejs {
		return nodejs
	}
	return ""
}

// Blocked is how a function has blocked the event loops of its workers.
type Blocked struct {
	Times   int64         `json:"times"`
	Time    time.Duration `json:"time"`    // of all of them together
	Longest time.Duration `json:"longest"` // of the one at
	Place   string        `json:"place"`
	// Computes says that the longest was computation, as opposed to waiting, and GIL
	// that it was C code which kept all threads from running.
	Computes bool `json:"computes,omitempty"`
	GIL      bool `json:"gil,omitempty"`
	// Language is the worker's; empty: Python.
	Language string `json:"language,omitempty"`
}

// Plus adds what is known of the same function elsewhere.
func (b Blocked) Plus(o Blocked) Blocked {
	sum := b
	if o.Longest > b.Longest {
		sum = o
	}
	sum.Times, sum.Time = b.Times+o.Times, b.Time+o.Time
	return sum
}

// Instead says what to do in place of blocking.
func (b Blocked) Instead() string {
	if b.Language == nodejs {
		if b.Computes {
			return "hand the computation to a worker_threads.Worker; on_blocked: isolate keeps the function apart"
		}
		return "await the asynchronous form of the call (fs.promises, child_process.exec); on_blocked: isolate keeps the function apart"
	}
	if b.Place == garbage {
		return "the more objects live the longer it takes: call gc.freeze() when what stays is loaded, raise gc.set_threshold, or have fewer coroutines in flight"
	}
	if b.Computes {
		return "make the function sync (def instead of async def), or hand the computation to loop.run_in_executor with a ProcessPoolExecutor; on_blocked: isolate keeps it apart"
	}
	return "await an async library, or asyncio.sleep; or hand the call to loop.run_in_executor; on_blocked: isolate keeps the function apart"
}

// Block is one time at which the event loop of a worker did not turn.
type Block struct {
	Function, Message string // "" where that is not known
	Place             string
	Time              time.Duration // so far
	Over              bool
}

// blocks are those of a pool. The zero value has none.
type blocks struct {
	mu     sync.Mutex
	of     map[string]Blocked  // by function
	logged map[string]struct{} // by function and place

	offences map[string][]time.Time // the last ones, by function
}

// Blocked is what is known of the functions that block the event loop, by name. "" is
// code that belongs to no invocation.
func (p *Pool) Blocked() map[string]Blocked {
	p.blocks.mu.Lock()
	defer p.blocks.mu.Unlock()
	return maps.Clone(p.blocks.of)
}

// block is one that is under way in a worker.
type block struct {
	protocol.BlockedFrame
	noticed time.Time
	began   time.Time
	logged  bool
}

// time is how long it has lasted by now.
func (b *block) time(now time.Time) time.Duration {
	if b.Over {
		return b.Time()
	}
	return b.Time() + now.Sub(b.noticed)
}

// blocked takes a BLOCKED.
func (w *worker) blocked(payload []byte) error {
	b := &block{noticed: time.Now()}
	if err := protocol.Decode(protocol.Blocked, payload, &b.BlockedFrame); err != nil {
		return err
	}
	if b.Function >= len(w.pool.cfg.Functions) || b.Function < -1 {
		return fmt.Errorf("%w: a BLOCKED of function %d, of which there are %d", protocol.ErrProtocol, b.Function, len(w.pool.cfg.Functions))
	}
	b.began = b.noticed.Add(-b.Time())
	b.Place, b.Stack, b.Message = cut(b.Place), cut(b.Stack), cut(b.Message)
	if w.pool.cfg.Blocking != nil {
		w.pool.cfg.Blocking(Block{w.pool.functionName(b.Function), b.Message, b.Place, b.Time(), b.Over})
	}
	if b.Message == "" && b.ID >= 0 {
		b.Message = w.messageOf(b.ID)
	}
	w.mu.Lock()
	open := w.block
	w.block = nil
	if open != nil && open.Block == b.Block { // it is told again
		b.Stack, b.logged = open.Stack, open.logged
	}
	if open != nil && open.Block != b.Block {
		w.over(open, b.noticed)
	}
	if b.Over {
		w.over(b, b.noticed)
	} else {
		w.block = b
	}
	w.mu.Unlock()
	if open != nil && open.Block != b.Block { // it was over without a word
		w.pool.noteBlock(w, open, b.noticed)
	}
	if b.Over {
		w.pool.noteBlock(w, b, b.noticed)
	}
	return nil
}

// messageOf is the id of the message of a call in flight, for a worker that does not say.
func (w *worker) messageOf(id int64) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if id < int64(len(w.calls)) && w.calls[id] != nil {
		return cut(w.calls[id].Message.ID)
	}
	return ""
}

// cut bounds a text that a worker sent.
func cut(text string) string { return text[max(len(text)-maxText, 0):] }

// overdue logs the block that is under way if it takes long.
func (w *worker) overdue(now time.Time) {
	w.mu.Lock()
	b := w.block
	due := b != nil && !b.logged && b.time(now) >= longBlock
	if due {
		b.logged = true
		own := *b
		b = &own
	}
	w.mu.Unlock()
	if due && w.hasLoop() {
		w.pool.warn(w, b, b.time(now))
	}
}

// noteBlock counts a block, and logs it.
func (p *Pool) noteBlock(w *worker, b *block, now time.Time) {
	took := b.time(now)
	if took < leastBlock || !w.hasLoop() {
		return
	}
	name := p.functionName(b.Function)
	p.blocks.mu.Lock()
	if p.blocks.of == nil {
		p.blocks.of = make(map[string]Blocked)
	}
	p.blocks.of[name] = p.blocks.of[name].Plus(Blocked{1, took, took, b.Place, b.Computes(), b.GIL, w.language()})
	p.blocks.mu.Unlock()
	if !b.logged {
		p.warn(w, b, took)
	}
	if p.cfg.OnBlocked == BlockedIsolate && p.blocks.offends(name, took, now) {
		p.keepApart(name, Blocked{1, took, took, b.Place, b.Computes(), b.GIL, w.language()})
	}
}

func (p *Pool) functionName(index int) string {
	if index < 0 {
		return ""
	}
	return p.cfg.Functions[index].Name
}

// warn logs a block if it is the first at its place.
func (p *Pool) warn(w *worker, b *block, took time.Duration) {
	name := p.functionName(b.Function)
	p.blocks.mu.Lock()
	if p.blocks.logged == nil {
		p.blocks.logged = make(map[string]struct{})
	}
	key := name + "\x00" + b.Place
	_, known := p.blocks.logged[key]
	if known = known || len(p.blocks.logged) >= maxPlaces; !known {
		p.blocks.logged[key] = struct{}{}
	}
	p.blocks.mu.Unlock()
	if known {
		return
	}
	attrs := []any{slog.String("place", b.Place), slog.String("for", took.Round(time.Millisecond).String())}
	if name != "" {
		attrs = append(attrs, slog.String("function", name), slog.String("message", b.Message))
	}
	of := Blocked{Place: b.Place, Computes: b.Computes(), GIL: b.GIL, Language: w.language()}
	attrs = append(attrs, slog.Bool("computes", of.Computes), slog.Bool("gil", of.GIL), slog.String("instead", of.Instead()))
	if b.Stack != "" {
		attrs = append(attrs, slog.String("stack", b.Stack))
	}
	what := "an async function blocks the event loop"
	if name == "" {
		what = "the event loop is blocked"
	}
	w.log.Warn(what+": the calls beside it wait (told once for each place)", attrs...)
}
