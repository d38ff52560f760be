package triggers

import (
	"context"
	"slices"
	"testing"
)

// held is a source that holds messages ready, and notes what is done with it.
type held struct {
	ready  []*Delivery
	record []string
}

func (h *held) Receive(_ context.Context, max int) ([]*Delivery, error) { return h.take(max), nil }
func (h *held) Backlog(context.Context) (Backlog, error)                { return Backlog{}, ErrUnknown }

func (h *held) Drain(_ context.Context, max int) ([]*Delivery, error) {
	h.record = append(h.record, "drain")
	return h.take(max), nil
}

func (h *held) Close(context.Context) error {
	h.record = append(h.record, "close")
	return nil
}

func (h *held) Settle(_ context.Context, m *Message, v Verdict) error {
	h.record = append(h.record, v.Kind.String()+" "+m.ID)
	return nil
}

func (h *held) take(n int) (out []*Delivery) {
	n = min(n, len(h.ready))
	out, h.ready = h.ready[:n], h.ready[n:]
	return out
}

// The source stops to receive before anything goes back to it: else that would come again. All
// goes back in the order of the source, also what it holds.
func TestOrderedCloseDrainsFirst(t *testing.T) {
	source := &held{}
	for i, id := range []string{"1", "2", "3"} {
		d := NewDelivery(&Message{ID: id, OrderingKey: "a"}, source)
		d.Sequence = uint64(i + 1)
		source.ready = append(source.ready, d)
	}
	last := source.ready[2]
	source.ready = source.ready[:2]
	o := Ordered(source)
	if got, err := o.Receive(t.Context(), 2); err != nil || len(got) != 1 {
		t.Fatalf("received %d messages, %v", len(got), err)
	} else if err := got[0].Settle(t.Context(), Verdict{Kind: Retry}); err != nil { // it waits here
		t.Fatal(err)
	}
	source.ready = append(source.ready, last)
	if err := o.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := []string{"drain", "drain", "release 1", "release 2", "release 3", "close"}
	if !slices.Equal(source.record, want) {
		t.Errorf("%v, want %v", source.record, want)
	}
}
