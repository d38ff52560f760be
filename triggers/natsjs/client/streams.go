package client

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// RequestLimit bounds a round trip to the server.
	RequestLimit = 10 * time.Second
	// CheckLimit bounds each request of a check. A check ignores a missing response.
	CheckLimit = 2 * time.Second
	// errWrongStream is the server's code for a message whose header expects another stream.
	errWrongStream jetstream.ErrorCode = 10060
)

// HasCode reports whether err is a response of the JetStream API with a code.
func HasCode(err error, code jetstream.ErrorCode) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) && api.ErrorCode == code
}

// NobodyTakes reports whether err means that no stream has the message's subject.
func NobodyTakes(err error) bool {
	return errors.Is(err, jetstream.ErrNoStreamResponse) || errors.Is(err, nats.ErrNoResponders)
}

// Probe reports whether a stream takes a subject, without storing a message: the message
// expects another stream in its header, so the stream refuses it. Otherwise Probe returns the
// error of the publish; NobodyTakes recognizes a subject that no stream has.
func (c *Connection) Probe(ctx context.Context, subject string) error {
	ctx, cancel := context.WithTimeout(ctx, CheckLimit)
	defer cancel()
	m := nats.NewMsg(subject)
	m.Header.Set(jetstream.ExpectedStreamHeader, "drover-check")
	asking, done := c.UntilDenied(ctx)
	defer done()
	_, err := c.js.PublishMsg(asking, m, jetstream.WithRetryAttempts(0))
	if HasCode(err, errWrongStream) {
		return nil
	}
	return WhyDenied(asking, err)
}

// CountReplicas returns the number of replicas of a stream; 1 if it cannot be read. What drover
// creates for the stream gets as many.
func (c *Connection) CountReplicas(ctx context.Context, stream string) int {
	ctx, cancel := context.WithTimeout(ctx, CheckLimit)
	defer cancel()
	s, err := c.js.Stream(ctx, stream)
	if err != nil {
		return 1
	}
	return max(s.CachedInfo().Config.Replicas, 1)
}

// RaiseReplicas raises the replicas of a stream that drover created to those of the stream that it
// belongs to. Others are left unchanged: their description does not begin with note.
func (c *Connection) RaiseReplicas(ctx context.Context, of, stream, note string, log *slog.Logger) {
	replicas := c.CountReplicas(ctx, of)
	if replicas == 1 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, RequestLimit)
	defer cancel()
	s, err := c.js.Stream(ctx, stream)
	if err != nil {
		return // it does not exist yet
	}
	cfg := s.CachedInfo().Config
	if cfg.Replicas >= replicas || !strings.HasPrefix(cfg.Description, note) {
		return
	}
	before := cfg.Replicas
	cfg.Replicas = replicas
	if _, err := c.js.UpdateStream(ctx, cfg); err != nil {
		log.Warn("a stream that belongs to this one has fewer replicas: an outage of one server takes it away", "of", stream, "replicas", before, "wanted", replicas, "error", err)
		return
	}
	log.Info("a stream that belongs to this one has more replicas now", "of", stream, "from", before, "to", replicas)
}
