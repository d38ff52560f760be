package servicebus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/servicebus/emulator"
)

func ofSession(session string, bodies ...string) (out []triggers.Message) {
	for _, b := range bodies {
		out = append(out, triggers.Message{Body: []byte(b), OrderingKey: session})
	}
	return out
}

// More sessions than are held at a time, and two daemons: each message is handled once, in the
// order of its session, and never two of a session at a time.
func TestManySessionsInTwoDaemons(t *testing.T) {
	t.Parallel()
	b := start(t, emulator.QueueOptions{RequiresSession: true})
	const sessions, each = 30, 10
	for i := range each {
		for s := range sessions {
			b.send(t, ofSession(fmt.Sprint("s", s), fmt.Sprint(i))...)
		}
	}
	var mu sync.Mutex
	seen, busy, left := map[string][]string{}, map[string]bool{}, sessions*each
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	var all sync.WaitGroup
	for range 2 {
		tr := b.open(t, func(c *Config) { c.Sessions, c.MaxSessions, c.SessionTurn = true, 4, 100*time.Millisecond })
		all.Go(func() {
			for {
				got, err := tr.Receive(ctx, 8)
				if err != nil {
					if ctx.Err() == nil {
						t.Log(err)
						continue
					}
					return
				}
				for _, d := range got {
					key := d.Message.OrderingKey
					mu.Lock()
					if busy[key] {
						t.Errorf("two messages of session %s at a time", key)
					}
					busy[key] = true
					seen[key] = append(seen[key], string(d.Message.Body))
					mu.Unlock()
					all.Go(func() {
						mu.Lock()
						busy[key] = false
						mu.Unlock()
						settle(t, d, triggers.Done)
						mu.Lock()
						defer mu.Unlock()
						if left--; left == 0 {
							cancel()
						}
					})
				}
			}
		})
	}
	all.Wait()
	want := []string{"0", "1", "2", "3", "4", "5", "6", "7", "8", "9"}
	for s := range sessions {
		if got := seen[fmt.Sprint("s", s)]; !slices.Equal(got, want) {
			t.Errorf("session %d: %v", s, got)
		}
	}
	if u, err := b.Usage("orders"); err != nil || u.Lost > 0 {
		t.Errorf("%+v, %v", u, err)
	}
}

// A session with an endless supply of messages does not starve others.
func TestSessionsTakeTurns(t *testing.T) {
	b := start(t, emulator.QueueOptions{RequiresSession: true})
	for i := range 200 {
		b.send(t, ofSession("endless", fmt.Sprint(i))...)
	}
	tr := b.open(t, func(c *Config) { c.Sessions, c.MaxSessions, c.SessionTurn = true, 1, 50*time.Millisecond })
	settle(t, receive(t, tr, 1)[0], triggers.Done)
	b.send(t, ofSession("other", "x")...)
	for n := 1; ; n++ {
		d := receive(t, tr, 1)[0]
		other := d.Message.OrderingKey == "other"
		quiet(t, tr, 5*time.Millisecond) // while one is worked on no other comes
		settle(t, d, triggers.Done)
		if other {
			break
		}
		if n == 199 {
			t.Fatal("the other session had no turn")
		}
	}
}

// A session without messages makes room for one with messages, long before its idle timeout.
func TestAnIdleSessionMakesRoom(t *testing.T) {
	b := start(t, emulator.QueueOptions{RequiresSession: true})
	tr := b.open(t, func(c *Config) { c.Sessions, c.MaxSessions, c.SessionIdle = true, 1, time.Hour })
	began := time.Now()
	for i := range 5 {
		b.send(t, ofSession(fmt.Sprint(i), "x")...)
		settle(t, receive(t, tr, 1)[0], triggers.Done)
	}
	if took := time.Since(began); took > within/2 {
		t.Errorf("it took %v", took)
	}
}

func TestTheStateOfASession(t *testing.T) {
	b := start(t, emulator.QueueOptions{RequiresSession: true})
	tr := b.open(t, func(c *Config) { c.Sessions = true })
	b.send(t, ofSession("a", "1")...)
	d := receive(t, tr, 1)[0]
	s := d.Message.Session
	if got, err := s.State(t.Context()); err != nil || got != nil {
		t.Errorf("%q, %v", got, err)
	}
	if err := s.SetState(t.Context(), []byte("so far")); err != nil {
		t.Fatal(err)
	}
	settle(t, d, triggers.Done)
	if err := tr.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.SetState(t.Context(), nil); !errors.Is(err, errSessionEnded) {
		t.Errorf("a session that is not held: %v", err)
	}
	second := b.open(t, func(c *Config) { c.Sessions = true })
	b.send(t, ofSession("a", "2")...)
	d = receive(t, second, 1)[0]
	if got, err := d.Message.Session.State(t.Context()); err != nil || string(got) != "so far" {
		t.Errorf("%q, %v", got, err)
	}
	if err := d.Message.Session.SetState(t.Context(), nil); err != nil {
		t.Error(err)
	}
	if got, err := d.Message.Session.State(t.Context()); err != nil || len(got) > 0 {
		t.Errorf("%q, %v", got, err)
	}
	settle(t, d, triggers.Done)
}

// The connection breaks while a message is handled: it is redelivered, without using an attempt,
// before later messages.
func TestASessionWhoseConnectionBreaks(t *testing.T) {
	b := start(t, emulator.QueueOptions{RequiresSession: true})
	tr := b.open(t, func(c *Config) { c.Sessions = true })
	b.send(t, ofSession("a", "1")...)
	handling := receive(t, tr, 1)[0]
	lost := make(lossWatcher)
	handling.OnRevoked(lost)
	b.DropConnections()
	select {
	case <-lost:
	case <-time.After(within):
		t.Fatal("the handler was not called")
	}
	settle(t, handling, triggers.Done) // too late
	b.send(t, ofSession("a", "2", "3")...)
	var got []string
	for range 3 {
		d := receive(t, tr, 1)[0]
		if d.Message.Attempt != 1 {
			t.Errorf("attempt %d", d.Message.Attempt)
		}
		got = append(got, string(d.Message.Body))
		settle(t, d, triggers.Done)
	}
	if strings.Join(got, "") != "123" {
		t.Errorf("%v came", got)
	}
	b.wantEmpty(t)
}

// A failed message and later ones keep their places through a stop, and one that the service
// dead-letters blocks no other.
func TestRetriesInASession(t *testing.T) {
	b := start(t, emulator.QueueOptions{RequiresSession: true, MaxDeliveryCount: 2})
	tr := b.open(t, func(c *Config) { c.Sessions, c.SessionIdle = true, 300*time.Millisecond })
	b.send(t, ofSession("a", "1", "2", "3")...)
	again := triggers.Verdict{Kind: triggers.Retry, Delay: 10 * time.Millisecond}
	if err := receive(t, tr, 1)[0].Settle(t.Context(), again); err != nil {
		t.Fatal(err)
	}
	d := receive(t, tr, 1)[0]
	if string(d.Message.Body) != "1" || d.Message.Attempt != 2 {
		t.Errorf("%s, attempt %d", d.Message.Body, d.Message.Attempt)
	}
	if err := d.Settle(t.Context(), again); err != nil { // one delivery too many for the service
		t.Fatal(err)
	}
	d = receive(t, tr, 1)[0]
	if string(d.Message.Body) != "2" {
		t.Errorf("%s came", d.Message.Body)
	}
	if err := d.Settle(t.Context(), triggers.Verdict{Kind: triggers.Retry, Delay: time.Hour}); err != nil {
		t.Fatal(err)
	}
	if err := tr.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	second := b.open(t, func(c *Config) { c.Sessions = true })
	for i, want := range []string{"2", "3"} {
		d := receive(t, second, 1)[0]
		if string(d.Message.Body) != want || d.Message.Attempt != 2-i {
			t.Errorf("%s, attempt %d; want %s", d.Message.Body, d.Message.Attempt, want)
		}
		settle(t, d, triggers.Done)
	}
	b.wantCounts(t, emulator.Counts{DeadLettered: 1})
}
