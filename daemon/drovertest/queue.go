package drovertest

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/memory"
)

// queue is the queue of one function, with the outcomes of its messages.
type queue struct {
	messages *memory.Queue

	mu       sync.Mutex
	next     int
	outcomes map[string]*outcome // by message
}

type outcome struct {
	Outcome
	final chan struct{} // closed when the message has left the queue
}

func newQueue() *queue {
	return &queue{messages: memory.New(0), outcomes: make(map[string]*outcome)}
}

func (q *queue) send(m triggers.Message) (id string, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.next++
	if m.ID == "" {
		m.ID = strconv.Itoa(q.next)
	}
	if q.outcomes[m.ID] != nil {
		return "", fmt.Errorf("a message with the ID %s was sent before; give each message its own ID", m.ID)
	}
	q.outcomes[m.ID] = &outcome{Outcome: Outcome{Message: m}, final: make(chan struct{})}
	q.messages.Send(m)
	return m.ID, nil
}

// wait returns the outcome of a message. It returns an error if no such message was sent, or if ctx or the
// daemon ends first.
func (q *queue) wait(ctx context.Context, id string, ended <-chan struct{}) (Outcome, error) {
	q.mu.Lock()
	o := q.outcomes[id]
	q.mu.Unlock()
	if o == nil {
		return Outcome{}, fmt.Errorf("no message with the ID %s was sent", id)
	}
	var why error
	select {
	case <-o.final:
	case <-ctx.Done():
		why = context.Cause(ctx)
	case <-ended:
		why = errEnded
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if o.isFinal() {
		return o.Outcome, nil
	}
	return Outcome{}, fmt.Errorf("message %s is neither done nor dead-lettered: %w; verdicts so far: %s", id, why, o.listVerdicts())
}

// errEnded is the error of messages that were not done when the daemon ended.
var errEnded = errors.New("the daemon has ended")

func (o *outcome) isFinal() bool {
	kind := o.last().Kind
	return kind == triggers.Done || kind == triggers.Reject
}

func (o *outcome) listVerdicts() string {
	if len(o.Verdicts) == 0 {
		return "none"
	}
	var out []string
	for _, v := range o.Verdicts {
		text := v.Kind.String()
		if v.Delay > 0 {
			text += " in " + v.Delay.String()
		}
		out = append(out, text)
	}
	return strings.Join(out, ", ")
}

func (q *queue) record(id string, set func(*outcome)) {
	q.mu.Lock()
	defer q.mu.Unlock()
	set(q.outcomes[id])
}

// trigger returns a trigger that reads the queue, and records verdicts and results.
func (q *queue) trigger() triggers.Trigger { return &trigger{q.messages.Trigger(), q} }

type trigger struct {
	triggers.Trigger
	queue *queue
}

// Receive implements triggers.Trigger.
func (t *trigger) Receive(ctx context.Context, max int) ([]*triggers.Delivery, error) {
	got, err := t.Trigger.Receive(ctx, max)
	for i, d := range got {
		got[i] = triggers.NewDelivery(d.Message, &lease{d, t.queue})
		got[i].Sequence = d.Sequence
	}
	return got, err
}

// lease records the verdict and passes it on. It receives the result like a sender that waits for it.
type lease struct {
	delivery *triggers.Delivery
	queue    *queue
}

// Reply implements triggers.Replier.
func (l *lease) Reply(_ context.Context, body []byte, properties triggers.Properties) error {
	l.queue.record(l.delivery.Message.ID, func(o *outcome) { o.Output, o.Properties = body, properties })
	return nil
}

// Settle implements triggers.Lease.
func (l *lease) Settle(ctx context.Context, m *triggers.Message, v triggers.Verdict) error {
	if err := l.delivery.Settle(ctx, v); err != nil {
		return err
	}
	l.queue.record(m.ID, func(o *outcome) {
		o.Message = *m
		o.Verdicts = append(o.Verdicts, v)
		if o.isFinal() {
			close(o.final)
		}
	})
	return nil
}
