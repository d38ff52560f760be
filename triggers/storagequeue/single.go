package storagequeue

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azqueue/v2"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azqueue/v2/queueerror"

	"github.com/drover-run/drover/triggers/lease"
)

// Single is a queue with exactly one message, whose text is the state of something that several
// instances share. Who has received the message holds it, until its lease expires. Nobody else
// can read it meanwhile. It is for use by one goroutine.
//
// The message and its queue are created if they are missing. Several instances may then create
// one each, as the service has no way to create only one. So a new message has the text newText,
// and means nothing, until an instance that holds all messages of the queue keeps the oldest.
type Single struct {
	cfg    SingleConfig
	queue  *reach
	misses int // in a row
}

// SingleConfig is the configuration of a Single.
type SingleConfig struct {
	Account *Account
	Queue   string
	Lease   time.Duration // whole seconds
	Log     *slog.Logger
}

const (
	newText = "new"
	// settleTime is how long the creator of a message waits for the messages of other instances.
	settleTime = 300 * time.Millisecond
	// newTime is the age from which a new message next to others is not needed.
	newTime = 10 * time.Second
	// countEvery is how many receives without a message are followed by one count, which shows
	// whether the message is gone.
	countEvery = 10
)

// NewSingle returns a Single. It sends no request.
func NewSingle(cfg SingleConfig) (*Single, error) {
	q, err := cfg.Account.reach(cfg.Queue)
	if err != nil {
		return nil, err
	}
	return &Single{cfg: cfg, queue: q}, nil
}

// ReadSingle returns the text of the message, empty if it is new. hidden is set if the message is
// held, or was hidden, or does not exist.
func (s *Single) ReadSingle(ctx context.Context) (text string, hidden bool, err error) {
	seen, err := s.queue.peek(ctx, 1)
	if queueerror.HasCode(err, queueerror.QueueNotFound) {
		return "", true, nil
	}
	if err != nil || len(seen) == 0 {
		return "", err == nil, err
	}
	return oldText(deref(seen[0].MessageText)), false, nil
}

// oldText returns the text of a message, empty if it is new.
func oldText(text string) string {
	if text == newText {
		return ""
	}
	return text
}

// HoldSingle receives the message, and returns nil if it is hidden.
func (s *Single) HoldSingle(ctx context.Context) (*HeldSingle, error) {
	all, err := s.queue.get(ctx, maxGet, s.cfg.Lease)
	if queueerror.HasCode(err, queueerror.QueueNotFound) {
		if err = s.queue.make(ctx); err == nil {
			return s.create(ctx)
		}
	}
	if err != nil {
		return nil, err
	}
	if len(all) > 0 {
		return s.choose(ctx, all)
	}
	if s.misses++; s.misses%countEvery != 1 {
		return nil, nil
	}
	n, err := s.queue.count(ctx) // never less than there are
	if err != nil || n > 0 {
		return nil, err
	}
	return s.create(ctx)
}

// create adds a message, and receives all.
func (s *Single) create(ctx context.Context) (*HeldSingle, error) {
	if _, err := s.queue.put(ctx, newText, 0, forever); err != nil {
		return nil, err
	}
	wait := time.NewTimer(settleTime + rand.N(settleTime))
	defer wait.Stop()
	select {
	case <-wait.C:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	all, err := s.queue.get(ctx, maxGet, s.cfg.Lease)
	if err != nil || len(all) == 0 {
		return nil, err
	}
	return s.choose(ctx, all)
}

// choose keeps one of the messages that were received, and deletes the others. A new one is kept
// only if there are no others.
func (s *Single) choose(ctx context.Context, all []*azqueue.DequeuedMessage) (*HeldSingle, error) {
	s.misses = 0
	slices.SortFunc(all, func(a, b *azqueue.DequeuedMessage) int {
		isNew := func(m *azqueue.DequeuedMessage) int {
			if deref(m.MessageText) == newText {
				return 1
			}
			return 0
		}
		return cmp.Or(cmp.Compare(isNew(a), isNew(b)), deref(a.InsertionTime).Compare(deref(b.InsertionTime)), cmp.Compare(deref(a.MessageID), deref(b.MessageID)))
	})
	for _, m := range all[1:] {
		if err := s.queue.remove(ctx, deref(m.MessageID), deref(m.PopReceipt)); err != nil && !stale(err) {
			return nil, err
		}
	}
	h := &HeldSingle{s: s, id: deref(all[0].MessageID), receipt: deref(all[0].PopReceipt), text: deref(all[0].MessageText)}
	if h.text != newText {
		return h, nil
	}
	n, err := s.queue.count(ctx)
	if err != nil || n <= 1 {
		return h, err
	}
	// Another instance holds another message. Both make theirs visible again, until one has both.
	if time.Since(deref(all[0].InsertionTime)) > newTime {
		err = s.queue.remove(ctx, h.id, h.receipt)
	} else {
		_, err = s.queue.hide(ctx, h.id, h.receipt, rand.N(2*time.Second))
	}
	if stale(err) {
		err = nil
	}
	return nil, err
}

// HeldSingle is the message while it is held. Its methods are called one at a time.
type HeldSingle struct {
	s                 *Single
	id, receipt, text string
}

// Text returns the text of the message, empty if it is new.
func (h *HeldSingle) Text() string { return oldText(h.text) }

// RenewLease holds the message for another lease. The error wraps lease.ErrLost if another
// instance may hold it.
func (h *HeldSingle) RenewLease(ctx context.Context) error {
	receipt, err := h.s.queue.hide(ctx, h.id, h.receipt, h.s.cfg.Lease)
	if err != nil {
		return lostIfStale(err)
	}
	h.receipt = receipt
	return nil
}

// EndLease replaces the text, and hides the message for a while: whole seconds, rounded down, up to
// seven days. The error wraps lease.ErrLost if another instance may hold the message.
func (h *HeldSingle) EndLease(ctx context.Context, text string, hidden time.Duration) error {
	_, err := h.s.queue.update(ctx, h.id, h.receipt, text, hidden.Truncate(time.Second))
	return lostIfStale(err)
}

// lostIfStale turns the error of an invalid receipt into lease.ErrLost.
func lostIfStale(err error) error {
	if stale(err) {
		return fmt.Errorf("%w: %w", lease.ErrLost, err)
	}
	return err
}
