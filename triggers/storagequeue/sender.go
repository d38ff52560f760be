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
	failed error
}

// NewSender returns a sender.
func NewSender(cfg SenderConfig) (*Sender, error) {
	if cfg.TimeToLive > 0 && cfg.Delay >= cfg.TimeToLive {
		return nil, fmt.Errorf("sending to %s: the delay (%v) must be less than the time to live (%v)", cfg.Queue, cfg.Delay, cfg.TimeToLive)
	}
	if cfg.Delay > maxDelay {
		return nil, fmt.Errorf("sending to %s: the delay (%v) is more than the service's limit of 7 days", cfg.Queue, cfg.Delay)
	}
	q, err := cfg.Account.reach(cfg.Queue)
	if err != nil {
		return nil, fmt.Errorf("sending to %s: %w", cfg.Queue, err)
	}
	return &Sender{cfg: cfg, queue: q, room: make(chan struct{}, maxSends)}, nil
}

// Send starts sending a message. The error may be that of an earlier message. Only the Body
// is sent, because a storage queue has no attributes.
func (s *Sender) Send(ctx context.Context, out *triggers.Message) error {
	text, err := s.cfg.Encoding.encode(out.Body)
	if err != nil {
		return fmt.Errorf("sending to %s a message of %d bytes: %w", s.cfg.Queue, len(out.Body), err)
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
		err := put(ctx, text, s.cfg.Delay, s.cfg.TimeToLive)
		s.mu.Lock()
		defer s.mu.Unlock()
		if err == nil {
			s.taken++
			return
		}
		if s.failed == nil {
			s.failed = err
		}
	})
	return nil
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
