package broker

import "time"

// QueueOptions are the options of a queue or subscription. Zero values are the defaults below,
// which are the service's.
type QueueOptions struct {
	LockDuration     time.Duration // one minute
	MaxDeliveryCount uint32        // 10
	DefaultTTL       time.Duration // none
	RequiresSession  bool
	// DeadLetterExpired moves expired messages to the dead letters; otherwise they are dropped.
	DeadLetterExpired bool
	ForwardTo         string
	ForwardDeadTo     string
	// Disabled refuses senders and receivers.
	Disabled bool
	// DuplicateWindow is the time during which a message with the ID of an earlier one is dropped;
	// 0: never.
	DuplicateWindow time.Duration
}

func (o QueueOptions) withDefaults() QueueOptions {
	if o.LockDuration == 0 {
		o.LockDuration = time.Minute
	}
	if o.MaxDeliveryCount == 0 {
		o.MaxDeliveryCount = 10
	}
	return o
}

// Usage has the counts of an entity's messages so far.
type Usage struct {
	Leased   int // deliveries; a message counts each time
	Released int // that came back untouched: a client had asked for more than it took
	Lost     int // whose lock, or whose session's lock, ended
}
