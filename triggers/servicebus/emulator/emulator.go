// Package emulator is an Azure Service Bus namespace in the process, for tests
// and for work on a laptop: queues, topics and subscriptions, sessions, dead
// letters, scheduling, deferral, time to live, forwarding and lock expiry, by the
// same AMQP 1.0 as the service. It keeps nothing on disk, and it has none of the
// service's limits to rates; what its users see of it is what azservicebus shows.
//
// Nothing in it is meant for production.
package emulator

import (
	"container/heap"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Options are an emulator's. Zero values are the defaults given here.
type Options struct {
	// MaxMessageSize is the largest message in bytes; 256 KiB, as of the standard tier.
	MaxMessageSize uint64
	// Keys are the shared access keys that are taken; none: everything is.
	Keys []Key
	// Now is the clock; time.Now. Jump is called after it was set.
	Now func() time.Time
	Log *slog.Logger // none
}

// Key is a shared access key of the namespace.
type Key struct {
	Name, Key            string
	Listen, Send, Manage bool
}

// Emulator is one namespace. Its methods are safe for use by many goroutines.
type Emulator struct {
	options Options
	faults  faults

	mu     sync.Mutex // guards all below, and all of queues, topics and links
	queues map[string]*queue
	topics map[string]*topic
	timers timers
	closed bool
	conns  map[*conn]struct{}
	fresh  map[net.Conn]struct{} // of which is not known yet what they speak

	due       chan struct{} // the first timer changed
	stop      chan struct{}
	running   sync.WaitGroup
	listeners []net.Listener
	web       webListener
	admins    http.Server
}

// New returns an empty namespace. Serve lets others connect to it; Close ends it.
func New(o Options) *Emulator {
	if o.MaxMessageSize == 0 {
		o.MaxMessageSize = 256 << 10
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	e := &Emulator{
		options: o,
		queues:  make(map[string]*queue),
		topics:  make(map[string]*topic),
		conns:   make(map[*conn]struct{}),
		fresh:   make(map[net.Conn]struct{}),
		due:     make(chan struct{}, 1),
		stop:    make(chan struct{}),
	}
	e.running.Go(e.clockwork)
	e.web = webListener{make(chan net.Conn), e.stop}
	e.admins = http.Server{Handler: e.Admin(), ReadHeaderTimeout: helloLimit, IdleTimeout: time.Minute, ErrorLog: slog.NewLogLogger(o.Log.Handler(), slog.LevelDebug)}
	e.running.Go(func() { _ = e.admins.Serve(e.web) }) // until Close
	return e
}

// Serve takes connections from a listener until Close, which closes it. They
// speak AMQP, or HTTP for the admin API: the first bytes tell.
func (e *Emulator) Serve(l net.Listener) error {
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return errors.Join(net.ErrClosed, l.Close())
	}
	e.listeners = append(e.listeners, l)
	e.mu.Unlock()
	for {
		nc, err := l.Accept()
		if err != nil {
			select {
			case <-e.stop:
				return nil
			default:
				return err
			}
		}
		e.mu.Lock()
		if e.closed {
			e.mu.Unlock()
			_ = nc.Close() // nobody is interested any more
			return nil
		}
		e.running.Go(func() { e.welcome(nc) })
		e.mu.Unlock()
	}
}

// Close ends the namespace and all connections; what was in it is gone.
func (e *Emulator) Close() error {
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return nil
	}
	e.closed = true
	close(e.stop)
	var errs []error
	for _, l := range e.listeners {
		errs = append(errs, l.Close())
	}
	for c := range e.conns {
		c.abort()
	}
	for nc := range e.fresh {
		_ = nc.Close() // nobody is interested any more
	}
	e.mu.Unlock()
	errs = append(errs, e.admins.Close())
	e.running.Wait()
	return errors.Join(errs...)
}

// ConnectionString is one for azservicebus, where the emulator serves AMQP
// without TLS on an address.
func (e *Emulator) ConnectionString(address string) string {
	name, key := "RootManageSharedAccessKey", "emulator"
	if len(e.options.Keys) > 0 {
		name, key = e.options.Keys[0].Name, e.options.Keys[0].Key
	}
	return fmt.Sprintf("Endpoint=sb://%s;SharedAccessKeyName=%s;SharedAccessKey=%s;UseDevelopmentEmulator=true;", address, name, key)
}

func (e *Emulator) now() time.Time { return e.options.Now() }

// Jump is called after the clock was set: it does what is due.
func (e *Emulator) Jump() { e.wake() }

func (e *Emulator) wake() {
	select {
	case e.due <- struct{}{}:
	default:
	}
}

// timer is something to be done, under e.mu.
type timer struct {
	at time.Time
	do func()
}

type timers []timer

func (t timers) Len() int           { return len(t) }
func (t timers) Less(i, j int) bool { return t[i].at.Before(t[j].at) }
func (t timers) Swap(i, j int)      { t[i], t[j] = t[j], t[i] }
func (t *timers) Push(x any)        { *t = append(*t, x.(timer)) }
func (t *timers) Pop() any {
	last := (*t)[len(*t)-1]
	(*t)[len(*t)-1] = timer{}
	*t = (*t)[:len(*t)-1]
	return last
}

// at has something done at a time; e.mu is locked.
func (e *Emulator) at(when time.Time, do func()) {
	heap.Push(&e.timers, timer{when, do})
	if e.timers[0].at.Equal(when) {
		e.wake()
	}
}

// clockwork does what is due.
func (e *Emulator) clockwork() {
	for {
		e.mu.Lock()
		wait := time.Hour
		for len(e.timers) > 0 {
			if wait = e.timers[0].at.Sub(e.now()); wait > 0 {
				break
			}
			heap.Pop(&e.timers).(timer).do()
			wait = time.Hour
		}
		e.mu.Unlock()
		sleep := time.NewTimer(wait)
		select {
		case <-sleep.C:
		case <-e.due:
		case <-e.stop:
			sleep.Stop()
			return
		}
		sleep.Stop()
	}
}

func newUUID() (id uuid) {
	_, _ = rand.Read(id[:]) // never fails
	id[6] = id[6]&0x0f | 0x40
	id[8] = id[8]&0x3f | 0x80
	return id
}

// find returns the queue, subscription or dead-letter queue at a path; e.mu is locked.
func (e *Emulator) find(path string) (*queue, *condition) {
	name := strings.ToLower(strings.Trim(path, "/"))
	parent, dead := strings.CutSuffix(name, "/$deadletterqueue")
	q := e.queues[parent]
	if q != nil && dead {
		q = q.dead
	}
	if q == nil {
		return nil, failure(condNotFound, "The messaging entity '%s' could not be found.", path)
	}
	return q, nil
}
