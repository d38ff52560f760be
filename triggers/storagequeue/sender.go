package storagequeue

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/drover-run/drover/triggers"
)

// SenderConfig configures a Sender.
type SenderConfig struct {
	Account  *Account
	Queue    string
	Encoding Encoding
	// Delay is how long a message is hidden. TimeToLive is when it expires; 0 is never.
	Delay, TimeToLive time.Duration
	// Create creates the queue if it is missing.
	Create bool
}

// DefaultTimeToLive is the default of the service.
const DefaultTimeToLive = 7 * 24 * time.Hour

// maxSends bounds the sends in flight. The service accepts one message per request.
const maxSends = 32

// Sender sends messages to a queue concurrently, and counts those that the service has
// accepted. It is used by one goroutine.
type Sender struct {
	cfg   SenderConfig
	queue *reach
	room  chan struct{}
	busy  sync.WaitGroup

	mu     sync.Mutex
	taken  int64
	lastID string
	failed error
}

// NewSender returns a sender.
func NewSender(cfg SenderConfig) (*Sender, error) {
	if cfg.TimeToLive > 0 && cfg.Delay >= cfg.TimeToLive {
		return nil, fmt.Errorf("sending to %s: the delay (%v) must be less than the time to live (%v)", cfg.Queue, cfg.Delay, cfg.TimeToLive)
	}
	if cfg.Delay > MaxDelay {
		return nil, fmt.Errorf("sending to %s: the delay (%v) is more than the service's limit of 7 days", cfg.Queue, cfg.Delay)
	}
	q, err := cfg.Account.reach(cfg.Queue)
	if err != nil {
		return nil, fmt.Errorf("sending to %s: %w", cfg.Queue, err)
	}
	return &Sender{cfg: cfg, queue: q, room: make(chan struct{}, maxSends)}, nil
}

// Send starts sending a message. The error may be that of an earlier message. Only the Body
// is sent, because a storage queue has no attributes. The properties ScheduledAt and TimeToLive
// replace Delay and TimeToLive of the configuration.
func (s *Sender) Send(ctx context.Context, out *triggers.Message) error {
	text, err := s.cfg.Encoding.encode(out.Body)
	if err != nil {
		return fmt.Errorf("sending to %s a message of %d bytes: %w", s.cfg.Queue, len(out.Body), err)
	}
	delay, life, err := s.schedule(out.Properties())
	if err != nil {
		return fmt.Errorf("sending to %s: %w", s.cfg.Queue, err)
	}
	s.mu.Lock()
	err = s.failed
	s.mu.Unlock()
	if err != nil {
		return err
	}
	select {
	case s.room <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	s.busy.Go(func() {
		defer func() { <-s.room }()
		put := s.queue.put
		if s.cfg.Create {
			put = s.queue.putOrCreate
		}
		id, err := put(ctx, text, delay, life)
		s.mu.Lock()
		defer s.mu.Unlock()
		if err == nil {
			s.taken++
			s.lastID = id
			return
		}
		if s.failed == nil {
			s.failed = err
		}
	})
	return nil
}

// schedule returns for how long a message is hidden, and when it expires. The error is a
// triggers.ErrProperty.
func (s *Sender) schedule(known triggers.Properties) (delay, life time.Duration, err error) {
	delay, life = s.cfg.Delay, s.cfg.TimeToLive
	at, given, err := triggers.ReadSchedule(known)
	if err != nil {
		return 0, 0, err
	}
	if !at.IsZero() {
		delay = max(time.Until(at), 0)
	}
	switch {
	case given > 0:
		life = given
	case life == DefaultTimeToLive:
		life += delay // it starts when the message can be received
	}
	switch {
	case delay > MaxDelay:
		return 0, 0, fmt.Errorf("%w: %s is %s, and a storage queue hides a message for at most 7 days", triggers.ErrProperty, triggers.ScheduledAt, known[triggers.ScheduledAt])
	case life > 0 && delay >= life:
		return 0, 0, fmt.Errorf("%w: the message would expire after %v, before it can be received, after %v", triggers.ErrProperty, life, delay.Round(time.Second))
	}
	return delay, life, nil
}

// Flush waits until the service has accepted or refused all messages. Refused messages are
// dropped.
func (s *Sender) Flush(context.Context) error {
	s.busy.Wait()
	if s.cfg.Delay <= 0 {
		s.cfg.Account.wakeTriggers(s.cfg.Queue)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.failed
	s.failed = nil
	return err
}

// ConfirmedCount returns the number of messages that the service has accepted.
func (s *Sender) ConfirmedCount() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.taken
}

// LastID returns the ID that the service assigned to the message of the last Flush, which must have had
// only one.
func (s *Sender) LastID() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lastID
}
