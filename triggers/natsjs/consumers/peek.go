package consumers

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/natsjs/convert"
)

// OpenPeeker returns the messages that follow the consumer's acknowledgement floor. If the
// stream keeps settled messages, some of them may be settled. It reads the stream directly:
// the server would deliver messages to a second consumer again, or refuse it. If the consumer does
// not exist yet, cfg.Subject is its filter.
func OpenPeeker(ctx context.Context, js jetstream.JetStream, cfg Config) (triggers.Peeker, error) {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	stream, err := js.Stream(ctx, cfg.Stream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, fmt.Errorf("stream %s does not exist, so nothing was ever sent to it; start the daemon once, or create it", cfg.Stream)
	}
	if err != nil {
		return nil, fmt.Errorf("stream %s: %w", cfg.Stream, err)
	}
	p := &peeker{stream: stream, cfg: cfg, consumes: jetstream.ConsumerConfig{FilterSubject: cfg.Subject}}
	p.next, p.last = stream.CachedInfo().State.FirstSeq, stream.CachedInfo().State.LastSeq
	consumer, err := stream.Consumer(ctx, cfg.Consumer)
	switch {
	case errors.Is(err, jetstream.ErrConsumerNotFound): // nothing has been received yet
	case err != nil:
		return nil, fmt.Errorf("%s: %w", cfg, err)
	default:
		info := consumer.CachedInfo()
		p.consumes, p.next = info.Config, max(p.next, info.AckFloor.Stream+1)
	}
	return p, nil
}

type peeker struct {
	stream     jetstream.Stream
	cfg        Config
	consumes   jetstream.ConsumerConfig
	next, last uint64
}

// Peek implements triggers.Peeker. Later messages have higher sequences. Each message is a round
// trip.
func (p *peeker) Peek(ctx context.Context, n int) (out []triggers.Message, err error) {
	for len(out) < n && p.next <= p.last {
		m, err := p.stream.GetMsg(ctx, p.next, WithFilter(p.consumes))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			p.next = p.last + 1
			break
		}
		if err != nil {
			return out, fmt.Errorf("reading stream %s: %w", p.cfg.Stream, err)
		}
		if p.next = m.Sequence + 1; m.Sequence > p.last || !Takes(p.consumes, m.Subject) {
			continue
		}
		message := triggers.Message{Body: m.Data, Enqueued: m.Time, Subject: m.Subject}
		convert.SetIdentity(&message, m.Header, p.cfg.Stream, m.Sequence, p.cfg.OrderingToken)
		out = append(out, message)
	}
	return out, nil
}

// Close implements triggers.Peeker. The caller owns the connection.
func (p *peeker) Close(context.Context) error { return nil }
