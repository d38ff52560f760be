package natsjs

import (
	"log/slog"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/lease/record"
	"github.com/drover-run/drover/triggers/natsjs/consumers"
)

// PrefetchAuto prefetches as many messages as are settled in a tenth of a second, as measured.
const PrefetchAuto = -1

// Config is one durable pull consumer.
type Config struct {
	consumers.Config
	// DeadLetters is the stream for rejected messages. Create creates it, too.
	DeadLetters string
	// Prefetch is how many messages are leased beyond those that a Receive requests, or
	// PrefetchAuto.
	Prefetch int
	// Function is the function's name in dead letters that were not caused by its verdict.
	Function string
	// Together is how many messages of one ordering key Receive may return together, as for
	// triggers.OrderedTogether; 0: one.
	Together int
	// Memory bounds the prefetched bytes; nil is no bound.
	Memory *triggers.Account
	// Record has the leases for the next daemon; nil records none.
	Record *record.Record
	Log    *slog.Logger
}
