package storagequeue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azqueue/v2"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azqueue/v2/queueerror"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/lease"
	"github.com/drover-run/drover/triggers/storagequeue/reasons"
)

// This file reads a poison queue for an operator. The service shows at most 32 messages
// without changing them. To list more, they are received: hidden for deadLease, and
// released at the end.

// DeadLettersConfig identifies the dead letters of a queue.
type DeadLettersConfig struct {
	Account      *Account
	Queue        string
	PoisonQueue  string
	PoisonFormat PoisonFormat
	Encoding     Encoding
	// Reasons are why messages were rejected, by their IDs in the poison queue, if that has bodies
	// alone.
	Reasons map[string]reasons.Reason
}

// deadLease is how long a dead letter stays hidden if the command that received it was
// killed.
const deadLease = 2 * time.Minute

// OpenDeadLetters returns the dead letters of a queue. It sends no request.
func OpenDeadLetters(cfg DeadLettersConfig) (triggers.DeadLetters, error) {
	d := &deadLetters{cfg: cfg, seen: make(map[string]bool), swept: make(map[string]bool), taken: make(map[string]receipt), copies: make(map[string]bool)}
	var err error
	if d.queue, err = cfg.Account.reach(cfg.Queue); err == nil {
		d.poison, err = cfg.Account.reach(cfg.PoisonQueue)
	}
	if err != nil {
		return nil, fmt.Errorf("the dead letters of %s: %w", cfg.Queue, err)
	}
	return d, nil
}

type deadLetters struct {
	cfg           DeadLettersConfig
	queue, poison *reach

	// Used by Browse only.
	began time.Time // by the server's clock, of whole seconds
	ended bool
	seen  map[string]bool // dead letters returned or omitted
	swept map[string]bool // dead letters received

	taking sync.Mutex // held while receiving

	mu     sync.Mutex
	came   []*azqueue.DequeuedMessage // received, for Browse
	taken  map[string]receipt         // by the ID of the dead letter
	copies map[string]bool            // the IDs of the replayed messages
}

// receipt authorizes requests on a dead letter that is hidden here.
type receipt struct {
	text string
	from time.Time
}

// Browse implements triggers.DeadLetters. It peeks at a first page of up to 32, without receiving
// it. It omits messages added after the first call. It also omits messages that were replayed
// here and failed again, if they are envelopes.
func (d *deadLetters) Browse(ctx context.Context, n int) ([]triggers.DeadLetter, error) {
	if d.ended {
		return nil, nil
	}
	first := d.began.IsZero()
	if first {
		var err error
		if d.began, err = d.poison.clock(ctx); queueerror.HasCode(err, queueerror.QueueNotFound) {
			d.ended = true
			return nil, nil
		} else if err != nil && !forbidden(err) {
			return nil, err
		} else if err != nil {
			d.began = time.Now()
		}
	}
	if first && n <= maxGet {
		return d.look(ctx, n)
	}
	var out []triggers.DeadLetter
	for known := 0; len(out) < n; {
		m := d.next()
		if m == nil {
			got, err := d.receive(ctx)
			if err != nil {
				return nil, err
			}
			if d.ended = len(got) == 0 || known > len(d.swept); d.ended {
				break
			}
			continue
		}
		id := deref(m.MessageID)
		if known++; !d.swept[id] {
			known = 0
			d.swept[id] = true // if it was swept before, its lease has expired
		}
		if d.seen[id] {
			continue
		}
		if l, ok := d.letter(id, deref(m.MessageText), deref(m.InsertionTime)); ok {
			out = append(out, l)
		}
	}
	return out, nil
}

// next returns the next received message that was not browsed; nil if there is none.
func (d *deadLetters) next() *azqueue.DequeuedMessage {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.came) == 0 {
		return nil
	}
	m := d.came[0]
	d.came = d.came[1:]
	return m
}

// look returns a page of peeked messages.
func (d *deadLetters) look(ctx context.Context, n int) (out []triggers.DeadLetter, err error) {
	seen, err := d.poison.peek(ctx, n)
	if err != nil {
		return nil, err
	}
	d.ended = len(seen) < n
	for _, m := range seen {
		if l, ok := d.letter(deref(m.MessageID), deref(m.MessageText), deref(m.InsertionTime)); ok {
			out = append(out, l)
		}
	}
	if len(out) == 0 && !d.ended {
		return d.Browse(ctx, n)
	}
	return out, nil
}

// own identifies a dead letter to Replay.
type own struct {
	d    *deadLetters
	text string // of the message, as it is stored in the queue
}

// letter parses a dead letter; false if Browse omits it.
func (d *deadLetters) letter(id, text string, inserted time.Time) (triggers.DeadLetter, bool) {
	d.seen[id] = true
	if inserted.After(d.began) {
		return triggers.DeadLetter{}, false
	}
	out := triggers.DeadLetter{ID: id, Died: inserted, Own: own{d, text}, Message: triggers.Message{ID: id, Subject: d.cfg.Queue}}
	body, err := d.cfg.Encoding.decode(text)
	if err != nil {
		body = []byte(text) // it was rejected because it cannot be decoded
	}
	out.Message.Body = body
	if r, known := d.cfg.Reasons[id]; known {
		out.Reason, out.Detail, out.Function, out.Message.Attempt, out.Message.Enqueued = r.Error, r.Traceback, r.Function, r.Attempts, r.Enqueued
		if r.Message != "" {
			out.Message.ID = r.Message // the one that the log has
		}
	}
	var e Envelope
	if d.cfg.PoisonFormat != PoisonEnvelope || json.Unmarshal(body, &e) != nil || e.Queue != d.cfg.Queue || e.ID == "" || e.Rejected.IsZero() {
		return out, true
	}
	d.mu.Lock()
	again := d.copies[e.ID]
	d.mu.Unlock()
	if out.Message.Body = []byte(e.Body); e.BodyBase64 != nil {
		out.Message.Body = e.BodyBase64
	}
	out.Message.ID, out.Message.Enqueued, out.Message.Attempt = e.ID, e.Enqueued, e.Attempts
	out.Reason, out.Detail, out.Function, out.Died = e.Error, e.Traceback, e.Function, e.Rejected
	// Replay sends the original body, in the encoding of the queue.
	if text, err = d.cfg.Encoding.encode(out.Message.Body); err == nil {
		out.Own = own{d, text}
	}
	return out, !again
}

// receive leases dead letters, and stores their receipts.
func (d *deadLetters) receive(ctx context.Context) ([]*azqueue.DequeuedMessage, error) {
	asked := time.Now()
	got, err := d.poison.get(ctx, maxGet, deadLease)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, m := range got {
		d.taken[deref(m.MessageID)] = receipt{deref(m.PopReceipt), asked}
	}
	d.came = append(d.came, got...)
	return got, nil
}

// take leases a dead letter; false if it does not exist, or another receiver has it.
func (d *deadLetters) take(ctx context.Context, id string) (string, bool, error) {
	d.taking.Lock()
	defer d.taking.Unlock()
	seen := make(map[string]bool)
	for known := 0; ; {
		if text, ok, err := d.claim(ctx, id); ok || err != nil {
			return text, ok, err
		}
		got, err := d.receive(ctx)
		if err != nil {
			return "", false, err
		}
		for _, m := range got {
			if seen[deref(m.MessageID)] {
				known++
			} else {
				known = 0
				seen[deref(m.MessageID)] = true
			}
		}
		if len(got) == 0 || known >= len(seen) {
			return "", false, nil
		}
	}
}

// claim returns the receipt of a dead letter that is leased here. It renews the lease if half of
// its time is over.
func (d *deadLetters) claim(ctx context.Context, id string) (string, bool, error) {
	d.mu.Lock()
	r, ok := d.taken[id]
	delete(d.taken, id)
	d.mu.Unlock()
	if !ok || time.Since(r.from) < deadLease/2 {
		return r.text, ok, nil
	}
	text, err := d.poison.hide(ctx, id, r.text, deadLease)
	if stale(err) {
		return "", false, nil
	}
	return text, err == nil, err
}

// Replay implements triggers.DeadLetters. It leases the dead letter, sends a copy to the queue, and
// deletes the dead letter. It cannot distinguish the copy of an earlier, killed run from other
// messages.
func (d *deadLetters) Replay(ctx context.Context, l triggers.DeadLetter, tried time.Time) error {
	o, ok := l.Own.(own)
	if !ok || o.d != d {
		return fmt.Errorf("dead letter %s is not of %s", l.ID, d.cfg.PoisonQueue)
	}
	if !tried.IsZero() {
		return fmt.Errorf("replaying dead letter %s of %s: %w", l.ID, d.cfg.PoisonQueue, triggers.ErrDoubtful)
	}
	right, there, err := d.take(ctx, l.ID)
	if err != nil || !there {
		return err
	}
	id, err := d.queue.put(ctx, o.text, 0, DefaultTimeToLive)
	if err != nil {
		d.mu.Lock()
		d.taken[l.ID] = receipt{right, time.Time{}} // Close releases it
		d.mu.Unlock()
		return fmt.Errorf("replaying dead letter %s of %s: %w", l.ID, d.cfg.PoisonQueue, err)
	}
	d.mu.Lock()
	d.copies[id] = true
	d.mu.Unlock()
	return d.removeLeased(ctx, l.ID, right)
}

// Remove implements triggers.DeadLetters.
func (d *deadLetters) Remove(ctx context.Context, l triggers.DeadLetter) error {
	right, there, err := d.take(ctx, l.ID)
	if err != nil || !there {
		return err
	}
	return d.removeLeased(ctx, l.ID, right)
}

func (d *deadLetters) removeLeased(ctx context.Context, id, right string) error {
	err := d.poison.remove(ctx, id, right)
	if !stale(err) {
		return err
	}
	right, there, err := d.take(ctx, id) // its lease has expired
	if err != nil || !there {
		return err
	}
	return d.poison.remove(ctx, id, right)
}

// Close implements triggers.DeadLetters.
func (d *deadLetters) Close(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var all sync.WaitGroup
	room := make(chan struct{}, lease.MaxConcurrent)
	errs := make(chan error, len(d.taken))
	for id, r := range d.taken {
		room <- struct{}{}
		all.Go(func() {
			defer func() { <-room }()
			if _, err := d.poison.hide(ctx, id, r.text, 0); err != nil && !stale(err) {
				errs <- err
			}
		})
	}
	all.Wait()
	close(errs)
	clear(d.taken)
	var out []error
	for err := range errs {
		out = append(out, err)
	}
	if len(out) > 0 {
		return fmt.Errorf("%d dead letters of %s could not be released, and are hidden for %v: %w", len(out), d.cfg.PoisonQueue, deadLease, errors.Join(out[0]))
	}
	return nil
}

// clock returns the server's time, in whole seconds.
func (r *reach) clock(ctx context.Context) (time.Time, error) {
	var now time.Time
	err := r.do("looking into", peek, func(c *azqueue.QueueClient) error {
		got, err := c.GetProperties(ctx, nil)
		if now = time.Now(); err == nil && got.Date != nil {
			now = *got.Date
		}
		return err
	})
	return now, err
}
