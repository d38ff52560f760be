// Package emulator is an Azure Storage account with its queues, in this process,
// for tests and for work on a laptop: the REST operations on queues and messages
// as the service documents them, and as Azurite answers them. What it holds is
// gone when it ends. Keys are not checked.
//
// queue.go is a queue, serve.go the operations, faults.go what can go wrong.
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

// Account is the name of the account, as with Azurite.
const Account = "devstoreaccount1"

// Key is the account's key. It is the one that Microsoft has published for
// emulators, and no secret.
const Key = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="

// Options are an emulator's.
type Options struct {
	Log *slog.Logger // nil is none
}

// Emulator is an account. It is safe for use by many goroutines.
type Emulator struct {
	log    *slog.Logger
	server *http.Server
	usage  [operations]atomic.Int64

	mu     sync.Mutex
	queues map[string]*queue
	faults []*Fault
	skew   time.Duration // what its clock is ahead
	newest string        // the newest API version that it knows; empty: all
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

// ErrExists is returned if the queue exists.
var ErrExists = errors.New("it exists already")

// CreateQueue makes a queue.
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

// DeleteQueue forgets a queue and what is in it.
func (e *Emulator) DeleteQueue(name string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.queues, name)
}

// Len returns how many messages a queue holds, hidden ones among them.
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

// Serve answers on l until Close.
func (e *Emulator) Serve(l net.Listener) error {
	if err := e.server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving storage queues: %w", err)
	}
	return nil
}

// Close ends all connections.
func (e *Emulator) Close() error { return e.server.Close() }

// Shutdown ends when the requests in work are answered.
func (e *Emulator) Shutdown(ctx context.Context) error { return e.server.Shutdown(ctx) }

// ConnectionString is the way to an emulator that listens on address.
func ConnectionString(address string) string {
	return fmt.Sprintf("DefaultEndpointsProtocol=http;AccountName=%s;AccountKey=%s;QueueEndpoint=http://%s/%[1]s;", Account, Key, address)
}

// Usage returns how many requests came, by operation.
func (e *Emulator) Usage() map[Operation]int64 {
	out := make(map[Operation]int64)
	for op := range e.usage {
		if n := e.usage[op].Load(); n > 0 {
			out[Operation(op)] = n
		}
	}
	return out
}

// Requests returns how many requests came.
func (e *Emulator) Requests() (n int64) {
	for count := range maps.Values(e.Usage()) {
		n += count
	}
	return n
}

// now is the emulator's time; e.mu is locked.
func (e *Emulator) now() time.Time { return time.Now().Add(e.skew) }
