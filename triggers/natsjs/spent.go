package natsjs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/natsjs/client"
	"github.com/drover-run/drover/triggers/natsjs/consumers"
	"github.com/drover-run/drover/triggers/natsjs/convert"
	"github.com/drover-run/drover/triggers/natsjs/ledger"
)

// A consumer with a finite max_deliver stops delivering a message after that many deliveries:
// neither a retry nor a restart brings it back. So an unsettled message is dead-lettered at its last
// delivery. If the daemon was killed during that delivery, the server's advisory reports the message.
// A scan of the stream finds it, too: a message of a work queue that is still in the stream, behind
// the acknowledgement floor, was given up.

const (
	// spentFirst is the time until the second scan of a stream, and spentEvery that between later
	// ones. A message counts as given up if two scans find it: its acknowledgement may be in transit.
	spentFirst = 2 * time.Second
	spentEvery = 30 * time.Second
	// maxSpent bounds the messages that one scan finds.
	maxSpent = 1000
)

// spentWatch dead-letters the messages of a consumer that the server has given up. It starts when
// the consumer first has a bound.
type spentWatch struct {
	*binding
	settler *settler
	started sync.Once
	given   map[place]bool // messages dead-lettered because the server had given them up; guarded by mu
}

// startOnce starts watching, at the first call.
func (w *spentWatch) startOnce() { w.started.Do(func() { w.running.Go(func() { w.watch(w.ctx) }) }) }

// watch dead-letters messages that the server has given up. It returns when the trigger ends.
func (w *spentWatch) watch(ctx context.Context) {
	given := make(chan uint64, maxSpent)
	subject := "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES." + w.cfg.Stream + "." + w.cfg.Consumer
	sub, err := w.conn.Conn().Subscribe(subject, func(m *nats.Msg) {
		var advisory struct {
			Sequence uint64 `json:"stream_seq"`
		}
		if json.Unmarshal(m.Data, &advisory) == nil {
			select {
			case given <- advisory.Sequence:
			default: // a scan of the stream finds it
			}
		}
	})
	if err != nil {
		w.log.Warn("cannot subscribe to the server's advisories of messages that it has given up", "subject", subject, "error", err)
	} else {
		defer func() { _ = sub.Unsubscribe() }()
	}
	look := time.NewTimer(0)
	defer look.Stop()
	var before map[place]bool
	for {
		select {
		case <-ctx.Done():
			return
		case sequence := <-given:
			w.warn(w.giveUp(ctx, sequence))
		case <-look.C:
			now, err := w.scan(ctx, before)
			w.warn(err)
			look.Reset(spentEvery)
			if before == nil && len(now) > 0 {
				look.Reset(spentFirst)
			}
			before = now
		}
	}
}

func (w *spentWatch) warn(err error) {
	if err != nil && w.ctx.Err() == nil {
		w.log.Warn("cannot dead-letter a message that the server has given up; will try again", "error", err)
	}
}

// scan returns the messages of a work queue that the server seems to have given up, and
// dead-letters those that are also in before, the result of the previous scan.
func (w *spentWatch) scan(ctx context.Context, before map[place]bool) (map[place]bool, error) {
	w.mu.Lock()
	consumer, limit, sure := w.consumer, w.maxDeliver, w.isVerified()
	w.mu.Unlock()
	if consumer == nil || limit <= 0 || !sure {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, 2*client.RequestLimit)
	defer cancel()
	stream, err := w.conn.JetStream().Stream(ctx, w.cfg.Stream)
	if err != nil {
		return nil, fmt.Errorf("stream %s: %w", w.cfg.Stream, err)
	}
	info, err := consumer.Info(ctx)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", w.cfg, err)
	}
	found, end := make(map[place]bool), consumers.SpentUpTo(stream.CachedInfo().Config, info)
	for next := stream.CachedInfo().State.FirstSeq; next <= end && len(found) < maxSpent; {
		m, err := stream.GetMsg(ctx, next, consumers.WithFilter(info.Config))
		if errors.Is(err, jetstream.ErrMsgNotFound) || err == nil && m.Sequence > end {
			break
		}
		if err != nil {
			return found, fmt.Errorf("reading stream %s at %d: %w", w.cfg.Stream, next, err)
		}
		next = m.Sequence + 1
		if p := (place{m.Sequence, m.Time.UnixNano()}); consumers.Takes(info.Config, m.Subject) {
			found[p] = true
			if before[p] {
				if err := w.giveUp(ctx, m.Sequence); err != nil {
					return found, err
				}
			}
		}
	}
	return found, nil
}

// giveUp dead-letters a message that the server no longer delivers.
func (w *spentWatch) giveUp(ctx context.Context, sequence uint64) error {
	ctx, cancel := context.WithTimeout(ctx, client.RequestLimit)
	defer cancel()
	stream, err := w.conn.JetStream().Stream(ctx, w.cfg.Stream)
	if err != nil {
		return fmt.Errorf("stream %s: %w", w.cfg.Stream, err)
	}
	m, err := stream.GetMsg(ctx, sequence)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading stream %s at %d: %w", w.cfg.Stream, sequence, err)
	}
	w.mu.Lock()
	own, limit := w.life, w.maxDeliver
	at := place{sequence, m.Time.UnixNano()}
	_, acknowledged := w.settler.acks.again[at]
	skip := own == nil || !w.isVerified() || own.stream != stream.CachedInfo().Created || w.settler.leases.has(at) || acknowledged || w.given[at]
	w.mu.Unlock()
	if skip { // if the message is in flight here, its verdict follows
		return nil
	}
	reply := fmt.Sprintf("$JS.ACK.%s.%s.%d.%d.%d.%d.0", w.cfg.Stream, w.cfg.Consumer, limit, sequence, sequence, at.enqueued)
	l, err := newLeasedMessage(w.settler, &nats.Msg{Subject: m.Subject, Header: m.Header, Data: m.Data, Reply: reply})
	if err != nil {
		return err
	}
	l.life = own
	failures := max(w.settler.ledger.Find(ctx, ledger.Message{Sequence: sequence, Enqueued: m.Time, Created: own.consumer}), 0)
	l.message.Attempt = failures
	reason := spentReason(w.cfg.Consumer, limit, failures)
	if err := w.settler.bury(ctx, l, &l.message, triggers.Verdict{Kind: triggers.Reject, Reason: reason, Function: w.cfg.Function}); err != nil {
		return err
	}
	w.mu.Lock()
	if w.given == nil {
		w.given = make(map[place]bool)
	}
	w.given[at] = true
	w.mu.Unlock()
	w.log.Error("message dead-lettered", "message", l.message.ID, "failures", failures, "reason", reason)
	return l.sendReply([]byte("+TERM "+convert.OneLine(reason, 200)), true)
}

func spentNote(consumer string, limit int) string {
	return fmt.Sprintf("max_deliver of its consumer %s is %d: the server delivers a message that many times, including after restarts and stops, and then never again; a message that is not done by then is dead-lettered", consumer, limit)
}
