package embedded

import (
	"sync"
	_ "unsafe" // for linkname

	"github.com/nats-io/nats-server/v2/server"
)

// This file speeds up the stop of an embedded server with many consumers. The server stops their
// stores one after the other, and waits 10 ms for the goroutine of each: 10 s for a thousand. Its
// API offers no alternative, so this file reads the unexported list of streams.

// stream is the server's type of the same name. Only its address is used.
type stream struct{ _ byte }

//go:linkname streamsOf github.com/nats-io/nats-server/v2/server.(*Account).streams
func streamsOf(*server.Account) []*stream

//go:linkname storeOf github.com/nats-io/nats-server/v2/server.(*stream).Store
func storeOf(*stream) server.StreamStore

// stopConsumerStores writes the state of all consumers and stops their stores concurrently. The
// server is shut down right after it. Messages acknowledged in between are redelivered.
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
