package natsjs

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/drover-run/drover/triggers/natsjs/client"
	"github.com/drover-run/drover/triggers/natsjs/consumers"
)

// verifyEvery is how often the life is verified while messages are in flight.
const verifyEvery = time.Second

// keeper looks the consumer up, and runs a goroutine beside Receive. The goroutine renews leases,
// verifies the life of stream and consumer, repeats acknowledgements after an outage, and sets the
// prefetch. When the life has ended, the keeper drops the state of all parts.
type keeper struct {
	*binding
	intake  *intake
	settler *settler
	spent   *spentWatch
}

// run is that goroutine.
func (k *keeper) run(ctx context.Context) {
	ackWait := k.ackWait.Load()
	pace := func() time.Duration { return max(time.Duration(ackWait)/6, 10*time.Millisecond) }
	renewals := time.NewTicker(pace())
	defer renewals.Stop()
	silence := time.NewTicker(k.checkEvery())
	defer silence.Stop()
	barriers := time.NewTicker(barrierEvery)
	defer barriers.Stop()
	resting := false
	k.clock.Store(time.Now().UnixNano())
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-renewals.C:
			k.clock.Store(now.UnixNano())
			k.settler.renewDue(now.Add(-time.Duration(ackWait) / 3))
		case <-barriers.C:
			k.mu.Lock()
			k.settler.prefetch.lowerSize()
			k.mu.Unlock()
			if k.isCheckDue() {
				k.verify(ctx)
			}
			k.settler.acks.barrier(ctx)
			k.settler.ledger.Maintain(ctx)
			k.becomeIdle()
		case <-k.wakeKeeper:
			k.leaveIdle()
			k.verify(ctx)
		case <-k.idleEnded:
		case now := <-silence.C:
			k.checkConsumer(ctx, now)
		}
		if wait := k.ackWait.Load(); wait != ackWait {
			ackWait = wait
			if !resting {
				renewals.Reset(pace())
			}
			k.settler.renewDue(time.Now().Add(-time.Duration(ackWait) / 3))
		}
		if rests := k.idle.Load(); rests != resting {
			resting = rests
			if rests {
				renewals.Reset(k.idleInterval())
				barriers.Reset(k.idleInterval())
			} else {
				renewals.Reset(pace())
				barriers.Reset(barrierEvery)
			}
		}
	}
}

// becomeIdle makes the keeper wake rarely while it has nothing to do.
func (k *keeper) becomeIdle() {
	k.mu.Lock()
	defer k.mu.Unlock()
	busy := k.settler.leases.n + len(k.intake.unsure) + len(k.later) + k.settler.acks.count()
	if k.settler.prefetch.auto {
		busy += k.settler.prefetch.size
	}
	k.idle.Store(busy == 0 && k.isVerified())
}

// checkEvery returns the interval between checks for heartbeats. An embedded server sends none:
// its end is detected at once.
func (k *keeper) checkEvery() time.Duration {
	if k.conn.IsEmbedded() {
		return k.idleInterval()
	}
	return heartbeat
}

// checkConsumer repeats the requests if heartbeats for them are missing.
func (k *keeper) checkConsumer(ctx context.Context, now time.Time) {
	k.mu.Lock()
	k.intake.requests.dropExpired(now)
	silent := !k.conn.IsEmbedded() && k.intake.requests.areSilent(time.Now()) // the tick may be late
	k.mu.Unlock()
	if !silent || !k.conn.Conn().IsConnected() {
		return
	}
	k.verify(ctx)
	k.mu.Lock()
	silent = k.intake.requests.areSilent(time.Now()) // messages that arrived before the server's response are counted now
	k.mu.Unlock()
	if silent {
		k.intake.requests.renewAll()
		signal(k.wakeReceive)
	}
}

// attach finds or creates the consumer. If it differs from the previous one, a new life begins.
func (k *keeper) attach(ctx context.Context) error {
	reconnects, highest := k.conn.Conn().Stats().Reconnects, k.intake.seen()
	stream, consumer, err := consumers.Open(ctx, k.conn.JetStream(), k.cfg.Config, k.log)
	if err != nil {
		return err
	}
	k.adopt(stream, consumer, reconnects, highest)
	return nil
}

// adopt adopts a consumer. The lookup was made at the given number of reconnects, when highest was
// the highest sequence received. Its response does not cover messages received later.
func (k *keeper) adopt(stream jetstream.Stream, consumer jetstream.Consumer, reconnects, highest uint64) {
	info, state := consumer.CachedInfo(), stream.CachedInfo()
	born := life{state.Created, info.Created}
	k.settler.acks.sending.Lock() // no more acknowledgements of the old life are sent
	k.mu.Lock()
	var lost []*leasedMessage
	if k.life == nil || *k.life != born || state.State.LastSeq < highest {
		lost = k.dropLife()
		k.life, k.intake.highest = &born, 0
		k.settler.leases.record = k.cfg.Record.Source(fmt.Sprintf("nats %s %s %d %d", k.cfg.Stream, k.cfg.Consumer, born.stream.UnixNano(), born.consumer.UnixNano()))
	}
	anew := k.checked != reconnects || k.consumer == nil
	if anew || len(k.intake.unsure) > 0 {
		k.intake.delivered = 0
	}
	k.consumer, k.failed, k.checked, k.checkedAt = consumer, nil, reconnects, time.Now()
	k.followSettings(info.Config)
	k.settler.acks.followSettings(state.Config, info.Config)
	if info.Config.MaxDeliver > 0 {
		k.spent.startOnce()
	}
	if anew {
		k.intake.gather(info)
	}
	unsure, later := k.intake.unsure, k.later
	k.intake.unsure, k.later = nil, nil
	for _, l := range unsure {
		k.intake.admit(l)
	}
	signal(k.wakeReceive)
	k.mu.Unlock()
	k.settler.acks.sending.Unlock()
	for _, l := range lost {
		l.Revoke()
	}
	for _, r := range later {
		if err := k.conn.Conn().Publish(r.reply, r.said); err != nil {
			k.log.Warn("cannot settle a message after an outage; it will be delivered again", "error", err)
		}
	}
}

// dropLife deletes the state of a life that has ended, and returns its leases; k.mu is locked.
func (k *keeper) dropLife() (lost []*leasedMessage) {
	lost = k.settler.leases.removeAll()
	acks := k.settler.acks.dropAll()
	if k.life != nil {
		k.log.Warn("the stream or its consumer was recreated; state of the earlier one dropped",
			"in_flight", len(lost), "acknowledgements", acks, "settlements", len(k.later))
	}
	k.settler.prefetch.clear()
	k.life, k.later, k.settler.last = nil, nil, repeat{}
	k.intake.strays, k.intake.delivered, k.spent.given = nil, 0, nil
	return lost
}

// verify checks that stream and consumer were not recreated, and adopts changes of their
// settings. Only the keeper calls it.
func (k *keeper) verify(ctx context.Context) {
	if !k.conn.Conn().IsConnected() {
		return
	}
	reconnects := k.conn.Conn().Stats().Reconnects
	k.mu.Lock()
	highest := k.intake.highest
	missing, anew := k.life == nil || k.consumer == nil, k.checked != reconnects
	k.mu.Unlock()
	if missing && !anew {
		return // the next Receive looks it up
	}
	ctx, cancel := context.WithTimeout(ctx, client.RequestLimit)
	defer cancel()
	stream, err := k.conn.JetStream().Stream(ctx, k.cfg.Stream)
	var consumer jetstream.Consumer
	if err == nil {
		consumer, err = stream.Consumer(ctx, k.cfg.Consumer)
	}
	switch {
	case gone(err):
		k.endLife(fmt.Errorf("%s: %w", k.cfg, err))
		return
	case err != nil:
		k.log.Debug("cannot verify the consumer; will try again", "error", err)
		return
	}
	if anew {
		// Requests from before the outage may be lost: new ones replace them.
		k.intake.requests.renewAll()
	}
	k.adopt(stream, consumer, reconnects, highest)
	if anew {
		k.settler.acks.resend()
		k.settler.renewDue(time.Now())
	}
}

func gone(err error) bool {
	return errors.Is(err, jetstream.ErrConsumerNotFound) || errors.Is(err, jetstream.ErrStreamNotFound)
}

// endLife ends the life: stream or consumer was deleted.
func (k *keeper) endLife(err error) {
	k.settler.acks.sending.Lock()
	k.mu.Lock()
	lost := k.dropLife()
	k.intake.requests.failAll(err)
	k.mu.Unlock()
	k.settler.acks.sending.Unlock()
	for _, l := range lost {
		l.Revoke()
	}
}

// isCheckDue reports whether the life must be verified now.
func (k *keeper) isCheckDue() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.life == nil {
		return false
	}
	every := k.idleInterval()
	if k.settler.leases.n > 0 || len(k.intake.unsure) > 0 || !k.isVerified() {
		every = verifyEvery
	}
	return time.Since(k.checkedAt) >= every-verifyEvery/10
}
