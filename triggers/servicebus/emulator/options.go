package emulator

import (
	"log/slog"
	"time"

	"github.com/drover-run/drover/triggers/servicebus/emulator/broker"
)

// Options are the options of an emulator. Zero values are the defaults given here.
type Options struct {
	// MaxMessageSize is the size of the largest message in bytes; by default 256 KiB, as in the
	// standard tier.
	MaxMessageSize uint64
	// Keys are the accepted shared access keys; without any, all are accepted.
	Keys []Key
	// Now is the clock; by default time.Now. Call Jump after it was set.
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

// host is shared by all connections. The lock of the namespace guards their sessions and links,
// too.
type host struct {
	Options
	namespace *broker.Namespace
	faults    faults
}

// accessKeys returns the currently accepted keys; without any, all are accepted. The caller must
// not hold the lock of the namespace.
func (h *host) accessKeys() []Key {
	h.namespace.Lock()
	defer h.namespace.Unlock()
	return h.Keys
}

// allows reports whether an operation on an entity is allowed.
func (h *host) allows(by rights, path string, what claim) bool {
	return len(h.Keys) == 0 || by.allow(path, what)
}
