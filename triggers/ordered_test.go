package triggers

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// held is a source with prefetched messages, and records its calls.
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

// The source stops receiving before anything is returned to it, because a returned message would
// otherwise be delivered again. Everything is returned in the order of the source, including
// prefetched messages.
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

// Several messages of a key are returned together, and no more of that key until all are settled.
// Retried and released messages are delivered first, in order, after the longest delay.
func TestOrderedTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := &held{}
		for i, id := range []string{"a1", "b1", "a2", "a3", "a4", "a5"} {
			d := NewDelivery(&Message{ID: id, OrderingKey: id[:1], Attempt: 1}, source)
			d.Sequence = uint64(i + 1)
			source.ready = append(source.ready, d)
		}
		o := OrderedTogether(source, 3).(*ordered)
		receive := func(max int) (out []*Delivery, ids string) {
			t.Helper()
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			out, err := o.Receive(ctx, max)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range out {
				ids += fmt.Sprint(d.Message.ID, "/", d.Message.Attempt, " ")
			}
			return out, ids
		}
		settle := func(d *Delivery, v Verdict) {
			t.Helper()
			if err := d.Settle(t.Context(), v); err != nil {
				t.Error(err)
			}
		}
		o.admit(source.take(10))
		first, ids := receive(10)
		if ids != "a1/1 a2/1 a3/1 b1/1 " {
			t.Fatalf("received %s", ids)
		}
		begin := time.Now()
		settle(first[2], Verdict{Kind: Release})
		settle(first[1], Verdict{Kind: Retry, Delay: time.Minute})
		if out, full := o.takeReady(10); len(out) > 0 || full {
			t.Errorf("received %d messages before all were settled", len(out))
		}
		settle(first[0], Verdict{Kind: Done})
		again, full := o.takeReady(10)
		if len(again) > 0 || full {
			t.Errorf("received %d messages before the delay", len(again))
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		again, ids = receive(2) // fewer than may be together
		if ids != "a2/2 a3/1 " || time.Since(begin) != time.Minute {
			t.Errorf("received %s after %v", ids, time.Since(begin))
		}
		for _, d := range again {
			settle(d, Verdict{Kind: Done})
		}
		if again, ids = receive(10); ids != "a4/1 a5/1 " {
			t.Errorf("received %s", ids)
		}
		settle(again[1], Verdict{Kind: Retry})
		if err := o.Close(t.Context()); err != nil { // gives up on a4 and b1
			t.Fatal(err)
		}
		want := []string{"done a1", "done a2", "done a3", "drain", "release a5", "close"}
		if !slices.Equal(source.record, want) {
			t.Errorf("%q, want %q", source.record, want)
		}
	})
}
