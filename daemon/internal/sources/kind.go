package sources

import (
	"context"
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
	// shareConnection opens what a Set shares of the connection, or takes it from the earlier Set.
	shareConnection(ctx context.Context, s *Set) error
	acceptedParts() Accepts
	openSender(ctx context.Context, to Target, options SendOptions) (dispatch.Sender, func() error, error)
}

// TriggerConfig is what a trigger is opened with.
type TriggerConfig struct {
	Function string
	Settings configs.Function
	Memory   *triggers.Account // of the bodies that it holds; nil: they are not counted
	Log      *slog.Logger
}

// Traits are what a trigger's settings imply about its messages. The zero value is that of a
// function without a source.
type Traits struct {
	// Entity is the queue or topic, for traces.
	Entity dispatch.Entity
	// Target is where messages for the function are sent. Its Address is empty if there is no such
	// place; CannotSend is the reason, as the rest of a sentence about the function.
	Target     Target
	CannotSend string
	// SampleBody is a body such as the messages have; nil if that is unknown.
	SampleBody []byte
	// KeyedOrder is set if messages with the same OrderingKey have an order. Without it the
	// messages of the whole source have one.
	KeyedOrder bool
	// SessionState is set if a function may keep a state in the session of a message.
	SessionState bool
	// PeekLimit is the most messages that the source shows without a receive; 0: no limit.
	PeekLimit int
	// BrowseHides is set if reading many dead letters hides them from other readers for a time.
	BrowseHides bool
	// Requirement is what an operator has to create at the source, as the rest of a sentence about
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
	Headers    bool // also properties
	Sessions   bool
	Scheduling bool // a delay, a time to live and an encoding
	// Property reports whether a property of triggers.Settable can be sent.
	Property func(name string) bool
}

// SendOptions are for a connection that accepts scheduling.
type SendOptions struct {
	Delay    time.Duration
	TTL      *time.Duration // nil: the default
	Encoding string         // empty: as the function reads it
}
