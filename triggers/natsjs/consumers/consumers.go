// Package consumers finds, creates and checks JetStream consumers, and reads the messages of their
// streams without receiving them.
package consumers

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Config is a durable pull consumer, and the settings that drover expects of it.
type Config struct {
	Stream   string
	Subject  string // the consumer's filter; empty: any filter
	Consumer string
	// Create creates the stream and the consumer if they are missing. Existing ones are used
	// unchanged.
	Create  bool
	AckWait time.Duration
	// OrderingToken is the position, counted from 1, of the subject's token that is the ordering
	// key; 0 disables the order.
	OrderingToken int
	// MaxAttempts is only checked against the consumer's MaxDeliver.
	MaxAttempts int
}

// String names the consumer and its stream in errors.
func (c Config) String() string { return "consumer " + c.Consumer + " of stream " + c.Stream }

// ownNote is the description of the streams and consumers that drover creates.
const ownNote = "made by drover"

// IsOwn reports whether drover created the stream or the consumer with this description.
func IsOwn(description string) bool { return description == ownNote }

// startLimit bounds the checks of a consumer at the start.
const startLimit = 30 * time.Second

// Open returns a consumer and its stream. If Create is set, it creates missing ones. It
// returns an error if the consumer's settings conflict with the configuration.
func Open(ctx context.Context, js jetstream.JetStream, cfg Config, log *slog.Logger) (jetstream.Stream, jetstream.Consumer, error) {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	stream, err := findStream(ctx, js, cfg)
	if err != nil {
		return nil, nil, err
	}
	consumer, err := openConsumer(ctx, stream, cfg, log)
	return stream, consumer, err
}

func openConsumer(ctx context.Context, stream jetstream.Stream, cfg Config, log *slog.Logger) (jetstream.Consumer, error) {
	consumer, err := stream.Consumer(ctx, cfg.Consumer)
	switch {
	case errors.Is(err, jetstream.ErrNotPullConsumer):
		return nil, fmt.Errorf("%s is a push consumer; drover needs a pull consumer: name another, or remove it", cfg)
	case errors.Is(err, jetstream.ErrConsumerNotFound) && cfg.Create:
		consumer, err = stream.CreateConsumer(ctx, jetstream.ConsumerConfig{
			Durable:       cfg.Consumer,
			Description:   ownNote,
			AckPolicy:     jetstream.AckExplicitPolicy,
			AckWait:       cfg.AckWait,
			MaxDeliver:    -1, // drover counts attempts
			MaxAckPending: -1, // messages that wait for a retry count, and must not block others
			FilterSubject: cfg.Subject,
		})
		if err != nil {
			return nil, fmt.Errorf("making %s: %w", cfg, err)
		}
		return consumer, nil
	case errors.Is(err, jetstream.ErrConsumerNotFound):
		return nil, fmt.Errorf("%s does not exist; create it, or set create: true", cfg)
	case err != nil:
		return nil, fmt.Errorf("%s: %w", cfg, err)
	}
	if wrong := Conflicts(consumer.CachedInfo().Config, cfg); len(wrong) > 0 {
		return nil, fmt.Errorf("%s does not fit: %s", cfg, strings.Join(wrong, "; "))
	}
	if pending := consumer.CachedInfo().Config.MaxAckPending; pending > 0 && pending < 100 {
		log.Warn("the consumer's max_ack_pending bounds what can be in flight, and what waits for a retry", "max_ack_pending", pending)
	}
	if most := consumer.CachedInfo().Config.MaxDeliver; most > 0 {
		log.Warn("the consumer's max_deliver also bounds restarts: the server counts every delivery, and a message that is not done after the last is dead-lettered; -1 is no bound",
			"max_deliver", most, "max_attempts", cfg.MaxAttempts)
	}
	return consumer, nil
}

// Conflicts lists the settings of a consumer that conflict with the configuration.
func Conflicts(have jetstream.ConsumerConfig, cfg Config) (wrong []string) {
	say := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	if have.AckPolicy != jetstream.AckExplicitPolicy {
		say("its ack policy is %v and must be explicit", have.AckPolicy)
	}
	if have.AckWait != cfg.AckWait {
		say("its ack wait is %v and ack_wait here is %v: make them equal", have.AckWait, cfg.AckWait)
	}
	if have.MaxDeliver > 0 && have.MaxDeliver <= cfg.MaxAttempts {
		say("its max_deliver is %d and must be above retry.max_attempts (%d), or -1: the server counts every delivery, and drover failures only",
			have.MaxDeliver, cfg.MaxAttempts)
	}
	if have.PriorityPolicy != jetstream.PriorityPolicyNone || len(have.PriorityGroups) > 0 {
		say("it has priority groups (%s), whose requests drover does not make: use a consumer without them", strings.Join(have.PriorityGroups, ", "))
	}
	if len(have.BackOff) > 0 {
		say("it has a backoff, which replaces its ack wait: remove it; drover delays retries itself")
	}
	if filters := filtersOf(have); cfg.Subject != "" && !slices.Contains(filters, cfg.Subject) && len(filters) > 0 {
		say("it consumes %s and subject here is %s", strings.Join(filters, ", "), cfg.Subject)
	}
	return wrong
}

func findStream(ctx context.Context, js jetstream.JetStream, cfg Config) (jetstream.Stream, error) {
	stream, err := js.Stream(ctx, cfg.Stream)
	switch {
	case err == nil:
		return stream, nil
	case errors.Is(err, jetstream.ErrStreamNotFound) && cfg.Create:
		stream, err = js.CreateStream(ctx, jetstream.StreamConfig{
			Name:        cfg.Stream,
			Description: ownNote,
			Subjects:    []string{cfg.Subject},
			Retention:   jetstream.WorkQueuePolicy, // a queue: settled messages are deleted
			Storage:     jetstream.FileStorage,
		})
		if err != nil {
			return nil, fmt.Errorf("making the stream %s for %s: %w", cfg.Stream, cfg.Subject, err)
		}
		return stream, nil
	case errors.Is(err, jetstream.ErrStreamNotFound):
		return nil, fmt.Errorf("stream %s does not exist; create it, or set create: true", cfg.Stream)
	case errors.Is(err, jetstream.ErrJetStreamNotEnabled), errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount):
		return nil, fmt.Errorf("stream %s: %w; drover needs JetStream", cfg.Stream, err)
	}
	return nil, fmt.Errorf("stream %s: %w", cfg.Stream, err)
}
