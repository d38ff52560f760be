package httphandler

import (
	"crypto/tls"
	"log/slog"
	"time"
)

// Config configures a Handler. Function, URL and Slots are required.
type Config struct {
	Function string
	// URL is http, https, or unix:PATH:/PATH: a socket, and a path of the app on it.
	URL string
	// Ready is a URL of the same kinds that returns 2xx when the app is ready. If it is empty,
	// the app is ready when it can be reached.
	Ready string
	// Events is the format of a request.
	Events Events
	// Azure replaces Events if it is set.
	Azure *Azure
	// Batch, if set, sends many messages in one request. It cannot be combined with Azure.
	Batch *Batch
	// Headers are added to each request.
	Headers map[string]string
	// Verdicts sets the meaning of single statuses. They override the defaults.
	Verdicts map[int]Verdict
	// Slots bounds the messages in flight.
	Slots int
	// MaxResponse bounds a response body, in bytes; the default is 1 MiB.
	MaxResponse int64
	// HTTP2 uses HTTP/2 without TLS.
	HTTP2 bool
	TLS   *tls.Config // nil: the machine's root certificates
	Log   *slog.Logger
}

const defaultMaxResponse = 1 << 20

// Batch configures requests with many messages.
type Batch struct {
	// Max bounds the messages of a request. MaxBytes bounds its body; a larger message is sent in a
	// request of its own.
	Max      int
	MaxBytes int64
	// Wait bounds how long the first message of a batch waits for more. It does not wait if all
	// slots are taken, because no more messages can arrive then.
	Wait time.Duration
	// Multipart sends multipart/mixed instead of a JSON array. Each part corresponds to a
	// request of a single message.
	Multipart bool
}

// Azure is the contract between the host of Azure Functions and a custom handler: requests and
// responses are JSON. The host is stricter than the examples in its documentation: strings and
// numbers are JSON within a JSON string.
type Azure struct {
	// Binding is the name of the trigger's binding.
	Binding string
	// Binary sends the body in base64, like a binding of the dataType binary.
	Binary bool
	// JSON sends the body unchanged, as for a timer.
	JSON bool
	// Output is the name of the output binding whose value is the function's output; $return is
	// the ReturnValue. If it is empty, the output is the ReturnValue, or else the Outputs: a
	// single one unchanged, several as one JSON object.
	Output string
	// Outputs are the function's named outputs. Each is sent the value of the output binding of that
	// name; a list is a message for each element.
	Outputs []string
	// Named drops values of other bindings but Reply, instead of Output.
	Named bool
	// Reply is the binding with the response to an HTTP request; empty if there is none.
	Reply string
	// Forward passes HTTP requests on unchanged, instead of an invocation.
	Forward bool
}

// Verdict is the meaning of a response's status.
type Verdict string

// The verdicts.
const (
	Done   Verdict = "done"
	Retry  Verdict = "retry"
	Reject Verdict = "reject"
	// Pause releases the message, and stops receiving until the app works.
	Pause Verdict = "pause"
)
