// Package emulator is an Azure Service Bus namespace in the process, for tests
// and for work on a laptop: queues, topics and subscriptions, sessions, dead
// letters, scheduling, deferral, time to live, forwarding and lock expiry, by the
// same AMQP 1.0 as the service. It keeps nothing on disk, and it has none of the
// service's limits to rates; what its users see of it is what azservicebus shows.
//
// Package broker has the entities, and package codec the format of frames and messages. This
// package speaks the protocols over them: AMQP connections (connection.go) with sessions and
// links (session.go, link.go, attach.go, incoming.go), requests over links (management.go), and
// the admin API (admin.go).
//
// Nothing in it is meant for production.
package emulator

import (
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/drover-run/drover/triggers/servicebus/emulator/broker"
)

type (
	// QueueOptions are a queue's, or a subscription's.
	QueueOptions = broker.QueueOptions
	// Counts are the messages of an entity, by state.
	Counts = broker.Counts
	// Usage is what became of an entity's messages.
	Usage = broker.Usage
)

var (
	// ErrExists is returned if an entity of this name exists already.
	ErrExists = broker.ErrExists
	// ErrNotFound is returned if there is none.
	ErrNotFound = broker.ErrNotFound
)

// Emulator is one namespace. Its methods are safe for use by many goroutines.
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

// Admin is the admin API. The clients of Azure ask for it by HTTPS.
func (e *Emulator) Admin() http.Handler { return &adminAPI{e.Controls, e.host} }

// ConnectionString is one for azservicebus, where the emulator serves AMQP
// without TLS on an address.
func (e *Emulator) ConnectionString(address string) string {
	name, key := "RootManageSharedAccessKey", "emulator"
	if len(e.host.Keys) > 0 {
		name, key = e.host.Keys[0].Name, e.host.Keys[0].Key
	}
	return fmt.Sprintf("Endpoint=sb://%s;SharedAccessKeyName=%s;SharedAccessKey=%s;UseDevelopmentEmulator=true;", address, name, key)
}

// Jump is called after the clock was set: it runs the timers that are due.
func (e *Emulator) Jump() { e.host.namespace.Jump() }

// SetKeys replaces the shared access keys, and cuts the connections that were
// let in with the old ones.
func (e *Emulator) SetKeys(keys ...Key) {
	e.host.namespace.Lock()
	e.host.Keys = keys
	e.host.namespace.Unlock()
	e.DropConnections()
}

// Delay has every frame that comes and every write take so much longer; 0 ends it.
func (e *Emulator) Delay(d time.Duration) { e.host.faults.setDelay(d) }

// Busy has the server be busy, as it is when a namespace is throttled: it refuses
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
