package httphandler

import (
	"crypto/tls"
	"log/slog"
	"time"
)

// Config is a handler. Function, URL and Slots are needed.
type Config struct {
	Function string
	// URL is http, https, or unix:PATH:/PATH, a socket and a path of the app on it.
	URL string
	// Ready is a URL, of the same kinds, that answers 2xx when the app is ready;
	// empty: it is, when it can be reached.
	Ready string
	// Events is how a message becomes a request.
	Events Events
	// Azure, if it is set, is how in place of Events.
	Azure *Azure
	// Batch, if it is set, has one request carry many messages. It goes without Azure.
	Batch *Batch
	// Headers are added to each request.
	Headers map[string]string
	// Verdicts says what single statuses mean, in place of the defaults.
	Verdicts map[int]Verdict
	// Slots is how many messages are in flight at once.
	Slots int
	// MaxResponse bounds an answer's body, in bytes; 1 MiB.
	MaxResponse int64
	// HTTP2 speaks HTTP/2 without TLS.
	HTTP2 bool
	TLS   *tls.Config // nil: the machine's roots
	Log   *slog.Logger
}

const defaultMaxResponse = 1 << 20

// Batch has messages that are in flight together posted together.
type Batch struct {
	// Max is how many messages a request has at most. MaxBytes bounds its body; a
	// message that is larger goes alone.
	Max      int
	MaxBytes int64
	// Wait is how long the first of a batch waits for more. Where no more can come,
	// since all slots are taken, none does.
	Wait time.Duration
	// Multipart sends multipart/mixed, of which each part is what a request would
	// be, in place of a JSON array.
	Multipart bool
}

// Azure is the contract between the host of Azure Functions and a custom handler: a
// message is JSON, and so is the answer. What the host sends is more exact than what
// its documentation prints: texts and numbers are JSON within a JSON string.
type Azure struct {
	// Binding is the name of the trigger's binding.
	Binding string
	// Binary sends the body in base64, as a binding of the dataType binary has it.
	Binary bool
	// Output is the name of the output binding whose value is the function's output,
	// $return for the ReturnValue. Empty: the ReturnValue, where there is one, else
	// the Outputs: one as it is, several as one JSON object.
	Output string
}

// Verdict is what an answer's status means.
type Verdict string

// The verdicts.
const (
	Done   Verdict = "done"
	Retry  Verdict = "retry"
	Reject Verdict = "reject"
	// Pause gives the message back, and receives no more until the app is another.
	Pause Verdict = "pause"
)
