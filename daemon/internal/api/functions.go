package api

import (
	"cmp"
	"fmt"
	"time"

	"github.com/drover-run/drover/daemon/internal/telemetry"
	"github.com/drover-run/drover/scaler/autotune"
)

// WorkerCounts counts the worker processes of a function's app.
type WorkerCounts struct {
	// Workers counts the processes that can receive messages; 0 for Go functions.
	Workers int `json:"workers" desc:"processes that can receive messages; 0 if no pool runs the function"`
	// SpareWorkers counts the processes that take over the messages of a worker that dies.
	SpareWorkers int `json:"spare_workers,omitempty" desc:"processes that have loaded the code and take over the messages of a worker that dies; missing if there are none"`
}

// FunctionStatus counts what one function did since the daemon started, and reports its state.
type FunctionStatus struct {
	Name    string `json:"name"`
	Handler string `json:"handler" desc:"go NAME, python MODULE.FUNCTION in app APP, node or worker FUNCTION of MODULE in app APP, a URL, or a command"`

	FunctionCounts
	WorkerCounts
	// Stopped is set when the function's code does not load.
	Stopped bool `json:"stopped" desc:"whether it is disabled because its code does not load"`
	// Paused is set while an operator has paused it. PausedUntil is when that ends; zero if
	// it has no end.
	Paused      bool      `json:"paused" desc:"whether it is paused"`
	PausedUntil time.Time `json:"paused_until,omitzero" desc:"missing if the pause has no end"`
	// NextDue is when the function's timer is due next; zero for other functions, during a run,
	// and if another instance has the timer.
	NextDue time.Time `json:"next_due,omitzero" desc:"when the function's timer is due next; missing without a timer, during a run, and if it is not known"`
	// Rejections counts Rejected by reason: function, attempts, size.
	Rejections map[string]int64 `json:"rejections,omitempty" desc:"rejected, by reason: function, attempts, size"`
	// Responses counts the HTTP responses by status, refused requests included; empty for
	// functions without an http trigger.
	Responses map[string]int64 `json:"responses,omitempty" desc:"HTTP responses by status, refused requests included; missing without an http trigger"`
	// Disconnected is the time since when nothing can be received; zero if it can be.
	Disconnected time.Time `json:"disconnected,omitzero" desc:"since when nothing can be received; missing if it can be"`
	// ReceiveError is the reason; empty if only the connection is known to be down.
	ReceiveError string `json:"receive_error,omitempty" desc:"why nothing can be received"`
	// ReceiveErrors counts receive calls that failed. Reconnects counts reconnects of the
	// source, if it reports them.
	ReceiveErrors int64 `json:"receive_errors" desc:"receive calls that failed"`
	Reconnects    int64 `json:"reconnects" desc:"reconnects, if the source reports them"`
	// Problems are those that an operator must fix: messages that cannot be settled, a missing
	// dead-letter queue, an output that cannot be written.
	Problems []FunctionProblem `json:"problems,omitempty" desc:"problems that need an operator, oldest first"`
	// WaitsForMemory is set while nothing is received because in_flight_memory is used up.
	WaitsForMemory bool `json:"waits_for_memory,omitempty" desc:"whether receiving waits because in_flight_memory is used up"`
	// Gate is GateOpen while the function's HTTP app counts as healthy, otherwise GateShut; empty
	// for functions without one.
	Gate string `json:"gate,omitempty" desc:"open while the function's HTTP app counts as healthy, else shut; missing without an app"`
	// Batches counts the calls of a function that takes batches; nil for other functions.
	Batches *BatchCounts `json:"batches,omitempty" desc:"calls of a function that takes batches; missing for others"`
	// Latency is the duration of attempts, from start to verdict.
	Latency *telemetry.Latencies `json:"latency,omitempty" desc:"duration of attempts, from start to verdict"`
	// Age is the age of messages when they were done or rejected, since they were enqueued, if
	// the source reports it.
	Age *telemetry.Latencies `json:"age,omitempty" desc:"age of messages when they were done or rejected, since they were enqueued, if the source reports it"`
}

// BatchCounts counts the calls of a function that takes several messages in one call.
type BatchCounts struct {
	Calls    int64 `json:"calls"`
	Messages int64 `json:"messages" desc:"in these calls: messages divided by calls is the average size of a batch"`
	// Splits counts the calls that failed as a whole, and ran again in halves.
	Splits int64 `json:"splits" desc:"calls that failed as a whole, and ran again in halves to find the message at fault"`
}

// Plus returns the sum of two counts; nil counts as zero.
func (b *BatchCounts) Plus(o *BatchCounts) *BatchCounts {
	if b == nil || o == nil {
		return cmp.Or(b, o)
	}
	return &BatchCounts{b.Calls + o.Calls, b.Messages + o.Messages, b.Splits + o.Splits}
}

// FunctionCounts counts the messages of one function.
type FunctionCounts struct {
	Received int64 `json:"received" desc:"received = done + retried + rejected + released + abandoned + in_flight, always"`
	Done     int64 `json:"done"`
	Retried  int64 `json:"retried"`
	Rejected int64 `json:"rejected" desc:"dead-lettered"`
	Released int64 `json:"released" desc:"released, because they were not tried"`
	// Abandoned counts messages that were in flight in an instance that ended, or whose verdict
	// the source never accepted. The source redelivers them.
	Abandoned int64 `json:"abandoned" desc:"in flight in an instance that ended, or with a verdict that was never accepted: the source redelivers them"`
	// InFlight counts messages that were received and are not settled yet.
	InFlight int64 `json:"in_flight" desc:"received and not settled yet"`
	// Lost counts messages whose lock or lease expired before they were settled.
	Lost int64 `json:"lost" desc:"lock or lease expired before they were settled"`
	// Failed counts attempts that the function failed, including rejections.
	Failed int64 `json:"failed" desc:"attempts that the function failed, including rejections"`
}

// The values of FunctionStatus.Gate.
const (
	GateOpen = "open"
	GateShut = "shut"
)

// FunctionOverview is a function's status, and its backlog.
type FunctionOverview struct {
	FunctionStatus
	// Backlog is nil if the source does not report it.
	Backlog *int64        `json:"backlog,omitempty" desc:"messages ready at the source and not delivered; missing if the source does not report it"`
	Kind    *FunctionKind `json:"kind,omitempty" desc:"as measured; missing before that, and for functions without worker processes"`
	Oldest  float64       `json:"oldest_seconds,omitempty" desc:"age of the oldest of them; missing if there is none, or the source does not report it"`
	// State is one of the states below, or the phase of the daemon while it starts or stops.
	State  string `json:"state" desc:"receiving, idle, full, blocked, no_worker, memory, app_down, unreachable, paused, stopped, starting or stopping"`
	Reason string `json:"reason,omitempty" desc:"why it is in this state; missing while it is receiving or idle"`
}

// The states of a function: the limit on receiving. A reason explains each.
const (
	StateReceiving   = "receiving"
	StateIdle        = "idle" // receiving, with nothing in flight and nothing waiting
	StateFull        = "full" // all its slots are in use
	StateBlocked     = "blocked"
	StateNoWorker    = "no_worker"
	StateMemory      = "memory" // it waits for in_flight_memory
	StateAppDown     = "app_down"
	StateUnreachable = "unreachable" // its source is
	StatePaused      = "paused"
	StateStopped     = "stopped" // its code does not load
)

// FunctionKind describes how a function spends the time of its calls, as measured.
type FunctionKind struct {
	Kind        string  `json:"kind" desc:"cpu, blocking, async or mixed"`
	CPU         float64 `json:"cpu" desc:"fraction of a call's time in which it computes, on an otherwise idle machine"`
	ReleasesGIL bool    `json:"releases_gil" desc:"whether it releases the GIL while it computes"`
	NeverAwaits bool    `json:"never_awaits" desc:"whether it is async but never awaits"`
	BlocksLoop  bool    `json:"blocks_loop" desc:"whether it is async and blocks the event loop"`
	Differs     bool    `json:"differs" desc:"whether its messages differ: some calls compute and others wait, or some compute many times as long as others"`
	Cores       float64 `json:"cores,omitempty" desc:"cores that a call uses, if it computes with threads of its own; else missing"`
	Sure        float64 `json:"sure" desc:"confidence, 0 to 1"`
}

// Words returns the kind in words; "-" if k is nil.
func (k *FunctionKind) Words() string {
	if k == nil {
		return "-"
	}
	words := map[string]string{
		autotune.KindCPU: "CPU", autotune.KindBlocking: "blocking I/O", autotune.KindAsync: "async I/O", autotune.KindMixed: "mixed",
	}[k.Kind]
	switch {
	case k.NeverAwaits:
		words += ", never awaits"
	case k.BlocksLoop:
		words += ", blocks the loop"
	case k.Cores > 0:
		words += fmt.Sprintf(", %.2g cores a call", k.Cores)
	case k.ReleasesGIL:
		words += ", releases the GIL"
	}
	if k.Differs {
		words += ", messages differ"
	}
	return words
}

// FunctionProblem is a problem that an operator must fix. The function may still run.
type FunctionProblem struct {
	Kind  string    `json:"kind" desc:"unsettled: the source refuses verdicts; output: results cannot be sent; dead_letters: rejected messages cannot be moved; attempts: failures cannot be counted; rights: the account lacks a right; store: the embedded server's store is disabled"`
	Text  string    `json:"text" desc:"the problem, and how to fix it"`
	Since time.Time `json:"since"`
	// Messages counts the messages that wait in the daemon because of it. Message is the ID of
	// the one that has waited longest.
	Messages int64  `json:"messages,omitempty" desc:"messages that wait here because of it"`
	Message  string `json:"message,omitempty" desc:"the one that has waited longest"`
	Blocks   bool   `json:"blocks,omitempty" desc:"whether nothing is received because of it"`
}

// The kinds of problems that the daemon finds. Sources report others, those of triggers.Trouble.
const (
	ProblemUnsettled = "unsettled"
	ProblemOutput    = "output"
	ProblemStore     = "store"
)

// OneLine returns the problem as one line of text.
func (p FunctionProblem) OneLine() string {
	text := fmt.Sprintf("%s (for %v)", p.Text, time.Since(p.Since).Round(time.Second))
	if p.Messages > 0 {
		waiting := "messages wait"
		if p.Messages == 1 {
			waiting = "message waits"
		}
		text = fmt.Sprintf("%d %s, the first of them %s: %s", p.Messages, waiting, p.Message, text)
	}
	if p.Blocks {
		text = "nothing is received: " + text
	}
	return text
}
