// Package emulator emulates an Azure Storage account with its queues in this process, for tests
// and for work on a laptop. It implements the REST operations on queues and messages as the
// service documents them, with the responses of Azurite. Its data is lost when it ends. It does
// not check keys.
//
// queue.go has the queues, serve.go the operations, failures.go the errors that they return, and
// faults.go the injected faults.
package emulator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// Account is the name of the account. Azurite uses the same.
const Account = "devstoreaccount1"

// Key is the account's key. Microsoft has published it for emulators, so it is not a secret.
const Key = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="

// Options are the options of an Emulator.
type Options struct {
	Log *slog.Logger // nil disables the log
}

// Emulator is an account. It is safe for concurrent use.
type Emulator struct {
	faults
	log    *slog.Logger
	server *http.Server
	usage  [operations]atomic.Int64

	mu     sync.Mutex
	queues map[string]*queue
}

// New returns an account without queues.
func New(o Options) *Emulator {
	e := &Emulator{log: o.Log, queues: make(map[string]*queue)}
	if e.log == nil {
		e.log = slog.New(slog.DiscardHandler)
	}
	e.server = &http.Server{
		Handler: e, ReadHeaderTimeout: 10 * time.Second, MaxHeaderBytes: 64 << 10,
		ErrorLog: slog.NewLogLogger(e.log.Handler(), slog.LevelDebug),
	}
	return e
}

// ErrExists is returned if the queue already exists.
var ErrExists = errors.New("it exists already")

// CreateQueue creates a queue.
func (e *Emulator) CreateQueue(name string) error {
	if !validName(name) {
		return fmt.Errorf("%q cannot be the name of a queue: 3 to 63 lower-case letters, digits and single hyphens, with a letter or digit first and last", name)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.queues[name] != nil {
		return fmt.Errorf("queue %s: %w", name, ErrExists)
	}
	e.queues[name] = newQueue(name, nil)
	return nil
}

// DeleteQueue deletes a queue and its messages.
func (e *Emulator) DeleteQueue(name string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.queues, name)
}

// Len returns the number of messages in a queue, including hidden ones.
func (e *Emulator) Len(name string) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	q := e.queues[name]
	if q == nil {
		return 0
	}
	q.expire(e.now())
	return len(q.order)
}

// Serve serves requests on l until Close is called.
func (e *Emulator) Serve(l net.Listener) error {
	if err := e.server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving storage queues: %w", err)
	}
	return nil
}

// Close closes all connections.
func (e *Emulator) Close() error { return e.server.Close() }

// Shutdown stops the server, and returns when the requests in flight are done.
func (e *Emulator) Shutdown(ctx context.Context) error { return e.server.Shutdown(ctx) }

// ConnectionString returns the connection string of an emulator that listens on address.
func ConnectionString(address string) string {
	return fmt.Sprintf("DefaultEndpointsProtocol=http;AccountName=%s;AccountKey=%s;QueueEndpoint=http://%s/%[1]s;", Account, Key, address)
}

// Usage returns the number of requests received, by operation.
func (e *Emulator) Usage() map[Operation]int64 {
	out := make(map[Operation]int64)
	for op := range e.usage {
		if n := e.usage[op].Load(); n > 0 {
			out[Operation(op)] = n
		}
	}
	return out
}

// Requests returns the number of requests received.
func (e *Emulator) Requests() (n int64) {
	for count := range maps.Values(e.Usage()) {
		n += count
	}
	return n
}
