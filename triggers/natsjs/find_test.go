package natsjs

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/natsjs/client"
	"github.com/drover-run/drover/triggers/triggertest"
)

func TestFind(t *testing.T) {
	triggertest.RunFind(t, func(t *testing.T) *triggertest.Searchable {
		source, observer, cfg := newSource(t, triggertest.Options{})
		return &triggertest.Searchable{
			Source: source, Leased: triggers.PlaceLeased, Back: triggers.PlaceLeased,
			IDs: func(t testing.TB) (ids []string) {
				stream, err := observer.JetStream().Stream(t.Context(), cfg.Stream)
				if err != nil {
					t.Fatal(err)
				}
				for n := range stream.CachedInfo().State.Msgs {
					ids = append(ids, fmt.Sprintf("%s:%d", cfg.Stream, n+1))
				}
				return ids
			},
		}
	})
}

func find(t *testing.T, tr triggers.Trigger, id string) (triggers.Found, error) {
	t.Helper()
	found, err := tr.(triggers.Finder).Find(t.Context(), id)
	if err != nil && !errors.Is(err, triggers.ErrNotFound) {
		t.Fatal(err)
	}
	return found, err
}

// wantFound searches until a message is at a place, or at none if it must not be found.
func wantFound(t *testing.T, tr triggers.Trigger, id string, at triggers.Place) (found triggers.Found) {
	t.Helper()
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	for deadline := time.Now().Add(patience); ; <-look.C {
		if found, _ = find(t, tr, id); found.Place == at {
			return found
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is %+v, want it at %q", id, found, at)
		}
	}
}

// publish sends a message with an ID chosen by the sender.
func publish(t *testing.T, c *client.Connection, subject, id string) {
	t.Helper()
	m := nats.NewMsg(subject)
	m.Header.Set(jetstream.MsgIDHeader, id)
	if _, err := c.JetStream().PublishMsg(t.Context(), m); err != nil {
		t.Fatal(err)
	}
}

// Messages that are not done are searched for a sender's ID. A message that waits for its retry
// counts as leased.
func TestFindByTheSendersID(t *testing.T) {
	server := startServer(t, t.TempDir())
	c := connect(t, server)
	tr, other := open(t, c, testConfig(t)), open(t, connect(t, server), testConfig(t))
	send(t, c, "orders.x", "first")
	for _, id := range []string{"own-1", "own-2"} {
		publish(t, c, "orders.x", id)
	}
	if found := wantFound(t, other, "own-2", triggers.PlaceReady); found.Ahead != 2 {
		t.Errorf("%+v, want 2 ahead", found)
	}
	if found := wantFound(t, other, "ORDERS:3", triggers.PlaceReady); found.Ahead != 2 {
		t.Errorf("by its place it is %+v, want 2 ahead", found)
	}
	ds := receive(t, tr, 2)
	settle(t, ds[1], triggers.Verdict{Kind: triggers.Retry, Delay: time.Hour})
	if found := wantFound(t, other, "own-1", triggers.PlaceLeased); found.Failures != 1 {
		t.Errorf("one that waits for its retry is %+v, want 1 failure", found)
	}
	if found := wantFound(t, other, "own-2", triggers.PlaceReady); found.Ahead != 0 {
		t.Errorf("%+v, want none ahead", found)
	}
	done(t, ds[0])
	settle(t, receive(t, tr, 1)[0], triggers.Verdict{Kind: triggers.Release})
	wantFound(t, other, "own-2", triggers.PlaceLeased)
	wantFound(t, other, "ORDERS:1", "")
	wantFound(t, other, "ORDERS:none", "")
}

// A replayed message keeps its ID, which may look like another message's place.
func TestFindOneThatWasReplayed(t *testing.T) {
	c := connect(t, startServer(t, t.TempDir()))
	tr := open(t, c, testConfig(t))
	send(t, c, "orders.x", "bad")
	settle(t, receive(t, tr, 1)[0], triggers.Verdict{Kind: triggers.Reject, Reason: "no"})
	wantFound(t, tr, "ORDERS:1", "")
	d := openDead(t, c, nil)
	for _, l := range browseAll(t, d) {
		if err := d.Replay(t.Context(), l, time.Time{}); err != nil {
			t.Fatal(err)
		}
	}
	wantFound(t, tr, "ORDERS:1", triggers.PlaceReady)
	again := receive(t, tr, 1)[0]
	if again.Message.ID != "ORDERS:1" {
		t.Errorf("it came as %s", again.Message.ID)
	}
	done(t, again)
	wantFound(t, tr, "ORDERS:1", "")
}

// A consumer finds only its own messages of a stream, including those that are done and still in
// the stream.
func TestFindInASharedStream(t *testing.T) {
	c := connect(t, startServer(t, t.TempDir()))
	if _, err := c.JetStream().CreateStream(t.Context(), jetstream.StreamConfig{Name: "ORDERS", Subjects: []string{"orders.>"}}); err != nil {
		t.Fatal(err)
	}
	filters := map[string][]string{"one": {"orders.a"}, "two": {"orders.b.*", "orders.c"}}
	found := make(map[string]triggers.Trigger)
	for name, subjects := range filters {
		consumer := jetstream.ConsumerConfig{Durable: name, AckPolicy: jetstream.AckExplicitPolicy, AckWait: lease, FilterSubjects: subjects}
		if _, err := c.JetStream().CreateConsumer(t.Context(), "ORDERS", consumer); err != nil {
			t.Fatal(err)
		}
		cfg := testConfig(t)
		cfg.Consumer, cfg.Subject = name, ""
		found[name] = open(t, c, cfg)
	}
	for n, subject := range []string{"orders.a", "orders.b.x", "orders.c", "orders.d"} {
		publish(t, c, subject, fmt.Sprint("own-", n+1))
	}
	for n, of := range []string{"one", "two", "two", "nobody"} {
		for name, tr := range found {
			want := triggers.Place("")
			if name == of {
				want = triggers.PlaceReady
			}
			for _, id := range []string{fmt.Sprint("own-", n+1), fmt.Sprint("ORDERS:", n+1)} {
				if at, _ := find(t, tr, id); at.Place != want || want != "" && at.Ahead >= 0 {
					t.Errorf("%s finds %s as %+v, want it at %q, behind an unknown number", name, id, at, want)
				}
			}
		}
	}
	done(t, receive(t, found["one"], 1)...)
	wantFound(t, found["one"], "ORDERS:1", triggers.PlaceDone)
}

// A trigger whose consumer was deleted reports that it cannot be searched.
func TestFindWithoutAConsumer(t *testing.T) {
	c := connect(t, startServer(t, t.TempDir()))
	tr := open(t, c, testConfig(t)).(*trigger)
	tr.mu.Lock()
	tr.consumer = nil
	tr.mu.Unlock()
	if _, err := tr.Find(t.Context(), "ORDERS:1"); !errors.Is(err, triggers.ErrUnsearchable) {
		t.Errorf("%v, want ErrUnsearchable", err)
	}
}
