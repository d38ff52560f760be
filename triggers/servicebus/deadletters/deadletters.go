// Package deadletters reads, replays and removes dead letters of Azure Service Bus, for an operator.
// It lists them by peeking, which has no side effects; grave.go receives and settles them.
package deadletters

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/servicebus/convert"
	"github.com/drover-run/drover/triggers/servicebus/namespace"
)

// Open returns the dead letters of a queue, or of subscriptions, one after the other. It sends no
// request.
func Open(cfg Config) (triggers.DeadLetters, error) {
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
		g := &grave{cfg: cfg, client: client, subscription: name, held: make(map[int64]*held)}
		if g.r, err = g.receiver(); err != nil {
			return nil, errors.Join(fmt.Errorf("the dead letters of %s: %w", g.path(), err), client.Close(context.Background()))
		}
		d.graves = append(d.graves, g)
	}
	return d, nil
}

type deadLetters struct {
	cfg    Config
	client *azservicebus.Client
	run    string // the ID of this run, set in the messages that it replays
	graves []*grave
	at     int // of Browse

	mu     sync.Mutex
	origin *origin // nil before the first replay
}

// own identifies a dead letter to Replay and Remove.
type own struct {
	g        *grave
	sequence int64
	token    string
}

// Browse implements triggers.DeadLetters. Messages that this run replayed and that failed again
// are omitted.
func (d *deadLetters) Browse(ctx context.Context, n int) ([]triggers.DeadLetter, error) {
	for d.at < len(d.graves) {
		g := d.graves[d.at]
		seen, err := namespace.PeekPage(ctx, g.r, g.next, n, &g.page)
		if err != nil {
			return nil, fmt.Errorf("peeking the dead letters of %s: %w", g.path(), namespace.Explain(err, namespace.Listen))
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
				out = append(out, d.letter(g, m))
			}
		}
		if len(out) > 0 {
			return out, nil
		}
	}
	return nil, nil
}

func (d *deadLetters) letter(g *grave, m *azservicebus.ReceivedMessage) triggers.DeadLetter {
	id := strconv.FormatInt(*m.SequenceNumber, 10)
	if len(d.graves) > 1 {
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

// Close implements triggers.DeadLetters. It releases the messages locked here. Otherwise other
// receivers would get them only when their locks expire.
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
