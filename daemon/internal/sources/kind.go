package sources

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon/internal/dispatch"
	"github.com/drover-run/drover/triggers"
)

// kind is one kind of source. Each kind is one file. A method returns nil if a configuration
// names another kind.
type kind interface {
	sourceOf(t configs.Trigger) source
	outputOf(o configs.Output) output
	connectionOf(c Config, name string) connection
}

// source is the trigger of a function, as its kind opens it.
type source interface {
	messageTraits() Traits
	openTrigger(ctx context.Context, s *Set, t TriggerConfig) (triggers.Trigger, error)
	openPeeker(ctx context.Context, c Config) (triggers.Peeker, func() error, error)
	openDeadLetters(ctx context.Context, c Config, shared bool) (triggers.DeadLetters, func() error, error)
}

// output is an output of a function.
type output interface {
	openOutput(ctx context.Context, s *Set) (dispatch.OutputConfig, error)
}

// connection is a connection of a configuration.
type connection interface {
	// shareConnection opens the resources of a connection that a Set shares, or reuses those of the earlier Set.
	shareConnection(ctx context.Context, s *Set) error
	acceptedParts() Accepts
	// openSender opens a sender for a command, with its connection.
	openSender(ctx context.Context, to Target, options SendOptions) (dispatch.Sender, func() error, error)
	// shareSender returns a function that opens a daemon's sender to a target, over a connection that the Set
	// shares.
	shareSender(ctx context.Context, s *Set, to Target) (dispatch.OpenSender, error)
}

// TriggerConfig has the arguments for opening a trigger.
type TriggerConfig struct {
	Function string
	Settings configs.Function
	// Receives is set if Receive will be called. Otherwise only the backlog is requested.
	Receives bool
	Memory   *triggers.Account // of the bodies that it holds; nil: they are not counted
	Log      *slog.Logger
}

// Traits are what a trigger's settings imply about its messages. The zero value is for a
// function without a source.
type Traits struct {
	// Entity is the queue or topic, for traces.
	Entity dispatch.Entity
	// Target is where messages for the function are sent. Its Address is empty if there is no such
	// place; CannotSend is the reason, as the rest of a sentence about the function.
	Target     Target
	CannotSend string
	// AcceptsAddress reports whether messages can be sent to an address that the sender chooses: a
	// literal subject that matches a pattern of the source. Nil if there is at most one address.
	AcceptsAddress func(address string) bool
	// CannotPeek is why no message ever waits at the source, as the rest of a sentence about the
	// function; empty if messages wait there.
	CannotPeek string
	// SampleBody is a body such as the messages have; nil if that is unknown.
	SampleBody []byte
	// SampleProperties are the properties of such a message; nil if it has none.
	SampleProperties triggers.Properties
	// KeyedOrder is set if messages with the same OrderingKey have an order. Without it the
	// messages of the whole source have one.
	KeyedOrder bool
	// SessionState is set if a function may keep a state in the session of a message.
	SessionState bool
	// SendersWait is set if the senders of messages wait for the function's result.
	SendersWait bool
	// PeekLimit is the most messages that the source shows without a receive; 0: no limit.
	PeekLimit int
	// BrowseHides is set if reading many dead letters hides them from other readers for a time.
	BrowseHides bool
	// Requirement is what an operator must create at the source, as the rest of a sentence about
	// the function; may be empty.
	Requirement string
}

// Target is a queue, topic or subject that messages are sent to.
type Target struct {
	Function   string // the function whose source it is; empty if only the address was given
	Connection string
	Address    string
}

// Accepts reports which parts of a message, besides its body, a connection's queues or subjects
// accept.
type Accepts struct {
	Name     string // of the kind of source, for errors
	Headers  bool   // also properties
	Sessions bool
	TTL      bool // a time to live and an encoding, for all messages of a sender
	// MaxDelay is how far ahead a message can be scheduled; 0: no limit.
	MaxDelay time.Duration
	// Property reports whether a property of triggers.Settable can be sent.
	Property func(name string) bool
}

// CheckTime returns an error if a message cannot be scheduled for a time.
func (a Accepts) CheckTime(at, now time.Time) error {
	switch {
	case !at.After(now):
		return fmt.Errorf("%s is in the past", at.Format(time.RFC3339))
	case a.MaxDelay > 0 && at.Sub(now) > a.MaxDelay:
		return fmt.Errorf("%s is too far ahead: %s can hold a message for at most %d days", at.Format(time.RFC3339), a.Name, a.MaxDelay/(24*time.Hour))
	}
	return nil
}

// SendOptions are for a connection that accepts a time to live.
type SendOptions struct {
	TTL      *time.Duration // nil: the default
	Encoding string         // empty: as the function reads it
}

// Inlet sends messages to the source of a function, from within the daemon.
type Inlet struct {
	Traits
	Accepts
	Open dispatch.OpenSender // nil if no messages can be sent; Traits.CannotSend is the reason
}

// OpenInlet returns the inlet of a function. It connects if OpenConnections has not.
func (s *Set) OpenInlet(ctx context.Context, function string, t configs.Trigger) (in Inlet, err error) {
	in.Traits = TraitsOf(t)
	in.Target.Function = function
	own := findConnection(s.Config, in.Target.Connection)
	if own == nil || in.Target.Address == "" && in.AcceptsAddress == nil {
		return in, nil
	}
	in.Accepts = own.acceptedParts()
	in.Open, err = own.shareSender(ctx, s, in.Target)
	return in, err
}
