package triggertest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/drover-run/drover/triggers"
)

func keyed(key string, bodies ...string) []triggers.Message {
	out := text(bodies...)
	for i := range out {
		out[i].OrderingKey = key
	}
	return out
}

func testOrder(t *testing.T, s *Source) {
	tr := s.Open(t)
	s.Send(t, keyed("a", "a1", "a2", "a3")...)
	s.Send(t, keyed("b", "b1", "b2")...)
	heads := map[string]*triggers.Delivery{}
	for _, d := range receive(t, tr, 2) {
		heads[string(d.Message.Body)] = d
		if key := d.Message.OrderingKey; key != string(d.Message.Body[:1]) {
			t.Errorf("message %q has the key %q", d.Message.Body, key)
		}
	}
	if heads["a1"] == nil || heads["b1"] == nil {
		t.Fatalf("the first of each key should come first, together; got %v", heads)
	}
	nothing(t, tr, expiryWait(s.Lease))
	done(t, heads["a1"])
	for _, want := range []string{"a2", "a3"} {
		d := receive(t, tr, 1)[0]
		if string(d.Message.Body) != want {
			t.Fatalf("got %q, want %q", d.Message.Body, want)
		}
		done(t, d)
	}
	done(t, heads["b1"])
	d := receive(t, tr, 1)[0]
	if string(d.Message.Body) != "b2" {
		t.Fatalf("got %q, want b2", d.Message.Body)
	}
	done(t, d)
}

func testOrderRetried(t *testing.T, s *Source) {
	tr := s.Open(t)
	s.Send(t, keyed("a", "a1", "a2")...)
	d := receive(t, tr, 1)[0]
	settle(t, d, triggers.Verdict{Kind: triggers.Retry, Delay: 200 * time.Millisecond})
	d = receive(t, tr, 1)[0]
	if string(d.Message.Body) != "a1" {
		t.Fatalf("%q overtook a1, which is to be retried", d.Message.Body)
	}
	wantAttempt(t, d, 2)
	done(t, d)
	d = receive(t, tr, 1)[0]
	if string(d.Message.Body) != "a2" {
		t.Fatalf("got %q, want a2", d.Message.Body)
	}
	done(t, d)
}

func testOrderReleased(t *testing.T, s *Source) {
	first := s.Open(t)
	s.Send(t, keyed("a", "a1", "a2", "a3")...)
	d := receive(t, first, 1)[0]
	settle(t, d, triggers.Verdict{Kind: triggers.Retry, Delay: time.Millisecond})
	d = receive(t, first, 1)[0]
	settle(t, d, triggers.Verdict{Kind: triggers.Release})
	if err := first.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	second := s.Open(t)
	var got []string
	for range 3 {
		d := receive(t, second, 1)[0]
		body := string(d.Message.Body)
		got = append(got, body)
		if body == "a1" {
			wantAttempt(t, d, 2) // the failure before the release still counts
		}
		done(t, d)
	}
	if s.Reorders {
		slices.Sort(got)
	}
	if want := []string{"a1", "a2", "a3"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// orderLog checks the order of each key: a message may start only when all earlier ones of
// its key have ended for good. A message that ended once may come again: its lease may be lost, or
// its settlement. Two deliveries of one message count once.
type orderLog struct {
	mu       sync.Mutex
	ended    map[string]int // per key: how many, from the first on
	left     int
	finished chan struct{} // closed when none is left
}

func newOrderLog(messages int) *orderLog {
	return &orderLog{ended: make(map[string]int), left: messages, finished: make(chan struct{})}
}

// starts is called for each delivery; again is set if the message has ended before.
func (o *orderLog) starts(t *testing.T, m *triggers.Message) (n int, again bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, err := fmt.Sscan(string(m.Body), &n); err != nil {
		t.Errorf("body %q: %v", m.Body, err)
	}
	next := o.ended[m.OrderingKey]
	if n > next {
		t.Errorf("key %s: message %d started before message %d was settled", m.OrderingKey, n, next)
	}
	return n, n < next
}

// ends is called just before message n of a key is finally settled.
func (o *orderLog) ends(key string, n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if n != o.ended[key] {
		return // its other delivery has ended, or it started too early
	}
	o.ended[key]++
	if o.left--; o.left == 0 {
		close(o.finished)
	}
}

// consume receives with room for limited messages, a few at a time, and cancels some Receives.
// fate chooses the verdict of each message.
func (o *orderLog) consume(t *testing.T, ctx context.Context, tr triggers.Trigger, room int, random *rand.Rand, fate func(m *triggers.Message, roll int) triggers.Verdict) {
	slots := make(chan struct{}, room)
	var working sync.WaitGroup
	defer working.Wait()
	for ctx.Err() == nil {
		limit := patience
		if random.IntN(4) == 0 { // as when another function needs the slot, or a pause
			limit = time.Duration(random.IntN(2000)) * time.Microsecond
		}
		receiving, cancel := context.WithTimeout(ctx, limit)
		got, err := tr.Receive(receiving, 1+random.IntN(max(room-len(slots), 1)))
		cancel()
		if err != nil && receiving.Err() == nil {
			t.Errorf("Receive: %v", err)
			return
		}
		for _, d := range got {
			n, again := o.starts(t, d.Message)
			roll := random.IntN(100)
			slots <- struct{}{}
			working.Go(func() {
				defer func() { <-slots }()
				v := triggers.Verdict{Kind: triggers.Done}
				if !again {
					v = fate(d.Message, roll)
				}
				if !again && (v.Kind == triggers.Done || v.Kind == triggers.Reject) {
					o.ends(d.Message.OrderingKey, n)
				}
				if err := d.Settle(context.WithoutCancel(ctx), v); err != nil && !d.IsRevoked() {
					t.Errorf("settling %s of %s as %v: %v", d.Message.Body, d.Message.OrderingKey, v.Kind, err)
				}
			})
		}
	}
}

// mixed has the verdicts of messages that mostly succeed.
func mixed(m *triggers.Message, roll int) triggers.Verdict {
	switch {
	case roll < 8 && m.Attempt < 3:
		return triggers.Verdict{Kind: triggers.Retry, Delay: time.Duration(roll) * time.Millisecond}
	case roll < 10:
		return triggers.Verdict{Kind: triggers.Reject, Reason: "as the test says"}
	}
	return triggers.Verdict{Kind: triggers.Done}
}

// orderKeys is the number of keys, orderPerKey the number of messages for each, and orderBacklog
// the same for a backlog.
const orderKeys, orderPerKey, orderBacklog = 8, 40, 150

// sendBatches sends a number of messages of each key, the keys mixed, in batches.
func sendBatches(t *testing.T, s *Source, perKey, batch int) {
	var all []triggers.Message
	for n := range perKey {
		for k := range orderKeys {
			all = append(all, triggers.Message{Body: fmt.Append(nil, n), OrderingKey: fmt.Sprint("key", k)})
		}
	}
	for part := range slices.Chunk(all, batch) {
		s.Send(t, part...)
	}
}

func seeded(t *testing.T) *rand.Rand {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// testOrderOfMany sends in batches while messages are received, retried and rejected.
func testOrderOfMany(t *testing.T, s *Source) {
	tr := s.Open(t)
	o := newOrderLog(orderKeys * orderPerKey)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var running sync.WaitGroup
	running.Go(func() { o.consume(t, ctx, tr, 16, seeded(t), mixed) })
	sendBatches(t, s, orderPerKey, 17)
	o.wait(t, s)
	stop()
	running.Wait()
}

// testOrderAfterPause receives a backlog that arrived while receiving was paused.
func testOrderAfterPause(t *testing.T, s *Source) {
	tr := s.Open(t)
	s.Send(t, keyed("first", "0")...) // the source has delivered a message before
	done(t, receive(t, tr, 1)...)
	paused, cut := context.WithCancel(t.Context())
	cut()
	if _, err := tr.Receive(paused, 8); !errors.Is(err, context.Canceled) {
		t.Fatalf("Receive: %v", err)
	}
	sendBatches(t, s, orderBacklog, 100)
	o := newOrderLog(orderKeys * orderBacklog)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var running sync.WaitGroup
	running.Go(func() {
		o.consume(t, ctx, tr, 64, seeded(t), func(*triggers.Message, int) triggers.Verdict { return triggers.Verdict{Kind: triggers.Done} })
	})
	o.wait(t, s)
	stop()
	running.Wait()
}

// testOrderAfterStops ends the trigger by turns in order and as kill -9 would, with messages in
// flight, and continues with another.
func testOrderAfterStops(t *testing.T, s *Source) {
	if s.Reorders {
		t.Skip("the source redelivers released messages in its own order")
	}
	o := newOrderLog(orderKeys * orderPerKey)
	random := seeded(t)
	for round := 0; ; round++ {
		tr := s.Open(t)
		if round == 0 {
			sendBatches(t, s, orderPerKey, 100)
		}
		ctx, stop := context.WithCancel(t.Context())
		settled := 0
		var mu sync.Mutex
		var running sync.WaitGroup
		running.Go(func() {
			o.consume(t, ctx, tr, 16, random, func(m *triggers.Message, roll int) triggers.Verdict {
				mu.Lock()
				defer mu.Unlock()
				if round < 3 && settled >= 60 { // then all else is in flight when the trigger ends
					stop()
					return triggers.Verdict{Kind: triggers.Release}
				}
				settled++
				return mixed(m, roll)
			})
		})
		if round == 3 {
			o.wait(t, s)
			stop()
		}
		running.Wait()
		stop()
		if round == 3 {
			return
		}
		if round%2 == 0 {
			if err := tr.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
		} else {
			s.Crash(t, tr)
		}
	}
}

// wait waits until all messages are settled.
func (o *orderLog) wait(t *testing.T, s *Source) {
	t.Helper()
	select {
	case <-o.finished:
	case <-time.After(2*patience + 20*s.Lease):
		o.mu.Lock()
		defer o.mu.Unlock()
		t.Errorf("%d messages are not settled; settled so far: %v", o.left, o.ended)
	}
}
