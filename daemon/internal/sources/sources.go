// Package sources opens what functions receive from and send to: NATS JetStream, Azure Service Bus,
// Azure Storage queues, timers, and HTTP requests. Each kind of source is one file; the rest of drover does not
// depend on their names.
//
// The daemon opens a Set for each configuration, and closes it when a later Set has replaced it.
// Commands open what they need without a Set.
package sources

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon/internal/dispatch"
	"github.com/drover-run/drover/triggers"
)

// kinds lists the kinds of sources. There is no other registry. Connections are opened in this
// order.
var kinds = []kind{streams{}, bus{}, storage{}, timers{}, requests{}, programs{}}

// errNoKind is the error of a configuration that was not completed.
var errNoKind = errors.New("the configuration names no source")

// New returns the Set of a configuration, with nothing open. given has connections that the
// program opened, by name; the Set does not close them. Open resources of earlier are reused if
// the settings of their connection are the same; earlier may be nil.
func New(c Config, given map[string]*Connection, earlier *Set) *Set {
	s := &Set{Config: c, earlier: earlier, resources: make(map[string]resource)}
	shareGiven(s, given)
	s.carryOver(recordKey)
	return s
}

// OpenConnections opens connections, in the order in which their names are listed. Call it before
// triggers and outputs are opened.
func (s *Set) OpenConnections(ctx context.Context, names []string) error {
	for _, k := range kinds {
		for _, name := range names {
			if c := k.connectionOf(s.Config, name); c != nil {
				if err := c.shareConnection(ctx, s); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// OpenTrigger opens the trigger of a function.
func (s *Set) OpenTrigger(ctx context.Context, t TriggerConfig) (triggers.Trigger, error) {
	from := findSource(t.Settings.Trigger)
	if from == nil {
		return nil, errNoKind
	}
	return from.openTrigger(ctx, s, t)
}

// OpenTriggers opens the triggers of all functions, for a command that queries the sources. done
// closes them.
func OpenTriggers(ctx context.Context, c Config) (byFunction map[string]triggers.Trigger, done func() error, err error) {
	if c.Stores == nil {
		c.Stores = new(Stores)
	}
	s, byFunction := New(c, nil, nil), make(map[string]triggers.Trigger)
	done = func() error {
		var errs []error
		for _, t := range byFunction {
			closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeLimit)
			errs = append(errs, t.Close(closing))
			cancel()
		}
		return errors.Join(errors.Join(errs...), s.Close(nil))
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, done())
		}
	}()
	names := slices.Sorted(maps.Keys(c.Settings.Functions))
	for _, name := range names {
		if err := s.OpenConnections(ctx, c.Settings.Functions[name].Connections()); err != nil {
			return nil, nil, err
		}
	}
	for _, name := range names {
		t, err := s.OpenTrigger(ctx, TriggerConfig{Function: name, Settings: c.Settings.Functions[name], Log: c.Log.With("function", name)})
		if err != nil {
			return nil, nil, fmt.Errorf("function %s: %w", name, err)
		}
		byFunction[name] = t
	}
	return byFunction, done, nil
}

// OpenOutput returns how results are sent to an output. It connects if OpenConnections has not. The
// caller sets Name and Log.
func (s *Set) OpenOutput(ctx context.Context, o configs.Output) (dispatch.OutputConfig, error) {
	for _, k := range kinds {
		if to := k.outputOf(o); to != nil {
			return to.openOutput(ctx, s)
		}
	}
	return dispatch.OutputConfig{}, errNoKind
}

func findSource(t configs.Trigger) source {
	for _, k := range kinds {
		if s := k.sourceOf(t); s != nil {
			return s
		}
	}
	return nil
}

func findConnection(c Config, name string) connection {
	for _, k := range kinds {
		if own := k.connectionOf(c, name); own != nil {
			return own
		}
	}
	return nil
}

// TraitsOf describes the messages of a trigger. It connects to nothing.
func TraitsOf(t configs.Trigger) Traits {
	if s := findSource(t); s != nil {
		return s.messageTraits()
	}
	return Traits{}
}

// ReplayKey returns the key within which dead letters are replayed in their order.
func ReplayKey(t configs.Trigger) func(*triggers.DeadLetter) string {
	if TraitsOf(t).KeyedOrder {
		return func(letter *triggers.DeadLetter) string { return letter.Message.OrderingKey }
	}
	return func(*triggers.DeadLetter) string { return "" }
}

// OpenPeeker opens a function's source for reading, without receiving. done closes it and what it
// needs.
func OpenPeeker(ctx context.Context, c Config, function string) (p triggers.Peeker, done func() error, err error) {
	from := findSource(c.Settings.Functions[function].Trigger)
	if from == nil {
		return nil, nil, errNoKind
	}
	return from.openPeeker(ctx, c)
}

// OpenDeadLetters opens the dead letters of a function. With shared, they can be replayed even if
// others receive the messages, too. The caller closes the dead letters, then calls done.
func OpenDeadLetters(ctx context.Context, c Config, function string, shared bool) (d triggers.DeadLetters, done func() error, err error) {
	from := findSource(c.Settings.Functions[function].Trigger)
	if from == nil {
		return nil, nil, errNoKind
	}
	return from.openDeadLetters(ctx, c, shared)
}

// AcceptedBy reports which parts of a message a connection accepts.
func AcceptedBy(c Config, connection string) Accepts {
	if own := findConnection(c, connection); own != nil {
		return own.acceptedParts()
	}
	return Accepts{}
}

// OpenSender opens a sender to a target. done closes it and what it needs.
func OpenSender(ctx context.Context, c Config, to Target, options SendOptions) (s dispatch.Sender, done func() error, err error) {
	own := findConnection(c, to.Connection)
	if own == nil {
		return nil, nil, errNoKind
	}
	return own.openSender(ctx, to, options)
}
