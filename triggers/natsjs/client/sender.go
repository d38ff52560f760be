package client

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/natsjs/convert"
	"github.com/drover-run/drover/triggers/natsjs/schedules"
)

// ErrNoStream is returned if no stream has the subject.
var ErrNoStream = errors.New("no stream takes this subject")

// headerName matches the header names that both HTTP and NATS allow.
var headerName = regexp.MustCompile("^[-_.!#$%&'*+^`|~0-9A-Za-z]+$")

// maxUnconfirmed bounds the unconfirmed messages of a Sender.
const maxUnconfirmed = 2048

// Sender publishes messages asynchronously, and counts those that the server has confirmed. It is
// used by one goroutine.
type Sender struct {
	c       *Connection
	open    []jetstream.PubAckFuture
	taken   int64
	planner *schedules.Planner
	header  nats.Header       // of the latest message
	ack     *jetstream.PubAck // the latest confirmation
}

// NewSender returns a sender on the connection.
func (c *Connection) NewSender() *Sender {
	return &Sender{c: c, planner: schedules.NewPlanner(c.js)}
}

// Send publishes a message, and may return before the server has confirmed it. The error may be
// that of an earlier message. It wraps ErrNoStream if no stream takes the subject. Send uses
// Subject, Body, Attributes, those Properties that correspond to a header, and ScheduledAt.
func (s *Sender) Send(ctx context.Context, out *triggers.Message) error {
	if len(s.open) >= maxUnconfirmed {
		if err := s.confirm(ctx, maxUnconfirmed/2); err != nil {
			return err
		}
	}
	m := &nats.Msg{Subject: out.Subject, Data: out.Body}
	known := out.Properties()
	if len(out.Attributes) > 0 || len(known) > 0 {
		m.Header = make(nats.Header, len(out.Attributes)+len(known))
		for name, value := range known {
			if header := triggers.Header(name); header != "" {
				m.Header[header] = []string{value}
			}
		}
		for _, name := range slices.Sorted(maps.Keys(out.Attributes)) {
			if !headerName.MatchString(name) {
				return fmt.Errorf("sending: %q cannot be the name of a header: letters, digits and -_.!#$%%&'*+^`|~ can be in one", name)
			}
			m.Header[name] = out.Values(name)
		}
	}
	if err := s.delay(ctx, m, known); err != nil {
		return err
	}
	s.header = m.Header
	future, err := s.c.js.PublishMsgAsync(m)
	if errors.Is(err, nats.ErrMaxPayload) {
		return fmt.Errorf("sending a message of %d bytes: %w for the server's max_payload", len(out.Body), triggers.ErrTooLarge)
	}
	if err != nil {
		return fmt.Errorf("sending: %w", err)
	}
	s.open = append(s.open, future)
	return nil
}

// delay changes a message with the property ScheduledAt so that the server holds it until then.
func (s *Sender) delay(ctx context.Context, m *nats.Msg, known triggers.Properties) error {
	at, _, err := triggers.ReadSchedule(known)
	if err != nil {
		return fmt.Errorf("sending: %w", err)
	}
	if !at.After(time.Now()) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, RequestLimit)
	defer cancel()
	asking, done := s.c.UntilDenied(ctx)
	defer done()
	err = WhyDenied(asking, s.planner.Delay(asking, m, at))
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound):
		return ErrNoStream
	case err != nil:
		return fmt.Errorf("scheduling a message: %w", err)
	}
	return nil
}

// confirm waits for the confirmation of the first n messages in transit.
func (s *Sender) confirm(ctx context.Context, n int) error {
	defer func() { s.open = slices.Delete(s.open, 0, n) }()
	var first error
	for _, future := range s.open[:n] {
		select {
		case s.ack = <-future.Ok():
			s.taken++
		case err := <-future.Err():
			if NobodyTakes(err) {
				err = ErrNoStream
			}
			if errors.Is(err, jetstream.ErrAsyncPublishTimeout) {
				err = fmt.Errorf("the server did not confirm a message within %v; is it away, or its disk full?", confirmLimit)
			}
			first = errors.Join(first, err)
		case <-ctx.Done():
			return errors.Join(first, ctx.Err())
		}
		if first != nil {
			return first
		}
	}
	return nil
}

// Flush waits until the server has confirmed all messages.
func (s *Sender) Flush(ctx context.Context) error { return s.confirm(ctx, len(s.open)) }

// ConfirmedCount returns the number of confirmed messages.
func (s *Sender) ConfirmedCount() int64 { return s.taken }

// LastID returns the ID of the latest message, as its function will get it; empty if it is not known yet,
// because the server holds the message until it is due. It is called after a Flush of one message.
func (s *Sender) LastID() string {
	switch id := convert.IDOf(s.header); {
	case schedules.IsHeld(s.header) || s.ack == nil:
		return ""
	case id != "":
		return id
	}
	return fmt.Sprintf("%s:%d", s.ack.Stream, s.ack.Sequence)
}
