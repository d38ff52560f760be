package servicebus

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/servicebus/convert"
	"github.com/drover-run/drover/triggers/servicebus/namespace"
)

// This file reads the dead-letter sub-queues, for an operator. They are looked at
// by peeking, which changes nothing; deadreplay.go takes them out.

// DeadLettersConfig names the dead letters of a queue, or of subscriptions.
type DeadLettersConfig struct {
	Access        *Access
	Queue         string
	Topic         string
	Subscriptions []string
	// Sessions says that the messages are in sessions: the service does not let
	// look for one without holding its session.
	Sessions bool
	// Shared replays also to a topic that has other subscriptions: each gets
	// every message.
	Shared bool
}

// OpenDeadLetters returns the dead letters of a queue, or of subscriptions, one
// after the other. Nothing is asked yet.
func OpenDeadLetters(cfg DeadLettersConfig) (triggers.DeadLetters, error) {
	client, err := cfg.Access.Client()
	if err != nil {
		return nil, fmt.Errorf("the dead letters: %w", err)
	}
	d := &deadLetters{cfg: cfg, client: client, run: rand.Text()[:12]}
	names := cfg.Subscriptions
	if cfg.Queue != "" {
		names = []string{""}
	}
	for _, name := range names {
		g := &grave{d: d, subscription: name, held: make(map[int64]*held)}
		if g.r, err = g.receiver(); err != nil {
			return nil, errors.Join(fmt.Errorf("the dead letters of %s: %w", g.path(), err), client.Close(context.Background()))
		}
		d.graves = append(d.graves, g)
	}
	return d, nil
}

type deadLetters struct {
	cfg    DeadLettersConfig
	client *azservicebus.Client
	run    string // what this one replays bears its name
	graves []*grave
	at     int // of Browse

	mu     sync.Mutex
	origin *origin // where to, once that is known
}

// grave is the dead-letter sub-queue of a queue or subscription.
type grave struct {
	d            *deadLetters
	subscription string
	r            *azservicebus.Receiver
	next         int64 // of Browse
	page         int   // see look

	taking sync.Mutex // held by the one that receives
	held   map[int64]*held
}

func (g *grave) path() string {
	if g.d.cfg.Queue != "" {
		return g.d.cfg.Queue
	}
	return g.d.cfg.Topic + "/Subscriptions/" + g.subscription
}

func (g *grave) receiver() (*azservicebus.Receiver, error) {
	o := &azservicebus.ReceiverOptions{SubQueue: azservicebus.SubQueueDeadLetter}
	if g.d.cfg.Queue != "" {
		return g.d.client.NewReceiverForQueue(g.d.cfg.Queue, o)
	}
	return g.d.client.NewReceiverForSubscription(g.d.cfg.Topic, g.subscription, o)
}

// own is what Replay and Remove know a dead letter by.
type own struct {
	g        *grave
	sequence int64
	token    string
}

// Browse implements triggers.DeadLetters. What this one replayed, and failed
// again, is left out by its name.
func (d *deadLetters) Browse(ctx context.Context, n int) ([]triggers.DeadLetter, error) {
	for d.at < len(d.graves) {
		g := d.graves[d.at]
		seen, err := namespace.PeekPage(ctx, g.r, g.next, n, &g.page)
		if err != nil {
			return nil, fmt.Errorf("looking at the dead letters of %s: %w", g.path(), namespace.Explain(err, namespace.Listen))
		}
		if len(seen) == 0 {
			d.at++
			continue
		}
		var out []triggers.DeadLetter
		for _, m := range seen {
			if m.SequenceNumber == nil {
				continue
			}
			g.next = *m.SequenceNumber + 1
			if _, run := replayOf(m.ApplicationProperties); run != d.run && m.State == azservicebus.MessageStateActive {
				out = append(out, g.letter(m))
			}
		}
		if len(out) > 0 {
			return out, nil
		}
	}
	return nil, nil
}

// replayOf reads which dead letter a message is a copy of, and by which run.
func replayOf(properties map[string]any) (token, run string) {
	text, _ := properties[convert.ReplayProperty].(string)
	token, run, _ = strings.Cut(text, "/")
	return token, run
}

func (g *grave) letter(m *azservicebus.ReceivedMessage) triggers.DeadLetter {
	id := strconv.FormatInt(*m.SequenceNumber, 10)
	if len(g.d.graves) > 1 {
		id = g.subscription + ":" + id
	}
	property := func(name string) string { s, _ := m.ApplicationProperties[name].(string); return s }
	message, misfit := convert.Message(m)
	message.Origin = &convert.Origin{Of: m}
	if misfit != "" {
		message.Body = []byte("(" + misfit + ")")
	}
	for name := range message.Attributes {
		if convert.Added[name] {
			delete(message.Attributes, name)
		}
	}
	out := triggers.DeadLetter{
		ID: id, Reason: convert.Deref(m.DeadLetterReason), Detail: property("Drover-Traceback"), Function: property("Drover-Function"),
		Message: message, Own: own{g, *m.SequenceNumber, convert.Identity(m)},
	}
	if _, byDrover := m.ApplicationProperties["Drover-Attempts"]; !byDrover {
		out.Detail = convert.Deref(m.DeadLetterErrorDescription)
	}
	if n, ok := m.ApplicationProperties["Drover-Attempts"].(int64); ok {
		out.Message.Attempt = int(n)
	}
	if at, err := time.Parse(time.RFC3339Nano, property(convert.RejectedProperty)); err == nil {
		out.Died = at
	}
	return out
}

// Close implements triggers.DeadLetters. It releases the messages locked here: it
// would be out of everybody's reach until its lock ends.
func (d *deadLetters) Close(ctx context.Context) error {
	var errs []error
	for _, g := range d.graves {
		errs = append(errs, g.close(ctx))
	}
	if d.origin != nil {
		errs = append(errs, d.origin.sender.Close(ctx))
	}
	if err := errors.Join(append(errs, d.client.Close(ctx))...); err != nil {
		return fmt.Errorf("closing the dead letters: %w", err)
	}
	return nil
}
