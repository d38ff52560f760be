package servicebus

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/servicebus/emulator"
	"github.com/drover-run/drover/triggers/servicebus/namespace"
	"github.com/drover-run/drover/triggers/triggertest"
)

func TestFind(t *testing.T) {
	triggertest.RunFind(t, func(t *testing.T) *triggertest.Searchable {
		b := start(t, emulator.QueueOptions{LockDuration: time.Minute})
		return &triggertest.Searchable{
			Source: b.source(false), Leased: triggers.PlaceLeased, Back: triggers.PlaceReady, Doubtful: true,
			IDs: func(t testing.TB) (ids []string) {
				r, err := b.client(t).NewReceiverForQueue("orders", nil)
				if err != nil {
					t.Fatal(err)
				}
				seen, err := r.PeekMessages(t.Context(), namespace.MaxPeek, nil)
				if err != nil {
					t.Fatal(err)
				}
				for _, m := range seen {
					ids = append(ids, m.MessageID)
				}
				return ids
			},
		}
	})
}

// named sends messages with IDs chosen by the sender.
func (b *bed) named(t *testing.T, ids ...string) *azservicebus.Sender {
	t.Helper()
	s, err := b.client(t).NewSender("orders", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		if err := s.SendMessage(t.Context(), &azservicebus.Message{MessageID: &id}, nil); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// wantFound compares the result of a search for a message, except for the time when it was enqueued.
func wantFound(t *testing.T, by *trigger, id string, want triggers.Found) {
	t.Helper()
	got, err := by.Find(t.Context(), id)
	if want.Place == "" {
		if !errors.Is(err, triggers.ErrNotFound) {
			t.Errorf("%s is %+v, %v; want ErrNotFound", id, got, err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if off := got.Due.Sub(want.Due); off.Abs() < time.Minute {
		got.Due = want.Due
	}
	got.Enqueued = time.Time{}
	if got != want {
		t.Errorf("%s is %+v, want %+v", id, got, want)
	}
}

// A message that waits for its retry is found by the instance that holds it, and, if it is a
// scheduled copy, by all; so is a message that its sender scheduled.
func TestFindLater(t *testing.T) {
	for _, copies := range []bool{false, true} {
		t.Run(fmt.Sprint("copies ", copies), func(t *testing.T) {
			b := start(t, emulator.QueueOptions{LockDuration: time.Minute})
			tr, other := b.open(t, func(c *Config) { c.Scheduled = copies }), b.open(t, nil)
			s := b.named(t, "again", "next")
			d := receive(t, tr, 1)[0]
			if err := d.Settle(t.Context(), triggers.Verdict{Kind: triggers.Retry, Delay: time.Hour}); err != nil {
				t.Fatal(err)
			}
			due := time.Now().Add(time.Hour)
			if copies {
				b.wantCounts(t, emulator.Counts{Active: 1, Scheduled: 1})
				for _, by := range []*trigger{tr, other} {
					wantFound(t, by, "again", triggers.Found{Place: triggers.PlaceLater, Ahead: -1, Failures: 1, Due: due})
				}
			} else {
				wantFound(t, tr, "again", triggers.Found{Place: triggers.PlaceHeld, Ahead: -1, Failures: 1, Due: due})
				wantFound(t, other, "again", triggers.Found{Place: triggers.PlaceLeased, Ahead: -1})
			}
			if _, err := s.ScheduleMessages(t.Context(), []*azservicebus.Message{{MessageID: to.Ptr("tomorrow")}}, due, nil); err != nil {
				t.Fatal(err)
			}
			wantFound(t, other, "tomorrow", triggers.Found{Place: triggers.PlaceLater, Ahead: -1, Due: due})
		})
	}
}

// Dead letters are not found, and replayed messages keep their IDs.
func TestFindTheDead(t *testing.T) {
	b := start(t, emulator.QueueOptions{LockDuration: time.Minute})
	tr := b.open(t, nil)
	b.named(t, "bad")
	settle(t, receive(t, tr, 1)[0], triggers.Reject)
	b.wantCounts(t, emulator.Counts{DeadLettered: 1})
	wantFound(t, tr, "bad", triggers.Found{})
	dead := b.openDead(t, nil)
	all, err := dead.Browse(t.Context(), 10)
	if err != nil || len(all) != 1 {
		t.Fatal(all, err)
	}
	if err := dead.Replay(t.Context(), all[0], time.Time{}); err != nil {
		t.Fatal(err)
	}
	wantFound(t, tr, "bad", triggers.Found{Place: triggers.PlaceReady, Doubtful: true})
}

// Messages beyond the first page are found, but not those beyond the limit.
func TestFindIsBounded(t *testing.T) {
	b := start(t, emulator.QueueOptions{})
	tr := b.open(t, nil)
	client := b.client(t)
	s, err := client.NewSender("orders", nil)
	if err != nil {
		t.Fatal(err)
	}
	batch, err := s.NewMessageBatch(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for n := range maxSearched + 1 {
		if err := batch.AddMessage(&azservicebus.Message{MessageID: to.Ptr(fmt.Sprint("m", n))}, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.SendMessageBatch(t.Context(), batch, nil); err != nil {
		t.Fatal(err)
	}
	last := maxSearched - 1
	wantFound(t, tr, fmt.Sprint("m", last), triggers.Found{Place: triggers.PlaceReady, Ahead: int64(last), Doubtful: true})
	wantFound(t, tr, fmt.Sprint("m", maxSearched), triggers.Found{})
}

// An entity with sessions cannot be searched.
func TestFindWithSessions(t *testing.T) {
	b := start(t, emulator.QueueOptions{RequiresSession: true})
	tr := b.open(t, func(c *Config) { c.Sessions = true })
	if _, err := tr.Find(t.Context(), "any"); !errors.Is(err, triggers.ErrUnsearchable) || !strings.Contains(err.Error(), "orders has sessions") {
		t.Errorf("%v, want ErrUnsearchable", err)
	}
}

// All subscriptions are searched.
func TestFindInSubscriptions(t *testing.T) {
	b := start(t, emulator.QueueOptions{})
	if err := b.CreateTopic("events"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"one", "two"} {
		if err := b.CreateSubscription("events", name, emulator.QueueOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	s, err := b.client(t).NewSender("events", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.SendMessage(t.Context(), &azservicebus.Message{MessageID: to.Ptr("e1")}, nil); err != nil {
		t.Fatal(err)
	}
	tr := b.open(t, func(c *Config) { c.Queue, c.Topic, c.Subscriptions = "", "events", []string{"one", "two"} })
	wantFound(t, tr, "e1", triggers.Found{Place: triggers.PlaceReady, Doubtful: true})
	wantFound(t, tr, "none", triggers.Found{})
}
