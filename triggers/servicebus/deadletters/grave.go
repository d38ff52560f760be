package deadletters

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"

	"github.com/drover-run/drover/triggers/lease"
	"github.com/drover-run/drover/triggers/servicebus/convert"
	"github.com/drover-run/drover/triggers/servicebus/namespace"
)

// A grave receives dead letters from their sub-queue. The service locks them only in order: to get
// one of them, grave receives and holds all before it, and releases those at the end.

const (
	// takeLimit bounds the wait for dead letters. Those that do not arrive by then are locked by
	// another receiver.
	takeLimit = 2 * time.Second
	// maxTake bounds the dead letters that are received at once.
	maxTake = 256
	// maxLook bounds the messages that a search for a copy reads.
	maxLook = 10_000
	// freshFor is how long a lock is trusted without a renewal.
	freshFor = 2 * time.Second
	// windowSlack is subtracted from a window of duplicate detection.
	windowSlack = 30 * time.Second
)

// held is a dead letter that is locked here.
type held struct {
	m    *azservicebus.ReceivedMessage
	from time.Time // when it was locked
}

// take locks a dead letter and returns it; nil if it does not exist. Dead letters whose locks
// expire meanwhile are received again, so take ends when no other one arrives.
func (g *grave) take(ctx context.Context, sequence int64) (*azservicebus.ReceivedMessage, error) {
	g.taking.Lock()
	defer g.taking.Unlock()
	seen := make(map[int64]bool)
	for ask := 1; ; ask = min(8*ask, maxTake) {
		if h := g.held[sequence]; h != nil {
			delete(g.held, sequence)
			if g.fresh(ctx, h) {
				return h.m, nil
			}
		}
		if ask > 1 {
			if there, err := g.has(ctx, sequence); err != nil || !there {
				return nil, err
			}
		}
		got, err := g.receive(ctx, ask)
		if err != nil {
			return nil, fmt.Errorf("taking dead letter %d of %s: %w", sequence, g.path(), namespace.Explain(err, namespace.Listen))
		}
		before, now := len(seen), time.Now()
		for _, m := range got {
			n := convert.Deref(m.SequenceNumber)
			seen[n], g.held[n] = true, &held{m, now}
		}
		if len(seen) > before {
			continue
		}
		there, err := g.has(ctx, sequence)
		if err == nil && there {
			err = fmt.Errorf("dead letter %d of %s is locked: another receiver has it, or a command that was killed; its lock ends within 5 minutes", sequence, g.path())
		}
		return nil, err
	}
}

// fresh reports whether a dead letter is still locked for long enough.
func (g *grave) fresh(ctx context.Context, h *held) bool {
	lock := namespace.ShortestLock
	if until := convert.Deref(h.m.LockedUntil).Sub(h.from); until > 0 && until < namespace.LongestLock {
		lock = until
	}
	if time.Since(h.from) < min(freshFor, lock/3) {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, namespace.SettleLimit)
	defer cancel()
	return g.r.RenewMessageLock(ctx, h.m, nil) == nil
}

func (g *grave) receive(ctx context.Context, n int) ([]*azservicebus.ReceivedMessage, error) {
	limited, cancel := context.WithTimeout(ctx, takeLimit)
	defer cancel()
	got, err := g.r.ReceiveMessages(limited, n, namespace.AfterFirst(n))
	if err != nil && ctx.Err() == nil && limited.Err() != nil {
		err = nil // nothing arrived
	}
	return got, err
}

// has reports whether a dead letter exists, locked or not.
func (g *grave) has(ctx context.Context, sequence int64) (bool, error) {
	seen, err := namespace.PeekPage(ctx, g.r, sequence, 1, nil)
	if err != nil {
		return false, fmt.Errorf("searching for dead letter %d of %s: %w", sequence, g.path(), namespace.Explain(err, namespace.Listen))
	}
	return len(seen) == 1 && convert.Deref(seen[0].SequenceNumber) == sequence, nil
}

// complete removes a dead letter. If its lock is lost meanwhile, it is locked again.
func (g *grave) complete(ctx context.Context, m *azservicebus.ReceivedMessage) error {
	limited, cancel := context.WithTimeout(ctx, namespace.SettleLimit)
	defer cancel()
	err := g.r.CompleteMessage(limited, m, nil)
	for range 3 {
		if !namespace.LockLost(err) {
			break
		}
		again, missing := g.take(ctx, convert.Deref(m.SequenceNumber))
		if again == nil {
			return missing
		}
		err = g.r.CompleteMessage(limited, again, nil)
	}
	if err != nil {
		return fmt.Errorf("removing dead letter %d of %s: %w", convert.Deref(m.SequenceNumber), g.path(), err)
	}
	return nil
}

// close releases the locked dead letters over a new receiver that never receives. The first
// receiver may have open requests: released messages would be redelivered over it, and stay
// locked.
func (g *grave) close(ctx context.Context) error {
	g.taking.Lock()
	defer g.taking.Unlock()
	if len(g.held) == 0 {
		return g.r.Close(ctx)
	}
	r, err := g.receiver()
	if err = errors.Join(err, g.r.Close(ctx)); err != nil {
		return err
	}
	g.r = r
	var all sync.WaitGroup
	room := make(chan struct{}, lease.MaxConcurrent)
	for h := range maps.Values(g.held) {
		room <- struct{}{}
		all.Go(func() {
			// If this fails, the lock expires later.
			_ = r.AbandonMessage(ctx, &azservicebus.ReceivedMessage{LockToken: h.m.LockToken}, nil)
			<-room
		})
	}
	all.Wait()
	clear(g.held)
	return r.Close(ctx)
}

// grave is the dead-letter sub-queue of a queue or subscription.
type grave struct {
	cfg          Config
	client       *azservicebus.Client
	subscription string
	r            *azservicebus.Receiver
	next         int64 // of Browse
	page         int   // see namespace.PeekPage

	taking sync.Mutex // held while receiving
	held   map[int64]*held
}

func (g *grave) path() string {
	if g.cfg.Queue != "" {
		return g.cfg.Queue
	}
	return g.cfg.Topic + "/Subscriptions/" + g.subscription
}

func (g *grave) receiver() (*azservicebus.Receiver, error) {
	o := &azservicebus.ReceiverOptions{SubQueue: azservicebus.SubQueueDeadLetter}
	if g.cfg.Queue != "" {
		return g.client.NewReceiverForQueue(g.cfg.Queue, o)
	}
	return g.client.NewReceiverForSubscription(g.cfg.Topic, g.subscription, o)
}

// isBack reports whether the queue or subscription has a copy of a dead letter.
func (g *grave) isBack(ctx context.Context, token string) (bool, error) {
	if g.cfg.Sessions {
		return false, nil // the service does not show messages in sessions
	}
	var r *azservicebus.Receiver
	var err error
	if cfg := g.cfg; cfg.Queue != "" {
		r, err = g.client.NewReceiverForQueue(cfg.Queue, nil)
	} else {
		r, err = g.client.NewReceiverForSubscription(cfg.Topic, g.subscription, nil)
	}
	if err != nil {
		return false, err
	}
	defer func() { _ = r.Close(ctx) }() // used only to peek
	next, page := int64(0), 0
	for looked := 0; looked < maxLook; {
		seen, err := namespace.PeekPage(ctx, r, next, namespace.MaxPeek, &page)
		if err != nil {
			return false, fmt.Errorf("searching for it in %s: %w", g.path(), namespace.Explain(err, namespace.Listen))
		}
		for _, m := range seen {
			if found, _ := replayOf(m.ApplicationProperties); found == token {
				return true, nil
			}
			next = convert.Deref(m.SequenceNumber) + 1
		}
		if looked += len(seen); len(seen) == 0 {
			break
		}
	}
	return false, nil
}

// replayOf returns the dead letter from which a message was copied, and the replay run.
func replayOf(properties map[string]any) (token, run string) {
	text, _ := properties[convert.ReplayProperty].(string)
	token, run, _ = strings.Cut(text, "/")
	return token, run
}
