package embedded

import (
	"sync"
	_ "unsafe" // for linkname

	"github.com/nats-io/nats-server/v2/server"
)

// This file shortens the stop of an embedded server with many consumers. The server stops their
// stores one after the other, and sleeps 10 ms for each until its goroutine has ended: 10 s for a
// thousand. Its API has no way around that, so the unexported list of streams is read.

// stream is the server's type of the same name, of which only the address is used.
type stream struct{ _ byte }

//go:linkname streamsOf github.com/nats-io/nats-server/v2/server.(*Account).streams
func streamsOf(*server.Account) []*stream

//go:linkname storeOf github.com/nats-io/nats-server/v2/server.(*stream).Store
func storeOf(*stream) server.StreamStore

// stopConsumerStores writes the state of all consumers and stops their stores, all at once. The
// server is shut down right after it; what is acknowledged between is delivered again.
func stopConsumerStores(s *server.Server) {
	account := s.GlobalAccount()
	if account == nil || !account.JetStreamEnabled() {
		return
	}
	var stopping sync.WaitGroup
	for _, of := range streamsOf(account) {
		for consumer := range storeOf(of).Consumers() {
			stopping.Go(func() { _ = consumer.Stop() }) // the shutdown stops it again
		}
	}
	stopping.Wait()
}
