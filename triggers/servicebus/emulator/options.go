package emulator

import (
	"log/slog"
	"time"

	"github.com/drover-run/drover/triggers/servicebus/emulator/broker"
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

func (o Options) withDefaults() Options {
	if o.MaxMessageSize == 0 {
		o.MaxMessageSize = 256 << 10
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// host is what all connections share. The lock of the namespace guards their sessions and links too.
type host struct {
	Options
	namespace *broker.Namespace
	faults    faults
}

// allows reports whether something may be done with an entity.
func (h *host) allows(by rights, path string, what claim) bool {
	return len(h.Keys) == 0 || by.allow(path, what)
}
