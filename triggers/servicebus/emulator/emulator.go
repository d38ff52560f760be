// Package emulator is an in-process Azure Service Bus namespace, for tests and for work on a
// laptop: queues, topics and subscriptions, sessions, dead letters, scheduling, deferral, time to
// live, forwarding and lock expiry, over AMQP 1.0 like the service. It stores nothing on disk, and
// has no rate limits. It implements what azservicebus uses.
//
// Package broker has the entities, and package codec the format of frames and messages. This
// package implements the protocols: AMQP connections (connection.go) with sessions and links
// (session.go, link.go, attach.go, incoming.go), requests over links (management.go), and the admin
// API (admin.go).
//
// The emulator is not meant for production.
package emulator

import (
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/drover-run/drover/triggers/servicebus/emulator/broker"
)

type (
	// QueueOptions are the options of a queue or subscription.
	QueueOptions = broker.QueueOptions
	// Counts are the messages of an entity, by state.
	Counts = broker.Counts
	// Usage has the counts of an entity's messages.
	Usage = broker.Usage
)

var (
	// ErrExists is returned if an entity with this name exists.
	ErrExists = broker.ErrExists
	// ErrNotFound is returned if the entity does not exist.
	ErrNotFound = broker.ErrNotFound
)

// Emulator is one namespace. Its methods are safe for concurrent use.
type Emulator struct {
	broker.Controls // makes, removes and counts entities
	*server         // Serve, Close and DropConnections
	host            *host
}

// New returns an empty namespace. Serve lets others connect to it; Close ends it.
func New(o Options) *Emulator {
	o = o.withDefaults()
	h := &host{Options: o, namespace: broker.New(o.Now, o.Log)}
	e := &Emulator{Controls: broker.NewControls(h.namespace), host: h}
	e.server = newServer(func(nc net.Conn) { newConn(h, nc).run() }, e.Admin(), o.Log)
	e.running.Go(func() { h.namespace.Run(e.stop) })
	return e
}

// Admin is the admin API. Azure's clients request it over HTTPS.
func (e *Emulator) Admin() http.Handler { return &adminAPI{e.Controls, e.host} }

// ConnectionString returns a connection string for azservicebus, if the emulator serves AMQP
// without TLS on an address.
func (e *Emulator) ConnectionString(address string) string {
	name, key := "RootManageSharedAccessKey", "emulator"
	if keys := e.host.accessKeys(); len(keys) > 0 {
		name, key = keys[0].Name, keys[0].Key
	}
	return fmt.Sprintf("Endpoint=sb://%s;SharedAccessKeyName=%s;SharedAccessKey=%s;UseDevelopmentEmulator=true;", address, name, key)
}

// Jump must be called after the clock was set: it runs the timers that are due.
func (e *Emulator) Jump() { e.host.namespace.Jump() }

// SetKeys replaces the shared access keys, and cuts the connections that used the old ones.
func (e *Emulator) SetKeys(keys ...Key) {
	e.host.namespace.Lock()
	e.host.Keys = keys
	e.host.namespace.Unlock()
	e.DropConnections()
}

// Delay delays every received frame and every write by a duration; 0 ends that.
func (e *Emulator) Delay(d time.Duration) { e.host.faults.setDelay(d) }

// Busy makes the server busy, like a throttled namespace: it refuses
// sends, settlements and new receivers, and ends the existing ones.
func (e *Emulator) Busy(on bool) {
	e.host.faults.setBusy(on)
	if !on {
		return
	}
	e.host.namespace.Lock()
	defer e.host.namespace.Unlock()
	e.host.namespace.DetachAll(errBusy)
}
