package storagequeue

import (
	"log/slog"
	"time"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/lease/record"
	"github.com/drover-run/drover/triggers/storagequeue/reasons"
)

// Config is the configuration of a trigger.
type Config struct {
	Account  *Account
	Queue    string
	Encoding Encoding
	// PoisonQueue gets rejected messages; it is created if it is missing.
	PoisonQueue  string
	PoisonFormat PoisonFormat
	// Lease is how long the service hides a message without a renewal: whole seconds, 1 s
	// to 7 days.
	Lease time.Duration
	// MaxPollInterval is the longest time between two gets of an empty queue.
	MaxPollInterval time.Duration
	// MaxAttempts is how often a function may fail on a message. MaxDequeueCount is how
	// often a message is delivered, for any reason; 0 is unlimited.
	MaxAttempts     int
	MaxDequeueCount int64
	// Prefetch is how many messages are leased beyond those that a Receive requests, or
	// PrefetchAuto.
	Prefetch int
	// Memory bounds the prefetched bytes; nil is no bound.
	Memory *triggers.Account
	// Create creates the queue if it is missing.
	Create bool
	Ledger *Ledger
	// Record has the leases for the next daemon; nil records none.
	Record *record.Record
	// Reasons keeps why messages were rejected, if the poison queue gets bodies alone; it may be nil.
	Reasons *reasons.Store
	Log     *slog.Logger
}

// PrefetchAuto prefetches as many messages as are settled in a tenth of a second, as measured.
const PrefetchAuto = -1

// PoisonFormat is the format of messages in the poison queue.
type PoisonFormat string

// The formats. PoisonBody is the unchanged message, as written by the Azure Functions host.
// PoisonEnvelope is an Envelope.
const (
	PoisonBody     PoisonFormat = "body"
	PoisonEnvelope PoisonFormat = "envelope"
)
